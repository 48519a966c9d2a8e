//! Configuration of Stable Diffusion 3's transformer.

use super::super::fields::Fields;
use crate::json;
use aigc_core::{Error, Result, check, data::SampleShape, weights::Loaded};
use serde::{Deserialize, Serialize};

/// The name of the class in diffusers.
const CLASS: &str = "SD3Transformer2DModel";

/// Configuration of an [`Sd3TransformerModel`](super::Sd3TransformerModel); the fields are those
/// of diffusers' `SD3Transformer2DModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sd3TransformerConfig {
    /// Side of the latent maps that it is for.
    pub sample_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Channels of a latent map.
    pub in_channels: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Width of a head.
    pub attention_head_dim: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Width of the encoder hidden states.
    pub joint_attention_dim: usize,
    /// Width of the prompt's tokens within the network: that of all heads together.
    pub caption_projection_dim: usize,
    /// Width of the pooled prompt.
    pub pooled_projection_dim: usize,
    /// Channels of its output; those of a latent map by default.
    pub out_channels: Option<usize>,
    /// Patches a side of the table of positions: those of the largest image.
    pub pos_embed_max_size: usize,
    /// Blocks in which the tokens of the image attend to each other once more.
    pub dual_attention_layers: Vec<usize>,
    /// Norm of queries and keys: `rms_norm`, or none.
    pub qk_norm: Option<String>,
}

impl Default for Sd3TransformerConfig {
    fn default() -> Self {
        Self {
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            num_layers: 18,
            attention_head_dim: 64,
            num_attention_heads: 18,
            joint_attention_dim: 4096,
            caption_projection_dim: 1152,
            pooled_projection_dim: 2048,
            out_channels: Some(16),
            pos_embed_max_size: 96,
            dual_attention_layers: vec![],
            qk_norm: None,
        }
    }
}

impl Sd3TransformerConfig {
    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that it cannot have, or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let config: Loaded<Self> = json::network(json::parse_object(text)?, CLASS, &[])?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as diffusers writes it.
    pub fn to_json(&self) -> String {
        json::to_text(self, CLASS)
    }

    pub(super) fn fields(&self) -> Fields {
        Fields {
            patch_size: self.patch_size,
            in_channels: self.in_channels,
            out_channels: self.out_channels.unwrap_or(self.in_channels),
            num_layers: self.num_layers,
            attention_head_dim: self.attention_head_dim,
            num_attention_heads: self.num_attention_heads,
        }
    }

    pub(super) fn check(&self, shape: SampleShape, variance: bool) -> Result<()> {
        self.fields().check_shape(shape, variance)?;
        let most = self.pos_embed_max_size * self.patch_size;
        check::ensure_argument(
            shape.spatial().iter().all(|side| *side <= most),
            "shape",
            shape,
            &format!("sides of at most {most}, for pos_embed_max_size"),
        )
    }

    pub(super) fn validate(&self) -> Result<()> {
        let fields = self.fields();
        fields.check_ranges(&[
            ("sample_size", self.sample_size, 1 << 14),
            ("joint_attention_dim", self.joint_attention_dim, 1 << 16),
            ("pooled_projection_dim", self.pooled_projection_dim, 1 << 16),
            ("pos_embed_max_size", self.pos_embed_max_size, 1 << 12),
        ])?;
        // Sines and cosines of rows and columns.
        fields.check_maps(self.sample_size, 4)?;
        let width = fields.width();
        check::ensure(
            self.caption_projection_dim == width,
            "caption_projection_dim",
            self.caption_projection_dim,
            &format!("{width}, the width of all heads"),
        )?;
        match self.qk_norm.as_deref() {
            None | Some("rms_norm") => Ok(()),
            Some(other) => Err(Error::config("qk_norm", other, "null or rms_norm")),
        }
    }
}
