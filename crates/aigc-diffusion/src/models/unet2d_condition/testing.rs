//! A small network and its inputs, which the tests of ControlNets have too.

use super::{
    CrossDownBlockType, CrossUpBlockType, PerBlock, UNet2dConditionConfig, UNet2dConditionModel,
};
use crate::denoiser::Conditioning;
use aigc_core::{
    device::device,
    rng::{InitWeights, Rng},
};
use burn::tensor::Tensor;

/// Two sizes, tokens of width 6, maps of two channels.
pub(in crate::models) fn small() -> UNet2dConditionConfig {
    UNet2dConditionConfig {
        in_channels: 2,
        out_channels: 2,
        down_block_types: vec![
            CrossDownBlockType::CrossAttnDownBlock2D,
            CrossDownBlockType::DownBlock2D,
        ],
        up_block_types: vec![
            CrossUpBlockType::UpBlock2D,
            CrossUpBlockType::CrossAttnUpBlock2D,
        ],
        block_out_channels: vec![8, 16],
        layers_per_block: 1,
        norm_num_groups: 4,
        cross_attention_dim: 6,
        attention_head_dim: PerBlock::One(2),
        ..UNet2dConditionConfig::default()
    }
}

pub(in crate::models) fn network(config: UNet2dConditionConfig) -> UNet2dConditionModel {
    let network = config.init(&device("flex").unwrap()).unwrap();
    network.init_weights(1)
}

pub(in crate::models) fn random<const D: usize>(seed: u64, shape: [usize; D]) -> Tensor<D> {
    Rng::new(seed).normal(shape, &device("flex").unwrap())
}

/// Tokens for two samples.
pub(in crate::models) fn condition() -> Conditioning {
    Conditioning {
        encoder_hidden_states: Some(random(7, [2, 5, 6])),
        ..Conditioning::default()
    }
}

/// Times of two samples.
pub(in crate::models) fn time() -> Tensor<1> {
    Tensor::from_floats([3.0, 500.0], &device("flex").unwrap())
}
