//! What a short-time Fourier transform computes once.

use super::{PadMode, StftConfig};
use crate::{Result, check::ensure_argument};
use realfft::{ComplexToReal, RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Window, sizes and Fourier transforms of a [`StftConfig`] that is valid.
pub(super) struct Plan {
    pub(super) n_fft: usize,
    pub(super) bins: usize,
    pub(super) hop_length: usize,
    /// First sample of the window in a frame.
    pub(super) begin: usize,
    /// As long as the window.
    pub(super) window: Vec<f64>,
    /// Samples that are added on both sides.
    pub(super) side: usize,
    pub(super) pad_mode: PadMode,
    /// Factor of the spectrum.
    pub(super) scale: f64,
    pub(super) forward: Arc<dyn RealToComplex<f64>>,
    pub(super) inverse: Arc<dyn ComplexToReal<f64>>,
    #[cfg(feature = "flex")]
    pub(super) single: Single,
}

/// Window and Fourier transforms in single precision.
#[cfg(feature = "flex")]
pub(super) struct Single {
    /// The window times the factor of the spectrum.
    pub(super) window: Vec<f32>,
    pub(super) forward: Arc<dyn RealToComplex<f32>>,
    pub(super) inverse: Arc<dyn ComplexToReal<f32>>,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Plan")
            .field("n_fft", &self.n_fft)
            .field("hop_length", &self.hop_length)
            .field("win_length", &self.window.len())
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

impl Plan {
    pub(super) fn new(config: &StftConfig) -> Arc<Self> {
        let n_fft = config.n_fft;
        let window = config.window.periodic(config.win_length);
        let scale = if config.normalized {
            (n_fft as f64).powf(-0.5)
        } else {
            1.0
        };
        let mut planner = RealFftPlanner::<f64>::new();
        #[cfg(feature = "flex")]
        let single = {
            let mut planner = RealFftPlanner::<f32>::new();
            Single {
                window: window.iter().map(|x| (x * scale) as f32).collect(),
                forward: planner.plan_fft_forward(n_fft),
                inverse: planner.plan_fft_inverse(n_fft),
            }
        };
        Arc::new(Self {
            n_fft,
            bins: config.bins(),
            hop_length: config.hop_length,
            begin: (n_fft - config.win_length) / 2,
            window,
            side: config.pad + if config.center { n_fft / 2 } else { 0 },
            pad_mode: config.pad_mode,
            scale,
            forward: planner.plan_fft_forward(n_fft),
            inverse: planner.plan_fft_inverse(n_fft),
            #[cfg(feature = "flex")]
            single,
        })
    }

    /// The least number of samples that has a frame, and that the padding is possible for.
    pub(super) fn least(&self) -> usize {
        let whole = self.n_fft.saturating_sub(2 * self.side).max(1);
        match self.pad_mode {
            PadMode::Reflect if self.side > 0 => whole.max(self.side + 1),
            _ => whole,
        }
    }

    /// Number of frames of a signal of `len` samples.
    pub(super) fn frames(&self, len: usize) -> Result<usize> {
        let least = self.least();
        ensure_argument(
            len >= least,
            "samples",
            len,
            &format!("at least {least} for frames of {}", self.n_fft),
        )?;
        Ok(self.frames_of_padded(len + 2 * self.side))
    }

    /// Number of frames of a padded signal, which is at least as long as a frame.
    pub(super) fn frames_of_padded(&self, len: usize) -> usize {
        (len - self.n_fft) / self.hop_length + 1
    }

    /// Length of the signal that frames cover, with what was added on both sides.
    pub(super) fn covered(&self, frames: usize) -> usize {
        match frames {
            0 => 0,
            _ => (frames - 1) * self.hop_length + self.n_fft,
        }
    }

    /// Sum of the squared windows of `frames` frames over each sample.
    pub(super) fn envelope(&self, frames: usize) -> Vec<f64> {
        let mut sums = vec![0.0; self.covered(frames)];
        for index in 0..frames {
            let sums = &mut sums[index * self.hop_length + self.begin..];
            for (sum, weight) in sums.iter_mut().zip(&self.window) {
                *sum += weight * weight;
            }
        }
        sums
    }

    /// The signal, with the samples that are added on both sides. The length was checked by
    /// [`frames`](Self::frames).
    pub(super) fn padded<T: Copy + Into<f64>>(&self, samples: &[T]) -> Vec<f64> {
        let (side, len) = (self.side, samples.len());
        let inside = |i: usize| -> f64 { samples[i].into() };
        let mut padded = Vec::with_capacity(len + 2 * side);
        match self.pad_mode {
            PadMode::Reflect => padded.extend((1..=side).rev().map(inside)),
            PadMode::Constant => padded.resize(side, 0.0),
            PadMode::Replicate => padded.resize(side, inside(0)),
        }
        padded.extend(samples.iter().map(|x| -> f64 { (*x).into() }));
        match self.pad_mode {
            PadMode::Reflect => padded.extend((0..side).map(|i| inside(len - 2 - i))),
            PadMode::Constant => padded.resize(len + 2 * side, 0.0),
            PadMode::Replicate => padded.resize(len + 2 * side, inside(len - 1)),
        }
        padded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_surrounds_the_signal() {
        let samples = [1.0f32, 2.0, 3.0, 4.0];
        let config = StftConfig::new(4, 1);
        let padded = |mode| Plan::new(&config.with_pad_mode(mode)).padded(&samples);
        assert_eq!(
            padded(PadMode::Reflect),
            [3.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 2.0]
        );
        assert_eq!(
            padded(PadMode::Constant),
            [0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 0.0, 0.0]
        );
        assert_eq!(
            padded(PadMode::Replicate),
            [1.0, 1.0, 1.0, 2.0, 3.0, 4.0, 4.0, 4.0]
        );
    }

    #[test]
    fn frames_need_enough_samples() {
        let frames = |config: StftConfig, len| Plan::new(&config).frames(len);
        let config = StftConfig::new(16, 4);
        assert_eq!(
            frames(config, 8).unwrap_err().to_string(),
            "argument `samples` is 8, expected at least 9 for frames of 16"
        );
        assert_eq!(frames(config, 9).unwrap(), 3);
        assert_eq!(
            frames(config.with_pad_mode(PadMode::Constant), 1).unwrap(),
            1
        );
        assert!(frames(config.uncentered(0), 15).is_err());
        assert_eq!(frames(config.uncentered(0), 16).unwrap(), 1);
        assert_eq!(frames(config.uncentered(6), 20).unwrap(), 5);
        assert!(frames(config.with_pad_mode(PadMode::Constant), 0).is_err());
    }
}
