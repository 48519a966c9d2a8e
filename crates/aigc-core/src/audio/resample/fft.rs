//! Resampling by the spectrum of the whole sound.

use realfft::{RealFftPlanner, num_complex::Complex};

/// `len` samples of the periodic signal of which `samples` are one period.
pub(super) fn resample(samples: &[f32], len: usize) -> Vec<f32> {
    let input_len = samples.len();
    if input_len == 0 || len == 0 {
        return vec![0.0; len];
    }
    let mut planner = RealFftPlanner::<f64>::new();
    let forward = planner.plan_fft_forward(input_len);
    let mut input: Vec<f64> = samples.iter().copied().map(f64::from).collect();
    let mut spectrum = forward.make_output_vec();
    forward
        .process(&mut input, &mut spectrum)
        .expect("the buffers have the lengths of the plan");

    let shorter = len.min(input_len);
    spectrum.resize(len / 2 + 1, Complex::new(0.0, 0.0));
    spectrum[shorter / 2 + 1..].fill(Complex::new(0.0, 0.0));
    if shorter.is_multiple_of(2) && len != input_len {
        // The highest frequency of an even length stands for itself and its negative, which are two
        // entries of the longer spectrum.
        spectrum[shorter / 2] *= if len < input_len { 2.0 } else { 0.5 };
    }
    // These of a real signal are real; rounding or cutting may have left something.
    spectrum[0].im = 0.0;
    if len.is_multiple_of(2) {
        spectrum[len / 2].im = 0.0;
    }
    let inverse = planner.plan_fft_inverse(len);
    let mut output = vec![0.0; len];
    inverse
        .process(&mut spectrum, &mut output)
        .expect("the buffers have the lengths of the plan");
    // The inverse is not normalised.
    let scale = 1.0 / input_len as f64;
    output.iter().map(|y| (y * scale) as f32).collect()
}
