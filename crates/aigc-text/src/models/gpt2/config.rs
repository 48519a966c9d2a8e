//! Configuration of GPT-2.

use crate::{
    fields,
    tokens::{TokenIds, in_vocabulary},
};
use aigc_core::{Error, Result, check, json, nn::Activation, weights::Loaded};
use serde::{Deserialize, Serialize};

/// `model_type` of a `config.json`.
pub(super) const MODEL_TYPE: &str = "gpt2";

/// Configuration to create a [`Gpt2`](super::Gpt2): the fields of transformers' `config.json`, and
/// [`bias`](Self::bias).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpt2Config {
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Maximum length of a sequence, in tokens.
    pub n_positions: usize,
    /// Width of the hidden states.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Number of heads; it must divide the width.
    pub n_head: usize,
    /// Inner width of the MLP in a block; by default four times the width.
    pub n_inner: Option<usize>,
    /// Activation of the MLP in a block.
    pub activation_function: ActivationName,
    /// Dropout of the outputs of attention and MLP.
    pub resid_pdrop: f64,
    /// Dropout of the embeddings.
    pub embd_pdrop: f64,
    /// Dropout of the attention weights.
    pub attn_pdrop: f64,
    /// Added to the variance in layer norms.
    pub layer_norm_epsilon: f64,
    /// Standard deviation of initial weights.
    pub initializer_range: f64,
    /// Whether attention scores are divided by `√d`.
    pub scale_attn_weights: bool,
    /// Whether attention scores are also divided by the number of the block.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// Whether the output layer shares its weight with the token embedding.
    pub tie_word_embeddings: bool,
    /// Whether linear layers and layer norms have biases. This field does not exist in
    /// transformers; some models of nanoGPT have no biases.
    pub bias: bool,
    /// The token that begins a sequence.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a sequence.
    pub eos_token_id: Option<TokenIds>,
    /// The token that pads shorter sequences of a batch.
    pub pad_token_id: Option<u32>,
}

/// Activation functions by their names in transformers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum ActivationName {
    /// The tanh approximation of GELU, with which GPT-2 was trained.
    #[default]
    #[serde(alias = "gelu_pytorch_tanh", alias = "gelu_fast")]
    GeluNew,
    Gelu,
    Relu,
    #[serde(alias = "swish")]
    Silu,
    Tanh,
}

impl From<ActivationName> for Activation {
    fn from(name: ActivationName) -> Self {
        match name {
            ActivationName::GeluNew => Activation::GeluTanh,
            ActivationName::Gelu => Activation::Gelu,
            ActivationName::Relu => Activation::Relu,
            ActivationName::Silu => Activation::Silu,
            ActivationName::Tanh => Activation::Tanh,
        }
    }
}

/// GPT-2 with 124 million parameters.
impl Default for Gpt2Config {
    fn default() -> Self {
        Self {
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: ActivationName::GeluNew,
            resid_pdrop: 0.1,
            embd_pdrop: 0.1,
            attn_pdrop: 0.1,
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            bias: true,
            bos_token_id: Some(50256),
            eos_token_id: Some(TokenIds::One(50256)),
            pad_token_id: None,
        }
    }
}

/// Fields of unsupported variants of the network, with their only supported value.
const FIXED: &[(&str, &str)] = &[("add_cross_attention", "false")];

