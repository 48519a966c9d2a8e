//! `UNet2DModel`: the network of DDPM (Ho et al. 2020, appendix B), with classes if asked for.

use super::{
    SampleSize,
    blocks::{AttentionBlock, DownBlock, MidBlock, Shared, Told, UpBlock, through},
    time::{Sinusoids, TimeEmbedding},
};
use crate::json;
use aigc_core::{
    Error, Result,
    data::ImageShape,
    nn::{Activation, Conv2d, Conv2dConfig, GroupNorm, GroupNormConfig, Initializer},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};

/// Blocks at one size on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DownBlockType {
    /// Convolutions.
    DownBlock2D,
    /// Convolutions and self-attention.
    AttnDownBlock2D,
}

/// Blocks at one size on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpBlockType {
    /// Convolutions.
    UpBlock2D,
    /// Convolutions and self-attention.
    AttnUpBlock2D,
}

/// How blocks are told the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeScaleShift {
    /// It is added before the second norm.
    Default,
    /// It scales and shifts what the second norm gives (Dhariwal & Nichol 2021, section 3).
    ScaleShift,
}

/// How a time becomes numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeEmbeddingType {
    /// Sines and cosines.
    Positional,
}

/// Configuration of a [`UNet2dModel`]; the fields are those of diffusers' `UNet2DModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UNet2dConfig {
    /// Size of the images that it was made for.
    pub sample_size: Option<SampleSize>,
    /// Channels of an image.
    pub in_channels: usize,
    /// Channels of what it says: those of an image, or twice as many with a variance.
    pub out_channels: usize,
    /// Images come in `[0, 1]`.
    pub center_input_sample: bool,
    /// How a time becomes numbers.
    pub time_embedding_type: TimeEmbeddingType,
    /// Width of the time embedding; four times the first block's by default.
    pub time_embedding_dim: Option<usize>,
    /// See [`Sinusoids`](https://arxiv.org/abs/1706.03762): how much lower the last frequency is.
    pub freq_shift: f64,
    /// Cosines before sines.
    pub flip_sin_to_cos: bool,
    /// On the way down.
    pub down_block_types: Vec<DownBlockType>,
    /// On the way up.
    pub up_block_types: Vec<UpBlockType>,
    /// Channels at each size.
    pub block_out_channels: Vec<usize>,
    /// Of each block on the way down; one more on the way up.
    pub layers_per_block: usize,
    /// What sums in the middle are divided by.
    pub mid_block_scale_factor: f64,
    /// Zeros around a map that is halved; 0: after its last row and column.
    pub downsample_padding: usize,
    /// Share of values that training drops.
    pub dropout: f64,
    /// Between layers.
    pub act_fn: String,
    /// Channels of an attention's head; all of them by default.
    pub attention_head_dim: Option<usize>,
    /// Groups of norms.
    pub norm_num_groups: usize,
    /// Groups of the middle attention's norm; as many by default.
    pub attn_norm_num_groups: Option<usize>,
    /// Added to variances.
    pub norm_eps: f64,
    /// How blocks are told the time.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// Classes it is told.
    pub num_class_embeds: Option<usize>,
    /// Whether there is attention in the middle.
    pub add_attention: bool,
}

impl Default for UNet2dConfig {
    fn default() -> Self {
        use {DownBlockType::*, UpBlockType::*};
        Self {
            sample_size: None,
            in_channels: 3,
            out_channels: 3,
            center_input_sample: false,
            time_embedding_type: TimeEmbeddingType::Positional,
            time_embedding_dim: None,
            freq_shift: 0.0,
            flip_sin_to_cos: true,
            down_block_types: vec![
                DownBlock2D,
                AttnDownBlock2D,
                AttnDownBlock2D,
                AttnDownBlock2D,
            ],
            up_block_types: vec![AttnUpBlock2D, AttnUpBlock2D, AttnUpBlock2D, UpBlock2D],
            block_out_channels: vec![224, 448, 672, 896],
            layers_per_block: 2,
            mid_block_scale_factor: 1.0,
            downsample_padding: 1,
            dropout: 0.0,
            act_fn: "silu".into(),
            attention_head_dim: Some(8),
            norm_num_groups: 32,
            attn_norm_num_groups: None,
            norm_eps: 1e-5,
            resnet_time_scale_shift: TimeScaleShift::Default,
            num_class_embeds: None,
            add_attention: true,
        }
    }
}

/// Fields that change the network in ways that are not made here, and what they have to be.
const FIXED: &[(&str, &str)] = &[
    ("class_embed_type", "null"),
    ("downsample_type", "\"conv\""),
    ("upsample_type", "\"conv\""),
    ("mid_block_type", "\"UNetMidBlock2D\""),
];

