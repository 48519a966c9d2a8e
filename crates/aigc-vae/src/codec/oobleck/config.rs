//! Configuration of Oobleck, with the fields of diffusers.

use super::AutoencoderOobleck;
use crate::codec::codes::hop_length;
use aigc_core::{
    Error, Result,
    check::{self, ensure},
    json,
    weights::Loaded,
};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// Samples of a sound of Stable Audio.
const SAMPLE_SIZE: usize = 1 << 21;

/// Configuration to create an [`AutoencoderOobleck`]; the fields are those of diffusers'
/// `AutoencoderOobleck`, and [`sample_size`](Self::sample_size). The default is that of diffusers,
/// which is the first stage of Stable Audio.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderOobleckConfig {
    /// Channels of the encoder at the full rate before multiples, and of its output: means and
    /// deviations of the latents.
    pub encoder_hidden_size: usize,
    /// Factors of the rates in the encoder; the decoder has them in reverse.
    pub downsampling_ratios: Vec<usize>,
    /// Multiples of the channels after each ratio.
    pub channel_multiples: Vec<usize>,
    /// Channels of the decoder at the full rate, before multiples.
    pub decoder_channels: usize,
    /// Channels of the latents, half of `encoder_hidden_size`.
    pub decoder_input_channels: usize,
    /// Channels of the sound.
    pub audio_channels: usize,
    /// Samples per second.
    pub sampling_rate: u32,
    /// Samples of a sound that the model is trained on or used for latent diffusion; others can be
    /// encoded and decoded. A field of this library; the default, 2²¹, is not written to files.
    pub sample_size: usize,
}

impl Default for AutoencoderOobleckConfig {
    fn default() -> Self {
        Self {
            encoder_hidden_size: 128,
            downsampling_ratios: vec![2, 4, 4, 8, 8],
            channel_multiples: vec![1, 2, 4, 8, 16],
            decoder_channels: 128,
            decoder_input_channels: 64,
            audio_channels: 2,
            sampling_rate: 44_100,
            sample_size: SAMPLE_SIZE,
        }
    }
}

impl AutoencoderOobleckConfig {
    /// The name of the class in diffusers.
    pub const CLASS: &str = "AutoencoderOobleck";

    /// A configuration from the text of diffusers' `config.json`. Missing fields have the defaults
    /// of diffusers. The report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`] if the text is not JSON; [`Error::Config`] names a field with a value that
    /// is invalid or not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let fields = json::parse_object(text)?;
        let class = fields.get("_class_name");
        if let Some(other) = class.filter(|name| *name != Self::CLASS) {
            return Err(Error::config("_class_name", other, Self::CLASS));
        }
        let config: Loaded<Self> = json::from_map_with_defaults(&fields)?;
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.json` as diffusers writes it.
    pub fn to_json(&self) -> String {
        let mut fields = json::to_map(self);
        if self.sample_size == SAMPLE_SIZE {
            fields.remove("sample_size");
        }
        fields.insert("_class_name".into(), Self::CLASS.into());
        serde_json::to_string_pretty(&fields).expect("plain values")
    }

    /// Samples that a latent stands for.
    pub fn hop_length(&self) -> usize {
        hop_length(&self.downsampling_ratios)
    }

    /// Channels of the encoder and of the decoder, from its first rate on.
    pub(super) fn widths(&self) -> [Vec<usize>; 2] {
        let multiples = || std::iter::once(1).chain(self.channel_multiples.iter().copied());
        let down = multiples().map(|multiple| self.encoder_hidden_size * multiple);
        let up = multiples().map(|multiple| self.decoder_channels * multiple);
        let mut up: Vec<usize> = up.collect();
        up.reverse();
        [down.collect(), up]
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::in_range("sampling_rate", self.sampling_rate, 1..=1 << 20)?;
        check::sizes(&[
            ("encoder_hidden_size", self.encoder_hidden_size, 1 << 12),
            ("decoder_channels", self.decoder_channels, 1 << 12),
            ("audio_channels", self.audio_channels, 64),
            ("sample_size", self.sample_size, 1 << 28),
        ])?;
        let ratios = self.downsampling_ratios.len();
        ensure(
            (1..=8).contains(&ratios),
            "downsampling_ratios",
            ratios,
            "1 to 8 ratios",
        )?;
        for ratio in &self.downsampling_ratios {
            check::in_range("downsampling_ratios", *ratio, 2..=64)?;
        }
        let hop = self.hop_length();
        check::in_range("hop_length", hop, 1..=1 << 20)?;
        let found = format!("{} multiples", self.channel_multiples.len());
        let expected = format!("{ratios}, one for every ratio");
        let fits = self.channel_multiples.len() == ratios;
        ensure(fits, "channel_multiples", found, &expected)?;
        for multiple in &self.channel_multiples {
            check::in_range("channel_multiples", *multiple, 1..=64)?;
        }
        let expected = format!("half of encoder_hidden_size, {}", self.encoder_hidden_size);
        ensure(
            2 * self.decoder_input_channels == self.encoder_hidden_size,
            "decoder_input_channels",
            self.decoder_input_channels,
            &expected,
        )?;
        ensure(
            self.sample_size >= hop,
            "sample_size",
            self.sample_size,
            &format!("at least {hop}, the samples of a latent"),
        )
    }

    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<AutoencoderOobleck> {
        AutoencoderOobleck::new(self, true, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_written_as_they_are_read() {
        let config = AutoencoderOobleckConfig::default();
        let text = config.to_json();
        assert!(text.contains("\"AutoencoderOobleck\"") && !text.contains("sample_size"));
        let loaded = AutoencoderOobleckConfig::from_json(&text).unwrap();
        assert_eq!(loaded, Loaded::new(config));
        let config = AutoencoderOobleckConfig {
            sample_size: 1 << 15,
            ..AutoencoderOobleckConfig::default()
        };
        let loaded = AutoencoderOobleckConfig::from_json(&config.to_json()).unwrap();
        assert_eq!(loaded, Loaded::new(config));
    }

    #[test]
    fn faults_name_field_and_value() {
        for (text, expected) in [
            (
                r#"{"_class_name": "AutoencoderKL"}"#,
                "`_class_name` is \"AutoencoderKL\"",
            ),
            (
                r#"{"channel_multiples": [1]}"#,
                "`channel_multiples` is 1 multiples, expected 5",
            ),
            (
                r#"{"decoder_input_channels": 3}"#,
                "`decoder_input_channels` is 3, expected half",
            ),
            (
                r#"{"downsampling_ratios": []}"#,
                "`downsampling_ratios` is 0",
            ),
            (
                r#"{"sample_size": 7}"#,
                "`sample_size` is 7, expected at least 2048",
            ),
        ] {
            let message = AutoencoderOobleckConfig::from_json(text)
                .unwrap_err()
                .to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
