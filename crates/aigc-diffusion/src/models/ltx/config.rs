//! Configuration of LTX-Video's transformer.

use crate::{
    json,
    models::{
        config_methods::json_methods, transformer::feed_forward_activation,
        transformers::check_rotary_heads,
    },
};
use aigc_core::{
    Error, Result,
    check::{self, ensure},
    data::SampleShape,
    nn::Activation,
};
use serde::{Deserialize, Serialize};

/// Configuration of an [`LtxVideoTransformer3dModel`](super::LtxVideoTransformer3dModel); the
/// fields are those of diffusers' `LTXVideoTransformer3DModel`, and so is the default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LtxVideoTransformer3dConfig {
    /// Channels of a token of the input.
    pub in_channels: usize,
    /// Channels of a token of the output. `None`: as many as of the input.
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
    json_methods!("LTXVideoTransformer3DModel", UNSUPPORTED);

    /// Width of all heads together.
    pub(super) fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Channels of a token of the output.
    pub(super) fn outputs(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// The activation of the feed-forward layers.
    pub(super) fn activation(&self) -> Result<Activation> {
        feed_forward_activation(&self.activation_fn, 0.0)
    }

    /// Fails unless the network predicts videos of this shape, a token for each position.
    pub(super) fn check_shape(&self, shape: SampleShape) -> Result<()> {
        let &[channels, _, _, _] = shape.dims() else {
            let expected = "videos: channels, frames, height and width";
            return Err(Error::argument("shape", shape, expected));
        };
        let expected = format!("{channels}, the channels of the videos");
        for (field, found) in [
            ("in_channels", self.in_channels),
            ("out_channels", self.outputs()),
        ] {
            ensure(found == channels, field, found, &expected)?;
        }
        for (field, found) in [
            ("patch_size", self.patch_size),
            ("patch_size_t", self.patch_size_t),
        ] {
            let expected = "1: a token is a position";
            ensure(found == 1, field, found, expected)?;
        }
        Ok(())
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
            ("num_layers", self.num_layers, 1 << 10),
            ("caption_channels", self.caption_channels, 1 << 16),
        ])?;
        check_rotary_heads(self.num_attention_heads, self.attention_head_dim)?;
        let (width, found) = (self.width(), self.cross_attention_dim);
        let expected = format!("{width}, the width of the projected captions");
        ensure(found == width, "cross_attention_dim", found, &expected)?;
        check::positive("norm_eps", self.norm_eps)?;
        self.activation().map(drop)
    }
}