/// Fields that do not affect logits: metadata of the file, and settings of other heads.
const INERT: &[&str] = &[
    "architectures",
    "dtype",
    "model_type",
    "reorder_and_upcast_attn",
    "summary_activation",
    "summary_first_dropout",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

impl Gpt2Config {
    /// GPT-2 with 124 million parameters.
    pub fn small() -> Self {
        Self::default()
    }

    /// GPT-2 medium with 355 million parameters.
    pub fn medium() -> Self {
        Self {
            n_embd: 1024,
            n_layer: 24,
            n_head: 16,
            ..Self::default()
        }
    }

    /// GPT-2 large with 774 million parameters.
    pub fn large() -> Self {
        Self {
            n_embd: 1280,
            n_layer: 36,
            n_head: 20,
            ..Self::default()
        }
    }

    /// GPT-2 XL with 1,558 million parameters.
    pub fn xl() -> Self {
        Self {
            n_embd: 1600,
            n_layer: 48,
            n_head: 25,
            ..Self::default()
        }
    }

    /// A small model with nanoGPT's defaults: exact GELU, no biases, no dropout, no special tokens;
    /// the last three numbers are layers, heads and width.
    pub fn nano(
        vocab_size: usize,
        n_positions: usize,
        [n_layer, n_head, n_embd]: [usize; 3],
    ) -> Self {
        Self {
            vocab_size,
            n_positions,
            n_embd,
            n_layer,
            n_head,
            activation_function: ActivationName::Gelu,
            resid_pdrop: 0.0,
            embd_pdrop: 0.0,
            attn_pdrop: 0.0,
            bias: false,
            bos_token_id: None,
            eos_token_id: None,
            ..Self::default()
        }
    }

    /// Reads the fields of a `config.json`; missing ones have defaults. The report lists unknown
    /// fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field whose value is invalid or not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = fields::parse(text)?;
        if let Some(other) = fields.get("model_type").filter(|kind| *kind != MODEL_TYPE) {
            return Err(Error::config("model_type", other, MODEL_TYPE));
        }
        json::reject_unsupported(&mut fields, FIXED)?;
        let mut loaded: Loaded<Self> = json::from_map_with_defaults(&fields)?;
        let config = &mut loaded.value;
        // transformers accepts models whose special tokens are outside the vocabulary.
        let size = config.vocab_size;
        let is_there = |token: &u32| (*token as usize) < size;
        config.bos_token_id = config.bos_token_id.filter(is_there);
        config.eos_token_id = config
            .eos_token_id
            .take()
            .filter(|tokens| tokens.list().iter().all(is_there));
        config.pad_token_id = config.pad_token_id.filter(is_there);
        config.validate()?;
        loaded
            .unused_fields
            .retain(|field| !INERT.contains(&field.as_str()));
        Ok(loaded)
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::sizes(&[
            ("vocab_size", self.vocab_size, 1 << 24),
            ("n_positions", self.n_positions, 1 << 24),
            ("n_embd", self.n_embd, 1 << 16),
            ("n_layer", self.n_layer, 1 << 10),
            ("n_head", self.n_head, 1 << 10),
            ("n_inner", self.inner(), 1 << 18),
        ])?;
        if !self.n_embd.is_multiple_of(self.n_head) {
            return Err(Error::config(
                "n_head",
                self.n_head,
                format!("a divisor of n_embd, {}", self.n_embd),
            ));
        }
        for (field, p) in [
            ("resid_pdrop", self.resid_pdrop),
            ("embd_pdrop", self.embd_pdrop),
            ("attn_pdrop", self.attn_pdrop),
        ] {
            check::ensure((0.0..1.0).contains(&p), field, p, "from 0 to below 1")?;
        }
        check::positive("layer_norm_epsilon", self.layer_norm_epsilon)?;
        check::positive("initializer_range", self.initializer_range)?;
        let special = [
            ("bos_token_id", self.bos_token_id.map(TokenIds::One)),
            ("eos_token_id", self.eos_token_id.clone()),
            ("pad_token_id", self.pad_token_id.map(TokenIds::One)),
        ];
        special.iter().try_for_each(|(field, tokens)| {
            in_vocabulary(
                tokens.iter().flat_map(TokenIds::list),
                self.vocab_size,
                |token, expected| Error::config(*field, token, expected),
            )
        })
    }

    /// Inner width of the MLPs.
    pub(super) fn inner(&self) -> usize {
        self.n_inner.unwrap_or(self.n_embd.saturating_mul(4))
    }

    /// Factor of the queries, in addition to the `1/√d` of attention.
    pub(super) fn scale(&self, layer: usize) -> f64 {
        let d = (self.n_embd / self.n_head) as f64;
        let unscaled = if self.scale_attn_weights {
            1.0
        } else {
            d.sqrt()
        };
        if self.scale_attn_by_inverse_layer_idx {
            unscaled / (layer + 1) as f64
        } else {
            unscaled
        }
    }
}
