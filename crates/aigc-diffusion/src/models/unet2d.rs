//! `UNet2DModel`: the network of DDPM (Ho et al. 2020, appendix B), optionally class-conditional.

use super::{
    SampleSize,
    blocks::{AttentionBlock, Conditions, DownBlock, MidBlock, Shared, UpBlock, through},
    time::{FourierProjection, Sinusoids, TimeEmbedding},
};
use crate::{
    denoiser::{Conditioning, Denoiser, check_image, with_self_cond},
    json,
};
use aigc_core::{
    Error, Result,
    data::{ImageShape, SampleShape},
    nn::{
        Activation, Conv2d, Conv2dConfig, GroupNorm, GroupNormConfig, Initializer, Linear,
        LinearConfig,
    },
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

/// How blocks receive the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeScaleShift {
    /// Added before the second norm.
    Default,
    /// Scales and shifts the output of the second norm (Dhariwal & Nichol 2021, section 3).
    ScaleShift,
}

/// How a time is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimeEmbeddingType {
    /// Sines and cosines of fixed frequencies.
    Positional,
    /// Sines and cosines of `ln t` at random frequencies, which are saved (Song et al. 2021,
    /// <https://arxiv.org/abs/2011.13456>, appendix C.1). The output is divided by the time, which
    /// is σ.
    Fourier,
}

/// How a class is encoded, if not by an embedding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClassEmbedType {
    /// Its number is encoded as a time is, with layers of its own.
    Timestep,
}

/// Classes of a network that encodes their numbers as times, if its file does not say how many.
const NUMBERED_CLASSES: usize = 1000;

/// Configuration of a [`UNet2dModel`]; the fields are those of diffusers' `UNet2DModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UNet2dConfig {
    /// Size of the images that it is for.
    pub sample_size: Option<SampleSize>,
    /// Channels of an image.
    pub in_channels: usize,
    /// Channels of its output: those of an image, or twice as many with a variance.
    pub out_channels: usize,
    /// Whether inputs are in `[0, 1]` and are mapped to `[−1, 1]` first.
    pub center_input_sample: bool,
    /// How a time is encoded.
    pub time_embedding_type: TimeEmbeddingType,
    /// Width of the time embedding; four times the first block's by default.
    pub time_embedding_dim: Option<usize>,
    /// See [`Sinusoids`](https://arxiv.org/abs/1706.03762): how much lower the last frequency is.
    pub freq_shift: f64,
    /// Cosines before sines.
    pub flip_sin_to_cos: bool,
    /// Blocks of the encoder, from the largest size on.
    pub down_block_types: Vec<DownBlockType>,
    /// Blocks of the decoder, from the smallest size on.
    pub up_block_types: Vec<UpBlockType>,
    /// Channels at each size, from the largest on.
    pub block_out_channels: Vec<usize>,
    /// Layers of each encoder block; decoder blocks have one more.
    pub layers_per_block: usize,
    /// Divisor of the sums in the middle.
    pub mid_block_scale_factor: f64,
    /// Zeros around a map that is halved; 0: after its last row and column.
    pub downsample_padding: usize,
    /// Dropout probability.
    pub dropout: f64,
    /// Activation function.
    pub act_fn: String,
    /// Channels of an attention's head; all of them by default.
    pub attention_head_dim: Option<usize>,
    /// Groups of the group norms.
    pub norm_num_groups: usize,
    /// Groups of the middle attention's norm; as many by default.
    pub attn_norm_num_groups: Option<usize>,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// How blocks receive the time.
    pub resnet_time_scale_shift: TimeScaleShift,
    /// How a class is encoded; by a table of `num_class_embeds` embeddings by default.
    pub class_embed_type: Option<ClassEmbedType>,
    /// Number of class embeddings, the null class included, if there is one.
    pub num_class_embeds: Option<usize>,
    /// The class of unconditional samples, the last one, if the network has or is to learn it. A
    /// field of this library.
    pub null_class: Option<u32>,
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
            class_embed_type: None,
            num_class_embeds: None,
            null_class: None,
            add_attention: true,
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("downsample_type", "\"conv\""),
    ("upsample_type", "\"conv\""),
    ("mid_block_type", "\"UNetMidBlock2D\""),
];

