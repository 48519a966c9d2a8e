//! Configuration of MusicGen's decoder.

use super::DelayPattern;
use crate::{fields, models::ActivationName};
use aigc_core::{
    Error, Result,
    check::{self, ensure},
    json,
    weights::Loaded,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `model_type` of the decoder alone.
const MODEL_TYPE: &str = "musicgen_decoder";
/// `model_type` of a folder with text encoder, decoder and codec.
const WHOLE_TYPE: &str = "musicgen";
/// Width of a T5 encoder whose configuration does not say it.
const T5_WIDTH: u64 = 512;
/// Limit on the number of kinds of classes.
const MOST_KINDS: usize = 64;

/// Configuration to create a [`MusicgenDecoder`](super::MusicgenDecoder): the fields of
/// transformers' `MusicgenDecoderConfig`, and the last two. The default is the small model of
/// MusicGen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MusicgenDecoderConfig {
    /// Number of codes of a codebook.
    pub vocab_size: usize,
    /// Maximum length of a sequence, in steps.
    pub max_position_embeddings: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Inner width of the MLP in a block.
    pub ffn_dim: usize,
    /// Number of heads; it must divide the width.
    pub num_attention_heads: usize,
    /// Activation of the MLP in a block.
    pub activation_function: ActivationName,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Dropout of the embeddings and of the outputs of attention and MLP, in training.
    pub dropout: f64,
    /// Dropout within the MLP, in training.
    pub activation_dropout: f64,
    /// Standard deviation of initial weights.
    pub initializer_factor: f64,
    /// Number of codebooks, of all channels.
    pub num_codebooks: usize,
    /// Channels of the sound: with 2, codebooks of the left and the right channel take turns.
    pub audio_channels: usize,
    /// The token of empty places; `vocab_size` by default.
    pub pad_token_id: Option<u32>,
    /// Width of the states of a text encoder, for models with a text as their condition. A field of
    /// this library; transformers has it in the configuration of the encoder.
    pub text_hidden_size: Option<usize>,
    /// Number of classes of each kind, for models with classes as their condition: ten digits and
    /// six speakers are `[10, 6]`. A field of this library.
    pub class_sizes: Vec<usize>,
}

impl Default for MusicgenDecoderConfig {
    fn default() -> Self {
        Self {
            vocab_size: 2048,
            max_position_embeddings: 2048,
            num_hidden_layers: 24,
            ffn_dim: 4096,
            num_attention_heads: 16,
            activation_function: ActivationName::Gelu,
            hidden_size: 1024,
            dropout: 0.1,
            activation_dropout: 0.0,
            initializer_factor: 0.02,
            num_codebooks: 4,
            audio_channels: 1,
            pad_token_id: None,
            text_hidden_size: None,
            class_sizes: vec![],
        }
    }
}

/// Fields of unsupported variants of the network, with their only supported value.
const FIXED: &[(&str, &str)] = &[
    ("attention_dropout", "0"),
    ("cross_attention_hidden_size", "null"),
    ("eos_token_id", "null"),
    ("layerdrop", "0"),
    ("tie_word_embeddings", "false"),
];

