//! Configuration of Wan's transformer.

use crate::{
    json,
    models::{config_methods::json_methods, transformers::check_rotary_heads},
};
use aigc_core::{
    Error, Result,
    check::{self, ensure, ensure_argument},
    data::SampleShape,
};
use serde::{Deserialize, Serialize};

/// Configuration of a [`WanTransformer3dModel`](super::WanTransformer3dModel); the fields are those
/// of diffusers' `WanTransformer3DModel`, and so is the default, the network with 14 billion
/// parameters.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct WanTransformer3dConfig {
    /// Frames, height and width of a patch.
    pub patch_size: [usize; 3],
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Width of a head, even.
    pub attention_head_dim: usize,
    /// Channels of its input: those of the latents, and more with an image to start from.
    pub in_channels: usize,
    /// Channels of its output. `None`: those of its input.
    pub out_channels: Option<usize>,
    /// Width of the encoder hidden states.
    pub text_dim: usize,
    /// Number of sines and cosines of a time, even.
    pub freq_dim: usize,
    /// Inner width of the feed-forward layers.
    pub ffn_dim: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Whether a norm precedes the attention to the prompt.
    pub cross_attn_norm: bool,
    /// Epsilon of the norms.
    pub eps: f64,
    /// Most patches along each axis.
    pub rope_max_seq_len: usize,
}

impl Default for WanTransformer3dConfig {
    fn default() -> Self {
        Self {
            patch_size: [1, 2, 2],
            num_attention_heads: 40,
            attention_head_dim: 128,
            in_channels: 16,
            out_channels: Some(16),
            text_dim: 4096,
            freq_dim: 256,
            ffn_dim: 13_824,
            num_layers: 40,
            cross_attn_norm: true,
            eps: 1e-6,
            rope_max_seq_len: 1024,
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have. Those with an
/// image belong to networks that see one through CLIP.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("added_kv_proj_dim", "null"),
    ("image_dim", "null"),
    ("pos_embed_seq_len", "null"),
    ("qk_norm", "\"rms_norm_across_heads\""),
];

impl WanTransformer3dConfig {
    json_methods!("WanTransformer3DModel", UNSUPPORTED);

    /// Width of all heads together.
    pub(super) fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Channels of the output.
    pub(super) fn outputs(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Channels of a head that frames, rows and columns turn (Su et al. 2021,
    /// <https://arxiv.org/abs/2104.09864>).
    pub(super) fn rotary_widths(&self) -> [usize; 3] {
        let side = 2 * (self.attention_head_dim / 6);
        [self.attention_head_dim - 2 * side, side, side]
    }

    /// Fails for a value out of range.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn validate(&self) -> Result<()> {
        let [frames, height, width] = self.patch_size;
        json::check_ranges(&[
            ("patch_size", frames, 1 << 6),
            ("patch_size", height, 1 << 6),
            ("patch_size", width, 1 << 6),
            ("in_channels", self.in_channels, 1 << 12),
            ("out_channels", self.outputs(), 1 << 12),
            ("text_dim", self.text_dim, 1 << 16),
            ("freq_dim", self.freq_dim, 1 << 14),
            ("ffn_dim", self.ffn_dim, 1 << 18),
            ("num_layers", self.num_layers, 1 << 10),
            ("rope_max_seq_len", self.rope_max_seq_len, 1 << 20),
        ])?;
        check_rotary_heads(self.num_attention_heads, self.attention_head_dim)?;
        let expected = "an even number, for sines and cosines";
        let even = self.freq_dim.is_multiple_of(2);
        ensure(even, "freq_dim", self.freq_dim, expected)?;
        check::positive("eps", self.eps)
    }

    /// Patches along each axis of a map of `sizes`: frames, height and width.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] unless they are multiples of the patch, with at most
    /// `rope_max_seq_len` patches along each.
    pub(super) fn patches(&self, sizes: [usize; 3]) -> Result<[usize; 3]> {
        let most = self.rope_max_seq_len;
        for (size, patch) in sizes.into_iter().zip(self.patch_size) {
            let fits = size.is_multiple_of(patch) && (1..=most).contains(&(size / patch));
            let expected = format!(
                "frames, height and width that are multiples of {:?}, with at most {most} patches \
                 along each (rope_max_seq_len)",
                self.patch_size
            );
            ensure_argument(fits, "shape", format!("{sizes:?}"), &expected)?;
        }
        Ok(std::array::from_fn(|axis| {
            sizes[axis] / self.patch_size[axis]
        }))
    }

    /// Whether the network processes videos of this shape.
    pub(super) fn check_shape(&self, shape: SampleShape) -> Result<()> {
        let &[channels, frames, height, width] = shape.dims() else {
            let expected = "videos: channels, frames, height and width";
            return Err(Error::argument("shape", shape, expected));
        };
        let outputs = self.outputs();
        let expected = format!("{channels}, the channels of the videos");
        ensure(outputs == channels, "out_channels", outputs, &expected)?;
        let expected = format!("{channels}, the channels of the videos, or more");
        let inputs = self.in_channels;
        ensure(inputs >= channels, "in_channels", inputs, &expected)?;
        self.patches([frames, height, width]).map(drop)
    }
}
