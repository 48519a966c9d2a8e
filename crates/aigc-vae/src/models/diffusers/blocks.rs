//! Encoder and decoder of the models.

use super::architecture::Architecture;
use aigc_core::nn::{
    Activation, Conv2d, Conv2dConfig, GroupNorm, GroupNormConfig,
    diffusers::{
        Downsample2d, Downsample2dConfig, ResnetBlock2d, ResnetBlock2dConfig, SpatialAttention,
        SpatialAttentionConfig, Upsample2d, Upsample2dConfig,
    },
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Epsilon of all norms.
const EPSILON: f64 = 1e-6;

/// Activation before the last convolution, which `act_fn` does not change.
const LAST_ACTIVATION: Activation = Activation::Silu;

/// Creates layers with the settings that all of them share.
struct Layers<'a> {
    architecture: Architecture<'a>,
    activation: Activation,
    device: &'a Device,
}

impl Layers<'_> {
    fn conv(&self, channels: [usize; 2]) -> Conv2d {
        Conv2dConfig::new(channels, 3)
            .with_padding(1)
            .init(self.device)
    }

    fn norm(&self, channels: usize) -> GroupNorm {
        GroupNormConfig::new(self.architecture.norm_num_groups, channels)
            .with_epsilon(EPSILON)
            .init(self.device)
    }

    /// `count` blocks, of which the first changes the number of channels.
    fn resnets(&self, [from, to]: [usize; 2], count: usize) -> Vec<ResnetBlock2d> {
        let resnet = |i| {
            let from = if i == 0 { from } else { to };
            ResnetBlock2dConfig::new([from, to], self.architecture.norm_num_groups)
                .with_epsilon(EPSILON)
                .with_activation(self.activation)
                .init(self.device)
        };
        (0..count).map(resnet).collect()
    }

    fn mid_block(&self, channels: usize) -> MidBlock {
        let attention = || {
            SpatialAttentionConfig::new(channels)
                .with_num_groups(Some(self.architecture.norm_num_groups))
                .with_epsilon(EPSILON)
                .init(self.device)
        };
        let attentions = self.architecture.mid_block_add_attention.then(attention);
        MidBlock {
            attentions: attentions.into_iter().collect(),
            resnets: self.resnets([channels, channels], 2),
        }
    }
}

/// Blocks of an encoder at one size.
#[derive(Module, Debug)]
pub(crate) struct DownEncoderBlock {
    resnets: Vec<ResnetBlock2d>,
    /// One, or none at the smallest size.
    downsamplers: Vec<Downsample2d>,
}

impl DownEncoderBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = residual(&self.resnets, x);
        self.downsamplers.iter().fold(x, |x, down| down.forward(x))
    }
}

/// Blocks of a decoder at one size.
#[derive(Module, Debug)]
pub(crate) struct UpDecoderBlock {
    resnets: Vec<ResnetBlock2d>,
    /// One, or none at the largest size.
    upsamplers: Vec<Upsample2d>,
}

impl UpDecoderBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = residual(&self.resnets, x);
        self.upsamplers.iter().fold(x, |x, up| up.forward(x))
    }
}

/// The blocks at the smallest size: a residual block, attention, a residual block.
#[derive(Module, Debug)]
pub(crate) struct MidBlock {
    /// One or none.
    attentions: Vec<SpatialAttention>,
    resnets: Vec<ResnetBlock2d>,
}

impl MidBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = residual(&self.resnets[..1], x);
        let x = self.attentions.iter().fold(x, |x, a| a.forward(x));
        residual(&self.resnets[1..], x)
    }
}

fn residual(blocks: &[ResnetBlock2d], x: Tensor<4>) -> Tensor<4> {
    blocks.iter().fold(x, |x, block| block.forward(x, None))
}

/// From images to maps, whose sides are halved after every block but the last.
#[derive(Module, Debug)]
pub(crate) struct Encoder {
    conv_in: Conv2d,
    down_blocks: Vec<DownEncoderBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    /// `outputs`: number of output channels.
    pub(crate) fn new(
        architecture: Architecture<'_>,
        activation: Activation,
        outputs: usize,
        device: &Device,
    ) -> Self {
        let layers = Layers {
            architecture,
            activation,
            device,
        };
        let channels = architecture.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        let down = |(level, to): (usize, &usize)| {
            let from = channels[level.saturating_sub(1)];
            let downsampler = || Downsample2dConfig::new(*to).with_padding(0).init(device);
            DownEncoderBlock {
                resnets: layers.resnets([from, *to], architecture.layers_per_block),
                downsamplers: (level + 1 < channels.len())
                    .then(downsampler)
                    .into_iter()
                    .collect(),
            }
        };
        Self {
            conv_in: layers.conv([architecture.in_channels, first]),
            down_blocks: channels.iter().enumerate().map(down).collect(),
            mid_block: layers.mid_block(last),
            conv_norm_out: layers.norm(last),
            conv_out: layers.conv([last, outputs]),
        }
    }

    /// # Shapes
    /// - x: `[batch, in_channels, height, width]`, in `[−1, 1]`
    /// - output: `[batch, outputs, height / factor, width / factor]`
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.conv_in.forward(x);
        let x = self.down_blocks.iter().fold(x, |x, block| block.forward(x));
        let x = self.mid_block.forward(x);
        self.conv_out.forward(
            self.conv_norm_out
                .forward_with_activation(x, LAST_ACTIVATION),
        )
    }
}

/// From latent maps to images; the sides are doubled after every block but the last.
#[derive(Module, Debug)]
pub(crate) struct Decoder {
    conv_in: Conv2d,
    up_blocks: Vec<UpDecoderBlock>,
    mid_block: MidBlock,
    conv_norm_out: GroupNorm,
    pub(crate) conv_out: Conv2d,
}

impl Decoder {
    pub(crate) fn new(
        architecture: Architecture<'_>,
        activation: Activation,
        device: &Device,
    ) -> Self {
        let layers = Layers {
            architecture,
            activation,
            device,
        };
        let channels = architecture.block_out_channels;
        let (first, last) = (channels[0], channels[channels.len() - 1]);
        // From the smallest size on.
        let up = |(level, to): (usize, &usize)| {
            let from = channels[(level + 1).min(channels.len() - 1)];
            let upsampler = || Upsample2dConfig::new(*to).init(device);
            UpDecoderBlock {
                resnets: layers.resnets([from, *to], architecture.layers_per_block + 1),
                upsamplers: (level > 0).then(upsampler).into_iter().collect(),
            }
        };
        Self {
            conv_in: layers.conv([architecture.latent_channels, last]),
            up_blocks: channels.iter().enumerate().rev().map(up).collect(),
            mid_block: layers.mid_block(last),
            conv_norm_out: layers.norm(first),
            conv_out: layers.conv([first, architecture.out_channels]),
        }
    }

    /// # Shapes
    /// - z: `[batch, latent_channels, height, width]`
    /// - output: `[batch, out_channels, factor·height, factor·width]`, in `[−1, 1]` and around it
    pub(crate) fn forward(&self, z: Tensor<4>) -> Tensor<4> {
        let x = self.mid_block.forward(self.conv_in.forward(z));
        let x = self.up_blocks.iter().fold(x, |x, block| block.forward(x));
        self.conv_out.forward(
            self.conv_norm_out
                .forward_with_activation(x, LAST_ACTIVATION),
        )
    }
}
