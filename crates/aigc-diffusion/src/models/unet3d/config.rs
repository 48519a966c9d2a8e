//! Configuration of the 3-D U-net.

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

const CLASS: &str = "UNet3DConditionModel";

/// Configuration of a [`UNet3dConditionModel`](super::UNet3dConditionModel); the fields are those
/// of diffusers' `UNet3DConditionModel`, and so is the default.
///
/// Blocks have the names of those of images, `DownBlock2D` for `DownBlock3D`: the layers over time
/// belong to every block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct UNet3dConditionConfig {
    /// Height and width of the frames that it is for. It processes any other size too.
    pub sample_size: Option<SampleSize>,
    /// Channels of its input.
    pub in_channels: usize,
    /// Channels of its output.
    pub out_channels: usize,
    /// Blocks of the encoder, from the largest size on.
    pub down_block_types: Vec<CrossDownBlockType>,
    /// Blocks of the decoder, from the smallest size on.
    pub up_block_types: Vec<CrossUpBlockType>,
    /// Channels at each size, from the largest on.
    pub block_out_channels: Vec<usize>,
    /// Layers of each encoder block; decoder blocks have one more.
    pub layers_per_block: usize,
    /// Zeros around a map that is halved; 0: after its last row and column.
    pub downsample_padding: usize,
    /// Divisor of the sums in the middle.
    pub mid_block_scale_factor: f64,
    /// Activation function.
    pub act_fn: String,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Width of the tokens.
    #[serde(deserialize_with = "one_number")]
    pub cross_attention_dim: usize,
    /// Width of a head of each attention.
    #[serde(deserialize_with = "one_number")]
    pub attention_head_dim: usize,
    /// Width of the encoded guidance scale, if the network receives it.
    pub time_cond_proj_dim: Option<usize>,
}

impl Default for UNet3dConditionConfig {
    fn default() -> Self {
        let UNet2dConditionConfig {
            down_block_types,
            up_block_types,
            block_out_channels,
            ..
        } = UNet2dConditionConfig::default();
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            down_block_types,
            up_block_types,
            block_out_channels,
            layers_per_block: 2,
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            act_fn: "silu".into(),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: 1024,
            attention_head_dim: 64,
            time_cond_proj_dim: None,
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[("num_attention_heads", "null")];

impl UNet3dConditionConfig {
    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names a field with a value that it cannot have,
    /// or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        rename_blocks(&mut fields, "3D", "2D")?;
        let config: Loaded<Self> = json::network(fields, CLASS, UNSUPPORTED)?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as diffusers writes it.
    pub fn to_json(&self) -> String {
        to_text(self, CLASS, "3D")
    }

    /// Fails for a value out of range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names the field.
    pub fn validate(&self) -> Result<()> {
        json::check_ranges(&[("attention_head_dim", self.attention_head_dim, 1 << 14)])?;
        for channels in &self.block_out_channels {
            json::divides(
                *channels,
                &[("attention_head_dim", self.attention_head_dim)],
            )?;
        }
        // The last activation of diffusers' class is always this one.
        let known = ["silu", "swish"].contains(&self.act_fn.as_str());
        ensure(known, "act_fn", &self.act_fn, "silu")?;
        self.frames().validate_encoder()?;
        let decoder = ("up_block_types", self.up_block_types.len());
        json::levels(&self.block_out_channels, &[decoder], 0.0)
    }

    /// The network of the frames.
    pub(super) fn frames(&self) -> UNet2dConditionConfig {
        let heads = |channels: &usize| channels / self.attention_head_dim.max(1);
        UNet2dConditionConfig {
            sample_size: self.sample_size,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            down_block_types: self.down_block_types.clone(),
            up_block_types: self.up_block_types.clone(),
            block_out_channels: self.block_out_channels.clone(),
            layers_per_block: self.layers_per_block,
            downsample_padding: self.downsample_padding,
            mid_block_scale_factor: self.mid_block_scale_factor,
            act_fn: self.act_fn.clone(),
            norm_num_groups: self.norm_num_groups,
            norm_eps: self.norm_eps,
            cross_attention_dim: self.cross_attention_dim,
            attention_head_dim: PerBlock::Each(self.block_out_channels.iter().map(heads).collect()),
            use_linear_projection: true,
            time_cond_proj_dim: self.time_cond_proj_dim,
            ..UNet2dConditionConfig::default()
        }
    }
}
