//! The gated, dilated convolutions of the flow and of the posterior encoder.

use super::VitsConfig;
use aigc_core::nn::{Activation, Conv1d, Conv1dConfig};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Gated convolutions without causality (van den Oord et al. 2016,
/// <https://arxiv.org/abs/1609.03499>), as WaveGlow has them.
#[derive(Module, Debug)]
pub(super) struct WaveNet {
    in_layers: Vec<Conv1d>,
    res_skip_layers: Vec<Conv1d>,
    cond_layer: Option<Conv1d>,
    hidden: usize,
}

impl WaveNet {
    pub(super) fn new(config: &VitsConfig, layers: usize, device: &Device) -> Self {
        let (hidden, kernel) = (config.hidden_size, config.wavenet_kernel_size);
        let pointwise = |channels| {
            Conv1dConfig::new(channels, 1)
                .with_weight_norm(true)
                .init(device)
        };
        let condition = config.speaker_embedding_size;
        let in_layer = |dilation: usize| {
            Conv1dConfig::new([hidden, 2 * hidden], kernel)
                .with_dilation(dilation)
                .with_padding((kernel - 1) / 2 * dilation)
                .with_weight_norm(true)
                .init(device)
        };
        let dilations = std::iter::successors(Some(1usize), |dilation| {
            Some(dilation.saturating_mul(config.wavenet_dilation_rate))
        });
        let outputs = |layer: usize| {
            if layer + 1 < layers {
                2 * hidden
            } else {
                hidden
            }
        };
        Self {
            in_layers: dilations.take(layers).map(in_layer).collect(),
            res_skip_layers: (0..layers)
                .map(|layer| pointwise([hidden, outputs(layer)]))
                .collect(),
            cond_layer: (condition > 0).then(|| pointwise([condition, 2 * hidden * layers])),
            hidden,
        }
    }

    /// # Shapes
    /// - x and output: `[batch, hidden, time]`, mask: `[batch, 1, time]`
    /// - condition: `[batch or 1, condition, 1]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        mask: &Tensor<3>,
        condition: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        let (mut x, hidden) = (x, self.hidden);
        let condition = match (&self.cond_layer, condition) {
            (Some(layer), Some(condition)) => Some(layer.forward(condition.clone())),
            _ => None,
        };
        let mut output: Option<Tensor<3>> = None;
        for (index, (in_layer, res_skip)) in
            self.in_layers.iter().zip(&self.res_skip_layers).enumerate()
        {
            let mut y = in_layer.forward(x.clone());
            if let Some(condition) = &condition {
                y = y + condition.clone().narrow(1, 2 * hidden * index, 2 * hidden);
            }
            let gate = Activation::Sigmoid.forward(y.clone().narrow(1, hidden, hidden));
            let y = res_skip.forward(Activation::Tanh.forward(y.narrow(1, 0, hidden)) * gate);
            let skip = match index + 1 < self.in_layers.len() {
                true => {
                    x = (x + y.clone().narrow(1, 0, hidden)) * mask.clone();
                    y.narrow(1, hidden, hidden)
                }
                false => y,
            };
            output = Some(match output {
                Some(sum) => sum + skip,
                None => skip,
            });
        }
        output.unwrap_or(x) * mask.clone()
    }
}
