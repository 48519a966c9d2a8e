//! `DiTTransformer2DModel`: a transformer over the patches of an image (Peebles & Xie 2023,
//! <https://arxiv.org/abs/2212.09748>).

use super::{
    attention::{Attention, AttentionConfig},
    time::{Sinusoids, TimeEmbedding},
    transformer::{FeedForward, feed_forward_activation},
    transformers::{modulated_norm, positions, unpatched},
    unet2d::Embedding,
};
use crate::{
    denoiser::{Conditioning, Denoiser, check_image, with_self_cond},
    json,
};
use aigc_core::{
    Error, Result, check,
    data::SampleShape,
    nn::{Activation, Conv2d, Conv2dConfig, Linear, LinearConfig},
    ops,
    weights::Loaded,
};
use burn::{
    module::Module,
    tensor::{DType, Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Configuration of a [`DitModel`]; the fields are those of diffusers' `DiTTransformer2DModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DitConfig {
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Width of a head.
    pub attention_head_dim: usize,
    /// Channels of an image.
    pub in_channels: usize,
    /// Channels of its output: those of an image by default, twice as many with a variance.
    pub out_channels: Option<usize>,
    /// Number of blocks.
    pub num_layers: usize,
    /// Dropout probability.
    pub dropout: f64,
    /// Whether queries, keys and values have biases.
    pub attention_bias: bool,
    /// Side of the images that it is for.
    pub sample_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Activation function of the feed-forward layers.
    pub activation_fn: String,
    /// Number of classes, without the null class.
    pub num_embeds_ada_norm: usize,
    /// Epsilon of the norm before feed-forward layers.
    pub norm_eps: f64,
}

impl Default for DitConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: None,
            num_layers: 28,
            dropout: 0.0,
            attention_bias: true,
            sample_size: 32,
            patch_size: 2,
            activation_fn: "gelu-approximate".into(),
            num_embeds_ada_norm: 1000,
            norm_eps: 1e-5,
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("norm_type", "\"ada_norm_zero\""),
    ("norm_elementwise_affine", "false"),
    ("cross_attention_dim", "null"),
    ("num_vector_embeds", "null"),
    ("caption_channels", "null"),
    ("double_self_attention", "false"),
    ("only_cross_attention", "false"),
    ("use_linear_projection", "false"),
    ("attention_type", "\"default\""),
];

/// The class that DiT had in older versions of diffusers, and the defaults of its fields where they
/// are not those of [`DitConfig`].
pub(super) const OLD_CLASS: &str = "Transformer2DModel";
const OLD_DEFAULTS: &[(&str, &str)] = &[
    ("attention_head_dim", "88"),
    ("in_channels", "null"),
    ("num_layers", "1"),
    ("attention_bias", "false"),
    ("sample_size", "null"),
    ("patch_size", "null"),
    ("activation_fn", "\"geglu\""),
    ("num_embeds_ada_norm", "null"),
    ("norm_type", "\"layer_norm\""),
    ("norm_elementwise_affine", "true"),
];

/// Takes the name of the class of older versions away, and adds the fields that are missing.
pub(super) fn fill_old_defaults(fields: &mut Map<String, Value>) {
    fields.remove("_class_name");
    for (field, default) in OLD_DEFAULTS {
        let default = || serde_json::from_str(default).expect("JSON");
        fields.entry(*field).or_insert_with(default);
    }
}

