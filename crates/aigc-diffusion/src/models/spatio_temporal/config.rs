//! Configuration of the network of Stable Video Diffusion.

use crate::{
    json,
    models::{
        CrossDownBlockType, CrossUpBlockType, PerBlock, SampleSize, UNet2dConditionConfig,
        motion::joined::{rename_blocks, to_text},
        unet2d_condition::one_number,
    },
};
use aigc_core::{Result, check::ensure, weights::Loaded};
use serde::{Deserialize, Serialize};

const CLASS: &str = "UNetSpatioTemporalConditionModel";
/// The ending of the names of blocks in files.
const ENDING: &str = "SpatioTemporal";
/// Groups of all group norms.
pub(super) const GROUPS: usize = 32;
/// Limit on transformer blocks of an attention.
const MAX_TRANSFORMERS: usize = 64;

/// Configuration of a
/// [`UNetSpatioTemporalConditionModel`](super::UNetSpatioTemporalConditionModel); the fields are
/// those of diffusers, and so is the default, which is Stable Video Diffusion.
///
/// Blocks have the names of those of images, `DownBlock2D` for `DownBlockSpatioTemporal`: the
/// layers over time belong to every block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNetSpatioTemporalConditionConfig {
    /// Height and width of the latents that it is for. It processes any other size too.
    pub sample_size: Option<SampleSize>,
    /// Channels of its input: those of the latents, and those of the image to start from.
    pub in_channels: usize,
    /// Channels of its output.
    pub out_channels: usize,
    /// Blocks of the encoder, from the largest size on.
    pub down_block_types: Vec<CrossDownBlockType>,
    /// Blocks of the decoder, from the smallest size on.
    pub up_block_types: Vec<CrossUpBlockType>,
    /// Channels at each size, from the largest on.
    pub block_out_channels: Vec<usize>,
    /// Width of each encoded number about a video.
    pub addition_time_embed_dim: usize,
    /// Width of all encoded numbers together.
    pub projection_class_embeddings_input_dim: usize,
    /// Layers of each encoder block; decoder blocks have one more.
    #[serde(deserialize_with = "one_number")]
    pub layers_per_block: usize,
    /// Width of the tokens.
    #[serde(deserialize_with = "one_number")]
    pub cross_attention_dim: usize,
    /// Transformer blocks in each attention, for all sizes or for each.
    pub transformer_layers_per_block: PerBlock,
    /// Heads of each attention, for all sizes or for each.
    pub num_attention_heads: PerBlock,
    /// Frames of the videos that it is for. It processes any other number too.
    pub num_frames: usize,
}

impl Default for UNetSpatioTemporalConditionConfig {
    fn default() -> Self {
        let UNet2dConditionConfig {
            down_block_types,
            up_block_types,
            block_out_channels,
            ..
        } = UNet2dConditionConfig::default();
        Self {
            sample_size: None,
            in_channels: 8,
            out_channels: 4,
            down_block_types,
            up_block_types,
            block_out_channels,
            addition_time_embed_dim: 256,
            projection_class_embeddings_input_dim: 768,
            layers_per_block: 2,
            cross_attention_dim: 1024,
            transformer_layers_per_block: PerBlock::One(1),
            num_attention_heads: PerBlock::Each(vec![5, 10, 20, 20]),
            num_frames: 25,
        }
    }
}

impl UNetSpatioTemporalConditionConfig {
    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names a field with a value that it cannot have.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        rename_blocks(&mut fields, ENDING, "2D")?;
        let config: Loaded<Self> = json::network(fields, CLASS, &[])?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as diffusers writes it.
    pub fn to_json(&self) -> String {
        to_text(self, CLASS, ENDING)
    }

    /// Fails for a value out of range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names the field.
    pub fn validate(&self) -> Result<()> {
        let levels = self.block_out_channels.len();
        let width = self.addition_time_embed_dim;
        json::check_ranges(&[
            ("in_channels", self.in_channels, 1 << 12),
            ("out_channels", self.out_channels, 1 << 12),
            ("layers_per_block", self.layers_per_block, 64),
            ("cross_attention_dim", self.cross_attention_dim, 1 << 16),
            ("block_out_channels", levels, 16),
            ("num_frames", self.num_frames, 1 << 14),
            ("addition_time_embed_dim", width, 1 << 14),
            (
                "projection_class_embeddings_input_dim",
                self.projection_class_embeddings_input_dim,
                1 << 16,
            ),
        ])?;
        let expected = "an even number";
        ensure(
            width.is_multiple_of(2),
            "addition_time_embed_dim",
            width,
            expected,
        )?;
        let input = self.projection_class_embeddings_input_dim;
        let expected = format!("a multiple of {width}, addition_time_embed_dim");
        let field = "projection_class_embeddings_input_dim";
        ensure(input.is_multiple_of(width), field, input, &expected)?;
        json::levels(
            &self.block_out_channels,
            &[
                ("down_block_types", self.down_block_types.len()),
                ("up_block_types", self.up_block_types.len()),
            ],
            0.0,
        )?;
        let (layers, heads) = (
            &self.transformer_layers_per_block,
            &self.num_attention_heads,
        );
        layers.check_len("transformer_layers_per_block", levels)?;
        heads.check_len("num_attention_heads", levels)?;
        for (level, channels) in self.block_out_channels.iter().enumerate() {
            let layers = self.transformers(level);
            json::check_ranges(&[
                ("block_out_channels", *channels, 1 << 14),
                ("transformer_layers_per_block", layers, MAX_TRANSFORMERS),
            ])?;
            json::divides(*channels, &[("num_attention_heads", self.heads(level))])?;
            let expected = format!("multiples of {GROUPS}, the groups of the norms");
            let fits = channels.is_multiple_of(GROUPS);
            ensure(fits, "block_out_channels", channels, &expected)?;
        }
        Ok(())
    }

    /// Width of the time embedding.
    pub(super) fn time_width(&self) -> usize {
        4 * self.block_out_channels[0]
    }

    /// Heads at a size of a [valid](Self::validate) configuration.
    pub(super) fn heads(&self, level: usize) -> usize {
        self.num_attention_heads.at(level).unwrap_or(1)
    }

    pub(super) fn transformers(&self, level: usize) -> usize {
        self.transformer_layers_per_block.at(level).unwrap_or(1)
    }
}
