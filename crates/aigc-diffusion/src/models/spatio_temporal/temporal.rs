//! What follows the convolutions of a frame in every layer: convolutions over time, and attention
//! within and between frames.

use super::{
    config::UNetSpatioTemporalConditionConfig,
    resnet::TemporalResnet,
    transformer::{SpatioTemporalTransformer, VideoTokens},
};
use crate::models::{
    CrossDownBlockType, CrossUpBlockType,
    motion::{LayerHook, UNetLayer},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Epsilon of the norms of an encoder block without attention, and of the middle.
const PLAIN_EPSILON: f64 = 1e-5;
/// Epsilon of the norms of other blocks.
const EPSILON: f64 = 1e-6;

/// Epsilon of the norms of an encoder block.
pub(super) fn down_epsilon(kind: CrossDownBlockType) -> f64 {
    match kind {
        CrossDownBlockType::DownBlock2D => PLAIN_EPSILON,
        CrossDownBlockType::CrossAttnDownBlock2D => EPSILON,
    }
}

/// Epsilon of the norms in the middle.
pub(super) const MIDDLE_EPSILON: f64 = PLAIN_EPSILON;
/// Epsilon of the norms of decoder blocks.
pub(super) const UP_EPSILON: f64 = EPSILON;

/// What follows the convolutions of a block.
#[derive(Module, Debug)]
struct TemporalBlock {
    resnets: Vec<TemporalResnet>,
    attentions: Vec<SpatioTemporalTransformer>,
}

/// What follows the convolutions of all layers.
#[derive(Module, Debug)]
pub(super) struct TemporalLayers {
    down_blocks: Vec<TemporalBlock>,
    mid_block: TemporalBlock,
    up_blocks: Vec<TemporalBlock>,
}

impl TemporalLayers {
    /// The layers of a network with a validated configuration.
    pub(super) fn new(config: &UNetSpatioTemporalConditionConfig, device: &Device) -> Self {
        let (levels, time) = (config.block_out_channels.len(), config.time_width());
        let block = |level: usize, resnets: usize, attentions: usize, epsilon: f64| {
            let channels = config.block_out_channels[level];
            TemporalBlock {
                resnets: (0..resnets)
                    .map(|_| TemporalResnet::new(channels, time, epsilon, device))
                    .collect(),
                attentions: (0..attentions)
                    .map(|_| SpatioTemporalTransformer::new(config, level, device))
                    .collect(),
            }
        };
        let layers = config.layers_per_block;
        let down = |(level, kind): (usize, &CrossDownBlockType)| {
            let attends = *kind == CrossDownBlockType::CrossAttnDownBlock2D;
            let attentions = if attends { layers } else { 0 };
            block(level, layers, attentions, down_epsilon(*kind))
        };
        let up = |(i, kind): (usize, &CrossUpBlockType)| {
            let attends = *kind == CrossUpBlockType::CrossAttnUpBlock2D;
            let attentions = if attends { layers + 1 } else { 0 };
            block(levels - 1 - i, layers + 1, attentions, UP_EPSILON)
        };
        let down_types = config.down_block_types.iter().enumerate();
        let up_types = config.up_block_types.iter().enumerate();
        Self {
            down_blocks: down_types.map(down).collect(),
            mid_block: block(levels - 1, 2, 1, MIDDLE_EPSILON),
            up_blocks: up_types.map(up).collect(),
        }
    }
}

/// A hook that applies the layers to a batch.
pub(super) struct Mixing<'a> {
    pub(super) layers: &'a TemporalLayers,
    pub(super) frames: usize,
    /// `[batch·frames, width]`, activated.
    pub(super) time: &'a Tensor<2>,
    pub(super) tokens: &'a VideoTokens,
}

impl Mixing<'_> {
    /// The block of a layer, and the number of the layer in it.
    fn block(&self, layer: UNetLayer) -> Option<(&TemporalBlock, usize)> {
        let TemporalLayers {
            down_blocks,
            mid_block,
            up_blocks,
        } = self.layers;
        layer.find(down_blocks, Some(mid_block), up_blocks)
    }
}

impl LayerHook for Mixing<'_> {
    fn after_convolutions(&self, layer: UNetLayer, x: Tensor<4>) -> Tensor<4> {
        match self.block(layer) {
            Some((block, layer)) => block.resnets[layer].forward(x, self.time, self.frames),
            None => x,
        }
    }

    fn after_layer(&self, layer: UNetLayer, x: Tensor<4>) -> Tensor<4> {
        let block = self.block(layer);
        match block.and_then(|(block, layer)| block.attentions.get(layer)) {
            Some(attention) => attention.forward(x, self.tokens, self.frames),
            None => x,
        }
    }
}
