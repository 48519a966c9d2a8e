//! `PixArtTransformer2DModel`: the transformer of PixArt-α and PixArt-Σ (Chen et al. 2023,
//! <https://arxiv.org/abs/2310.00426>; Chen et al. 2024, <https://arxiv.org/abs/2403.04692>).

mod config;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::PixArtTransformerConfig;
pub(crate) use config::{CLASS, is_old};

use super::{
    SINUSOIDS,
    patches::{PatchEmbed, modulated_norm, positions, unpatched},
};
use crate::{
    denoiser::{Conditioning, Denoiser},
    models::{
        attention::{Attention, AttentionConfig, PromptTokens},
        files::network_methods,
        time::TimeEmbedding,
        transformer::FeedForward,
    },
};
use aigc_core::{
    Result,
    data::SampleShape,
    nn::{Activation, Initializer, Linear, LinearConfig, diffusers::diffusers_key},
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::{Module, Param},
    tensor::{Bool, DType, Device, Tensor},
};
use std::path::Path;

/// Epsilon of the norm before the output.
const EPSILON: f64 = 1e-6;

impl PixArtTransformerConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<PixArtTransformerModel> {
        let activation = self.validate()?;
        let fields = self.fields();
        let width = fields.width();
        let attention = AttentionConfig {
            bias: self.attention_bias,
            dropout: self.dropout,
            ..AttentionConfig::new(width, self.num_attention_heads)
        };
        let cross = AttentionConfig {
            context_width: self.cross_attention_dim,
            ..attention
        };
        let block = |_| PixArtBlock {
            scale_shift_table: table(6, width, device),
            attn1: attention.init(device),
            attn2: cross.init(device),
            ff: FeedForward::new(width, false, activation, self.dropout, device),
        };
        let embedder = |to| TimeEmbedding::new(SINUSOIDS.width, to, Activation::Silu, device);
        let size = || self.takes_sizes().then(|| embedder(width / 3));
        let caption = |from| TimeEmbedding::new(from, width, Activation::GeluTanh, device);
        let outputs = self.patch_size * self.patch_size * fields.out_channels;
        Ok(PixArtTransformerModel {
            pos_embed: PatchEmbed::new(self.in_channels, width, self.patch_size, None, device),
            transformer_blocks: (0..self.num_layers).map(block).collect(),
            scale_shift_table: table(2, width, device),
            proj_out: LinearConfig::new(width, outputs).init(device),
            adaln_single: AdaNormSingle {
                emb: TimeSizeEmbedding {
                    timestep_embedder: embedder(width),
                    resolution_embedder: size(),
                    aspect_ratio_embedder: size(),
                },
                linear: LinearConfig::new(width, 6 * width).init(device),
            },
            caption_projection: self.caption_channels.map(caption),
            config: self.clone(),
        })
    }
}

/// What a block adds to the scales, shifts and gates of all blocks.
fn table(parts: usize, width: usize, device: &Device) -> Param<Tensor<2>> {
    let normal = Initializer::Normal {
        mean: 0.0,
        std: 1.0 / (width as f64).sqrt(),
    };
    normal.param([parts, width], width, width, device)
}

/// One vector for the time, and for the size and the aspect ratio of the image.
#[derive(Module, Debug)]
struct TimeSizeEmbedding {
    timestep_embedder: TimeEmbedding,
    resolution_embedder: Option<TimeEmbedding>,
    aspect_ratio_embedder: Option<TimeEmbedding>,
}

impl TimeSizeEmbedding {
    /// # Shapes
    /// - time: `[batch]`
    /// - sizes: `[batch, 3]`
    /// - output: `[batch, width]`, in the type `dtype`
    fn forward(&self, time: Tensor<1>, sizes: Option<Tensor<2>>, dtype: DType) -> Tensor<2> {
        let encoded = |numbers| ops::cast(SINUSOIDS.of(numbers), dtype);
        let embedding = self.timestep_embedder.forward(encoded(time));
        let (Some(resolution), Some(ratio)) =
            (&self.resolution_embedder, &self.aspect_ratio_embedder)
        else {
            return embedding;
        };
        let sizes = sizes.expect("this network needs height, width and aspect ratio");
        let batch = sizes.dims()[0];
        let embedded = |embedder: &TimeEmbedding, first, count| {
            let numbers = sizes
                .clone()
                .narrow(1, first, count)
                .reshape([batch * count]);
            let vectors = embedder.forward(encoded(numbers));
            let width = vectors.dims()[1];
            vectors.reshape([batch, count * width])
        };
        let parts = vec![embedded(resolution, 0, 2), embedded(ratio, 2, 1)];
        embedding + Tensor::cat(parts, 1)
    }
}

/// Scales, shifts and gates of all blocks, by time and size (Chen et al. 2023, section 2.3).
#[derive(Module, Debug)]
struct AdaNormSingle {
    emb: TimeSizeEmbedding,
    linear: Linear,
}

#[derive(Module, Debug)]
struct PixArtBlock {
    /// `[6, width]`.
    scale_shift_table: Param<Tensor<2>>,
    attn1: Attention,
    attn2: Attention,
    ff: FeedForward,
}