impl DitConfig {
    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that it cannot have, or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        if fields
            .get("_class_name")
            .is_some_and(|class| class == OLD_CLASS)
        {
            fill_old_defaults(&mut fields);
        }
        let config: Loaded<Self> = json::network(fields, "DiTTransformer2DModel", UNSUPPORTED)?;
        config.validate()?;
        Ok(config)
    }

    fn width(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    fn check(&self, shape: SampleShape, variance: bool) -> Result<()> {
        let out = self.out_channels.unwrap_or(self.in_channels);
        check_image(shape, [self.in_channels, out], self.patch_size, variance)
    }

    fn validate(&self) -> Result<Activation> {
        json::check_ranges(&[
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("attention_head_dim", self.attention_head_dim, 1 << 10),
            ("in_channels", self.in_channels, 1 << 12),
            ("out_channels", self.out_channels.unwrap_or(1), 1 << 12),
            ("num_layers", self.num_layers, 1 << 10),
            ("sample_size", self.sample_size, 1 << 14),
            ("patch_size", self.patch_size, 1 << 8),
            ("num_embeds_ada_norm", self.num_embeds_ada_norm, 1 << 20),
        ])?;
        if !self.width().is_multiple_of(4) {
            let expected = "a width that 4 divides, for sines and cosines of rows and columns";
            return Err(Error::config(
                "attention_head_dim",
                self.attention_head_dim,
                expected,
            ));
        }
        if !self.sample_size.is_multiple_of(self.patch_size) {
            return Err(Error::config(
                "patch_size",
                self.patch_size,
                "a divisor of sample_size",
            ));
        }
        check::positive("norm_eps", self.norm_eps)?;
        feed_forward_activation(&self.activation_fn, self.dropout)
    }

    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<DitModel> {
        let activation = self.validate()?;
        let width = self.width();
        let proj = Conv2dConfig::new([self.in_channels, width], self.patch_size)
            .with_stride(self.patch_size);
        let attention = AttentionConfig {
            bias: self.attention_bias,
            dropout: self.dropout,
            ..AttentionConfig::new(width, self.num_attention_heads)
        };
        let block = |_| DitBlock {
            norm1: AdaNorm {
                emb: TimeAndClass {
                    timestep_embedder: TimeEmbedding::new(256, width, Activation::Silu, device),
                    class_embedder: ClassEmbedder {
                        embedding_table: Embedding::new(
                            self.num_embeds_ada_norm + 1,
                            width,
                            device,
                        ),
                    },
                },
                linear: LinearConfig::new(width, 6 * width).init(device),
            },
            attn1: attention.init(device),
            ff: FeedForward::new(width, false, activation, self.dropout, device),
        };
        let out = self.out_channels.unwrap_or(self.in_channels);
        Ok(DitModel {
            pos_embed: Patches {
                proj: proj.init(device),
            },
            transformer_blocks: (0..self.num_layers).map(block).collect(),
            proj_out_1: LinearConfig::new(width, 2 * width).init(device),
            proj_out_2: LinearConfig::new(width, self.patch_size * self.patch_size * out)
                .init(device),
            config: self.clone(),
        })
    }
}

/// The patches of an image as tokens.
#[derive(Module, Debug)]
struct Patches {
    proj: Conv2d,
}

/// A vector for each class, and one for the null class.
#[derive(Module, Debug)]
struct ClassEmbedder {
    embedding_table: Embedding,
}

#[derive(Module, Debug)]
struct TimeAndClass {
    timestep_embedder: TimeEmbedding,
    class_embedder: ClassEmbedder,
}

impl TimeAndClass {
    /// `[batch, width]`, in the type `dtype`.
    fn forward(&self, time: Tensor<1>, class: Tensor<1, Int>, dtype: DType) -> Tensor<2> {
        let sinusoids = Sinusoids {
            width: 256,
            cosines_first: true,
            shift: 1.0,
        };
        let class = self.class_embedder.embedding_table.of(class);
        let time = ops::cast(sinusoids.of(time), dtype);
        self.timestep_embedder.forward(time) + ops::cast(class, dtype)
    }
}

/// Scales, shifts and gates of a block, by time and class (section 3.2, adaLN-Zero).
#[derive(Module, Debug)]
struct AdaNorm {
    emb: TimeAndClass,
    linear: Linear,
}

#[derive(Module, Debug)]
struct DitBlock {
    norm1: AdaNorm,
    attn1: Attention,
    ff: FeedForward,
}

