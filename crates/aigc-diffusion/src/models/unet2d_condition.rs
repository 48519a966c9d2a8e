//! `UNet2DConditionModel`: a U-net with cross-attention, to the vectors of a text encoder for
//! instance (Rombach et al. 2022,
//! <https://arxiv.org/abs/2112.10752>).

use super::{
    SampleSize,
    blocks::{Conditions, DownBlock, MidBlock, Shared, UpBlock, through},
    time::{Sinusoids, TimeEmbedding},
    transformer::{SpatialConfig, SpatialTransformer},
    unet2d::TimeScaleShift,
};
use crate::{
    denoiser::{Conditioning, Denoiser, check_image},
    json,
};
use aigc_core::{
    Error, Result,
    data::SampleShape,
    nn::{Activation, Conv2d, Conv2dConfig, GroupNorm, GroupNormConfig, diffusers::activation},
    weights::Loaded,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// Blocks at one size on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CrossDownBlockType {
    /// Convolutions.
    DownBlock2D,
    /// Convolutions, and attention to tokens.
    CrossAttnDownBlock2D,
}

/// Blocks at one size on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CrossUpBlockType {
    /// Convolutions.
    UpBlock2D,
    /// Convolutions, and attention to tokens.
    CrossAttnUpBlock2D,
}

/// One number for all blocks, or one for each block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerBlock {
    /// The number of every block.
    One(usize),
    /// A number for each block, from the largest size on.
    Each(Vec<usize>),
}

impl PerBlock {
    fn at(&self, level: usize) -> Option<usize> {
        match self {
            PerBlock::One(n) => Some(*n),
            PerBlock::Each(all) => all.get(level).copied(),
        }
    }
}

/// Configuration of a [`UNet2dConditionModel`]; the fields are those of diffusers'
/// `UNet2DConditionModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UNet2dConditionConfig {
    /// Size of the images that it is for.
    pub sample_size: Option<SampleSize>,
    /// Channels of an image.
    pub in_channels: usize,
    /// Channels of its output.
    pub out_channels: usize,
    /// Whether inputs are in `[0, 1]` and are mapped to `[−1, 1]` first.
    pub center_input_sample: bool,
    /// Cosines before sines.
    pub flip_sin_to_cos: bool,
    /// How much lower the last frequency of the time is.
    pub freq_shift: f64,
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
    /// Dropout probability.
    pub dropout: f64,
    /// Activation function.
    pub act_fn: String,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Width of the tokens.
    pub cross_attention_dim: usize,
    /// Transformer blocks in each attention.
    pub transformer_layers_per_block: usize,
    /// Heads of each attention: files call their number so.
    pub attention_head_dim: PerBlock,
    /// How blocks receive the time.
    pub resnet_time_scale_shift: TimeScaleShift,
}

