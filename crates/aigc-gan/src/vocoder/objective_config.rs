//! Configuration of the training of vocoders.

use crate::GanLoss;
use aigc_core::{
    Result,
    check::{ensure, non_negative},
    dsp::{MelConfig, StftConfig},
};
use serde::{Deserialize, Serialize};

/// Configuration of a [`VocoderObjective`](super::VocoderObjective): the terms of the losses and
/// their weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VocoderObjectiveConfig {
    /// Loss of generator and discriminators. The paper has
    /// [`LeastSquares`](GanLoss::LeastSquares).
    pub loss: GanLoss,
    /// Weight of the mean absolute difference of log-mels, 45 in the paper.
    pub mel_weight: f64,
    /// Weight of the multi-resolution distance of spectra, 0 in the paper.
    pub stft_weight: f64,
    /// Weight of the adversarial term. The paper's 1 is 2 here, since
    /// [`GanLoss::LeastSquares`] is half of its loss.
    pub adversarial_weight: f64,
    /// Weight of the distance of features, 2 in the paper.
    pub feature_weight: f64,
    /// Step from which on discriminators are trained and judge; before it the generator is trained
    /// with the mel and the spectral term alone.
    pub start_step: usize,
    /// Mels of the mel term; if there are none, those of the generator up to half of the sample
    /// rate.
    pub mels: Vec<MelConfig>,
    /// Resolutions of the spectral term.
    pub resolutions: Vec<StftConfig>,
}

impl Default for VocoderObjectiveConfig {
    fn default() -> Self {
        let resolution = |n_fft, hop_length, win_length| {
            StftConfig::new(n_fft, hop_length).with_win_length(win_length)
        };
        Self {
            loss: GanLoss::LeastSquares,
            mel_weight: 45.0,
            stft_weight: 2.5,
            adversarial_weight: 2.0,
            feature_weight: 2.0,
            start_step: 5000,
            mels: Vec::new(),
            resolutions: vec![
                resolution(1024, 120, 600),
                resolution(2048, 240, 1200),
                resolution(512, 50, 240),
            ],
        }
    }
}

impl VocoderObjectiveConfig {
    /// The losses of HiFi-GAN (Kong et al. 2020, <https://arxiv.org/abs/2010.05646>, §2.4):
    /// discriminators from the first step on, no spectral term.
    pub fn hifi_gan() -> Self {
        Self {
            stft_weight: 0.0,
            start_step: 0,
            ..Self::default()
        }
    }

    /// Losses for sound of 8,000 samples per second: the default with four times the weight of the
    /// spectral term, in windows of 10, 25 and 50 ms, and discriminators from `start_step` on.
    pub fn speech_8khz(start_step: usize) -> Self {
        let resolution = |n_fft, hop_length, win_length| {
            StftConfig::new(n_fft, hop_length).with_win_length(win_length)
        };
        Self {
            start_step,
            stft_weight: 10.0,
            resolutions: vec![
                resolution(128, 20, 80),
                resolution(256, 50, 200),
                resolution(512, 100, 400),
            ],
            ..Self::default()
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        for (field, weight) in [
            ("mel_weight", self.mel_weight),
            ("stft_weight", self.stft_weight),
            ("adversarial_weight", self.adversarial_weight),
            ("feature_weight", self.feature_weight),
        ] {
            non_negative(field, weight)?;
        }
        // Without such a term nothing ties the sound to its spectrogram.
        let has_features = self.feature_weight > 0.0 && self.start_step == 0;
        let tied = self.mel_weight + self.stft_weight > 0.0 || has_features;
        let expected = "above 0, unless `stft_weight` is, or `feature_weight` with `start_step` 0";
        ensure(tied, "mel_weight", self.mel_weight, expected)?;
        self.mels.iter().try_for_each(MelConfig::validate)?;
        let resolutions = &self.resolutions;
        ensure(
            !resolutions.is_empty(),
            "resolutions",
            "empty",
            "at least one",
        )?;
        resolutions.iter().try_for_each(StftConfig::validate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sound_is_tied_to_its_spectrogram_from_the_first_step_on() {
        let features = VocoderObjectiveConfig {
            mel_weight: 0.0,
            ..VocoderObjectiveConfig::hifi_gan()
        };
        features.validate().unwrap();
        let late = VocoderObjectiveConfig {
            start_step: 1,
            ..features.clone()
        };
        let none = VocoderObjectiveConfig {
            feature_weight: 0.0,
            ..features
        };
        for config in [late, none] {
            let message = config.validate().unwrap_err().to_string();
            assert!(
                message.contains("`mel_weight` is 0, expected above 0"),
                "{message}"
            );
        }
        let text = r#"{"stft_weigth": 1.0}"#;
        let error = serde_json::from_str::<VocoderObjectiveConfig>(text).unwrap_err();
        assert!(error.to_string().contains("unknown field `stft_weigth`"));
    }
}
