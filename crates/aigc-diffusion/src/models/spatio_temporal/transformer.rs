//! Attention within frames and between them.

use super::{
    config::{GROUPS, UNetSpatioTemporalConditionConfig},
    mixer::TimeMixer,
};
use crate::models::{
    attention::{Attention, AttentionConfig, PromptTokens},
    blocks::Tokens,
    time::Sinusoids,
    transformer::{FeedForward, SpatialConfig, TransformerBlock},
};
use aigc_core::{
    nn::{
        Activation, GroupNorm, GroupNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig,
    },
    ops,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};

/// Two layers from the encoded number of a frame.
#[derive(Module, Debug)]
struct FrameEmbedding {
    linear_1: Linear,
    linear_2: Linear,
}

/// The frames of a pixel as tokens: feed-forward layer, self-attention, cross-attention,
/// feed-forward layer, each around a skip.
#[derive(Module, Debug)]
struct TemporalTransformerBlock {
    norm_in: LayerNorm,
    ff_in: FeedForward,
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TemporalTransformerBlock {
    fn new(width: usize, heads: usize, context_width: usize, device: &Device) -> Self {
        let norm = || LayerNormConfig::new(width).init(device);
        let ff = || FeedForward::new(width, true, Activation::Gelu, 0.0, device);
        let attention = |context_width| {
            let config = AttentionConfig {
                context_width,
                bias: false,
                ..AttentionConfig::new(width, heads)
            };
            config.init(device)
        };
        Self {
            norm_in: norm(),
            ff_in: ff(),
            norm1: norm(),
            attn1: attention(width),
            norm2: norm(),
            attn2: attention(context_width),
            norm3: norm(),
            ff: ff(),
        }
    }

    /// # Shapes
    /// - x and output: `[batch·frames, pixels, width]`
    /// - tokens: of `batch` samples
    fn forward(&self, x: Tensor<3>, tokens: &PromptTokens, frames: usize) -> Tensor<3> {
        let [rows, pixels, width] = x.dims();
        let batch = rows / frames;
        let x: Tensor<4> = x.reshape([batch, frames, pixels, width]);
        let x: Tensor<3> = x.swap_dims(1, 2).reshape([batch * pixels, frames, width]);
        let x = x.clone() + self.ff_in.forward(self.norm_in.forward(x));
        let x = x.clone() + self.attn1.forward(self.norm1.forward(x), None);
        // All pixels and frames of a sample attend to the same tokens.
        let normed = self
            .norm2
            .forward(x.clone())
            .reshape([batch, pixels * frames, width]);
        let attended = self.attn2.cross(normed, tokens);
        let x = x + attended.reshape([batch * pixels, frames, width]);
        let x = x.clone() + self.ff.forward(self.norm3.forward(x));
        let x: Tensor<4> = x.reshape([batch, pixels, frames, width]);
        x.swap_dims(1, 2).reshape([rows, pixels, width])
    }
}

/// The tokens of a condition: for each frame, and for each sample.
#[derive(Debug)]
pub(super) struct VideoTokens {
    pub(super) of_frames: PromptTokens,
    pub(super) of_samples: PromptTokens,
}

/// Transformer blocks over the pixels of a frame, each followed by one over time.
#[derive(Module, Debug)]
pub(super) struct SpatioTemporalTransformer {
    norm: GroupNorm,
    proj_in: Linear,
    transformer_blocks: Vec<TransformerBlock>,
    temporal_transformer_blocks: Vec<TemporalTransformerBlock>,
    time_pos_embed: FrameEmbedding,
    time_mixer: TimeMixer,
    proj_out: Linear,
}

impl SpatioTemporalTransformer {
    /// The attention of a size, of a validated configuration.
    pub(super) fn new(
        config: &UNetSpatioTemporalConditionConfig,
        level: usize,
        device: &Device,
    ) -> Self {
        let (channels, heads) = (config.block_out_channels[level], config.heads(level));
        let (layers, context_width) = (config.transformers(level), config.cross_attention_dim);
        let spatial = SpatialConfig {
            channels,
            groups: GROUPS,
            heads,
            layers,
            context_width,
            linear_projection: true,
            only_cross_attention: false,
        };
        let linear = |from, to| LinearConfig::new(from, to).init(device);
        Self {
            norm: GroupNormConfig::new(GROUPS, channels)
                .with_epsilon(1e-6)
                .init(device),
            proj_in: linear(channels, channels),
            transformer_blocks: (0..layers)
                .map(|_| TransformerBlock::new(spatial, device))
                .collect(),
            temporal_transformer_blocks: (0..layers)
                .map(|_| TemporalTransformerBlock::new(channels, heads, context_width, device))
                .collect(),
            time_pos_embed: FrameEmbedding {
                linear_1: linear(channels, 4 * channels),
                linear_2: linear(4 * channels, channels),
            },
            time_mixer: TimeMixer::new(device),
            proj_out: linear(channels, channels),
        }
    }

    /// # Shapes
    /// - output: `[1, frames, 1, channels]`
    fn positions(&self, frames: usize, channels: usize, like: &Tensor<4>) -> Tensor<4> {
        let sinusoids = Sinusoids {
            width: channels,
            cosines_first: true,
            shift: 0.0,
        };
        let numbers: Vec<i32> = (0..frames as i32).collect();
        let numbers = Tensor::<1, Int>::from_ints(numbers.as_slice(), &like.device());
        let encoded = ops::cast(sinusoids.of(numbers.float()), like.dtype());
        let FrameEmbedding { linear_1, linear_2 } = &self.time_pos_embed;
        let hidden = Activation::Silu.forward(linear_1.forward(encoded));
        linear_2.forward(hidden).reshape([1, frames, 1, channels])
    }

    /// # Shapes
    /// - x and output: `[batch·frames, channels, height, width]`
    pub(super) fn forward(&self, x: Tensor<4>, tokens: &VideoTokens, frames: usize) -> Tensor<4> {
        let [rows, channels, height, width] = x.dims();
        let (batch, pixels) = (rows / frames, height * width);
        let positions = self.positions(frames, channels, &x);
        let of_frames = Tokens {
            all: &tokens.of_frames,
            visible: &tokens.of_frames,
        };
        let h = self
            .norm
            .forward(x.clone())
            .reshape([rows, channels, pixels]);
        let h = self.proj_in.forward(ops::contiguous(h.swap_dims(1, 2)));
        let blocks = self.transformer_blocks.iter();
        let h = blocks
            .zip(&self.temporal_transformer_blocks)
            .fold(h, |h, (spatial, temporal)| {
                let h = spatial.forward(h, of_frames);
                let placed: Tensor<4> = h.clone().reshape([batch, frames, pixels, channels]);
                let placed = (placed + positions.clone()).reshape([rows, pixels, channels]);
                let mixed = temporal.forward(placed, &tokens.of_samples, frames);
                self.time_mixer.forward(h, mixed)
            });
        let h: Tensor<3> = self.proj_out.forward(h).swap_dims(1, 2);
        x + h.reshape([rows, channels, height, width])
    }
}
