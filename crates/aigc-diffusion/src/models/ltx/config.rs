//! Configuration of LTX-Video's transformer.

use crate::{json, models::transformer::feed_forward_activation};
use aigc_core::{
    Result,
    check::{self, ensure},
    nn::Activation,
    weights::Loaded,
};
use serde::{Deserialize, Serialize};

/// The name of the class in diffusers.
const CLASS: &str = "LTXVideoTransformer3DModel";

/// Configuration of an [`LtxVideoTransformer3dModel`](super::LtxVideoTransformer3dModel); the
/// fields are those of diffusers' `LTXVideoTransformer3DModel`, and so is the default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LtxVideoTransformer3dConfig {
    /// Numbers of a token.
    pub in_channels: usize,
    /// Numbers of a token of the output. `None`: as many.
    pub out_channels: Option<usize>,
    /// Pixels of a latent map that a token stands for along height and width.
    pub patch_size: usize,
    /// Frames of the latents that a token stands for.
    pub patch_size_t: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Width of a head, even.
    pub attention_head_dim: usize,
    /// Width of the prompt's tokens within the network: that of all heads together.
    pub cross_attention_dim: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Activation function of the feed-forward layers.
    pub activation_fn: String,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Width of the encoder hidden states.
    pub caption_channels: usize,
    /// Whether queries, keys and values have biases.
    pub attention_bias: bool,
    /// Whether the outputs of attention have biases.
    pub attention_out_bias: bool,
}

impl Default for LtxVideoTransformer3dConfig {
    fn default() -> Self {
        Self {
            in_channels: 128,
            out_channels: Some(128),
            patch_size: 1,
            patch_size_t: 1,
            num_attention_heads: 32,
            attention_head_dim: 64,
            cross_attention_dim: 2048,
            num_layers: 28,
            activation_fn: "gelu-approximate".into(),
            norm_eps: 1e-6,
            caption_channels: 4096,
            attention_bias: true,
            attention_out_bias: true,
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("norm_elementwise_affine", "false"),
    ("qk_norm", "\"rms_norm_across_heads\""),
];

impl LtxVideoTransformer3dConfig {
    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names a field with a value that it cannot have,
    /// or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let fields = json::parse_object(text)?;
        let config: Loaded<Self> = json::network(fields, CLASS, UNSUPPORTED)?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as diffusers writes it.
    pub fn to_json(&self) -> String {
        json::to_text(self, CLASS)
    }

    /// Width of all heads together.
    pub(super) fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Numbers of a token of the output.
    pub(super) fn outputs(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// The activation of the feed-forward layers.
    pub(super) fn activation(&self) -> Result<Activation> {
        feed_forward_activation(&self.activation_fn, 0.0)
    }

    /// Fails for a value out of range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names the field.
    pub fn validate(&self) -> Result<()> {
        json::check_ranges(&[
            ("in_channels", self.in_channels, 1 << 16),
            ("out_channels", self.outputs(), 1 << 16),
            ("patch_size", self.patch_size, 1 << 8),
            ("patch_size_t", self.patch_size_t, 1 << 8),
            ("num_attention_heads", self.num_attention_heads, 1 << 8),
            ("attention_head_dim", self.attention_head_dim, 1 << 8),
            ("num_layers", self.num_layers, 1 << 10),
            ("caption_channels", self.caption_channels, 1 << 16),
        ])?;
        let (field, value) = ("attention_head_dim", self.attention_head_dim);
        let expected = "an even number, for pairs of channels that are turned";
        ensure(value.is_multiple_of(2), field, value, expected)?;
        let (width, found) = (self.width(), self.cross_attention_dim);
        let expected = format!("{width}, the width of the projected captions");
        ensure(found == width, "cross_attention_dim", found, &expected)?;
        check::positive("norm_eps", self.norm_eps)?;
        self.activation().map(drop)
    }
}
