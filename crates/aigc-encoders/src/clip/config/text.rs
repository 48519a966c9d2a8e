//! Configuration of the text encoder.

use super::{
    HiddenAct,
    fields::PROJECTION_DIM,
    shared::{self, EncoderConfig, Shared, shared_fields},
};
#[cfg(doc)]
use aigc_core::Error;
use aigc_core::{Result, check, weights::Loaded};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`ClipTextModel`](crate::clip::ClipTextModel): the fields of
/// transformers' `CLIPTextConfig`, and [`with_projection`](Self::with_projection). The default is
/// that of transformers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipTextConfig {
    /// Number of tokens in the vocabulary.
    pub vocab_size: usize,
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Inner width of the MLPs.
    pub intermediate_size: usize,
    /// Width of the projected embeddings.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads; it must divide the width.
    pub num_attention_heads: usize,
    /// Maximum length of a prompt, in tokens.
    pub max_position_embeddings: usize,
    /// Activation of the MLPs.
    pub hidden_act: HiddenAct,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// Dropout of the attention weights in transformers. Has no effect here.
    pub attention_dropout: f64,
    /// Standard deviation of the initial positions and patches of a vision encoder.
    pub initializer_range: f64,
    /// Factor of the standard deviations of all initial weights.
    pub initializer_factor: f64,
    /// The token that pads shorter prompts. Has no effect on the network.
    pub pad_token_id: Option<u32>,
    /// The token that begins a prompt. Has no effect on the network.
    pub bos_token_id: Option<u32>,
    /// The token that ends a prompt. The pooled output is that of the first such token. With 2, the
    /// value in files from before the field had a meaning, it is that of the token with the highest
    /// id.
    pub eos_token_id: u32,
    /// Whether the pooled output is projected (`CLIPTextModelWithProjection`). Files have it as
    /// `architectures`.
    #[serde(skip)]
    pub with_projection: bool,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            projection_dim: PROJECTION_DIM,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
            attention_dropout: 0.0,
            initializer_range: 0.02,
            initializer_factor: 1.0,
            pad_token_id: Some(1),
            bos_token_id: Some(49406),
            eos_token_id: 49407,
            with_projection: false,
        }
    }
}

impl EncoderConfig for ClipTextConfig {
    const TYPE: &'static str = "clip_text_model";
    const PART: &'static str = "text_config";
    const CLASS: &'static str = "CLIPTextModel";

    fn shared(&self) -> Shared {
        shared_fields!(self)
    }

    fn projected(self, with_projection: bool) -> Self {
        Self {
            with_projection,
            ..self
        }
    }

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

impl ClipTextConfig {
    /// The text encoder of OpenAI's ViT-L/14, which Stable Diffusion 1.x has, and XL as its first.
    pub fn vit_l_14() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: 768,
            num_attention_heads: 12,
            bos_token_id: Some(0),
            eos_token_id: 2,
            ..Self::default()
        }
    }

    /// The text encoder of OpenCLIP's ViT-H/14 without its last layer, as Stable Diffusion 2.x has
    /// it.
    pub fn vit_h_14() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 23,
            num_attention_heads: 16,
            hidden_act: HiddenAct::Gelu,
            bos_token_id: Some(0),
            eos_token_id: 2,
            ..Self::default()
        }
    }

    /// The text encoder of OpenCLIP's ViT-bigG/14 with its projection, the second one of Stable
    /// Diffusion XL.
    pub fn vit_bigg_14() -> Self {
        Self {
            hidden_size: 1280,
            intermediate_size: 5120,
            projection_dim: 1280,
            num_hidden_layers: 32,
            num_attention_heads: 20,
            hidden_act: HiddenAct::Gelu,
            bos_token_id: Some(0),
            eos_token_id: 2,
            with_projection: true,
            ..Self::default()
        }
    }

    /// Reads the fields of a `config.json`, of a text encoder or of a pair; missing ones have
    /// defaults. The report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field whose value is invalid or not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        shared::from_json(text)
    }

    /// The text of a `config.json` that transformers reads.
    pub fn to_json(&self) -> String {
        shared::to_json(self)
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::sizes(&[
            ("vocab_size", self.vocab_size, 1 << 24),
            (
                "max_position_embeddings",
                self.max_position_embeddings,
                1 << 20,
            ),
        ])?;
        self.shared().validate()
    }
}
