//! The short-time Fourier transform.

use crate::{
    Error, Result,
    check::{ensure, ensure_argument},
};
use realfft::{RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Limit on the length of a transform, in samples.
pub(super) const MAX_FFT: usize = 1 << 20;

/// What surrounds a signal, so that the first frame is centred on the first sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Padding {
    /// The signal, reflected at its first and last sample.
    #[default]
    Reflect,
    /// Zeros.
    Zeros,
    /// Nothing: the first frame begins at the first sample.
    None,
}

/// The short-time Fourier transform of real signals with Hann windows, in the conventions of
/// `torch.stft` and `librosa.stft`: periodic windows, centred in their frames, and no
/// normalisation.
#[derive(Clone)]
pub struct Stft {
    /// As long as a frame.
    window: Vec<f64>,
    hop_length: usize,
    padding: Padding,
    fft: Arc<dyn RealToComplex<f64>>,
}

impl std::fmt::Debug for Stft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stft")
            .field("n_fft", &self.window.len())
            .field("hop_length", &self.hop_length)
            .field("padding", &self.padding)
            .finish_non_exhaustive()
    }
}

impl Stft {
    /// Frames of `n_fft` samples with windows of `win_length`, one every `hop_length` samples.
    ///
    /// # Errors
    /// [`Error::Config`] if a length is 0, the window is longer than the frame, or the frame is
    /// longer than 2²⁰ samples.
    pub fn new(n_fft: usize, win_length: usize, hop_length: usize) -> Result<Self> {
        ensure(
            (1..=MAX_FFT).contains(&n_fft),
            "n_fft",
            n_fft,
            &format!("1 to {MAX_FFT}"),
        )?;
        ensure(
            (1..=n_fft).contains(&win_length),
            "win_length",
            win_length,
            &format!("1 to n_fft = {n_fft}"),
        )?;
        ensure(hop_length > 0, "hop_length", hop_length, "at least 1")?;
        let mut window = vec![0.0; n_fft];
        let begin = (n_fft - win_length) / 2;
        for (i, value) in window[begin..begin + win_length].iter_mut().enumerate() {
            let phase = 2.0 * std::f64::consts::PI * i as f64 / win_length as f64;
            *value = 0.5 - 0.5 * phase.cos();
        }
        if win_length == 1 {
            window[begin] = 1.0;
        }
        Ok(Self {
            window,
            hop_length,
            padding: Padding::default(),
            fft: RealFftPlanner::new().plan_fft_forward(n_fft),
        })
    }

    /// Sets the padding, by default [`Padding::Reflect`].
    #[must_use]
    pub fn with_padding(mut self, padding: Padding) -> Self {
        self.padding = padding;
        self
    }

    /// Number of frequencies, `n_fft / 2 + 1`.
    pub fn bins(&self) -> usize {
        self.window.len() / 2 + 1
    }

    /// Squared magnitudes of `samples`, `[frames, bins]`, row by row.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are too few samples for the padding, or for a frame.
    pub fn power(&self, samples: &[f32]) -> Result<Vec<f64>> {
        let mut power = Vec::new();
        self.for_each_frame(samples, |frame| power.extend_from_slice(frame))?;
        Ok(power)
    }

    /// Calls `each` with the squared magnitudes of every frame, `bins` of them. Memory does not
    /// grow with the number of samples.
    ///
    /// # Errors
    /// As [`power`](Self::power).
    pub(super) fn for_each_frame(
        &self,
        samples: &[f32],
        mut each: impl FnMut(&[f64]),
    ) -> Result<()> {
        let (len, value) = self.padded(samples)?;
        let mut frame = self.fft.make_input_vec();
        let mut spectrum = self.fft.make_output_vec();
        let mut scratch = self.fft.make_scratch_vec();
        let mut power = vec![0.0; self.bins()];
        for begin in (0..=len - frame.len()).step_by(self.hop_length) {
            for (i, (sample, weight)) in frame.iter_mut().zip(&self.window).enumerate() {
                *sample = value(begin + i) * weight;
            }
            self.fft
                .process_with_scratch(&mut frame, &mut spectrum, &mut scratch)
                .map_err(Error::other)?;
            for (power, value) in power.iter_mut().zip(&spectrum) {
                *power = value.norm_sqr();
            }
            each(&power);
        }
        Ok(())
    }

    /// The length of the padded signal, and its value at each place.
    fn padded<'a>(&self, samples: &'a [f32]) -> Result<(usize, impl Fn(usize) -> f64 + use<'a>)> {
        let (len, n_fft) = (samples.len(), self.window.len());
        let side = match self.padding {
            Padding::None => 0,
            Padding::Reflect | Padding::Zeros => n_fft / 2,
        };
        let least = match self.padding {
            Padding::Reflect => side + 1,
            Padding::Zeros => 1,
            Padding::None => n_fft,
        };
        ensure_argument(
            len >= least,
            "samples",
            len,
            &format!("at least {least} for frames of {n_fft}"),
        )?;
        let padding = self.padding;
        let value = move |i: usize| {
            let inside = |i: usize| f64::from(samples[i]);
            match i.checked_sub(side) {
                Some(i) if i < len => inside(i),
                _ if padding == Padding::Zeros => 0.0,
                Some(i) => inside(2 * (len - 1) - i),
                None => inside(side - i),
            }
        };
        Ok((len + 2 * side, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cosine of eight periods per frame, under a Hann window: half of the window's sum in its
    /// own bin, a quarter in the bins beside.
    #[test]
    fn cosine_has_three_bins() {
        let samples: Vec<f32> = (0..200)
            .map(|i| (2.0 * std::f64::consts::PI * f64::from(i) / 8.0).cos() as f32)
            .collect();
        for padding in [Padding::None, Padding::Zeros, Padding::Reflect] {
            let stft = Stft::new(64, 64, 16).unwrap().with_padding(padding);
            let power = stft.power(&samples).unwrap();
            let frames = if padding == Padding::None { 9 } else { 13 };
            assert_eq!((power.len(), stft.bins()), (frames * 33, 33));
            let middle = &power[4 * 33..5 * 33];
            for (bin, value) in middle.iter().enumerate() {
                let expected = match bin {
                    8 => 16.0f64.powi(2),
                    7 | 9 => 8.0f64.powi(2),
                    _ => 0.0,
                };
                assert!((value - expected).abs() < 1e-3, "{bin}: {value}");
            }
        }
    }

    #[test]
    fn invalid_lengths_are_errors() {
        assert_eq!(
            Stft::new(16, 17, 4).unwrap_err().to_string(),
            "config field `win_length` is 17, expected 1 to n_fft = 16"
        );
        assert!(Stft::new(0, 1, 1).is_err());
        assert!(Stft::new(usize::MAX, 1, 1).is_err());
        assert!(Stft::new(4, 4, 0).is_err());
        let stft = Stft::new(16, 16, 4).unwrap();
        assert_eq!(
            stft.power(&[0.0; 8]).unwrap_err().to_string(),
            "argument `samples` is 8, expected at least 9 for frames of 16"
        );
        assert!(stft.with_padding(Padding::None).power(&[0.0; 15]).is_err());
    }
}
