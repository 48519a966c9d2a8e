//! Configuration of T5 and UMT5.

use aigc_core::{
    Error, Result,
    check::{self, ensure},
    json::{self, check_ranges},
    nn::Activation,
    weights::Loaded,
};
use serde::{Deserialize, Serialize};

/// The variants of the encoder, the `model_type` of a `config.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum T5ModelType {
    /// The first block has the table of relative positions, and all blocks share it.
    #[default]
    T5,
    /// Every block has a table of relative positions of its own (Chung et al. 2023,
    /// <https://arxiv.org/abs/2304.09151>).
    Umt5,
}

impl T5ModelType {
    /// The name in `config.json`.
    fn name(self) -> &'static str {
        match self {
            Self::T5 => "t5",
            Self::Umt5 => "umt5",
        }
    }

    /// The class of the encoder in transformers.
    fn class(self) -> &'static str {
        match self {
            Self::T5 => "T5EncoderModel",
            Self::Umt5 => "UMT5EncoderModel",
        }
    }
}

/// Configuration to create a [`T5EncoderModel`](super::T5EncoderModel): the fields of transformers'
/// `T5Config` and `UMT5Config` that affect the encoder. The default is that of transformers for T5.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct T5Config {
    /// The variant of the encoder.
    pub model_type: T5ModelType,
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub d_model: usize,
    /// Width of a head; `num_heads` times it need not be `d_model`.
    pub d_kv: usize,
    /// Inner width of the feed-forward networks.
    pub d_ff: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Number of heads.
    pub num_heads: usize,
    /// Number of classes of relative positions, at least 4; half of them are for keys after the
    /// query.
    pub relative_attention_num_buckets: usize,
    /// Distance from which on all keys are in the last class.
    pub relative_attention_max_distance: usize,
    /// Dropout that transformers applies in training. Has no effect here.
    pub dropout_rate: f64,
    /// Added to the mean square in norms.
    pub layer_norm_epsilon: f64,
    /// Factor of the standard deviations of initial weights.
    pub initializer_factor: f64,
    /// Type of the feed-forward networks: the name of an activation, or `gated-` and a name.
    /// `gated-gelu` means the tanh approximation of GELU.
    pub feed_forward_proj: String,
    /// Activation of the feed-forward networks, if it is not that of `feed_forward_proj`.
    pub dense_act_fn: Option<String>,
    /// Whether the feed-forward networks are gated, if `feed_forward_proj` does not say it.
    pub is_gated_act: Option<bool>,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            model_type: T5ModelType::T5,
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            dropout_rate: 0.1,
            layer_norm_epsilon: 1e-6,
            initializer_factor: 1.0,
            feed_forward_proj: "relu".into(),
            dense_act_fn: None,
            is_gated_act: None,
        }
    }
}

/// Fields of unsupported variants of the network, with their only supported value.
const FIXED: &[(&str, &str)] = &[("is_decoder", "false")];

