//! Kernels of the transform for the CPU, over slices of `f32`, with fast Fourier transforms.

use crate::dsp::{
    plan::Plan,
    stft::{make_real, planned},
};
use rayon::prelude::*;
use realfft::num_complex::Complex;

/// Frames that a thread takes at least.
const PER_THREAD: usize = 32;

/// Buffers of a forward transform.
pub(super) struct Forward {
    frame: Vec<f32>,
    scratch: Vec<Complex<f32>>,
    /// The spectrum of the last frame.
    pub(super) spectrum: Vec<Complex<f32>>,
}

impl Forward {
    pub(super) fn new(plan: &Plan) -> Self {
        let fft = &plan.single.forward;
        Self {
            frame: fft.make_input_vec(),
            scratch: fft.make_scratch_vec(),
            spectrum: fft.make_output_vec(),
        }
    }

    /// Transforms the frame that begins at the first of `samples`.
    pub(super) fn run(&mut self, samples: &[f32], plan: &Plan) {
        let (fft, window) = (&plan.single.forward, &plan.single.window);
        // The transform overwrites the frame.
        self.frame.fill(0.0);
        let inside = self.frame[plan.begin..].iter_mut();
        for ((value, sample), weight) in inside.zip(&samples[plan.begin..]).zip(window) {
            *value = sample * weight;
        }
        let (frame, spectrum) = (&mut self.frame, &mut self.spectrum);
        planned(fft.process_with_scratch(frame, spectrum, &mut self.scratch));
    }
}

/// Where a frame of all signals begins: the signal, and the sample in it.
pub(super) fn place(row: usize, frames: usize, plan: &Plan) -> (usize, usize) {
    (row / frames, row % frames * plan.hop_length)
}

/// Spectra `[2, batch, frames, bins]` of signals `[batch, len]`.
pub(super) fn spectra(signals: &[f32], len: usize, plan: &Plan) -> Vec<f32> {
    let (frames, bins) = (plan.frames_of_padded(len), plan.bins);
    let rows = signals.len() / len * frames;
    let mut spectra = vec![0.0f32; 2 * rows * bins];
    let (re, im) = spectra.split_at_mut(rows * bins);
    re.par_chunks_exact_mut(bins)
        .zip(im.par_chunks_exact_mut(bins))
        .enumerate()
        .with_min_len(PER_THREAD)
        .for_each_init(
            || Forward::new(plan),
            |forward, (row, (re, im))| {
                let (signal, start) = place(row, frames, plan);
                forward.run(&signals[signal * len + start..(signal + 1) * len], plan);
                for ((re, im), value) in re.iter_mut().zip(im).zip(&forward.spectrum) {
                    (*re, *im) = (value.re, value.im);
                }
            },
        );
    spectra
}

/// The transpose of [`spectra`]: signals `[batch, len]` from `[2, batch, frames, bins]`.
pub(super) fn transpose(spectra: &[f32], sizes: [usize; 3], plan: &Plan) -> Vec<f32> {
    let bins = plan.bins;
    let (re, im) = spectra.split_at(spectra.len() / 2);
    overlap_add(sizes, plan, |row, spectrum| {
        let range = row * bins..(row + 1) * bins;
        let parts = re[range.clone()].iter().zip(&im[range]);
        for (value, (re, im)) in spectrum.iter_mut().zip(parts) {
            *value = Complex::new(*re, *im);
        }
    })
}

/// The transpose of the transform: signals `[batch, len]` from the spectra that `fill` writes, one
/// for every frame.
pub(super) fn overlap_add(
    [batch, frames, len]: [usize; 3],
    plan: &Plan,
    fill: impl Fn(usize, &mut [Complex<f32>]) + Sync,
) -> Vec<f32> {
    let (width, fft) = (plan.single.window.len(), &plan.single.inverse);
    let mut pieces = vec![0.0f32; batch * frames * width];
    let buffers = || {
        (
            fft.make_input_vec(),
            fft.make_output_vec(),
            fft.make_scratch_vec(),
        )
    };
    pieces
        .par_chunks_exact_mut(width)
        .enumerate()
        .with_min_len(PER_THREAD)
        .for_each_init(buffers, |(spectrum, frame, scratch), (row, piece)| {
            fill(row, spectrum);
            // The inverse transform counts every frequency between the ends twice.
            spectrum.iter_mut().for_each(|value| *value *= 0.5);
            spectrum[0] *= 2.0;
            if plan.n_fft.is_multiple_of(2) {
                spectrum[plan.n_fft / 2] *= 2.0;
            }
            make_real(spectrum, plan.n_fft);
            planned(fft.process_with_scratch(spectrum, frame, scratch));
            let inside = frame[plan.begin..].iter().zip(&plan.single.window);
            for (value, (sample, weight)) in piece.iter_mut().zip(inside) {
                *value = sample * weight;
            }
        });
    let mut signals = vec![0.0f32; batch * len];
    signals
        .par_chunks_exact_mut(len)
        .zip(pieces.par_chunks_exact(frames * width))
        .for_each(|(signal, pieces)| {
            for (index, piece) in pieces.chunks_exact(width).enumerate() {
                let start = index * plan.hop_length + plan.begin;
                for (sum, value) in signal[start..].iter_mut().zip(piece) {
                    *sum += value;
                }
            }
        });
    signals
}
