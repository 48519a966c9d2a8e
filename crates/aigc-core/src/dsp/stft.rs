//! The short-time Fourier transform on the host.

use super::{Frames, Spectrogram, StftConfig, device::Matrix, plan::Plan};
use crate::{Result, check::ensure_argument};
use rayon::prelude::*;
use realfft::{FftError, num_complex::Complex};
use std::sync::Arc;

/// Frames that a thread takes at least, so that short signals stay on one.
const PER_THREAD: usize = 32;

/// Frames whose inverse transforms are held at a time.
const BLOCK: usize = 512;

/// A sum of squared windows below this counts as 0: no window covers the sample.
pub(super) const NO_WINDOW: f64 = 1e-11;

/// The short-time Fourier transform of real signals (Allen 1977,
/// <https://doi.org/10.1109/TASSP.1977.1162950>), planned by [`StftConfig::init`].
#[derive(Clone)]
pub struct Stft {
    config: StftConfig,
    pub(super) plan: Arc<Plan>,
    pub(super) matrix: Matrix,
}

impl std::fmt::Debug for Stft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Stft").field(&self.config).finish()
    }
}

impl Stft {
    pub(super) fn new(config: StftConfig, plan: Arc<Plan>) -> Self {
        Self {
            config,
            plan,
            matrix: Matrix::default(),
        }
    }

    /// The settings.
    pub fn config(&self) -> &StftConfig {
        &self.config
    }

    /// Number of frequencies, `n_fft / 2 + 1`.
    pub fn bins(&self) -> usize {
        self.plan.bins
    }

    /// Number of frames of a signal of `len` samples.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if there are too few samples for
    /// the padding, or for a frame.
    pub fn frames(&self, len: usize) -> Result<usize> {
        self.plan.frames(len)
    }

    /// The spectrum of every frame of a signal.
    ///
    /// # Errors
    /// As [`frames`](Self::frames).
    pub fn forward(&self, samples: &[f32]) -> Result<Spectrogram> {
        let frames = self.frames(samples.len())?;
        let mut spectra = vec![Complex::default(); frames * self.bins()];
        self.analyse(&self.plan.padded(samples), &mut spectra);
        let parts = spectra.iter().map(|x| (x.re, x.im));
        let (re, im) = parts.unzip();
        Spectrogram::new(re, im, self.bins())
    }

    /// Squared magnitudes of the frames of a signal.
    ///
    /// # Errors
    /// As [`frames`](Self::frames).
    pub fn power(&self, samples: &[f32]) -> Result<Frames> {
        Ok(self.forward(samples)?.power())
    }

    /// The signal whose spectra are nearest to the given ones in least squares (Griffin and Lim
    /// 1984, <https://doi.org/10.1109/TASSP.1984.1164317>): exactly the signal of
    /// [`forward`](Self::forward) if windows overlap. `length` is the number of samples; by
    /// default all those between what the padding added. Samples that no window covers are 0.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) if the number of frequencies is
    /// not that of the transform.
    pub fn inverse(&self, spectra: &Spectrogram, length: Option<usize>) -> Result<Vec<f32>> {
        ensure_argument(
            spectra.bins() == self.bins(),
            "spectra",
            format!("of {} bins", spectra.bins()),
            &format!("{} bins for frames of {}", self.bins(), self.plan.n_fft),
        )?;
        let parts = spectra.re().iter().zip(spectra.im());
        let complex: Vec<_> = parts.map(|(re, im)| Complex::new(*re, *im)).collect();
        let envelope = self.plan.envelope(spectra.frames());
        let signal = self.invert(&complex, &envelope, length);
        Ok(signal.iter().map(|x| *x as f32).collect())
    }

    /// Spectra `[frames, bins]` of a padded signal, which has all of their frames.
    pub(super) fn analyse(&self, padded: &[f64], spectra: &mut [Complex<f64>]) {
        let plan = &*self.plan;
        spectra
            .par_chunks_exact_mut(plan.bins)
            .enumerate()
            .with_min_len(PER_THREAD)
            .for_each_init(
                || {
                    (
                        plan.forward.make_input_vec(),
                        plan.forward.make_scratch_vec(),
                    )
                },
                |(frame, scratch), (index, spectrum)| {
                    let samples = &padded[index * plan.hop_length + plan.begin..];
                    // The transform overwrites the frame.
                    frame.fill(0.0);
                    let inside = frame[plan.begin..].iter_mut();
                    for ((value, sample), weight) in inside.zip(samples).zip(&plan.window) {
                        *value = sample * weight * plan.scale;
                    }
                    planned(plan.forward.process_with_scratch(frame, spectrum, scratch));
                },
            );
    }

    /// The signal of spectra `[frames, bins]`. `envelope` is that of the plan.
    pub(super) fn invert(
        &self,
        spectra: &[Complex<f64>],
        envelope: &[f64],
        length: Option<usize>,
    ) -> Vec<f64> {
        let side = self.plan.side;
        let mut signal = self.overlap_add(spectra);
        for (value, sum) in signal.iter_mut().zip(envelope) {
            *value = if *sum > NO_WINDOW { *value / sum } else { 0.0 };
        }
        let end = match length {
            Some(length) => side.saturating_add(length),
            None => signal.len().saturating_sub(side).max(side),
        };
        signal.resize(end, 0.0);
        signal.split_off(side)
    }

