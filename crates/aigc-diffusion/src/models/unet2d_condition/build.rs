//! The parts of the network, from its configuration. A ControlNet has those of the encoder too.

use super::{
    config::UNet2dConditionConfig,
    embeddings::ClassEmbedding,
    types::{CrossDownBlockType, CrossMidBlockType, CrossUpBlockType},
};
use crate::models::{
    blocks::{DownBlock, MidBlock, Shared, UpBlock},
    time::TimeEmbedding,
    transformer::{SpatialConfig, SpatialTransformer},
};
use aigc_core::{
    Result,
    nn::{Activation, Conv2d, Conv2dConfig, Linear, LinearConfig},
};
use burn::tensor::Device;

/// A convolution that keeps the size of a map.
pub(in crate::models) fn same_size(channels: [usize; 2], kernel: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new(channels, kernel)
        .with_padding(kernel / 2)
        .init(device)
}

impl UNet2dConditionConfig {
    /// The first convolution.
    pub(in crate::models) fn conv_in(&self, device: &Device) -> Conv2d {
        let channels = [self.in_channels, self.block_out_channels[0]];
        same_size(channels, self.conv_in_kernel, device)
    }

    pub(in crate::models) fn time_embedding(
        &self,
        shared: &Shared,
        device: &Device,
    ) -> TimeEmbedding {
        let first = self.block_out_channels[0];
        let embedding = TimeEmbedding::new(first, shared.time, shared.activation, device);
        match self.time_cond_proj_dim {
            Some(width) => embedding.with_condition(width, first, device),
            None => embedding,
        }
    }

    /// `activation`: between the layers from an encoded class.
    pub(in crate::models) fn class_embedding(
        &self,
        activation: Activation,
        device: &Device,
    ) -> Option<ClassEmbedding> {
        ClassEmbedding::new(self, activation, device)
    }

    pub(in crate::models) fn add_embedding(&self, device: &Device) -> Option<TimeEmbedding> {
        self.addition_embed_type?;
        let input = self.projection_class_embeddings_input_dim?;
        let width = self.time_width();
        Some(TimeEmbedding::new(input, width, Activation::Silu, device))
    }

    pub(in crate::models) fn encoder_hid_proj(&self, device: &Device) -> Option<Linear> {
        let from = self.encoder_hid_dim?;
        Some(LinearConfig::new(from, self.cross_attention_dim).init(device))
    }

    /// Attention at a size; in the middle, pixels always attend to each other.
    fn attention(
        &self,
        level: usize,
        layers: usize,
        middle: bool,
        device: &Device,
    ) -> SpatialTransformer {
        let only_cross_attention = self.only_cross_attention.at(level).unwrap_or(false);
        let config = SpatialConfig {
            channels: self.block_out_channels[level],
            groups: self.norm_num_groups,
            heads: self.heads(level),
            layers,
            context_width: self.cross_attention_dim,
            linear_projection: self.use_linear_projection,
            only_cross_attention: only_cross_attention && !middle,
        };
        config.init(device)
    }

    /// Blocks on the way down, of a validated configuration.
    pub(in crate::models) fn down_blocks(
        &self,
        shared: &Shared,
        device: &Device,
    ) -> Result<Vec<DownBlock<SpatialTransformer>>> {
        let channels = &self.block_out_channels;
        let block = |(level, kind): (usize, &CrossDownBlockType)| {
            let numbers = match kind {
                CrossDownBlockType::DownBlock2D => vec![],
                CrossDownBlockType::CrossAttnDownBlock2D => (0..self.layers_per_block)
                    .map(|layer| self.down_transformers(level, layer))
                    .collect::<Result<Vec<_>>>()?,
            };
            let attention = |layer: usize| {
                let number = numbers.get(layer)?;
                Some(self.attention(level, *number, false, device))
            };
            let padding = (level + 1 < channels.len()).then_some(self.downsample_padding);
            Ok(DownBlock::new(
                shared,
                [channels[level.saturating_sub(1)], channels[level]],
                self.layers_per_block,
                attention,
                padding,
                device,
            ))
        };
        self.down_block_types
            .iter()
            .enumerate()
            .map(block)
            .collect()
    }

    /// The blocks at the smallest size, of a validated configuration.
    pub(in crate::models) fn mid_block(
        &self,
        shared: &Shared,
        device: &Device,
    ) -> Result<Option<MidBlock<SpatialTransformer>>> {
        let level = self.block_out_channels.len() - 1;
        let (channels, scale) = (self.block_out_channels[level], self.mid_block_scale_factor);
        Ok(match self.mid_block_type {
            Some(CrossMidBlockType::UNetMidBlock2DCrossAttn) => {
                let layers = self.down_transformers(level, 0)?;
                let attention = self.attention(level, layers, true, device);
                let attention = Some(attention);
                Some(MidBlock::new(shared, channels, attention, scale, device))
            }
            Some(CrossMidBlockType::UNetMidBlock2D) => {
                Some(MidBlock::one_layer(shared, channels, scale, device))
            }
            None => None,
        })
    }

    /// Blocks on the way up, of a validated configuration.
    pub(super) fn up_blocks(
        &self,
        shared: &Shared,
        device: &Device,
    ) -> Result<Vec<UpBlock<SpatialTransformer>>> {
        let channels = &self.block_out_channels;
        let last = channels.len() - 1;
        let block = |(i, kind): (usize, &CrossUpBlockType)| {
            let level = last - i;
            let mut skips = vec![channels[level]; self.layers_per_block];
            skips.push(channels[level.saturating_sub(1)]);
            let numbers = match kind {
                CrossUpBlockType::UpBlock2D => vec![],
                CrossUpBlockType::CrossAttnUpBlock2D => (0..skips.len())
                    .map(|layer| self.up_transformers(i, layer))
                    .collect::<Result<Vec<_>>>()?,
            };
            let attention = |layer: usize| {
                let number = numbers.get(layer)?;
                Some(self.attention(level, *number, false, device))
            };
            Ok(UpBlock::new(
                shared,
                [channels[(level + 1).min(last)], channels[level]],
                &skips,
                attention,
                level > 0,
                device,
            ))
        };
        self.up_block_types.iter().enumerate().map(block).collect()
    }
}
