//! Configuration of the vocoder that predicts magnitudes.

use super::{
    super::checks::{MAX_CHANNELS, MAX_LAYERS, check_layer, read_config},
    MagnitudeVocoder,
    block::KERNEL,
};
use aigc_core::{
    Error, Result, check,
    dsp::{GriffinLimConfig, LogStyle, MelConfig},
    weights::Loaded,
};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// Rounds that find the angles. More make spectra nearer: those of 8 kHz speech by 1 % from 60 to
/// 100, by another 1 % from 100 to 200.
const ROUNDS: usize = 100;

/// Configuration to create a [`MagnitudeVocoder`]. The default is for speech of 22,050 samples per
/// second and the mels of [`MelConfig::default`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "model_type", rename = "magnitude_vocoder")]
pub struct MagnitudeVocoderConfig {
    /// Configuration of the spectrograms, in any style but Whisper's, which drops a frame. With
    /// decibels below the largest value, the loudness of a sound is not known.
    pub mel_config: MelConfig,
    /// Channels of the network.
    pub dim: usize,
    /// Channels inside of a block.
    pub intermediate_dim: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Rounds of Griffin and Lim's algorithm.
    pub rounds: usize,
    /// Momentum of the rounds; 0 for the algorithm of 1984.
    pub momentum: f64,
}

impl Default for MagnitudeVocoderConfig {
    fn default() -> Self {
        let angles = GriffinLimConfig::default();
        Self {
            mel_config: MelConfig::default(),
            dim: 384,
            intermediate_dim: 1152,
            num_layers: 6,
            rounds: ROUNDS,
            momentum: angles.momentum,
        }
    }
}

impl MagnitudeVocoderConfig {
    /// `model_type` in `config.json`.
    pub const MODEL_TYPE: &str = "magnitude_vocoder";

    /// A small network for speech of 8,000 samples per second: 40 mels, 64 samples a frame, 192
    /// channels, five blocks.
    pub fn speech_8khz() -> Self {
        Self {
            mel_config: MelConfig::hifi_gan(8000, 256, 64, 40),
            dim: 192,
            intermediate_dim: 576,
            num_layers: 5,
            ..Self::default()
        }
    }

    /// A configuration from the text of `config.json`. Missing fields have their defaults. The
    /// report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`] if the text is not JSON; [`Error::Config`] names a field with a value that
    /// it cannot have.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let config: Loaded<Self> = read_config(text, Self::MODEL_TYPE)?;
        config.validate()?;
        Ok(config)
    }

    /// What finds the angles.
    pub fn griffin_lim(&self) -> GriffinLimConfig {
        GriffinLimConfig {
            rounds: self.rounds,
            momentum: self.momentum,
            ..GriffinLimConfig::new(self.mel_config)
        }
    }

    /// Frames before and after a frame on which its magnitudes depend, for a valid configuration.
    pub fn context_frames(&self) -> usize {
        (self.num_layers + 1) * (KERNEL / 2)
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        let mel = &self.mel_config;
        check::sizes(&[
            ("mel_config.n_mels", mel.n_mels, MAX_CHANNELS),
            ("dim", self.dim, MAX_CHANNELS),
            ("intermediate_dim", self.intermediate_dim, 4 * MAX_CHANNELS),
            ("num_layers", self.num_layers, MAX_LAYERS),
        ])?;
        mel.validate()?;
        check_layer("dim", &[self.dim, mel.n_fft / 2 + 1])?;
        self.griffin_lim().validate()?;
        if mel.log_style == LogStyle::Whisper {
            let expected = "hifi_gan, log10 or decibel; whisper leaves a frame out";
            return Err(Error::config("mel_config.log_style", "whisper", expected));
        }
        Ok(())
    }

    /// Creates the network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<MagnitudeVocoder> {
        self.validate()?;
        MagnitudeVocoder::new(self, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocoder::NsfHifiGanConfig;

    #[test]
    fn configurations_are_written_as_they_are_read() {
        for config in [
            MagnitudeVocoderConfig::default(),
            MagnitudeVocoderConfig::speech_8khz(),
        ] {
            config.validate().unwrap();
            let text = serde_json::to_string(&config).unwrap();
            assert!(text.contains(MagnitudeVocoderConfig::MODEL_TYPE));
            let again = MagnitudeVocoderConfig::from_json(&text).unwrap();
            assert_eq!(again.value, config);
            assert!(again.unused_fields.is_empty());
        }
        let text = serde_json::to_string(&NsfHifiGanConfig::speech_8khz()).unwrap();
        let error = MagnitudeVocoderConfig::from_json(&text).unwrap_err();
        assert!(error.to_string().contains("`model_type`"), "{error}");
    }

    #[test]
    fn invalid_values_are_refused_by_name() {
        type Change = fn(&mut MagnitudeVocoderConfig);
        let changes: [(&str, Change); 9] = [
            ("dim", |c| c.dim = 0),
            ("dim", |c| c.dim = 1 << 13),
            ("dim", |c| (c.dim, c.mel_config.n_fft) = (4096, 1 << 17)),
            ("intermediate_dim", |c| c.intermediate_dim = 0),
            ("num_layers", |c| c.num_layers = 1000),
            ("rounds", |c| c.rounds = usize::MAX),
            ("momentum", |c| c.momentum = -0.1),
            ("mel_config.n_mels", |c| c.mel_config.n_mels = 0),
            ("mel_config.log_style", |c| {
                c.mel_config = MelConfig::whisper(80)
            }),
        ];
        for (field, change) in changes {
            let mut config = MagnitudeVocoderConfig::speech_8khz();
            change(&mut config);
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{field}: {error}");
        }
    }
}