impl UNet2dConfig {
    /// A small network for images of `shape`: up to three sizes of 32, 64 and 64 channels, as often
    /// as both sides can be halved and leave 4 pixels, with attention at the smallest. `classes`:
    /// number of class embeddings; see [`with_null_class`](Self::with_null_class).
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

    /// Adds a null class behind the classes, for unconditional samples and classifier-free
    /// guidance.
    pub fn with_null_class(mut self) -> Self {
        let classes = self.num_class_embeds.unwrap_or(0);
        self.null_class = Some(classes as u32);
        self.num_class_embeds = Some(classes + 1);
        self
    }

    /// A configuration from the fields of its file; the others have defaults. Also returns the
    /// fields that are unknown and ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that it cannot have, or that is not supported.
    pub fn from_json(text: &str) -> Result<(Self, Vec<String>)> {
        let (config, unused): (Self, _) =
            json::network(json::parse_object(text)?, "UNet2DModel", UNSUPPORTED)?;
        config.validate()?;
        Ok((config, unused))
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
        let fourier = self.time_embedding_type == TimeEmbeddingType::Fourier;
        let encoded = if fourier { 2 * first } else { first };
        // With scale_shift the attention in the middle has no norm of its own by default.
        let attention_groups = match self.resnet_time_scale_shift {
            TimeScaleShift::Default => {
                Some(self.attn_norm_num_groups.unwrap_or(self.norm_num_groups))
            }
            TimeScaleShift::ScaleShift => self.attn_norm_num_groups,
        };
        let groups = Some(self.norm_num_groups);
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
                (*kind == DownBlockType::AttnDownBlock2D).then(|| attend(channels[i], groups, 1.0))
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
                (*kind == UpBlockType::AttnUpBlock2D).then(|| attend(channels[level], groups, 1.0))
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
            time_proj: fourier.then(|| FourierProjection::new(first, device)),
            time_embedding: TimeEmbedding::new(encoded, shared.time, Activation::Silu, device),
            class_embedding: match (self.class_embed_type, self.num_class_embeds) {
                (Some(ClassEmbedType::Timestep), _) => {
                    Some(ClassEmbedding::of_number(encoded, shared.time, device))
                }
                (None, Some(count)) => Some(ClassEmbedding::table(count, shared.time, device)),
                (None, None) => None,
            },
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

    fn check(&self, shape: SampleShape, variance: bool) -> Result<()> {
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
        if let Some(null) = self.null_class
            && self.num_class_embeds != Some(null as usize + 1)
        {
            let expected = "the last of num_class_embeds classes";
            return Err(Error::config("null_class", null, expected));
        }
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
        "mish" => Ok(Activation::Mish),
        "quick_gelu" => Ok(Activation::QuickGelu),
        other => Err(Error::config(
            "act_fn",
            other,
            "silu, swish, gelu, relu, mish or quick_gelu",
        )),
    }
}

/// An embedding for each class.
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

/// A vector for each class: from a table, or by two layers from its encoded number.
#[derive(Module, Debug)]
struct ClassEmbedding {
    weight: Option<Param<Tensor<2>>>,
    linear_1: Option<Linear>,
    linear_2: Option<Linear>,
}

impl ClassEmbedding {
    fn table(count: usize, width: usize, device: &Device) -> Self {
        Self {
            weight: Some(Embedding::new(count, width, device).weight),
            linear_1: None,
            linear_2: None,
        }
    }

    fn of_number(encoded: usize, width: usize, device: &Device) -> Self {
        let linear = |from| Some(LinearConfig::new(from, width).init(device));
        Self {
            weight: None,
            linear_1: linear(encoded),
            linear_2: linear(width),
        }
    }