/// The sums of a table and of the conditions, `[batch, 1, width]` each.
///
/// # Shapes
/// - table: `[N, width]`
/// - conditions: `[batch, N, width]` or `[batch, 1, width]`
fn parts<const N: usize>(table: &Param<Tensor<2>>, conditions: Tensor<3>) -> [Tensor<3>; N] {
    let table = ops::cast(table.val(), conditions.dtype());
    let all = conditions + table.unsqueeze::<3>();
    std::array::from_fn(|i| all.clone().narrow(1, i, 1))
}

impl PixArtBlock {
    fn forward(
        &self,
        x: Tensor<3>,
        conditions: &Tensor<3>,
        prompts: &PromptTokens,
        epsilon: f64,
    ) -> Tensor<3> {
        let [shift, scale, gate, shift_ff, scale_ff, gate_ff] =
            parts(&self.scale_shift_table, conditions.clone());
        let normed = modulated_norm(x.clone(), scale, shift, epsilon);
        let x = x + self.attn1.forward(normed, None) * gate;
        let x = x.clone() + self.attn2.cross(x, prompts);
        let normed = modulated_norm(x.clone(), scale_ff, shift_ff, epsilon);
        x + self.ff.forward(normed) * gate_ff
    }
}

/// The transformer of PixArt.
#[derive(Module, Debug)]
pub struct PixArtTransformerModel {
    pos_embed: PatchEmbed,
    transformer_blocks: Vec<PixArtBlock>,
    /// `[2, width]`.
    scale_shift_table: Param<Tensor<2>>,
    proj_out: Linear,
    adaln_single: AdaNormSingle,
    caption_projection: Option<TimeEmbedding>,
    #[module(skip)]
    config: PixArtTransformerConfig,
}

impl PixArtTransformerModel {
    network_methods!(PixArtTransformerConfig);

    /// The configuration of the network.
    pub fn config(&self) -> &PixArtTransformerConfig {
        &self.config
    }

    /// The prediction for noisy latent maps.
    ///
    /// # Shapes
    /// - x: `[batch, in_channels, height, width]`, multiples of the patch
    /// - time: `[batch]`
    /// - encoder_hidden_states: `[batch, tokens, caption_channels]`
    /// - encoder_attention_mask: `[batch, tokens]`, true for tokens of the prompt
    /// - sizes: height, width and aspect ratio, `[batch, 3]`, of a network that
    ///   [takes them](PixArtTransformerConfig::takes_sizes)
    /// - output: `[batch, out_channels, height, width]`
    ///
    /// # Panics
    /// If the shapes do not fit, or the network takes sizes and there are none.
    pub fn forward(
        &self,
        x: Tensor<4>,
        time: Tensor<1>,
        encoder_hidden_states: Tensor<3>,
        encoder_attention_mask: Option<Tensor<2, Bool>>,
        sizes: Option<Tensor<2>>,
    ) -> Tensor<4> {
        let config = &self.config;
        let (x, patches) = self.pos_embed.forward(x);
        let [batch, _, width] = x.dims();
        let trained = (config.sample_size / config.patch_size) as f64;
        let scale = config.interpolation_scale;
        let scale = scale.unwrap_or((config.sample_size / 64).max(1) as f64);
        let steps = patches.map(|count| trained / count as f64 / scale);
        let positions = ops::cast(positions(width, patches, steps, &x.device()), x.dtype());
        let hidden_states = ops::cast(encoder_hidden_states, x.dtype());
        let prompts = PromptTokens::new(hidden_states, encoder_attention_mask);
        let prompts = match &self.caption_projection {
            Some(projection) => prompts.map(|tokens| projection.forward(tokens)),
            None => prompts,
        };
        let embedding = self.adaln_single.emb.forward(time, sizes, x.dtype());
        let conditions = Activation::Silu.forward(embedding.clone());
        let conditions = self.adaln_single.linear.forward(conditions);
        let conditions = conditions.reshape([batch, 6, width]);
        let x = self
            .transformer_blocks
            .iter()
            .fold(x + positions, |x, block| {
                block.forward(x, &conditions, &prompts, config.norm_eps)
            });
        let [shift, scale] = parts(&self.scale_shift_table, embedding.unsqueeze_dim(1));
        let x = modulated_norm(x, scale, shift, EPSILON);
        unpatched(self.proj_out.forward(x), patches, config.patch_size)
    }
}

impl Denoiser for PixArtTransformerModel {
    /// [`time_ids`](Conditioning::time_ids) are height, width and aspect ratio.
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Conditioning) -> Tensor<4> {
        let hidden_states = condition.encoder_hidden_states.clone();
        let hidden_states = hidden_states.expect("this network needs encoder hidden states");
        let mask = condition.encoder_attention_mask.clone();
        self.forward(x, time, hidden_states, mask, condition.time_ids.clone())
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.fields().check_shape(shape, true)
    }

    fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.config.fields().check_shape(shape, false)
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        let config = &self.config;
        Some(
            config
                .caption_channels
                .unwrap_or(config.cross_attention_dim),
        )
    }

    fn needs_from_pipeline(&self) -> Option<&'static str> {
        self.config.takes_sizes().then_some("time_ids")
    }

    fn sample_shape(&self) -> Option<SampleShape> {
        let side = self.config.sample_size;
        Some(SampleShape::new(&[self.config.in_channels, side, side]))
    }

    fn component(&self) -> &'static str {
        "transformer"
    }
}
