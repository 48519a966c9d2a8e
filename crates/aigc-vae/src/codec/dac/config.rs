//! Configuration of DAC, with the fields of transformers.

use super::DacModel;
use crate::codec::{codes::hop_length, files::fields_of};
use aigc_core::{
    Error, Result,
    check::{self, ensure},
    json,
    weights::Loaded,
};
use burn::tensor::Device;
use serde::{Deserialize, Serialize};

/// The name of the model in transformers.
const MODEL_TYPE: &str = "dac";

/// Configuration to create a [`DacModel`]; the fields are those of transformers' `DacConfig`. The
/// default is that of transformers, the model of 16 kHz with fewer codebooks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DacConfig {
    /// Channels of the encoder at the full rate; they are doubled with every ratio.
    pub encoder_hidden_size: usize,
    /// Factors of the rates in the encoder; the decoder has them in reverse.
    pub downsampling_ratios: Vec<usize>,
    /// Channels of the decoder at the lowest rate; they are halved with every ratio.
    pub decoder_hidden_size: usize,
    /// Number of codebooks.
    pub n_codebooks: usize,
    /// Codes of a codebook, a power of two.
    pub codebook_size: usize,
    /// Width of a code, to which latents are projected before they are compared.
    pub codebook_dim: usize,
    /// Share of the samples of a batch that are quantised by a random number of codebooks in
    /// training.
    pub quantizer_dropout: f64,
    /// Weight of the distance of projected latents to their codes, in training.
    pub commitment_loss_weight: f64,
    /// Weight of the distance of codes to the latents that they were chosen for, in training.
    pub codebook_loss_weight: f64,
    /// Samples per second.
    pub sampling_rate: u32,
}

impl Default for DacConfig {
    fn default() -> Self {
        Self {
            encoder_hidden_size: 64,
            downsampling_ratios: vec![2, 4, 8, 8],
            decoder_hidden_size: 1536,
            n_codebooks: 9,
            codebook_size: 1024,
            codebook_dim: 8,
            quantizer_dropout: 0.0,
            commitment_loss_weight: 0.25,
            codebook_loss_weight: 1.0,
            sampling_rate: 16_000,
        }
    }
}

impl DacConfig {
    /// A configuration from the text of transformers' `config.json`. Missing fields have the
    /// defaults of transformers. The report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`] if the text is not JSON; [`Error::Config`] names a field with a value that
    /// is invalid or not supported, also one that has to follow from the others.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = fields_of(text, MODEL_TYPE)?;
        let derived = ["upsampling_ratios", "hidden_size", "hop_length"];
        let derived = derived.map(|field| (field, fields.remove(field)));
        let config: Loaded<Self> = json::from_map_with_defaults(&fields)?;
        config.validate()?;
        let reversed: Vec<usize> = config.downsampling_ratios.iter().rev().copied().collect();
        let expected: [serde_json::Value; 3] = [
            reversed.into(),
            config.hidden_size().into(),
            config.hop_length().into(),
        ];
        for ((field, found), expected) in derived.into_iter().zip(expected) {
            let Some(found) = found.filter(|found| !found.is_null() && *found != expected) else {
                continue;
            };
            let expected = format!("{expected}, which follows from the other fields");
            return Err(Error::config(field, found, expected));
        }
        Ok(config)
    }

    /// The text of `config.json`, which transformers opens.
    pub fn to_json(&self) -> String {
        let mut fields = json::to_map(self);
        fields.insert("model_type".into(), MODEL_TYPE.into());
        fields.insert("architectures".into(), vec!["DacModel"].into());
        serde_json::to_string_pretty(&fields).expect("plain values")
    }

    /// Channels of the latents.
    pub fn hidden_size(&self) -> usize {
        self.encoder_hidden_size << self.downsampling_ratios.len()
    }

    /// Samples that a frame of codes stands for.
    pub fn hop_length(&self) -> usize {
        hop_length(&self.downsampling_ratios)
    }

    /// Channels of the encoder and of the decoder, from its first rate on.
    pub(super) fn widths(&self) -> [Vec<usize>; 2] {
        let rates = 0..=self.downsampling_ratios.len();
        [
            rates
                .clone()
                .map(|rate| self.encoder_hidden_size << rate)
                .collect(),
            rates.map(|rate| self.decoder_hidden_size >> rate).collect(),
        ]
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::in_range("sampling_rate", self.sampling_rate, 1..=1 << 20)?;
        check::sizes(&[
            ("encoder_hidden_size", self.encoder_hidden_size, 1 << 10),
            ("decoder_hidden_size", self.decoder_hidden_size, 1 << 14),
            ("n_codebooks", self.n_codebooks, 64),
            ("codebook_dim", self.codebook_dim, 1 << 12),
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
        check::in_range("hop_length", self.hop_length(), 1..=1 << 20)?;
        check::in_range("hidden_size", self.hidden_size(), 1..=1 << 14)?;
        let least = 1 << ratios;
        let expected = format!("at least {least}: it is halved by each of {ratios} ratios");
        ensure(
            self.decoder_hidden_size >= least,
            "decoder_hidden_size",
            self.decoder_hidden_size,
            &expected,
        )?;
        let size = self.codebook_size;
        ensure(
            size.is_power_of_two(),
            "codebook_size",
            size,
            "a power of two",
        )?;
        check::in_range("codebook_size", size, 2..=1 << 20)?;
        check::fraction("quantizer_dropout", self.quantizer_dropout)?;
        check::non_negative("commitment_loss_weight", self.commitment_loss_weight)?;
        check::non_negative("codebook_loss_weight", self.codebook_loss_weight)
    }

    /// Creates the model on `device`, with weight norm, as it is trained.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<DacModel> {
        DacModel::new(self, true, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_written_as_they_are_read() {
        let config = DacConfig {
            quantizer_dropout: 0.5,
            ..DacConfig::default()
        };
        let text = config.to_json();
        assert_eq!(DacConfig::from_json(&text).unwrap(), Loaded::new(config));
        let text = r#"{"hidden_size": 1024, "hop_length": 512, "upsampling_ratios": [8, 8, 4, 2]}"#;
        let loaded = DacConfig::from_json(text).unwrap();
        assert_eq!(loaded, Loaded::new(DacConfig::default()));
    }

    #[test]
    fn faults_name_field_and_value() {
        for (text, expected) in [
            (
                r#"{"hidden_size": 64}"#,
                "`hidden_size` is 64, expected 1024, which follows",
            ),
            (
                r#"{"upsampling_ratios": [2]}"#,
                "`upsampling_ratios` is [2]",
            ),
            (
                r#"{"downsampling_ratios": [1]}"#,
                "`downsampling_ratios` is 1",
            ),
            (
                r#"{"decoder_hidden_size": 8}"#,
                "`decoder_hidden_size` is 8, expected at least 16",
            ),
            (r#"{"codebook_size": 3}"#, "`codebook_size` is 3"),
            (r#"{"n_codebooks": 65}"#, "`n_codebooks` is 65"),
            (r#"{"quantizer_dropout": -1}"#, "`quantizer_dropout` is -1"),
        ] {
            let message = DacConfig::from_json(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
    }
}
