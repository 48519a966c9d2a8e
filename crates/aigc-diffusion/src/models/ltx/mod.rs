//! `LTXVideoTransformer3DModel`: the transformer of LTX-Video (HaCohen et al. 2024,
//! <https://arxiv.org/abs/2501.00103>). Its input and output are tokens, or latents with a token for
//! each position.

mod config;
mod rotary;
#[cfg(all(test, feature = "flex"))]
mod tests;

pub use config::LtxVideoTransformer3dConfig;

use super::{
    attention::{Attention, AttentionConfig, PromptTokens},
    files::network_methods,
    time::{Sinusoids, TimeEmbedding},
    transformer::FeedForward,
    transformers::{RotaryTable, modulated_norm},
    wan::block::{parts, table, widened},
};
use crate::{Conditioning, Denoiser};
use aigc_core::{
    Result,
    data::SampleShape,
    nn::{Activation, Linear, LinearConfig, diffusers::diffusers_key},
    ops,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::{Module, Param},
    tensor::{Bool, Device, Tensor},
};
use rotary::rotary;
use std::path::Path;

/// The encoding of times.
const SINUSOIDS: Sinusoids = Sinusoids {
    width: 256,
    cosines_first: true,
    shift: 0.0,
};
/// Epsilon of the norms of queries and keys.
const ATTENTION_EPSILON: f64 = 1e-5;
/// Epsilon of the norm before the output.
const LAST_EPSILON: f64 = 1e-6;

impl LtxVideoTransformer3dConfig {
    /// The network on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<LtxVideoTransformer3dModel> {
        self.validate()?;
        let (width, activation) = (self.width(), self.activation()?);
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        let embedding = |from, activation| TimeEmbedding::new(from, width, activation, device);
        let attention = AttentionConfig {
            bias: self.attention_bias,
            whole_norm: Some(ATTENTION_EPSILON),
            out_bias: self.attention_out_bias,
            ..AttentionConfig::new(width, self.num_attention_heads)
        };
        let block = |_| LtxBlock {
            attn1: attention.init(device),
            attn2: attention.init(device),
            ff: FeedForward::new(width, false, activation, 0.0, device),
            scale_shift_table: table([6, width], device),
        };
        Ok(LtxVideoTransformer3dModel {
            proj_in: linear(self.in_channels, width),
            scale_shift_table: table([2, width], device),
            time_embed: AdaNormSingle {
                emb: TimestepEmbedding {
                    timestep_embedder: embedding(SINUSOIDS.width, Activation::Silu),
                },
                linear: linear(width, 6 * width),
            },
            caption_projection: embedding(self.caption_channels, Activation::GeluTanh),
            transformer_blocks: (0..self.num_layers).map(block).collect(),
            proj_out: linear(width, self.outputs()),
            config: self.clone(),
        })
    }
}

#[derive(Module, Debug)]
struct TimestepEmbedding {
    timestep_embedder: TimeEmbedding,
}

/// Scales, shifts and gates of all blocks (Chen et al. 2023, <https://arxiv.org/abs/2310.00426>,
/// section 2.3).
#[derive(Module, Debug)]
struct AdaNormSingle {
    emb: TimestepEmbedding,
    linear: Linear,
}

#[derive(Module, Debug)]
struct LtxBlock {
    attn1: Attention,
    attn2: Attention,
    ff: FeedForward,
    /// `[6, width]`
    scale_shift_table: Param<Tensor<2>>,
}

impl LtxBlock {
    fn forward(
        &self,
        x: Tensor<3>,
        conditions: &Tensor<3>,
        prompts: &PromptTokens,
        rotary: &RotaryTable,
        epsilon: f64,
    ) -> Tensor<3> {
        let table = self.scale_shift_table.val().unsqueeze::<3>();
        let [shift, scale, gate, shift_ff, scale_ff, gate_ff] = parts(table, conditions.clone());
        let normed = rms_normed(x.clone(), epsilon) * (scale + 1.0) + shift;
        let x = x + self.attn1.forward(normed, Some(rotary)) * gate;
        let x = x.clone() + self.attn2.cross(x, prompts);
        let normed = rms_normed(x.clone(), epsilon) * (scale_ff + 1.0) + shift_ff;
        x + self.ff.forward(normed) * gate_ff
    }
}

/// `x / √(mean(x²) + ε)` over the last axis, without weights.
fn rms_normed(x: Tensor<3>, epsilon: f64) -> Tensor<3> {
    let dtype = x.dtype();
    let x = widened(x);
    let mean_square = (x.clone() * x.clone()).mean_dim(2);
    ops::cast(x * (mean_square + epsilon).sqrt().recip(), dtype)
}