/// Fields that do not affect the encoder: metadata of the file, the decoder, generation.
const INERT: &[&str] = &[
    "architectures",
    "bos_token_id",
    "classifier_dropout",
    "decoder_start_token_id",
    "dtype",
    "eos_token_id",
    "is_encoder_decoder",
    "n_positions",
    "num_decoder_layers",
    "output_past",
    "pad_token_id",
    "scale_decoder_outputs",
    "task_specific_params",
    "tie_word_embeddings",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

impl T5Config {
    /// The encoder of Stable Diffusion 3, Flux and PixArt: T5 1.1 XXL with 4.7 billion parameters.
    pub fn xxl() -> Self {
        Self {
            d_model: 4096,
            d_ff: 10240,
            num_layers: 24,
            num_heads: 64,
            feed_forward_proj: "gated-gelu".into(),
            ..Self::default()
        }
    }

    /// The default of transformers for UMT5.
    pub fn umt5() -> Self {
        Self {
            model_type: T5ModelType::Umt5,
            vocab_size: 250_112,
            d_ff: 1024,
            num_layers: 8,
            num_heads: 6,
            feed_forward_proj: "gated-gelu".into(),
            ..Self::default()
        }
    }

    /// Reads the fields of transformers' `config.json`; missing ones have the defaults of the
    /// `model_type`. The report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`] if the text is not JSON; [`Error::Config`] names a field with a value that
    /// is invalid or not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        json::reject_unsupported(&mut fields, FIXED)?;
        fields.retain(|field, value| !INERT.contains(&field.as_str()) && !value.is_null());
        match fields.get("model_type") {
            None => {}
            Some(kind) if kind == T5ModelType::T5.name() => {}
            Some(kind) if kind == T5ModelType::Umt5.name() => {
                for (field, value) in json::to_map(&Self::umt5()) {
                    fields.entry(field).or_insert(value);
                }
                fields.retain(|_, value| !value.is_null());
            }
            Some(other) => return Err(Error::config("model_type", other, "t5 or umt5")),
        }
        let config: Loaded<Self> = json::from_map_with_defaults(&fields)?;
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.json`, which transformers opens.
    pub fn to_json(&self) -> String {
        let mut fields = json::to_map(self);
        fields.retain(|_, value| !value.is_null());
        fields.insert("architectures".into(), vec![self.model_type.class()].into());
        fields.insert("is_encoder_decoder".into(), false.into());
        fields.insert("use_cache".into(), false.into());
        serde_json::to_string_pretty(&fields).expect("plain values")
    }

    /// The activation of the feed-forward networks, and whether they are gated.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub(super) fn validate(&self) -> Result<(Activation, bool)> {
        check_ranges(&[
            ("vocab_size", self.vocab_size, 1 << 24),
            ("d_model", self.d_model, 1 << 16),
            ("d_kv", self.d_kv, 1 << 12),
            ("d_ff", self.d_ff, 1 << 18),
            ("num_layers", self.num_layers, 1 << 10),
            ("num_heads", self.num_heads, 1 << 10),
        ])?;
        let (buckets, distance) = (
            self.relative_attention_num_buckets,
            self.relative_attention_max_distance,
        );
        check::in_range("relative_attention_num_buckets", buckets, 4..=1 << 16)?;
        check::in_range(
            "relative_attention_max_distance",
            distance,
            buckets / 4 + 1..=1 << 24,
        )?;
        check::positive("layer_norm_epsilon", self.layer_norm_epsilon)?;
        check::positive("initializer_factor", self.initializer_factor)?;
        self.feed_forward()
    }

    fn feed_forward(&self) -> Result<(Activation, bool)> {
        let field = "feed_forward_proj";
        let whole = &self.feed_forward_proj;
        let (gated, name) = match whole.split_once('-') {
            Some(("gated", name)) => (true, name),
            _ => (false, whole.as_str()),
        };
        // The name in the files of T5 1.1.
        let name = if whole == "gated-gelu" {
            "gelu_new"
        } else {
            name
        };
        let (field, name) = match &self.dense_act_fn {
            Some(name) => ("dense_act_fn", name.as_str()),
            None => (field, name),
        };
        let activation = match name {
            "relu" => Activation::Relu,
            "gelu" => Activation::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Activation::GeluTanh,
            "silu" | "swish" => Activation::Silu,
            "quick_gelu" => Activation::QuickGelu,
            "tanh" => Activation::Tanh,
            other => {
                let value = if field == "dense_act_fn" {
                    other
                } else {
                    whole
                };
                let expected = "relu, gelu, gelu_new, silu, quick_gelu or tanh";
                let expected = match field {
                    "dense_act_fn" => expected.into(),
                    _ => format!("{expected}, or `gated-` and one of them"),
                };
                return Err(Error::config(field, value, expected));
            }
        };
        ensure(
            self.is_gated_act.is_none_or(|given| given == gated),
            "is_gated_act",
            self.is_gated_act.unwrap_or(gated),
            &format!("{gated}, as feed_forward_proj says"),
        )?;
        Ok((activation, gated))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_written_as_they_are_read() {
        let text = r#"{"model_type": "t5", "d_model": 24, "feed_forward_proj": "gated-gelu",
            "dense_act_fn": "gelu_new", "is_gated_act": true, "tie_word_embeddings": false,
            "n_positions": 512, "colour": "red"}"#;
        let config = T5Config::from_json(text).unwrap();
        assert_eq!(config.unused_fields, ["colour"]);
        assert_eq!(config.validate().unwrap(), (Activation::GeluTanh, true));
        let back = T5Config::from_json(&config.to_json()).unwrap();
        assert_eq!(back, Loaded::new(config.into_inner()));
    }

    #[test]
    fn missing_fields_have_the_defaults_of_the_variant() {
        let config = T5Config::from_json(r#"{"model_type": "umt5", "d_model": 24}"#).unwrap();
        let expected = T5Config {
            d_model: 24,
            ..T5Config::umt5()
        };
        assert_eq!(config, Loaded::new(expected.clone()));
        let text = expected.to_json();
        assert!(
            text.contains("UMT5EncoderModel") && text.contains("\"umt5\""),
            "{text}"
        );
        assert_eq!(T5Config::from_json(&text).unwrap().into_inner(), expected);
    }

    #[test]
    fn feed_forward_proj_names_activation_and_gate() {
        for (name, expected) in [
            ("relu", (Activation::Relu, false)),
            ("gelu", (Activation::Gelu, false)),
            ("gated-gelu", (Activation::GeluTanh, true)),
            ("gated-silu", (Activation::Silu, true)),
        ] {
            let config = T5Config {
                feed_forward_proj: name.into(),
                ..T5Config::default()
            };
            assert_eq!(config.validate().unwrap(), expected, "{name}");
        }
    }

    #[test]
    fn faults_name_field_and_value() {
        for (json, expected) in [
            (
                r#"{"model_type": "mt5"}"#,
                "`model_type` is \"mt5\", expected t5 or umt5",
            ),
            (r#"{"is_decoder": true}"#, "`is_decoder` is true"),
            (r#"{"num_layers": 0}"#, "`num_layers` is 0"),
            (r#"{"d_model": "wide"}"#, "`d_model` is \"wide\""),
            (
                r#"{"feed_forward_proj": "gated-cubic"}"#,
                "`feed_forward_proj` is gated-cubic",
            ),
            (r#"{"dense_act_fn": "cubic"}"#, "`dense_act_fn` is cubic"),
            (
                r#"{"is_gated_act": true}"#,
                "`is_gated_act` is true, expected false",
            ),
            (
                r#"{"relative_attention_num_buckets": 2}"#,
                "`relative_attention_num_buckets` is 2",
            ),
            (
                r#"{"relative_attention_max_distance": 8}"#,
                "`relative_attention_max_distance` is 8, expected 9",
            ),
        ] {
            let message = T5Config::from_json(json).unwrap_err().to_string();
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
