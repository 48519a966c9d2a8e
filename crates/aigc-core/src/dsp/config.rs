//! Settings of the short-time Fourier transform.

use super::{Stft, Window, plan::Plan};
use crate::{
    Result,
    check::{ensure, in_range},
};
use serde::{Deserialize, Serialize};

/// Limit on the length of a transform, in samples.
pub(super) const MAX_FFT: usize = 1 << 20;

/// What surrounds a signal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PadMode {
    /// The signal, reflected at its first and last sample.
    #[default]
    Reflect,
    /// Zeros.
    Constant,
    /// The first and the last sample, repeated.
    Replicate,
}

/// Settings of [`Stft`], with the names and meanings of `torch.stft`.
///
/// ```
/// use aigc_core::dsp::StftConfig;
///
/// # fn main() -> aigc_core::Result<()> {
/// let stft = StftConfig::new(400, 160).init()?;
/// let spectrogram = stft.forward(&[0.5; 1600])?;
/// assert_eq!((spectrogram.bins(), spectrogram.frames()), (201, 11));
/// assert_eq!(stft.inverse(&spectrogram, Some(1600))?.len(), 1600);
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StftConfig {
    /// Length of a frame, and of the Fourier transform, in samples: any number.
    pub n_fft: usize,
    /// Samples from one frame to the next.
    pub hop_length: usize,
    /// Length of the window in samples, centred in the frame.
    pub win_length: usize,
    /// The window, periodic.
    pub window: Window,
    /// Whether `n_fft / 2` samples are added on both sides, so that frame `t` is centred on sample
    /// `t·hop_length`.
    pub center: bool,
    /// Samples that are added on both sides beside those of `center`.
    pub pad: usize,
    /// What the added samples are.
    pub pad_mode: PadMode,
    /// Whether the spectrum is divided by `√n_fft`.
    pub normalized: bool,
}

impl Default for StftConfig {
    fn default() -> Self {
        Self::new(1024, 256)
    }
}

impl StftConfig {
    /// Centred frames of `n_fft` samples, one every `hop_length`, with Hann windows as long as a
    /// frame and reflected edges.
    pub fn new(n_fft: usize, hop_length: usize) -> Self {
        Self {
            n_fft,
            hop_length,
            win_length: n_fft,
            window: Window::default(),
            center: true,
            pad: 0,
            pad_mode: PadMode::default(),
            normalized: false,
        }
    }

    /// Sets the length of the window, by default that of a frame.
    #[must_use]
    pub fn with_win_length(mut self, win_length: usize) -> Self {
        self.win_length = win_length;
        self
    }

    /// Sets the window, by default Hann's.
    #[must_use]
    pub fn with_window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// Sets what surrounds the signal, by default its reflection.
    #[must_use]
    pub fn with_pad_mode(mut self, pad_mode: PadMode) -> Self {
        self.pad_mode = pad_mode;
        self
    }

    /// Frames that are not centred, over a signal with `pad` more samples on both sides.
    #[must_use]
    pub fn uncentered(mut self, pad: usize) -> Self {
        self.center = false;
        self.pad = pad;
        self
    }

    /// Number of frequencies, `n_fft / 2 + 1`.
    pub fn bins(&self) -> usize {
        self.n_fft / 2 + 1
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) if a length is 0, the window is longer than the
    /// frame, the frame or the padding is longer than 2²⁰ samples, or the window is invalid.
    pub fn validate(&self) -> Result<()> {
        in_range("n_fft", self.n_fft, 1..=MAX_FFT)?;
        ensure(
            (1..=self.n_fft).contains(&self.win_length),
            "win_length",
            self.win_length,
            &format!("1 to n_fft = {}", self.n_fft),
        )?;
        in_range("hop_length", self.hop_length, 1..=MAX_FFT)?;
        in_range("pad", self.pad, 0..=MAX_FFT)?;
        self.window.validate()
    }

    /// Plans the transform.
    ///
    /// # Errors
    /// As [`validate`](Self::validate).
    pub fn init(&self) -> Result<Stft> {
        self.validate()?;
        Ok(Stft::new(*self, Plan::new(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_settings_are_errors() {
        let config = StftConfig::new(16, 4);
        assert_eq!(
            config.with_win_length(17).init().unwrap_err().to_string(),
            "config field `win_length` is 17, expected 1 to n_fft = 16"
        );
        let kaiser = Window::Kaiser { beta: -1.0 };
        for bad in [
            StftConfig::new(0, 4),
            StftConfig::new(usize::MAX, 4),
            StftConfig::new(16, 0),
            config.with_win_length(0),
            config.with_window(kaiser),
            config.uncentered(usize::MAX),
        ] {
            assert!(bad.init().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn config_is_json() {
        let json = r#"{"n_fft": 400, "hop_length": 160, "win_length": 400}"#;
        let config: StftConfig = serde_json::from_str(json).unwrap();
        assert_eq!(config, StftConfig::new(400, 160));
        assert!(serde_json::from_str::<StftConfig>(r#"{"fft": 400}"#).is_err());
    }
}
