//! `MotionAdapter`: the motion modules of a video network, without its image network.

use super::{
    adapter_config::MotionAdapterConfig,
    hook::{LayerHook, UNetLayer},
    temporal::{TemporalConfig, TemporalTransformer},
};
use crate::models::files::network_methods;
use aigc_core::{
    Result,
    nn::diffusers::diffusers_key,
    weights::{Loaded, OpenOptions, WeightDtype, WeightReader, open_model},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::path::Path;

/// The motion modules of a block.
#[derive(Module, Debug)]
struct MotionModules {
    motion_modules: Vec<TemporalTransformer>,
}

/// Motion modules for the layers of a U-net of images (Guo et al. 2023,
/// <https://arxiv.org/abs/2307.04725>). [`WithMotion`](super::WithMotion) joins them to it.
#[derive(Module, Debug)]
pub struct MotionAdapter {
    down_blocks: Vec<MotionModules>,
    mid_block: Option<MotionModules>,
    up_blocks: Vec<MotionModules>,
    #[module(skip)]
    config: MotionAdapterConfig,
}

impl MotionAdapterConfig {
    /// Motion modules on `device`, for training: each of them passes its maps unchanged until it is
    /// trained.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<MotionAdapter> {
        self.validate()?;
        let modules = |level: usize, layers: usize, count: usize| {
            let channels = self.block_out_channels[level];
            let config = TemporalConfig {
                channels,
                groups: self.motion_norm_num_groups,
                heads: self.heads(level),
                head_width: channels / self.heads(level),
                layers,
                positions: Some(self.motion_max_seq_length),
                zero_output: true,
            };
            MotionModules {
                motion_modules: (0..count).map(|_| config.init(device)).collect(),
            }
        };
        let (levels, count) = (self.block_out_channels.len(), self.motion_layers_per_block);
        let middle = self.motion_transformer_layers_per_mid_block;
        Ok(MotionAdapter {
            down_blocks: (0..levels)
                .map(|level| modules(level, self.layers(level), count))
                .collect(),
            mid_block: self
                .use_motion_mid_block
                .then(|| modules(levels - 1, middle, 1)),
            up_blocks: (0..levels)
                .rev()
                .map(|level| modules(level, self.layers(level), count + 1))
                .collect(),
            config: self.clone(),
        })
    }
}

impl MotionAdapter {
    network_methods!(MotionAdapterConfig);

    /// The configuration of the motion modules.
    pub fn config(&self) -> &MotionAdapterConfig {
        &self.config
    }

    /// A hook that applies the motion modules after the layers of a U-net, for samples of `frames`
    /// frames.
    pub(super) fn hook(&self, frames: usize) -> impl LayerHook + '_ {
        Moving {
            adapter: self,
            frames,
        }
    }
}

/// Motion modules and the number of frames of the samples that they are applied to.
struct Moving<'a> {
    adapter: &'a MotionAdapter,
    frames: usize,
}

impl LayerHook for Moving<'_> {
    fn after_layer(&self, layer: UNetLayer, x: Tensor<4>) -> Tensor<4> {
        let MotionAdapter {
            down_blocks,
            mid_block,
            up_blocks,
            ..
        } = self.adapter;
        match layer.find(down_blocks, mid_block.as_ref(), up_blocks) {
            Some((block, layer)) => block.motion_modules[layer].forward(x, self.frames),
            None => x,
        }
    }
}