impl UNet2dConfig {
    /// A small network for images of `shape`: up to three sizes of 32, 64 and 64 channels, as often
    /// as both sides can be halved and leave 4 pixels, with attention at the smallest. `classes`
    /// counts the one that stands for none, where there is to be one.
    pub fn small(shape: ImageShape, classes: Option<usize>) -> Self {
        use {DownBlockType::*, UpBlockType::*};
        let fits = |levels: &usize| {
            let factor = 1 << (levels - 1);
            [shape.height, shape.width]
                .iter()
                .all(|side| side.is_multiple_of(factor) && side / factor >= 4)
        };
        let levels = (1..=3).rev().find(fits).unwrap_or(1);
        let mut down = vec![DownBlock2D; levels];
        let mut up = vec![UpBlock2D; levels];
        (down[levels - 1], up[0]) = (AttnDownBlock2D, AttnUpBlock2D);
        Self {
            sample_size: Some(shape.into()),
            in_channels: shape.channels,
            out_channels: shape.channels,
            down_block_types: down,
            up_block_types: up,
            block_out_channels: [32, 64, 64][..levels].to_vec(),
            layers_per_block: 1,
            norm_num_groups: 8,
            num_class_embeds: classes,
            ..Self::default()
        }
    }

    /// A configuration from the fields of its file; the others have defaults. Also gives the fields
    /// that are not known and change nothing.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that cannot be one of its, or is not made here.
    pub fn from_json(text: &str) -> Result<(Self, Vec<String>)> {
        let (config, ignored): (Self, _) = json::network(text, "UNet2DModel", FIXED)?;
        config.validate()?;
        Ok((config, ignored))
    }

    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<UNet2dModel> {
        let shared = self.validate()?;
        let channels = &self.block_out_channels;
        let (levels, layers) = (channels.len(), self.layers_per_block);
        let (first, last) = (channels[0], channels[levels - 1]);
        let attention_groups = self.attn_norm_num_groups.unwrap_or(self.norm_num_groups);
        let conv = |from, to| {
            Conv2dConfig::new([from, to], 3)
                .with_padding(1)
                .init(device)
        };
        let attend =
            |channels, groups, scale| AttentionBlock::new(&shared, channels, groups, scale, device);
        let middle = self
            .add_attention
            .then(|| attend(last, attention_groups, self.mid_block_scale_factor));
        let down = |(i, kind): (usize, &DownBlockType)| {
            let from = if i == 0 { first } else { channels[i - 1] };
            let padding = (i + 1 < levels).then_some(self.downsample_padding);
            let attention = || {
                (*kind == DownBlockType::AttnDownBlock2D)
                    .then(|| attend(channels[i], self.norm_num_groups, 1.0))
            };
            DownBlock::new(
                &shared,
                [from, channels[i]],
                layers,
                attention,
                padding,
                device,
            )
        };
        let up = |(i, kind): (usize, &UpBlockType)| {
            // From the smallest size on.
            let level = levels - 1 - i;
            let from = channels[(level + 1).min(levels - 1)];
            let mut skips = vec![channels[level]; layers];
            skips.push(channels[level.saturating_sub(1)]);
            let attention = || {
                (*kind == UpBlockType::AttnUpBlock2D)
                    .then(|| attend(channels[level], self.norm_num_groups, 1.0))
            };
            UpBlock::new(
                &shared,
                [from, channels[level]],
                &skips,
                attention,
                level > 0,
                device,
            )
        };
        Ok(UNet2dModel {
            conv_in: conv(self.in_channels, first),
            time_embedding: TimeEmbedding::new(first, shared.time, Activation::Silu, device),
            class_embedding: self
                .num_class_embeds
                .map(|count| Embedding::new(count, shared.time, device)),
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

    fn validate(&self) -> Result<Shared> {
        let levels = self.block_out_channels.len();
        let [height, width] = self.sample_size.map_or([1, 1], SampleSize::sides);
        let time = self.time_embedding_dim.unwrap_or_else(|| {
            self.block_out_channels
                .first()
                .unwrap_or(&0)
                .saturating_mul(4)
        });
        json::check_ranges(&[
            ("sample_size", height, 1 << 14),
            ("sample_size", width, 1 << 14),
            ("in_channels", self.in_channels, 1 << 12),
            ("out_channels", self.out_channels, 1 << 12),
            ("layers_per_block", self.layers_per_block, 64),
            ("block_out_channels", levels, 16),
            (
                "block_out_channels",
                self.block_out_channels.first().copied().unwrap_or(1),
                1 << 14,
            ),
            (
                "num_class_embeds",
                self.num_class_embeds.unwrap_or(1),
                1 << 20,
            ),
            ("time_embedding_dim", time, 1 << 16),
        ])?;
        json::levels(
            &self.block_out_channels,
            &[
                ("down_block_types", self.down_block_types.len()),
                ("up_block_types", self.up_block_types.len()),
            ],
            self.freq_shift,
        )?;
        for channels in &self.block_out_channels {
            json::check_ranges(&[("block_out_channels", *channels, 1 << 14)])?;
            json::divides(
                *channels,
                &[
                    ("norm_num_groups", self.norm_num_groups),
                    (
                        "attn_norm_num_groups",
                        self.attn_norm_num_groups.unwrap_or(1),
                    ),
                    ("attention_head_dim", self.attention_head_dim.unwrap_or(1)),
                ],
            )?;
        }
        if self.resnet_time_scale_shift == TimeScaleShift::ScaleShift
            && self.add_attention
            && self.attn_norm_num_groups.is_none()
        {
            // The attention in the middle has no norm then.
            return Err(Error::config(
                "attn_norm_num_groups",
                "null",
                "a number, with scale_shift",
            ));
        }
        Shared {
            time,
            groups: self.norm_num_groups,
            epsilon: self.norm_eps,
            activation: activation(&self.act_fn)?,
            dropout: self.dropout,
            scale_shift: self.resnet_time_scale_shift == TimeScaleShift::ScaleShift,
            head_width: self.attention_head_dim,
        }
        .checked(self.mid_block_scale_factor, self.downsample_padding)
    }
}

/// An activation by diffusers' name.
pub(super) fn activation(name: &str) -> Result<Activation> {
    match name {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" => Ok(Activation::Gelu),
        "relu" => Ok(Activation::Relu),
        other => Err(Error::config("act_fn", other, "silu, swish, gelu or relu")),
    }
}

/// A row for each class.
#[derive(Module, Debug)]
pub(super) struct Embedding {
    weight: Param<Tensor<2>>,
}

impl Embedding {
    pub(super) fn new(rows: usize, width: usize, device: &Device) -> Self {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        Self {
            weight: normal.param([rows, width], rows, width, device),
        }
    }

    pub(super) fn of(&self, index: Tensor<1, Int>) -> Tensor<2> {
        self.weight.val().select(0, index)
    }
}

/// The network of DDPM.
#[derive(Module, Debug)]
pub struct UNet2dModel {
    conv_in: Conv2d,
    time_embedding: TimeEmbedding,
    class_embedding: Option<Embedding>,
    down_blocks: Vec<DownBlock<AttentionBlock>>,
    mid_block: MidBlock<AttentionBlock>,
    up_blocks: Vec<UpBlock<AttentionBlock>>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    config: UNet2dConfig,
}

impl UNet2dModel {
    /// What it was made of.
    pub fn config(&self) -> &UNet2dConfig {
        &self.config
    }

    #[cfg(test)]
    pub(crate) fn conv_out_bias(&self) -> Tensor<1> {
        self.conv_out.bias.as_ref().expect("made with one").val()
    }

    /// What the network says of noisy images.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, height, width]`, sides divisible by 2 for each size but the
    ///   smallest
    /// - time: `[batch]`
    /// - class: `[batch]`, for a network with classes
    /// - output: `[batch, out_channels, height, width]`
    ///
    /// # Panics
    /// If the shapes do not fit, or a class is missing.
    pub fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        class: Option<Tensor<1, Int>>,
    ) -> Tensor<4> {
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
        let mut told = self.time_embedding.forward(sinusoids.of(time));
        if let Some(classes) = &self.class_embedding {
            told = told + classes.of(class.expect("a network with classes is told one"));
        }
        // Every block begins with the same activation of it.
        let time = self.activation.forward(told);
        let told = Told {
            time: &time,
            tokens: None,
        };
        let x = through(
            self.conv_in.forward(x),
            told,
            &self.down_blocks,
            &self.mid_block,
            &self.up_blocks,
        );
        self.conv_out.forward(
            self.conv_norm_out
                .forward_with_activation(x, Activation::Silu),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::{device::device, rng::InitWeights};

    fn small() -> UNet2dConfig {
        UNet2dConfig {
            in_channels: 1,
            out_channels: 1,
            down_block_types: vec![DownBlockType::DownBlock2D, DownBlockType::AttnDownBlock2D],
            up_block_types: vec![UpBlockType::AttnUpBlock2D, UpBlockType::UpBlock2D],
            block_out_channels: vec![8, 16],
            layers_per_block: 1,
            norm_num_groups: 4,
            ..UNet2dConfig::default()
        }
    }

    #[test]
    fn images_keep_their_shape_and_time_and_class_are_heard() {
        let flex = device("flex").unwrap();
        for resnet_time_scale_shift in [TimeScaleShift::Default, TimeScaleShift::ScaleShift] {
            for downsample_padding in [0, 1] {
                let config = UNet2dConfig {
                    resnet_time_scale_shift,
                    downsample_padding,
                    num_class_embeds: Some(3),
                    attn_norm_num_groups: Some(4),
                    ..small()
                };
                let network = config.init(&flex).unwrap().init_weights(1);
                let x = Tensor::<4>::ones([3, 1, 12, 8], &flex);
                let at = |time: [f32; 3], class: [i32; 3]| {
                    network.forward(
                        x.clone(),
                        Tensor::from_floats(time, &flex),
                        Some(Tensor::from_ints(class, &flex)),
                    )
                };
                let out = at([5.0, 5.0, 900.0], [0, 1, 0]);
                assert_eq!(out.dims(), [3, 1, 12, 8]);
                let difference = |i: usize| {
                    let other = out.clone().narrow(0, i, 1) - out.clone().narrow(0, 0, 1);
                    other.abs().max().into_scalar::<f32>()
                };
                assert!(
                    difference(1) > 1e-4 && difference(2) > 1e-4,
                    "{} {}",
                    difference(1),
                    difference(2)
                );
            }
        }
    }

    #[test]
    fn small_networks_fit_their_images() {
        let flex = device("flex").unwrap();
        for (height, width, levels) in [
            (28, 28, 3),
            (8, 8, 2),
            (32, 16, 3),
            (5, 7, 1),
            (1, 1, 1),
            (12, 9, 1),
        ] {
            let config = UNet2dConfig::small(ImageShape::new(2, height, width), Some(3));
            assert_eq!(config.block_out_channels.len(), levels, "{height}×{width}");
            let network = config.init(&flex).unwrap().init_weights(0);
            let x = Tensor::<4>::ones([1, 2, height, width], &flex);
            let class = Some(Tensor::from_ints([2], &flex));
            assert_eq!(
                network
                    .forward(x, Tensor::from_floats([3.0], &flex), class)
                    .dims(),
                [1, 2, height, width]
            );
        }
    }

    #[test]
    fn what_cannot_be_made_is_refused_by_name() {
        let flex = device("flex").unwrap();
        for (config, expected) in [
            (
                UNet2dConfig {
                    block_out_channels: vec![],
                    ..small()
                },
                "`block_out_channels` is 0",
            ),
            (
                UNet2dConfig {
                    block_out_channels: vec![8],
                    ..small()
                },
                "`down_block_types` is 2 blocks",
            ),
            (
                UNet2dConfig {
                    norm_num_groups: 3,
                    ..small()
                },
                "`norm_num_groups` is 3, expected a divisor of 8",
            ),
            (
                UNet2dConfig {
                    attention_head_dim: Some(0),
                    ..small()
                },
                "`attention_head_dim` is 0",
            ),
            (
                UNet2dConfig {
                    layers_per_block: 0,
                    ..small()
                },
                "`layers_per_block` is 0",
            ),
            (
                UNet2dConfig {
                    act_fn: "magic".into(),
                    ..small()
                },
                "`act_fn` is magic",
            ),
            (
                UNet2dConfig {
                    dropout: 1.0,
                    ..small()
                },
                "`dropout` is 1",
            ),
            (
                UNet2dConfig {
                    downsample_padding: 2,
                    ..small()
                },
                "`downsample_padding` is 2",
            ),
            (
                UNet2dConfig {
                    resnet_time_scale_shift: TimeScaleShift::ScaleShift,
                    ..small()
                },
                "`attn_norm_num_groups` is null",
            ),
            (
                UNet2dConfig {
                    block_out_channels: vec![usize::MAX, 1],
                    ..small()
                },
                "`block_out_channels` is 18446744073709551615",
            ),
            (
                UNet2dConfig {
                    block_out_channels: vec![0, 8],
                    ..small()
                },
                "`block_out_channels` is 0, expected 1 to",
            ),
            (
                UNet2dConfig {
                    time_embedding_dim: Some(1 << 17),
                    ..small()
                },
                "`time_embedding_dim` is 131072",
            ),
        ] {
            let message = config.init(&flex).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        for (text, expected) in [
            (
                r#"{"class_embed_type": "timestep"}"#,
                "`class_embed_type` is \"timestep\", expected null",
            ),
            (
                r#"{"down_block_types": ["SkipDownBlock2D"]}"#,
                "`down_block_types`",
            ),
            (r#"{"in_channels": -1}"#, "`in_channels` is -1"),
            (
                r#"{"_class_name": "DiTTransformer2DModel"}"#,
                "`_class_name` is \"DiTTransformer2DModel\"",
            ),
        ] {
            let message = UNet2dConfig::from_json(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        let (_, ignored) =
            UNet2dConfig::from_json(r#"{"of_tomorrow": 1, "_class_name": "UNet2DModel"}"#).unwrap();
        assert_eq!(ignored, ["of_tomorrow"]);
    }
}
