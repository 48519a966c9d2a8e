//! The layers over time of a 3-D U-net.

use super::config::UNet3dConditionConfig;
use crate::models::{
    CrossDownBlockType, CrossUpBlockType,
    motion::{
        LayerHook, UNetLayer,
        frames::{into_batch, out_of_batch},
        temporal::{TemporalConfig, TemporalTransformer},
    },
};
use aigc_core::nn::{
    Activation, Conv3d, Conv3dConfig, Dropout, DropoutConfig, GroupNorm, GroupNormConfig,
    Initializer,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Dropout probability of convolutions over time, as in diffusers.
const DROPOUT: f64 = 0.1;
/// Heads of the first attention over time.
const FIRST_HEADS: usize = 8;

/// Norm, two layers of dropout, convolution. The first dropout takes the place that files number
/// for the activation; it does nothing.
type Convolution = (GroupNorm, Dropout, Dropout, Conv3d);

/// Four convolutions over time around a skip.
#[derive(Module, Debug)]
struct TemporalConv {
    conv1: (GroupNorm, Dropout, Conv3d),
    conv2: Convolution,
    conv3: Convolution,
    conv4: Convolution,
}

impl TemporalConv {
    /// The last convolution is zero at first.
    fn new(channels: usize, groups: usize, device: &Device) -> Self {
        let norm = || GroupNormConfig::new(groups, channels).init(device);
        let dropout = |probability| DropoutConfig::new(probability).init();
        let config = || Conv3dConfig::new([channels, channels], [3, 1, 1]).with_padding([1, 0, 0]);
        let conv =
            |config: Conv3dConfig| (norm(), dropout(0.0), dropout(DROPOUT), config.init(device));
        Self {
            conv1: (norm(), dropout(0.0), config().init(device)),
            conv2: conv(config()),
            conv3: conv(config()),
            conv4: conv(config().with_initializer(Initializer::ZEROS)),
        }
    }

    /// # Shapes
    /// - x and output: `[batch·frames, channels, height, width]`
    fn forward(&self, x: Tensor<4>, frames: usize) -> Tensor<4> {
        let h = out_of_batch(x.clone(), frames);
        let (norm, _, conv) = &self.conv1;
        let h = conv.forward(norm.forward_with_activation(h, Activation::Silu));
        let h = [&self.conv2, &self.conv3, &self.conv4].into_iter().fold(
            h,
            |h, (norm, _, dropout, conv)| {
                let h = norm.forward_with_activation(h, Activation::Silu);
                conv.forward(dropout.forward(h))
            },
        );
        x + into_batch(h).0
    }
}

/// The layers over time of a block.
#[derive(Module, Debug)]
struct TemporalBlock {
    temp_convs: Vec<TemporalConv>,
    /// As many as the attentions of the block.
    temp_attentions: Vec<TemporalTransformer>,
}

/// The layers over time of a network.
#[derive(Module, Debug)]
pub(super) struct TemporalLayers {
    transformer_in: TemporalTransformer,
    down_blocks: Vec<TemporalBlock>,
    mid_block: TemporalBlock,
    up_blocks: Vec<TemporalBlock>,
}

impl TemporalLayers {
    /// The layers of a network with a validated configuration.
    pub(super) fn new(config: &UNet3dConditionConfig, device: &Device) -> Self {
        let channels = &config.block_out_channels;
        let levels = channels.len();
        let (groups, head_width) = (config.norm_num_groups, config.attention_head_dim);
        let attention = |channels: usize, heads: usize| {
            let config = TemporalConfig {
                channels,
                groups,
                heads,
                head_width,
                layers: 1,
                positions: None,
                zero_output: false,
            };
            config.init(device)
        };
        let block = |level: usize, convolutions: usize, attentions: usize| {
            let channels = channels[level];
            TemporalBlock {
                temp_convs: (0..convolutions)
                    .map(|_| TemporalConv::new(channels, groups, device))
                    .collect(),
                temp_attentions: (0..attentions)
                    .map(|_| attention(channels, channels / head_width))
                    .collect(),
            }
        };
        let layers = config.layers_per_block;
        let down = |(level, kind): (usize, &CrossDownBlockType)| {
            let attends = *kind == CrossDownBlockType::CrossAttnDownBlock2D;
            block(level, layers, if attends { layers } else { 0 })
        };
        let up = |(i, kind): (usize, &CrossUpBlockType)| {
            let attends = *kind == CrossUpBlockType::CrossAttnUpBlock2D;
            let layers = layers + 1;
            block(levels - 1 - i, layers, if attends { layers } else { 0 })
        };
        Self {
            transformer_in: attention(channels[0], FIRST_HEADS),
            down_blocks: config
                .down_block_types
                .iter()
                .enumerate()
                .map(down)
                .collect(),
            mid_block: block(levels - 1, 2, 1),
            up_blocks: config.up_block_types.iter().enumerate().map(up).collect(),
        }
    }

    /// A hook that applies the layers between those of the network of frames, for samples of
    /// `frames` frames.
    pub(super) fn hook(&self, frames: usize) -> impl LayerHook + '_ {
        Between {
            layers: self,
            frames,
        }
    }
}

/// The layers over time, and the number of frames of the samples that they are applied to.
struct Between<'a> {
    layers: &'a TemporalLayers,
    frames: usize,
}

impl Between<'_> {
    /// The block of a layer, and the number of the layer in it.
    fn block(&self, layer: UNetLayer) -> Option<(&TemporalBlock, usize)> {
        let TemporalLayers {
            down_blocks,
            mid_block,
            up_blocks,
            ..
        } = self.layers;
        layer.find(down_blocks, Some(mid_block), up_blocks)
    }
}

impl LayerHook for Between<'_> {
    fn after_convolutions(&self, layer: UNetLayer, x: Tensor<4>) -> Tensor<4> {
        match self.block(layer) {
            Some((block, layer)) => block.temp_convs[layer].forward(x, self.frames),
            None => x,
        }
    }

    fn after_layer(&self, layer: UNetLayer, x: Tensor<4>) -> Tensor<4> {
        let attention = match self.block(layer) {
            Some((block, layer)) => block.temp_attentions.get(layer),
            None => Some(&self.layers.transformer_in),
        };
        match attention {
            Some(attention) => attention.forward(x, self.frames),
            None => x,
        }
    }
}