/// Fields that do not affect logits: metadata of the file, and settings that transformers ignores
/// too.
const INERT: &[&str] = &[
    "add_cross_attention",
    "architectures",
    "bos_token_id",
    "dtype",
    "is_decoder",
    "is_encoder_decoder",
    "model_type",
    "scale_embedding",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

impl MusicgenDecoderConfig {
    /// The small model of MusicGen, with texts of T5's base encoder: 24 blocks of width 1,024.
    pub fn small() -> Self {
        Self {
            text_hidden_size: Some(768),
            ..Self::default()
        }
    }

    /// A small model of speech as four codebooks of 256 codes, with classes of these kinds as its
    /// condition: four blocks of width 192, 192 steps at most.
    pub fn speech_8khz(class_sizes: Vec<usize>) -> Self {
        Self {
            vocab_size: 256,
            max_position_embeddings: 192,
            num_hidden_layers: 4,
            ffn_dim: 768,
            num_attention_heads: 6,
            hidden_size: 192,
            class_sizes,
            ..Self::default()
        }
    }

    /// Reads the fields of a `config.json`, of the decoder alone or of a whole folder of MusicGen;
    /// missing ones have defaults. The report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`] if the text is not JSON; [`Error::Config`] names a field whose value is
    /// invalid or not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = fields::parse(text)?;
        match fields.get("model_type").and_then(Value::as_str) {
            Some(WHOLE_TYPE) => (),
            Some(MODEL_TYPE) | None => return Self::from_fields(fields),
            Some(other) => {
                let expected = format!("{MODEL_TYPE} or {WHOLE_TYPE}");
                return Err(Error::config("model_type", other, expected));
            }
        }
        let decoder = part(&mut fields, "decoder")?;
        let text_encoder = part(&mut fields, "text_encoder")?;
        let width = match text_encoder.get("d_model") {
            None => T5_WIDTH,
            Some(value) => value.as_u64().ok_or_else(|| {
                Error::config("text_encoder.d_model", value, "the width of the states")
            })?,
        };
        let mut config = Self::from_fields(decoder)?;
        config.value.text_hidden_size = Some(usize::try_from(width).unwrap_or(usize::MAX));
        config.value.validate()?;
        Ok(config)
    }

    fn from_fields(mut fields: Map<String, Value>) -> Result<Loaded<Self>> {
        json::reject_unsupported(&mut fields, FIXED)?;
        fields.retain(|field, value| !INERT.contains(&field.as_str()) && !value.is_null());
        let config: Loaded<Self> = json::from_map_with_defaults(&fields)?;
        config.value.validate()?;
        Ok(config)
    }

    /// The text of `config.json`, which transformers opens as `MusicgenForCausalLM` if the model
    /// has no condition other than states of its own width.
    pub fn to_json(&self) -> String {
        let mut fields = json::to_map(self);
        fields.retain(|_, value| !value.is_null());
        if self.class_sizes.is_empty() {
            fields.remove("class_sizes");
        }
        let pad = self.pad();
        fields.insert("pad_token_id".into(), pad.into());
        fields.insert("bos_token_id".into(), pad.into());
        fields.insert("model_type".into(), MODEL_TYPE.into());
        fields.insert("architectures".into(), vec!["MusicgenForCausalLM"].into());
        serde_json::to_string_pretty(&fields).expect("plain values")
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::sizes(&[
            ("vocab_size", self.vocab_size, 1 << 20),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                1 << 24,
            ),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("ffn_dim", self.ffn_dim, 1 << 18),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("num_codebooks", self.num_codebooks, 1 << 8),
            (
                "text_hidden_size",
                self.text_hidden_size.unwrap_or(1),
                1 << 16,
            ),
        ])?;
        // Half of the positions' frequencies are spread from the first to the last.
        check::in_range("hidden_size", self.hidden_size, 4..=1 << 16)?;
        ensure(
            self.hidden_size.is_multiple_of(self.num_attention_heads),
            "num_attention_heads",
            self.num_attention_heads,
            &format!("a divisor of hidden_size, {}", self.hidden_size),
        )?;
        check::in_range("audio_channels", self.audio_channels, 1..=2)?;
        ensure(
            self.num_codebooks.is_multiple_of(self.audio_channels),
            "num_codebooks",
            self.num_codebooks,
            "an even number, because audio_channels is 2",
        )?;
        for (field, p) in [
            ("dropout", self.dropout),
            ("activation_dropout", self.activation_dropout),
        ] {
            ensure((0.0..1.0).contains(&p), field, p, "from 0 to below 1")?;
        }
        check::positive("initializer_factor", self.initializer_factor)?;
        ensure(
            self.pad() as usize <= self.vocab_size,
            "pad_token_id",
            self.pad(),
            &format!("at most {}, the vocab_size", self.vocab_size),
        )?;
        let kinds = self.class_sizes.len();
        check::in_range("number of class_sizes", kinds, 0..=MOST_KINDS)?;
        self.class_sizes
            .iter()
            .try_for_each(|size| check::in_range("class_sizes", *size, 1..=1 << 20))
    }

    /// The token of empty places.
    pub(super) fn pad(&self) -> u32 {
        self.pad_token_id.unwrap_or(self.vocab_size as u32)
    }

    /// The delays of the codebooks.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] without codebooks.
    pub fn delay_pattern(&self) -> Result<DelayPattern> {
        match self.audio_channels {
            2 => DelayPattern::stereo(self.num_codebooks),
            _ => DelayPattern::consecutive(self.num_codebooks),
        }
    }
}

/// The configuration of a part of a folder.
fn part(fields: &mut Map<String, Value>, name: &str) -> Result<Map<String, Value>> {
    match fields.remove(name) {
        Some(Value::Object(part)) => Ok(part),
        other => {
            let found = other.map_or_else(|| "missing".to_owned(), |value| value.to_string());
            Err(Error::config(name, found, "the configuration of this part"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_of_folders_and_decoders_are_read() {
        let text = r#"{"model_type": "musicgen", "text_encoder": {"d_model": 24},
            "decoder": {"model_type": "musicgen_decoder", "hidden_size": 32, "layerdrop": 0.0,
            "pad_token_id": 2048, "eos_token_id": null, "colour": "red", "use_cache": true}}"#;
        let config = MusicgenDecoderConfig::from_json(text).unwrap();
        assert_eq!(config.unused_fields, ["colour"]);
        let value = &config.value;
        assert_eq!((value.hidden_size, value.text_hidden_size), (32, Some(24)));
        let back = MusicgenDecoderConfig::from_json(&config.to_json()).unwrap();
        assert_eq!(back, Loaded::new(config.into_inner()));
        let speech = MusicgenDecoderConfig::speech_8khz(vec![10, 6]);
        let back = MusicgenDecoderConfig::from_json(&speech.to_json()).unwrap();
        assert_eq!(back.class_sizes, [10, 6]);
        assert_eq!(back.pad(), 256);
    }

    #[test]
    fn faults_name_field_and_value() {
        for (json, expected) in [
            (r#"{"model_type": "t5"}"#, "`model_type` is t5"),
            (r#"{"model_type": "musicgen"}"#, "`decoder` is missing"),
            (
                r#"{"model_type": "musicgen", "decoder": {}, "text_encoder": 3}"#,
                "`text_encoder` is 3",
            ),
            (r#"{"hidden_size": 2}"#, "`hidden_size` is 2"),
            (r#"{"hidden_size": 1000}"#, "`num_attention_heads` is 16"),
            (r#"{"layerdrop": 0.5}"#, "`layerdrop` is 0.5"),
            (r#"{"eos_token_id": 7}"#, "`eos_token_id` is 7"),
            (r#"{"pad_token_id": 2049}"#, "`pad_token_id` is 2049"),
            (r#"{"audio_channels": 3}"#, "`audio_channels` is 3"),
            (
                r#"{"audio_channels": 2, "num_codebooks": 3}"#,
                "`num_codebooks` is 3",
            ),
            (r#"{"dropout": 1.0}"#, "`dropout` is 1"),
            (r#"{"class_sizes": [3, 0]}"#, "`class_sizes` is 0"),
        ] {
            let message = MusicgenDecoderConfig::from_json(json).unwrap_err();
            let message = message.to_string();
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