/// What [`LtxVideoTransformer3dModel::forward`] takes besides tokens and time, with the names of
/// diffusers.
#[derive(Clone, Debug)]
pub struct LtxVideoInputs {
    /// Hidden states of the prompt, `[batch, text tokens, caption_channels]`.
    pub encoder_hidden_states: Tensor<3>,
    /// Which of them are attended to, `[batch, text tokens]`: true for tokens of the prompt.
    /// `None`: all.
    pub encoder_attention_mask: Option<Tensor<2, Bool>>,
    /// Frames of the tokens.
    pub num_frames: usize,
    /// Rows of the tokens.
    pub height: usize,
    /// Columns of the tokens.
    pub width: usize,
    /// Distances of neighbouring frames in seconds, and of neighbouring rows and columns in pixels.
    /// `None`: positions are counted.
    pub rope_interpolation_scale: Option<[f64; 3]>,
}

/// The transformer of LTX-Video.
#[derive(Module, Debug)]
pub struct LtxVideoTransformer3dModel {
    proj_in: Linear,
    /// `[2, width]`
    scale_shift_table: Param<Tensor<2>>,
    time_embed: AdaNormSingle,
    caption_projection: TimeEmbedding,
    transformer_blocks: Vec<LtxBlock>,
    proj_out: Linear,
    #[module(skip)]
    config: LtxVideoTransformer3dConfig,
}

impl LtxVideoTransformer3dModel {
    network_methods!(LtxVideoTransformer3dConfig);

    /// The configuration of the network.
    pub fn config(&self) -> &LtxVideoTransformer3dConfig {
        &self.config
    }

    /// The prediction for the noisy tokens of videos.
    ///
    /// # Shapes
    /// - hidden_states: `[batch, num_frames·height·width, in_channels]`, frames before rows before
    ///   columns
    /// - timestep: `[batch]`, 0 to 1000
    /// - output: `[batch, num_frames·height·width, out_channels]`
    ///
    /// # Panics
    /// If the shapes do not fit.
    pub fn forward(
        &self,
        hidden_states: Tensor<3>,
        timestep: Tensor<1>,
        inputs: &LtxVideoInputs,
    ) -> Tensor<3> {
        let (config, dtype) = (&self.config, hidden_states.dtype());
        let (width, device) = (config.width(), hidden_states.device());
        let [batch, tokens, _] = hidden_states.dims();
        let sizes = [inputs.num_frames, inputs.height, inputs.width];
        let count = sizes.iter().product::<usize>();
        assert_eq!(tokens, count, "tokens of {sizes:?}");
        let patch = [config.patch_size_t, config.patch_size, config.patch_size];
        let heads = [config.num_attention_heads, config.attention_head_dim];
        let scale = inputs.rope_interpolation_scale;
        let rotary = rotary(sizes, scale, patch, heads, &device);

        let sinusoids = ops::cast(SINUSOIDS.of(timestep), dtype);
        let embedding = self.time_embed.emb.timestep_embedder.forward(sinusoids);
        let conditions = self
            .time_embed
            .linear
            .forward(Activation::Silu.forward(embedding.clone()))
            .reshape([batch, 6, width]);
        let states = ops::cast(inputs.encoder_hidden_states.clone(), dtype);
        let prompts = PromptTokens::new(states, inputs.encoder_attention_mask.clone());
        let prompts = prompts.map(|tokens| self.caption_projection.forward(tokens));

        let x = self.proj_in.forward(hidden_states);
        let x = self.transformer_blocks.iter().fold(x, |x, block| {
            block.forward(x, &conditions, &prompts, &rotary, config.norm_eps)
        });
        let table = self.scale_shift_table.val().unsqueeze::<3>();
        let [shift, scale] = parts(table, embedding.unsqueeze_dim(1));
        self.proj_out
            .forward(modulated_norm(x, scale, shift, LAST_EPSILON))
    }
}

impl Denoiser<5> for LtxVideoTransformer3dModel {
    /// The prediction for latents: a token for each of their positions, which are counted.
    /// [`forward`](Self::forward) takes other distances.
    ///
    /// # Panics
    /// Without `encoder_hidden_states`.
    fn predict(&self, x: Tensor<5>, time: Tensor<1>, condition: &Conditioning<5>) -> Tensor<5> {
        let states = condition.encoder_hidden_states.clone();
        let [batch, channels, num_frames, height, width] = x.dims();
        let inputs = LtxVideoInputs {
            encoder_hidden_states: states.expect("this network needs encoder hidden states"),
            encoder_attention_mask: condition.encoder_attention_mask.clone(),
            num_frames,
            height,
            width,
            rope_interpolation_scale: None,
        };
        let tokens = x.reshape([batch, channels, num_frames * height * width]);
        let y = self.forward(tokens.swap_dims(1, 2), time, &inputs);
        let shape = [batch, self.config.outputs(), num_frames, height, width];
        y.swap_dims(1, 2).reshape(shape)
    }

    fn check_shape(&self, shape: SampleShape) -> Result<()> {
        self.config.check_shape(shape)
    }

    fn cross_attention_dim(&self) -> Option<usize> {
        Some(self.config.caption_channels)
    }

    fn component(&self) -> &'static str {
        "transformer"
    }
}