impl Default for UNet2dConditionConfig {
    fn default() -> Self {
        use {CrossDownBlockType::*, CrossUpBlockType::*};
        Self {
            sample_size: None,
            in_channels: 4,
            out_channels: 4,
            center_input_sample: false,
            flip_sin_to_cos: true,
            freq_shift: 0.0,
            down_block_types: vec![
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                CrossAttnDownBlock2D,
                DownBlock2D,
            ],
            up_block_types: vec![
                UpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
                CrossAttnUpBlock2D,
            ],
            block_out_channels: vec![320, 640, 1280, 1280],
            layers_per_block: 2,
            downsample_padding: 1,
            mid_block_scale_factor: 1.0,
            dropout: 0.0,
            act_fn: "silu".into(),
            norm_num_groups: 32,
            norm_eps: 1e-5,
            cross_attention_dim: 1280,
            transformer_layers_per_block: 1,
            attention_head_dim: PerBlock::One(8),
            resnet_time_scale_shift: TimeScaleShift::Default,
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("addition_embed_type", "null"),
    ("attention_type", "\"default\""),
    ("class_embed_type", "null"),
    ("conv_in_kernel", "3"),
    ("conv_out_kernel", "3"),
    ("cross_attention_norm", "null"),
    ("dual_cross_attention", "false"),
    ("encoder_hid_dim", "null"),
    ("encoder_hid_dim_type", "null"),
    ("mid_block_only_cross_attention", "null"),
    ("mid_block_type", "\"UNetMidBlock2DCrossAttn\""),
    ("num_attention_heads", "null"),
    ("num_class_embeds", "null"),
    ("only_cross_attention", "false"),
    ("resnet_out_scale_factor", "1.0"),
    ("resnet_skip_time_act", "false"),
    ("reverse_transformer_layers_per_block", "null"),
    ("time_cond_proj_dim", "null"),
    ("time_embedding_act_fn", "null"),
    ("time_embedding_dim", "null"),
    ("time_embedding_type", "\"positional\""),
    ("timestep_post_act", "null"),
    ("use_linear_projection", "false"),
];

impl UNet2dConditionConfig {
    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that it cannot have, or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let config: Loaded<Self> = json::network(
            json::parse_object(text)?,
            "UNet2DConditionModel",
            UNSUPPORTED,
        )?;
        config.validate()?;
        Ok(config)
    }

    fn check(&self, shape: SampleShape, variance: bool) -> Result<()> {
        if self.in_channels != shape.channels() {
            let expected = format!("{}, the channels of the images", shape.channels());
            return Err(Error::config("in_channels", self.in_channels, expected));
        }
        let factor = 1 << (self.block_out_channels.len() - 1);
        check_image(
            shape,
            [self.in_channels, self.out_channels],
            factor,
            variance,
        )
    }

    fn validate(&self) -> Result<Shared> {
        let levels = self.block_out_channels.len();
        let [height, width] = self.sample_size.map_or([1, 1], SampleSize::sides);
        json::check_ranges(&[
            ("sample_size", height, 1 << 14),
            ("sample_size", width, 1 << 14),
            ("in_channels", self.in_channels, 1 << 12),
            ("out_channels", self.out_channels, 1 << 12),
            ("layers_per_block", self.layers_per_block, 64),
            (
                "transformer_layers_per_block",
                self.transformer_layers_per_block,
                64,
            ),
            ("cross_attention_dim", self.cross_attention_dim, 1 << 16),
            ("block_out_channels", levels, 16),
        ])?;
        json::levels(
            &self.block_out_channels,
            &[
                ("down_block_types", self.down_block_types.len()),
                ("up_block_types", self.up_block_types.len()),
            ],
            self.freq_shift,
        )?;
        for (level, channels) in self.block_out_channels.iter().enumerate() {
            json::check_ranges(&[("block_out_channels", *channels, 1 << 14)])?;
            let Some(heads) = self.attention_head_dim.at(level) else {
                return Err(Error::config(
                    "attention_head_dim",
                    "too short",
                    format!("{levels} numbers"),
                ));
            };
            json::divides(
                *channels,
                &[
                    ("norm_num_groups", self.norm_num_groups),
                    ("attention_head_dim", heads),
                ],
            )?;
        }
        Shared {
            time: 4 * self.block_out_channels[0],
            groups: self.norm_num_groups,
            epsilon: self.norm_eps,
            activation: activation(&self.act_fn)?,
            dropout: self.dropout,
            scale_shift: self.resnet_time_scale_shift == TimeScaleShift::ScaleShift,
            head_width: None,
        }
        .checked(self.mid_block_scale_factor, self.downsample_padding)
    }

    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<UNet2dConditionModel> {
        let shared = self.validate()?;
        let channels = &self.block_out_channels;
        let levels = channels.len();
        let conv = |from, to| {
            Conv2dConfig::new([from, to], 3)
                .with_padding(1)
                .init(device)
        };
        let attend = |level: usize| {
            let config = SpatialConfig {
                channels: channels[level],
                groups: self.norm_num_groups,
                heads: self.attention_head_dim.at(level).expect("validated"),
                layers: self.transformer_layers_per_block,
                context_width: self.cross_attention_dim,
            };
            config.init(device)
        };
        let down = |(level, kind): (usize, &CrossDownBlockType)| {
            let from = channels[level.saturating_sub(1)];
            let padding = (level + 1 < levels).then_some(self.downsample_padding);
            let attention =
                || (*kind == CrossDownBlockType::CrossAttnDownBlock2D).then(|| attend(level));
            DownBlock::new(
                &shared,
                [from, channels[level]],
                self.layers_per_block,
                attention,
                padding,
                device,
            )
        };
        let up = |(i, kind): (usize, &CrossUpBlockType)| {
            let level = levels - 1 - i;
            let from = channels[(level + 1).min(levels - 1)];
            let mut skips = vec![channels[level]; self.layers_per_block];
            skips.push(channels[level.saturating_sub(1)]);
            let attention =
                || (*kind == CrossUpBlockType::CrossAttnUpBlock2D).then(|| attend(level));
            UpBlock::new(
                &shared,
                [from, channels[level]],
                &skips,
                attention,
                level > 0,
                device,
            )
        };
        let (first, last) = (channels[0], channels[levels - 1]);
        let middle = Some(attend(levels - 1));
        Ok(UNet2dConditionModel {
            conv_in: conv(self.in_channels, first),
            time_embedding: TimeEmbedding::new(first, shared.time, shared.activation, device),
            down_blocks: self.down_block_types.iter().enumerate().map(down).collect(),
            mid_block: MidBlock::new(&shared, last, middle, self.mid_block_scale_factor, device),
            up_blocks: self.up_block_types.iter().enumerate().map(up).collect(),
            conv_norm_out: GroupNormConfig::new(self.norm_num_groups, first)
                .with_epsilon(self.norm_eps)
                .init(device),
            conv_out: conv(first, self.out_channels),
            activation: shared.activation,
            config: self.clone(),
        })
    }
}

/// A U-net with cross-attention.
#[derive(Module, Debug)]
pub struct UNet2dConditionModel {
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    down_blocks: Vec<DownBlock<SpatialTransformer>>,
    mid_block: MidBlock<SpatialTransformer>,
    up_blocks: Vec<UpBlock<SpatialTransformer>>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    config: UNet2dConditionConfig,
}

impl UNet2dConditionModel {
    /// The configuration of the network.
    pub fn config(&self) -> &UNet2dConditionConfig {
        &self.config
    }

