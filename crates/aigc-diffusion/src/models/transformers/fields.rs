//! Fields that the configurations of the transformers have in common, and their checks.

use crate::{denoiser::check_image, json};
use aigc_core::{Result, check, data::SampleShape};

/// Fields that all configurations have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields {
    pub(super) patch_size: usize,
    pub(super) in_channels: usize,
    /// Channels of the output; those of the input by default.
    pub(super) out_channels: usize,
    pub(super) num_layers: usize,
    pub(super) attention_head_dim: usize,
    pub(super) num_attention_heads: usize,
}

impl Fields {
    /// Width of all heads together.
    pub(super) fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Checks these fields, and that `others`, each with its greatest value, are at least 1.
    pub(super) fn check_ranges(&self, others: &[(&str, usize, usize)]) -> Result<()> {
        json::check_ranges(&[
            ("patch_size", self.patch_size, 1 << 8),
            ("in_channels", self.in_channels, 1 << 12),
            ("out_channels", self.out_channels, 1 << 12),
            ("num_layers", self.num_layers, 1 << 10),
            ("attention_head_dim", self.attention_head_dim, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
        ])?;
        json::check_ranges(others)
    }

    /// Checks a network for latent maps of `sample_size`, whose width is divided into `parts`.
    pub(super) fn check_maps(&self, sample_size: usize, parts: usize) -> Result<()> {
        check::ensure(
            self.width().is_multiple_of(parts),
            "attention_head_dim",
            self.attention_head_dim,
            &format!("a width of all heads that {parts} divides"),
        )?;
        check::ensure(
            self.patch_size <= sample_size,
            "patch_size",
            self.patch_size,
            "at most sample_size",
        )
    }

    /// Whether the network processes latent maps of this shape.
    pub(super) fn check_shape(&self, shape: SampleShape, variance: bool) -> Result<()> {
        let channels = shape.channels();
        let expected = format!("{channels}, the channels of the images");
        check::ensure(
            self.in_channels == channels,
            "in_channels",
            self.in_channels,
            &expected,
        )?;
        let channels = [self.in_channels, self.out_channels];
        check_image(shape, channels, self.patch_size, variance)
    }
}
