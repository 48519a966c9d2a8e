//! Sums of distances of spectra on the CPU, and their gradient, without a tensor in between.

use super::flex::{Forward, overlap_add, place};
use crate::dsp::plan::Plan;
use rayon::prelude::*;
use realfft::num_complex::Complex;

/// Frames that a thread takes at least.
const PER_THREAD: usize = 16;

/// Sums over the spectra of padded signals `[batch, len]`: of squared differences of magnitudes, of
/// the targets' squared magnitudes, and of absolute differences of logarithms of magnitudes. Also
/// returns what the gradient needs, `[3, batch, frames, bins]`: the estimates' real and imaginary
/// parts, and the targets' magnitudes.
pub(super) fn distances(
    estimates: &[f32],
    targets: &[f32],
    len: usize,
    plan: &Plan,
    floor: f32,
) -> ([f32; 3], Vec<f32>) {
    let (frames, bins) = (plan.frames_of_padded(len), plan.bins);
    let rows = estimates.len() / len * frames;
    let mut kept = vec![0.0f32; 3 * rows * bins];
    let mut sums = vec![[0.0f64; 3]; rows];
    let (re, rest) = kept.split_at_mut(rows * bins);
    let (im, magnitudes) = rest.split_at_mut(rows * bins);
    re.par_chunks_exact_mut(bins)
        .zip(im.par_chunks_exact_mut(bins))
        .zip(magnitudes.par_chunks_exact_mut(bins))
        .zip(&mut sums)
        .enumerate()
        .with_min_len(PER_THREAD)
        .for_each_init(
            || (Forward::new(plan), Forward::new(plan)),
            |(estimate, target), (row, (((re, im), magnitudes), sums))| {
                let (signal, start) = place(row, frames, plan);
                let range = signal * len + start..(signal + 1) * len;
                estimate.run(&estimates[range.clone()], plan);
                target.run(&targets[range], plan);
                for ((re, im), value) in re.iter_mut().zip(im.iter_mut()).zip(&estimate.spectrum) {
                    (*re, *im) = (value.re, value.im);
                }
                for (magnitude, value) in magnitudes.iter_mut().zip(&target.spectrum) {
                    *magnitude = clamped(value.norm_sqr(), floor).sqrt();
                }
                *sums = row_sums(re, im, magnitudes, floor);
            },
        );
    // In the order of the frames, so that the sum does not depend on the threads.
    let total = sums.iter().fold([0.0f64; 3], |total, sums| {
        std::array::from_fn(|i| total[i] + sums[i])
    });
    (total.map(|sum| sum as f32), kept)
}

/// The sums of one frame.
fn row_sums(re: &[f32], im: &[f32], magnitudes: &[f32], floor: f32) -> [f64; 3] {
    // One sum for each lane of a vector: the order of additions is fixed, so the compiler could not
    // use vectors for a single one.
    const LANES: usize = 16;
    let mut lanes = [[0.0f32; LANES]; 3];
    for start in (0..re.len()).step_by(LANES) {
        let range = start..(start + LANES).min(re.len());
        let bins = re[range.clone()].iter().zip(&im[range.clone()]);
        for (lane, ((re, im), target)) in bins.zip(&magnitudes[range]).enumerate() {
            let power = clamped(re * re + im * im, floor);
            let (error, power_of_target) = (power.sqrt() - target, target * target);
            lanes[0][lane] += error * error;
            lanes[1][lane] += power_of_target;
            // The second term is NaN where the error is: `ln` reads bits and hides it.
            lanes[2][lane] += 0.5 * ln(power / power_of_target).abs() + 0.0 * error;
        }
    }
    lanes.map(|lanes| lanes.iter().map(|x| f64::from(*x)).sum())
}

/// Gradient with respect to the estimates, `[batch, len]`. `slopes` are the gradients of the sums
/// of squared differences and of differences of logarithms; `sizes` are batch, frames and len.
pub(super) fn distances_grad(
    kept: &[f32],
    slopes: [f32; 2],
    sizes: [usize; 3],
    plan: &Plan,
    floor: f32,
) -> Vec<f32> {
    let bins = plan.bins;
    let (re, rest) = kept.split_at(kept.len() / 3);
    let (im, magnitudes) = rest.split_at(rest.len() / 2);
    overlap_add(sizes, plan, |row, spectrum| {
        let range = row * bins..(row + 1) * bins;
        let parts = re[range.clone()].iter().zip(&im[range.clone()]);
        let parts = parts.zip(&magnitudes[range]);
        for (value, ((re, im), target)) in spectrum.iter_mut().zip(parts) {
            let factor = slope(re * re + im * im, *target, slopes, floor);
            *value = Complex::new(re * factor, im * factor);
        }
    })
}

/// The factor of the real and the imaginary part in their gradients: that of the magnitude by the
/// magnitude. 0 where the power is below the floor.
fn slope(power: f32, target: f32, [squares, logs]: [f32; 2], floor: f32) -> f32 {
    if power < floor || power == 0.0 {
        return 0.0;
    }
    let magnitude = power.sqrt();
    let error = magnitude - target;
    let sign = if error > 0.0 {
        1.0
    } else if error < 0.0 {
        -1.0
    } else {
        0.0
    };
    (2.0 * squares * error + logs * sign / magnitude) / magnitude
}

/// `power`, at least `floor`. Unlike [`f32::max`] it keeps NaN.
fn clamped(power: f32, floor: f32) -> f32 {
    if power < floor { floor } else { power }
}

/// The natural logarithm of a positive number that is neither infinite nor subnormal, in vector
/// instructions: `ln m + e·ln 2`, where `m` is in `[√½, √2)` and
/// `ln m = 2·artanh((m − 1)/(m + 1))`.
fn ln(x: f32) -> f32 {
    // The bits of √½: the difference to them has the exponent of the quotient by it.
    const ROOT: i32 = 0x3f35_04f3;
    let bits = x.to_bits() as i32;
    let exponent = (bits - ROOT) >> 23;
    let m = f32::from_bits((bits - (exponent << 23)) as u32);
    let t = (m - 1.0) / (m + 1.0);
    let square = t * t;
    let series = square * (1.0 / 3.0 + square * (0.2 + square * (1.0 / 7.0 + square / 9.0)));
    2.0 * (t + t * series) + exponent as f32 * std::f32::consts::LN_2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_is_that_of_the_library() {
        let mut x = 1e-30f32;
        while x < 1e30 {
            let expected = f64::from(x).ln();
            let error = (f64::from(ln(x)) - expected).abs();
            assert!(error < 2e-7 * expected.abs().max(0.5), "{x}");
            x *= 1.001;
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn floor_keeps_nan() {
        assert_eq!(clamped(0.5, 1.0), 1.0);
        assert_eq!(clamped(2.0, 1.0), 2.0);
        assert!(clamped(f32::NAN, 1.0).is_nan());
        assert_eq!(slope(0.5, 1.0, [1.0, 1.0], 1.0), 0.0);
        // (|a| − 1)² and |ln |a|| at 2: slopes 2 and ½, by the magnitude.
        assert_eq!(slope(4.0, 1.0, [1.0, 0.0], 1e-7), 1.0);
        assert_eq!(slope(4.0, 1.0, [0.0, 1.0], 1e-7), 0.25);
        assert_eq!(slope(1.0, 1.0, [1.0, 1.0], 1e-7), 0.0);
    }
}
