//! Convolutions over time after those of a frame.

use super::{config::GROUPS, mixer::TimeMixer};
use crate::models::motion::frames::{into_batch, out_of_batch};
use aigc_core::nn::{
    Activation, Conv3d, Conv3dConfig, GroupNorm, GroupNormConfig, Linear, LinearConfig,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Two convolutions over time around a skip, with the time embedding between them.
#[derive(Module, Debug)]
struct TemporalResnetBlock {
    norm1: GroupNorm,
    conv1: Conv3d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    conv2: Conv3d,
}

/// The part over time of a layer of convolutions.
#[derive(Module, Debug)]
pub(super) struct TemporalResnet {
    temporal_res_block: TemporalResnetBlock,
    time_mixer: TimeMixer,
}

impl TemporalResnet {
    pub(super) fn new(channels: usize, time: usize, epsilon: f64, device: &Device) -> Self {
        let norm = || {
            GroupNormConfig::new(GROUPS, channels)
                .with_epsilon(epsilon)
                .init(device)
        };
        let conv = || {
            Conv3dConfig::new([channels, channels], [3, 1, 1])
                .with_padding([1, 0, 0])
                .init(device)
        };
        Self {
            temporal_res_block: TemporalResnetBlock {
                norm1: norm(),
                conv1: conv(),
                time_emb_proj: LinearConfig::new(time, channels).init(device),
                norm2: norm(),
                conv2: conv(),
            },
            time_mixer: TimeMixer::new(device),
        }
    }

    /// # Shapes
    /// - x and output: `[batch·frames, channels, height, width]`
    /// - time: `[batch·frames, width]`, activated
    pub(super) fn forward(&self, x: Tensor<4>, time: &Tensor<2>, frames: usize) -> Tensor<4> {
        let block = &self.temporal_res_block;
        let x = out_of_batch(x, frames);
        let h = block
            .norm1
            .forward_with_activation(x.clone(), Activation::Silu);
        let h = block.conv1.forward(h);
        let time = block.time_emb_proj.forward(time.clone());
        let [rows, channels] = time.dims();
        let time: Tensor<5> = time.reshape([rows / frames, frames, channels, 1, 1]);
        let h = h + time.swap_dims(1, 2);
        let h = block.norm2.forward_with_activation(h, Activation::Silu);
        let mixed = self
            .time_mixer
            .forward(x.clone(), x + block.conv2.forward(h));
        into_batch(mixed).0
    }
}