    /// Sum of the windowed inverse transforms of spectra `[frames, bins]`.
    fn overlap_add(&self, spectra: &[Complex<f64>]) -> Vec<f64> {
        let plan = &*self.plan;
        let width = plan.window.len();
        let mut signal = vec![0.0; plan.covered(spectra.len() / plan.bins)];
        let mut pieces = vec![0.0; width * BLOCK.min(spectra.len() / plan.bins)];
        for (block, spectra) in spectra.chunks(BLOCK * plan.bins).enumerate() {
            let frames = spectra.len() / plan.bins;
            let pieces = &mut pieces[..frames * width];
            self.windowed_inverses(spectra, pieces);
            for (index, piece) in pieces.chunks_exact(width).enumerate() {
                let start = (block * BLOCK + index) * plan.hop_length + plan.begin;
                for (sum, value) in signal[start..].iter_mut().zip(piece) {
                    *sum += value;
                }
            }
        }
        signal
    }

    /// The part of each inverse transform under the window, times the window.
    fn windowed_inverses(&self, spectra: &[Complex<f64>], pieces: &mut [f64]) {
        let plan = &*self.plan;
        let factor = 1.0 / (plan.n_fft as f64 * plan.scale);
        let buffers = || {
            (
                plan.inverse.make_input_vec(),
                plan.inverse.make_output_vec(),
                plan.inverse.make_scratch_vec(),
            )
        };
        pieces
            .par_chunks_exact_mut(plan.window.len())
            .zip(spectra.par_chunks_exact(plan.bins))
            .with_min_len(PER_THREAD)
            .for_each_init(buffers, |(input, frame, scratch), (piece, spectrum)| {
                input.copy_from_slice(spectrum);
                make_real(input, plan.n_fft);
                planned(plan.inverse.process_with_scratch(input, frame, scratch));
                let inside = frame[plan.begin..].iter().zip(&plan.window);
                for (value, (sample, weight)) in piece.iter_mut().zip(inside) {
                    *value = sample * weight * factor;
                }
            });
    }
}

/// Removes the imaginary parts that the spectrum of a real signal does not have: at 0, and at half
/// of the sample rate.
pub(super) fn make_real<T: Copy + Default>(spectrum: &mut [Complex<T>], n_fft: usize) {
    spectrum[0].im = T::default();
    if n_fft.is_multiple_of(2) {
        spectrum[n_fft / 2].im = T::default();
    }
}

/// The result of a transform whose buffers the plan itself has made.
pub(super) fn planned(result: std::result::Result<(), FftError>) {
    result.unwrap_or_else(|error| unreachable!("buffers of the plan: {error}"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dsp::{PadMode, Window},
        rng::Rng,
    };

    /// A cosine of eight periods per frame, under a Hann window: half of the window's sum in its
    /// own bin, a quarter in the bins beside.
    #[test]
    fn cosine_has_three_bins() {
        let samples: Vec<f32> = (0..200)
            .map(|i| (2.0 * std::f64::consts::PI * f64::from(i) / 8.0).cos() as f32)
            .collect();
        let config = StftConfig::new(64, 16);
        for (config, frames) in [
            (config.uncentered(0), 9),
            (config.with_pad_mode(PadMode::Constant), 13),
            (config, 13),
        ] {
            let power = config.init().unwrap().power(&samples).unwrap();
            assert_eq!((power.len(), power.width()), (frames, 33));
            for (bin, value) in power.frame(4).iter().enumerate() {
                let expected = match bin {
                    8 => 16.0f64.powi(2),
                    7 | 9 => 8.0f64.powi(2),
                    _ => 0.0,
                };
                assert!((value - expected).abs() < 1e-3, "{bin}: {value}");
            }
        }
    }

    /// Every signal comes back, whatever the sizes: odd, prime, short windows, many blocks.
    #[test]
    fn inverse_gives_the_signal_back() {
        let samples = Rng::new(3).normal_vec(4000);
        let kaiser = Window::Kaiser { beta: 8.0 };
        let config = StftConfig::new(64, 16);
        for config in [
            config,
            StftConfig::new(101, 25),
            StftConfig::new(1, 1).with_pad_mode(PadMode::Constant),
            StftConfig::new(8, 4),
            StftConfig::new(128, 30).with_win_length(100),
            config.with_window(kaiser).with_pad_mode(PadMode::Replicate),
            config.uncentered(24),
            StftConfig {
                normalized: true,
                ..config
            },
        ] {
            let stft = config.init().unwrap();
            let spectra = stft.forward(&samples).unwrap();
            let found = stft.inverse(&spectra, Some(samples.len())).unwrap();
            let end = stft.plan.covered(spectra.frames()) - stft.plan.side;
            for (i, (a, b)) in found.iter().zip(&samples).enumerate().take(end) {
                assert!((a - b).abs() < 1e-5, "{config:?}: {i}");
            }
        }
    }

    #[test]
    fn lengths_are_as_asked() {
        let stft = StftConfig::new(64, 16).init().unwrap();
        let spectra = stft.forward(&[0.5; 200]).unwrap();
        assert_eq!(stft.inverse(&spectra, None).unwrap().len(), 192);
        assert_eq!(stft.inverse(&spectra, Some(10)).unwrap().len(), 10);
        let long = stft.inverse(&spectra, Some(1000)).unwrap();
        assert_eq!((long.len(), long[999]), (1000, 0.0));
        let none = Spectrogram::new(vec![], vec![], 33).unwrap();
        assert_eq!(stft.inverse(&none, None).unwrap(), Vec::<f32>::new());
        assert_eq!(stft.inverse(&none, Some(3)).unwrap(), [0.0; 3]);
        let other = Spectrogram::new(vec![0.0; 2], vec![0.0; 2], 2).unwrap();
        assert_eq!(
            stft.inverse(&other, None).unwrap_err().to_string(),
            "argument `spectra` is of 2 bins, expected 33 bins for frames of 64"
        );
    }
}