/// `[batch, 1, width]` each, for all tokens of a sample.
fn parts<const N: usize>(embedding: Tensor<2>) -> [Tensor<3>; N] {
    let parts = embedding.unsqueeze_dim::<3>(1).chunk(N, 2);
    parts.try_into().expect("a width of N parts")
}

impl DitBlock {
    fn forward(
        &self,
        x: Tensor<3>,
        time: Tensor<1>,
        class: Tensor<1, Int>,
        epsilon: f64,
    ) -> Tensor<3> {
        let embedding = self.norm1.emb.forward(time, class, x.dtype());
        let embedding = self
            .norm1
            .linear
            .forward(Activation::Silu.forward(embedding));
        let [shift, scale, gate, shift_ff, scale_ff, gate_ff] = parts(embedding);
        let h = modulated_norm(x.clone(), scale, shift, 1e-6);
        let x = x + self.attn1.forward(h, None) * gate;
        let h = modulated_norm(x.clone(), scale_ff, shift_ff, epsilon);
        x + self.ff.forward(h) * gate_ff
    }
}

/// A transformer over the patches of an image.
#[derive(Module, Debug)]
pub struct DitModel {
    pos_embed: Patches,
    transformer_blocks: Vec<DitBlock>,
    proj_out_1: Linear,
    proj_out_2: Linear,
    #[module(skip)]
    config: DitConfig,
}

impl DitModel {
    /// The configuration of the network.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// The prediction for noisy images.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, side, side]`, a multiple of the patch
    /// - time: `[batch]`
    /// - class: `[batch]`; the number of classes is the null class
    /// - output: `[batch, out_channels, side, side]`
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn forward(&self, x: Tensor<4>, time: Tensor<1>, class: Tensor<1, Int>) -> Tensor<4> {
        let config = &self.config;
        let (patch, width) = (config.patch_size, config.width());
        let x = self.pos_embed.proj.forward(x);
        let [batch, _, rows, columns] = x.dims();
        let trained = (config.sample_size / patch) as f64;
        let steps = [rows, columns].map(|count| trained / count as f64);
        let positions = positions(width, [rows, columns], steps, &x.device());
        let positions = ops::cast(positions, x.dtype());
        let mut x = x.reshape([batch, width, rows * columns]).swap_dims(1, 2) + positions;
        for block in &self.transformer_blocks {
            x = block.forward(x, time.clone(), class.clone(), config.norm_eps);
        }
        let first = &self.transformer_blocks[0].norm1;
        let embedding = first.emb.forward(time, class, x.dtype());
        let embedding = Activation::Silu.forward(embedding);
        let [shift, scale] = parts(self.proj_out_1.forward(embedding));
        let x = self
            .proj_out_2
            .forward(modulated_norm(x, scale, shift, 1e-6));
        unpatched(x, [rows, columns], patch)
    }
}

impl Denoiser for DitModel {
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        let x = with_self_cond(x, self.config.in_channels, condition);
        let labels = condition.class_labels.clone();
        let labels = labels.expect("a class-conditional network needs class labels");
        self.forward(x, time, labels)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape, true)
    }

    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.config.check(shape, false)
    }

    fn num_classes(&self) -> Option<usize> {
        Some(self.config.num_embeds_ada_norm + 1)
    }

    /// The last class embedding is that of the null class.
    fn null_class(&self) -> Option<u32> {
        Some(self.config.num_embeds_ada_norm as u32)
    }

    fn supports_self_conditioning(&self, channels: usize) -> bool {
        self.config.in_channels == 2 * channels
    }

    fn sample_shape(&self) -> Option<SampleShape> {
        let config = &self.config;
        let out = config.out_channels.unwrap_or(config.in_channels);
        let side = config.sample_size;
        Some(SampleShape::new(&[config.in_channels.min(out), side, side]))
    }

    fn component(&self) -> &'static str {
        "transformer"
    }
}
