//! Depth-separable convolutions with growing dilation.

use super::VitsConfig;
use crate::speech::layers::norm_channels;
use aigc_core::nn::{Activation, Conv1d, Conv1dConfig, LayerNorm, LayerNormConfig};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Residual pairs of a dilated convolution of every channel and one of all channels at a time.
#[derive(Module, Debug)]
pub(super) struct DilatedConvs {
    convs_dilated: Vec<Conv1d>,
    convs_pointwise: Vec<Conv1d>,
    norms_1: Vec<LayerNorm>,
    norms_2: Vec<LayerNorm>,
}

impl DilatedConvs {
    pub(super) fn new(config: &VitsConfig, device: &Device) -> Self {
        let (channels, kernel) = (config.hidden_size, config.duration_predictor_kernel_size);
        let layers = config.depth_separable_num_layers;
        let dilated = |dilation: usize| {
            Conv1dConfig::new([channels, channels], kernel)
                .with_dilation(dilation)
                .with_groups(channels)
                .with_padding((kernel - 1) / 2 * dilation)
                .init(device)
        };
        let pointwise = |_| Conv1dConfig::new([channels, channels], 1).init(device);
        let norm = |_| LayerNormConfig::new(channels).init(device);
        let dilations = std::iter::successors(Some(1usize), |dilation| {
            Some(dilation.saturating_mul(kernel))
        });
        Self {
            convs_dilated: dilations.take(layers).map(dilated).collect(),
            convs_pointwise: (0..layers).map(pointwise).collect(),
            norms_1: (0..layers).map(norm).collect(),
            norms_2: (0..layers).map(norm).collect(),
        }
    }

    /// # Shapes
    /// - x, condition and output: `[batch, hidden, tokens]`, mask: `[batch, 1, tokens]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        mask: &Tensor<3>,
        condition: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        let mut x = match condition {
            Some(condition) => x + condition.clone(),
            None => x,
        };
        let convs = self.convs_dilated.iter().zip(&self.convs_pointwise);
        let norms = self.norms_1.iter().zip(&self.norms_2);
        for ((dilated, pointwise), (norm_1, norm_2)) in convs.zip(norms) {
            let y = norm_channels(norm_1, dilated.forward(x.clone() * mask.clone()));
            let y = pointwise.forward(Activation::Gelu.forward(y));
            x = x + Activation::Gelu.forward(norm_channels(norm_2, y));
        }
        x * mask.clone()
    }
}