    fn forward(&self, class: Tensor<1, Int>, encode: impl Fn(Tensor<1>) -> Tensor<2>) -> Tensor<2> {
        match (&self.weight, &self.linear_1, &self.linear_2) {
            (Some(table), ..) => table.val().select(0, class),
            (None, Some(first), Some(second)) => {
                let hidden = first.forward(encode(class.float()));
                second.forward(Activation::Silu.forward(hidden))
            }
            _ => unreachable!("a table or two layers"),
        }
    }
}

/// The network of DDPM.
#[derive(Module, Debug)]
pub struct UNet2dModel {
    conv_in: Conv2d,
    time_proj: Option<FourierProjection>,
    time_embedding: TimeEmbedding,
    class_embedding: Option<ClassEmbedding>,
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
    /// Its configuration.
    pub fn config(&self) -> &UNet2dConfig {
        &self.config
    }

    #[cfg(test)]
    pub(crate) fn conv_out_bias(&self) -> Tensor<1> {
        self.conv_out
            .bias
            .as_ref()
            .expect("built with a bias")
            .val()
    }

    /// The prediction for noisy images.
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
        let encode = |time: Tensor<1>| match &self.time_proj {
            Some(fourier) => fourier.forward(time, config.flip_sin_to_cos),
            None => sinusoids.of(time),
        };
        let mut embedding = self.time_embedding.forward(encode(time.clone()));
        if let Some(classes) = &self.class_embedding {
            let class = class.expect("a class-conditional network needs class labels");
            embedding = embedding + classes.forward(class, encode);
        }
        // Every block begins with the same activation of it.
        let embedding = self.activation.forward(embedding);
        let conditions = Conditions {
            time: &embedding,
            tokens: None,
        };
        let x = through(
            self.conv_in.forward(x),
            conditions,
            &self.down_blocks,
            &self.mid_block,
            &self.up_blocks,
        );
        let output = self.conv_out.forward(
            self.conv_norm_out
                .forward_with_activation(x, Activation::Silu),
        );
        match self.time_proj {
            Some(_) => output / time.reshape([-1, 1, 1, 1]),
            None => output,
        }
    }
}

