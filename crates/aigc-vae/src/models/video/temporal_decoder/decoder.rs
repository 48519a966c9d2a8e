//! The decoder, whose layers see a frame alone and then all frames.

use super::{
    super::{into_batch, out_of_batch},
    config::{AutoencoderKlTemporalDecoderConfig, GROUPS},
};
use aigc_core::{
    nn::{
        Activation, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, GroupNorm, GroupNormConfig,
        Initializer,
        diffusers::{
            ResnetBlock2d, ResnetBlock2dConfig, SpatialAttention, SpatialAttentionConfig,
            Upsample2d, Upsample2dConfig,
        },
    },
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, activation::sigmoid},
};

/// Epsilon of the norms of frames alone.
const EPSILON: f64 = 1e-6;
/// Epsilon of the norms of frames together.
const TEMPORAL_EPSILON: f64 = 1e-5;

fn norm(channels: usize, epsilon: f64, device: &Device) -> GroupNorm {
    GroupNormConfig::new(GROUPS, channels)
        .with_epsilon(epsilon)
        .init(device)
}

fn conv(channels: [usize; 2], device: &Device) -> Conv2d {
    Conv2dConfig::new(channels, 3).with_padding(1).init(device)
}

/// A convolution over three frames.
fn temporal_conv(channels: usize, device: &Device) -> Conv3d {
    Conv3dConfig::new([channels, channels], [3, 1, 1])
        .with_padding([1, 0, 0])
        .init(device)
}

/// Two convolutions over time around a skip.
#[derive(Module, Debug)]
struct TemporalResnetBlock {
    norm1: GroupNorm,
    conv1: Conv3d,
    norm2: GroupNorm,
    conv2: Conv3d,
}

impl TemporalResnetBlock {
    fn forward(&self, x: Tensor<5>) -> Tensor<5> {
        let layer = |x: Tensor<5>, norm: &GroupNorm, conv: &Conv3d| {
            conv.forward(norm.forward_with_activation(x, Activation::Silu))
        };
        let h = layer(x.clone(), &self.norm1, &self.conv1);
        x + layer(h, &self.norm2, &self.conv2)
    }
}

/// A learned mean of what is computed for frames together and alone.
#[derive(Module, Debug)]
struct TimeMixer {
    /// `[1]`: the weight of frames together before the logistic function.
    mix_factor: Param<Tensor<1>>,
}

/// Convolutions of each frame, then over time.
#[derive(Module, Debug)]
struct SpatioTemporalResBlock {
    spatial_res_block: ResnetBlock2d,
    temporal_res_block: TemporalResnetBlock,
    time_mixer: TimeMixer,
}

impl SpatioTemporalResBlock {
    fn new([from, to]: [usize; 2], device: &Device) -> Self {
        Self {
            spatial_res_block: ResnetBlock2dConfig::new([from, to], GROUPS)
                .with_epsilon(EPSILON)
                .init(device),
            temporal_res_block: TemporalResnetBlock {
                norm1: norm(to, TEMPORAL_EPSILON, device),
                conv1: temporal_conv(to, device),
                norm2: norm(to, TEMPORAL_EPSILON, device),
                conv2: temporal_conv(to, device),
            },
            time_mixer: TimeMixer {
                mix_factor: Initializer::ZEROS.param([1], 1, 1, device),
            },
        }
    }

    /// # Shapes
    /// - x and output: `[batch·frames, channels, height, width]`
    fn forward(&self, x: Tensor<4>, frames: usize) -> Tensor<4> {
        let spatial = out_of_batch(self.spatial_res_block.forward(x, None), frames);
        let temporal = self.temporal_res_block.forward(spatial.clone());
        let weight = ops::cast(self.time_mixer.mix_factor.val(), spatial.dtype());
        let weight = sigmoid(weight).reshape([1, 1, 1, 1, 1]);
        into_batch(spatial.clone() + (temporal - spatial) * weight)
    }
}

#[derive(Module, Debug)]
struct MidBlock {
    /// One.
    attentions: Vec<SpatialAttention>,
    resnets: Vec<SpatioTemporalResBlock>,
}

impl MidBlock {
    /// As in diffusers, an attention is computed before a further residual block alone, and there
    /// is one attention: of three residual blocks or more, two are used.
    fn forward(&self, x: Tensor<4>, frames: usize) -> Tensor<4> {
        let x = self.resnets[0].forward(x, frames);
        let layers = self.attentions.iter().zip(&self.resnets[1..]);
        layers.fold(x, |x, (attention, resnet)| {
            resnet.forward(attention.forward(x), frames)
        })
    }
}

/// The blocks at a size.
#[derive(Module, Debug)]
struct UpBlock {
    resnets: Vec<SpatioTemporalResBlock>,
    /// One, or none at the largest size.
    upsamplers: Vec<Upsample2d>,
}

/// From latent maps to frames.
#[derive(Module, Debug)]
pub(super) struct TemporalDecoder {
    conv_in: Conv2d,
    mid_block: MidBlock,
    up_blocks: Vec<UpBlock>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    time_conv_out: Conv3d,
}

impl TemporalDecoder {
    /// Of a validated configuration.
    pub(super) fn new(config: &AutoencoderKlTemporalDecoderConfig, device: &Device) -> Self {
        let (channels, layers) = (&config.block_out_channels, config.layers_per_block);
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let resnets = |[from, to]: [usize; 2], count: usize| {
            let resnet = |i| {
                let from = if i == 0 { from } else { to };
                SpatioTemporalResBlock::new([from, to], device)
            };
            (0..count).map(resnet).collect()
        };
        let attention = SpatialAttentionConfig::new(last)
            .with_num_groups(Some(GROUPS))
            .with_epsilon(EPSILON)
            .init(device);
        // From the smallest size on.
        let up = |(level, to): (usize, &usize)| {
            let from = channels[(level + 1).min(channels.len() - 1)];
            let upsampler = || Upsample2dConfig::new(*to).init(device);
            UpBlock {
                resnets: resnets([from, *to], layers + 1),
                upsamplers: (level > 0).then(upsampler).into_iter().collect(),
            }
        };
        Self {
            conv_in: conv([config.latent_channels, last], device),
            mid_block: MidBlock {
                attentions: vec![attention],
                resnets: resnets([last, last], layers),
            },
            up_blocks: channels.iter().enumerate().rev().map(up).collect(),
            conv_norm_out: norm(first, EPSILON, device),
            conv_out: conv([first, config.out_channels], device),
            time_conv_out: temporal_conv(config.out_channels, device),
        }
    }

    /// # Shapes
    /// - z: `[batch, latent_channels, frames, height, width]`
    /// - output: `[batch, out_channels, frames, factor·height, factor·width]`
    pub(super) fn forward(&self, z: Tensor<5>) -> Tensor<5> {
        let frames = z.dims()[2];
        let x = self.conv_in.forward(into_batch(z));
        let x = self.mid_block.forward(x, frames);
        let x = self.up_blocks.iter().fold(x, |x, block| {
            let resnets = block.resnets.iter();
            let x = resnets.fold(x, |x, resnet| resnet.forward(x, frames));
            block.upsamplers.iter().fold(x, |x, up| up.forward(x))
        });
        let x = self
            .conv_norm_out
            .forward_with_activation(x, Activation::Silu);
        let x = self.conv_out.forward(x);
        self.time_conv_out.forward(out_of_batch(x, frames))
    }
}
