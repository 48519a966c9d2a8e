//! Configuration of motion modules.

use super::hook::UNetLayout;
use crate::{
    json,
    models::{PerBlock, config_methods::json_methods, unet2d_condition::one_number},
};
use aigc_core::{Error, Result, check::ensure};
use serde::{Deserialize, Serialize};

/// Limit on transformer blocks of a motion module.
const MAX_TRANSFORMERS: usize = 64;
/// Limit on positions.
const MAX_POSITIONS: usize = 1 << 14;

/// Configuration of a [`MotionAdapter`](super::MotionAdapter); the fields are those of diffusers'
/// `MotionAdapter`, and so is the default, which fits Stable Diffusion 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct MotionAdapterConfig {
    /// Channels of the U-net at each size, from the largest on.
    pub block_out_channels: Vec<usize>,
    /// Layers of each encoder block of the U-net.
    #[serde(deserialize_with = "one_number")]
    pub motion_layers_per_block: usize,
    /// Transformer blocks in each motion module, for all sizes or for each.
    pub motion_transformer_layers_per_block: PerBlock,
    /// Transformer blocks in the motion module at the smallest size.
    #[serde(deserialize_with = "one_number")]
    pub motion_transformer_layers_per_mid_block: usize,
    /// Heads of each attention, for all sizes or for each.
    pub motion_num_attention_heads: PerBlock,
    /// Groups of the group norms.
    pub motion_norm_num_groups: usize,
    /// Positions: the most frames of a video.
    pub motion_max_seq_length: usize,
    /// Whether there is a motion module at the smallest size.
    pub use_motion_mid_block: bool,
}

impl Default for MotionAdapterConfig {
    fn default() -> Self {
        Self {
            block_out_channels: vec![320, 640, 1280, 1280],
            motion_layers_per_block: 2,
            motion_transformer_layers_per_block: PerBlock::One(1),
            motion_transformer_layers_per_mid_block: 1,
            motion_num_attention_heads: PerBlock::One(8),
            motion_norm_num_groups: 32,
            motion_max_seq_length: 32,
            use_motion_mid_block: true,
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("conv_in_channels", "null"),
    ("motion_mid_block_layers_per_block", "1"),
];

impl MotionAdapterConfig {
    json_methods!("MotionAdapter", UNSUPPORTED);

    /// Motion modules for a U-net of this layout, with up to eight heads.
    pub fn for_layout(layout: &UNetLayout) -> Self {
        let heads = |channels: &usize| {
            let most = (1..=8).rev().find(|heads| channels.is_multiple_of(*heads));
            most.unwrap_or(1)
        };
        Self {
            block_out_channels: layout.block_out_channels.clone(),
            motion_layers_per_block: layout.layers_per_block,
            motion_num_attention_heads: PerBlock::Each(
                layout.block_out_channels.iter().map(heads).collect(),
            ),
            motion_norm_num_groups: layout.norm_num_groups,
            ..Self::default()
        }
    }

    /// Fails for a value out of range.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn validate(&self) -> Result<()> {
        let levels = self.block_out_channels.len();
        json::check_ranges(&[
            ("block_out_channels", levels, 16),
            ("motion_layers_per_block", self.motion_layers_per_block, 64),
            (
                "motion_transformer_layers_per_mid_block",
                self.motion_transformer_layers_per_mid_block,
                MAX_TRANSFORMERS,
            ),
            (
                "motion_max_seq_length",
                self.motion_max_seq_length,
                MAX_POSITIONS,
            ),
        ])?;
        let layers = &self.motion_transformer_layers_per_block;
        layers.check_len("motion_transformer_layers_per_block", levels)?;
        let heads = &self.motion_num_attention_heads;
        heads.check_len("motion_num_attention_heads", levels)?;
        for (level, channels) in self.block_out_channels.iter().enumerate() {
            json::check_ranges(&[
                ("block_out_channels", *channels, 1 << 14),
                (
                    "motion_transformer_layers_per_block",
                    self.layers(level),
                    MAX_TRANSFORMERS,
                ),
            ])?;
            json::divides(
                *channels,
                &[
                    ("motion_norm_num_groups", self.motion_norm_num_groups),
                    ("motion_num_attention_heads", self.heads(level)),
                ],
            )?;
        }
        Ok(())
    }

    /// Fails for a U-net of another layout.
    ///
    /// # Errors
    /// [`Error::Config`] names the field, with both values.
    pub(super) fn check_layout(&self, layout: &UNetLayout) -> Result<()> {
        let of_network = |value: String| format!("{value}, that of the image network");
        ensure(
            self.block_out_channels == layout.block_out_channels,
            "motion_adapter: block_out_channels",
            format!("{:?}", self.block_out_channels),
            &of_network(format!("{:?}", layout.block_out_channels)),
        )?;
        for (field, found, expected) in [
            (
                "motion_adapter: motion_layers_per_block",
                self.motion_layers_per_block,
                layout.layers_per_block,
            ),
            // Files of both in one have a single number of groups.
            (
                "motion_adapter: motion_norm_num_groups",
                self.motion_norm_num_groups,
                layout.norm_num_groups,
            ),
        ] {
            let same = found == expected;
            ensure(same, field, found, &of_network(expected.to_string()))?;
        }
        Ok(())
    }

    /// Fails for more frames than there are positions.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with `num_frames` and `motion_max_seq_length`.
    pub fn check_frames(&self, frames: usize) -> Result<()> {
        let most = self.motion_max_seq_length;
        if (1..=most).contains(&frames) {
            return Ok(());
        }
        let expected = format!("1 to {most} frames: motion_max_seq_length is {most}");
        Err(Error::argument("num_frames", frames, expected))
    }

    /// Heads at a size of a [valid](Self::validate) configuration.
    pub(super) fn heads(&self, level: usize) -> usize {
        self.motion_num_attention_heads.at(level).unwrap_or(1)
    }

    pub(super) fn layers(&self, level: usize) -> usize {
        self.motion_transformer_layers_per_block
            .at(level)
            .unwrap_or(1)
    }
}