impl Denoiser for UNet2dModel {
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        let x = with_self_cond(x, self.config.in_channels, condition);
        self.forward(x, time, condition.class_labels.clone())
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape, true)
    }

    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape, false)
    }

    fn num_classes(&self) -> Option<usize> {
        let numbered = self.config.class_embed_type.map(|_| NUMBERED_CLASSES);
        self.config.num_class_embeds.or(numbered)
    }

    fn null_class(&self) -> Option<u32> {
        self.config.null_class
    }

    fn supports_self_conditioning(&self, channels: usize) -> bool {
        self.config.in_channels == 2 * channels
    }

    fn sample_shape(&self) -> Option<SampleShape> {
        let [height, width] = self.config.sample_size?.sides();
        let channels = self.config.in_channels.min(self.config.out_channels);
        Some(SampleShape::new(&[channels, height, width]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::{
        device::device,
        params::{ParamVisitor, visit_params},
        rng::InitWeights,
    };

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
    fn output_keeps_shape_and_depends_on_time_and_class() {
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

    fn names(network: &UNet2dModel) -> Vec<String> {
        struct Names(Vec<String>);
        impl ParamVisitor for Names {
            fn visit<const D: usize>(&mut self, path: &str, _: &Param<Tensor<D>>) {
                self.0.push(path.into());
            }
        }
        let mut names = Names(vec![]);
        visit_params(network, &mut names);
        names.0
    }

    /// The largest difference between the outputs for two images that are alike.
    fn change(network: &UNet2dModel, times: [f32; 2], classes: Option<[i32; 2]>) -> f32 {
        let flex = device("flex").unwrap();
        let x = Tensor::<4>::ones([2, 1, 12, 8], &flex);
        let classes = classes.map(|classes| Tensor::from_ints(classes, &flex));
        let out = network.forward(x, Tensor::from_floats(times, &flex), classes);
        (out.clone().narrow(0, 0, 1) - out.narrow(0, 1, 1))
            .abs()
            .max()
            .into_scalar()
    }

    #[test]
    fn class_numbers_are_encoded_as_times() {
        let flex = device("flex").unwrap();
        let (config, unused) = UNet2dConfig::from_json(
            r#"{"class_embed_type": "timestep", "block_out_channels": [8],
            "down_block_types": ["DownBlock2D"], "up_block_types": ["UpBlock2D"],
            "in_channels": 1, "out_channels": 1, "norm_num_groups": 4}"#,
        )
        .unwrap();
        assert!(unused.is_empty());
        let network = config.init(&flex).unwrap().init_weights(1);
        assert_eq!(network.num_classes(), Some(1000));
        let keys = names(&network);
        assert!(
            keys.iter()
                .any(|key| key == "class_embedding.linear_2.weight")
        );
        assert!(change(&network, [5.0; 2], Some([3, 3])) < 1e-6);
        assert!(change(&network, [5.0; 2], Some([3, 40])) > 1e-4);
    }

    /// `[sin, cos]` or `[cos, sin]` of `2π·w·ln t`, and the output over the time.
    #[test]
    fn fourier_embedding_matches_its_formula() {
        let flex = device("flex").unwrap();
        let config = UNet2dConfig {
            time_embedding_type: TimeEmbeddingType::Fourier,
            ..small()
        };
        let network = config.init(&flex).unwrap().init_weights(1);
        let projection = network.time_proj.as_ref().unwrap();
        let values = |tensor: Tensor<2>| tensor.into_data().iter::<f32>().collect::<Vec<_>>();
        let found = values(projection.forward(Tensor::from_floats([3.0], &flex), false));
        let weights = values(projection.weight().unsqueeze());
        for (i, weight) in weights.iter().enumerate() {
            let angle = std::f32::consts::TAU * weight * 3f32.ln();
            assert!(
                (found[i] - angle.sin()).abs() < 1e-3 && (found[i + 8] - angle.cos()).abs() < 1e-3
            );
        }
        assert!(change(&network, [0.5, 80.0], None) > 1e-4);
    }

    /// With scale_shift the attention in the middle has no norm, unless it is requested.
    #[test]
    fn scale_shift_attention_has_no_norm_by_default() {
        let flex = device("flex").unwrap();
        let norms = |attn_norm_num_groups, resnet_time_scale_shift| {
            let config = UNet2dConfig {
                attn_norm_num_groups,
                resnet_time_scale_shift,
                ..small()
            };
            let keys = names(&config.init(&flex).unwrap());
            let norm = |key: &&String| key.starts_with("mid_block.attentions.0.group_norm");
            keys.iter().filter(norm).count()
        };
        assert_eq!(norms(None, TimeScaleShift::ScaleShift), 0);
        assert_eq!(norms(Some(4), TimeScaleShift::ScaleShift), 2);
        assert_eq!(norms(None, TimeScaleShift::Default), 2);
    }

    #[test]
    fn activations_are_known_by_their_names() {
        let flex = device("flex").unwrap();
        let output = |act_fn: &str| -> Vec<f32> {
            let config = UNet2dConfig {
                act_fn: act_fn.into(),
                ..small()
            };
            let network = config.init(&flex).unwrap().init_weights(1);
            let x = Tensor::<4>::ones([1, 1, 12, 8], &flex);
            let time = Tensor::<1>::from_floats([5.0], &flex);
            network.forward(x, time, None).into_data().iter().collect()
        };
        let outputs = ["silu", "gelu", "relu", "mish", "quick_gelu"].map(&output);
        for (i, one) in outputs.iter().enumerate() {
            assert!(outputs[..i].iter().all(|other| other != one), "{i}");
        }
        assert_eq!(output("swish"), outputs[0]);
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
    fn config_rejects_values_by_name() {
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
                    num_class_embeds: Some(3),
                    null_class: Some(1),
                    ..small()
                },
                "`null_class` is 1",
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
                r#"{"class_embed_type": "identity"}"#,
                "`class_embed_type` is \"identity\"",
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
