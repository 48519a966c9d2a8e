//! The block of the network.

use super::MagnitudeVocoderConfig;
use aigc_core::nn::{
    Activation, Conv1d, Conv1dConfig, Initializer, LayerNorm, LayerNormConfig, Linear, LinearConfig,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};

/// Kernel of the convolution.
pub(super) const KERNEL: usize = 7;

/// Initial layer scale.
const GAMMA: f64 = 0.3;

/// The block of ConvNeXt (Liu et al. 2022, <https://arxiv.org/abs/2201.03545>, §2.6) over time, as
/// in Vocos (Siuzdak 2023, <https://arxiv.org/abs/2306.00814>, §3.2): a depthwise convolution, layer
/// normalisation, and two linear layers with GELU in between, times the layer scale γ, added to the
/// input. γ begins as 0.3, whatever the number of blocks.
#[derive(Module, Debug)]
pub struct ConvNextBlock {
    /// Depthwise convolution.
    pub dwconv: Conv1d,
    /// Normalises the channels of each frame.
    pub norm: LayerNorm,
    /// To the intermediate channels.
    pub pwconv1: Linear,
    /// From the intermediate channels.
    pub pwconv2: Linear,
    /// Layer scale γ, `[dim]`.
    pub gamma: Param<Tensor<1>>,
}

impl ConvNextBlock {
    pub(super) fn new(config: &MagnitudeVocoderConfig, device: &Device) -> Self {
        let (dim, inner) = (config.dim, config.intermediate_dim);
        let convolution = Conv1dConfig::new([dim, dim], KERNEL)
            .with_groups(dim)
            .with_padding(KERNEL / 2);
        Self {
            dwconv: convolution.init(device),
            norm: LayerNormConfig::new(dim).init(device),
            pwconv1: LinearConfig::new(dim, inner).init(device),
            pwconv2: LinearConfig::new(inner, dim).init(device),
            gamma: Initializer::Constant(GAMMA).param([dim], dim, dim, device),
        }
    }

    /// Applies the block.
    ///
    /// # Shapes
    /// - x and output: `[batch, dim, frames]`
    ///
    /// # Panics
    /// If `x` does not have the number of channels.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let y = self.dwconv.forward(x.clone()).swap_dims(1, 2);
        let y = Activation::Gelu.forward(self.pwconv1.forward(self.norm.forward(y)));
        let y = self.pwconv2.forward(y);
        let [_, _, dim] = y.dims();
        x + (y * self.gamma.val().reshape([1, 1, dim])).swap_dims(1, 2)
    }
}