    /// The prediction for noisy images.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, height, width]`, sides divisible by 2 for each size but the
    ///   smallest
    /// - time: `[batch]`
    /// - tokens: `[batch, tokens, cross_attention_dim]`
    /// - output: `[batch, out_channels, height, width]`
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn forward(&self, x: Tensor<4>, time: Tensor<1>, tokens: &Tensor<3>) -> Tensor<4> {
        let config = &self.config;
        let x = if config.center_input_sample {
            x * 2.0 - 1.0
        } else {
            x
        };
        let sinusoids = Sinusoids {
            width: config.block_out_channels[0],
            cosines_first: config.flip_sin_to_cos,
            shift: config.freq_shift,
        };
        let time = self
            .activation
            .forward(self.time_embedding.forward(sinusoids.of(time)));
        let conditions = Conditions {
            time: &time,
            tokens: Some(tokens),
        };
        let x = through(
            self.conv_in.forward(x),
            conditions,
            &self.down_blocks,
            &self.mid_block,
            &self.up_blocks,
        );
        self.conv_out.forward(
            self.conv_norm_out
                .forward_with_activation(x, self.activation),
        )
    }
}

impl Denoiser for UNet2dConditionModel {
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        let hidden_states = condition.encoder_hidden_states.as_ref();
        let hidden_states = hidden_states.expect("a network with cross-attention needs vectors");
        self.forward(x, time, hidden_states)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape, true)
    }

    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape, false)
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        Some(self.config.cross_attention_dim)
    }

    fn sample_shape(&self) -> Option<SampleShape> {
        let [height, width] = self.config.sample_size?.sides();
        Some(SampleShape::new(&[self.config.in_channels, height, width]))
    }
}
