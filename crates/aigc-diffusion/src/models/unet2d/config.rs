//! Configuration of the U-net.

use crate::{
    denoiser::check_image,
    json,
    models::{SampleSize, blocks::Shared},
};
use aigc_core::{
    Error, Result,
    data::{ImageShape, SampleShape},
    nn::diffusers::activation,
    weights::Loaded,
};
use serde::{Deserialize, Serialize};

/// Blocks at one size on the way down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DownBlockType {
    /// Convolutions.
    DownBlock2D,
    /// Convolutions and self-attention.
    AttnDownBlock2D,
}

/// Blocks at one size on the way up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum UpBlockType {
    /// Convolutions.
    UpBlock2D,
    /// Convolutions and self-attention.
    AttnUpBlock2D,
}

/// How blocks receive the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimeScaleShift {
    /// Added before the second norm.
    Default,
    /// Scales and shifts the output of the second norm (Dhariwal & Nichol 2021, section 3).
    ScaleShift,
}

/// How a time is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimeEmbeddingType {
    /// Sines and cosines of fixed frequencies.
    Positional,
    /// Sines, then cosines, of `ln t` at random frequencies, which are saved (Song et al. 2021,
    /// <https://arxiv.org/abs/2011.13456>, appendix C.1). The output is divided by the time, which
    /// is σ; times must be above 0.
    Fourier,
}

/// How a class is encoded, if not by an embedding table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ClassEmbedType {
    /// The number of the class is encoded as a time is, with separate embedding layers.
    Timestep,
    /// The [vector](crate::Conditioning::class_embeddings) that is given for each sample, as wide
    /// as the time embedding. It has no weights; `num_class_embeds` has no effect.
    Identity,
    /// Two layers from the [vector](crate::Conditioning::class_embeddings) that is given for each
    /// sample; a type of [`UNet2dConditionModel`](crate::UNet2dConditionModel) only.
    Projection,
    /// One layer from the [vector](crate::Conditioning::class_embeddings) that is given for each
    /// sample; a type of [`UNet2dConditionModel`](crate::UNet2dConditionModel) only.
    SimpleProjection,
}

impl ClassEmbedType {
    /// The name in files.
    pub(in crate::models) fn name(self) -> &'static str {
        match self {
            Self::Timestep => "timestep",
            Self::Identity => "identity",
            Self::Projection => "projection",
            Self::SimpleProjection => "simple_projection",
        }
    }
}

/// Configuration of a [`UNet2dModel`](super::UNet2dModel); the fields are those of diffusers'
/// `UNet2DModel`.
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
    /// Cosines before sines, in a positional embedding.
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

    /// Adds a null class after the last class, for unconditional samples and classifier-free
    /// guidance. A configuration that has a null class stays as it is; one without classes is
    /// rejected by [`init`](Self::init).
    pub fn with_null_class(mut self) -> Self {
        if self.null_class.is_some() {
            return self;
        }
        let classes = self.num_class_embeds.unwrap_or(0);
        self.null_class = Some(classes as u32);
        self.num_class_embeds = Some(classes + 1);
        self
    }

    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that it cannot have, or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let config: Loaded<Self> =
            json::network(json::parse_object(text)?, "UNet2DModel", UNSUPPORTED)?;
        config.validate()?;
        Ok(config)
    }

    pub(super) fn check(&self, shape: SampleShape, variance: bool) -> Result<()> {
        let factor = 1 << (self.block_out_channels.len() - 1);
        check_image(
            shape,
            [self.in_channels, self.out_channels],
            factor,
            variance,
        )
    }

    /// Width of the time embedding.
    pub(super) fn time_width(&self) -> usize {
        self.time_embedding_dim.unwrap_or_else(|| {
            self.block_out_channels
                .first()
                .unwrap_or(&0)
                .saturating_mul(4)
        })
    }

    pub(super) fn validate(&self) -> Result<Shared> {
        let levels = self.block_out_channels.len();
        let [height, width] = self.sample_size.map_or([1, 1], SampleSize::sides);
        let time = self.time_width();
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
        if let Some(kind @ (ClassEmbedType::Projection | ClassEmbedType::SimpleProjection)) =
            self.class_embed_type
        {
            let expected = "timestep, identity or null";
            return Err(Error::config("class_embed_type", kind.name(), expected));
        }
        if let Some(null) = self.null_class
            && self.class_embed_type == Some(ClassEmbedType::Identity)
        {
            let expected = "none, with class_embed_type identity: the null vector is zeros";
            return Err(Error::config("null_class", null, expected));
        }
        if let Some(null) = self.null_class
            && self.num_class_embeds != Some(null as usize + 1)
        {
            let expected = "the last of num_class_embeds classes";
            return Err(Error::config("null_class", null, expected));
        }
        if self.null_class == Some(0) {
            let expected = "at least 1, after the classes: set num_class_embeds to their number \
                            before with_null_class";
            return Err(Error::config("null_class", 0, expected));
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
