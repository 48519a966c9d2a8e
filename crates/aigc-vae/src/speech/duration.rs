//! The plain predictor of durations.

use super::layers::norm_channels;
use aigc_core::nn::{
    Activation, Conv1d, Conv1dConfig, Dropout, DropoutConfig, LayerNorm, LayerNormConfig,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Sizes of a [`DurationPredictor`].
#[derive(Clone, Copy, Debug)]
pub(super) struct DurationSizes {
    pub(super) hidden_size: usize,
    pub(super) filter_channels: usize,
    /// Odd.
    pub(super) kernel: usize,
    pub(super) dropout: f64,
    pub(super) epsilon: f64,
    /// Channels of a condition; 0 for none.
    pub(super) condition: usize,
}

/// Two convolutions that estimate the logarithm of the duration of each token (Ren et al. 2019,
/// <https://arxiv.org/abs/1905.09263>). No gradients flow to the hidden states.
#[derive(Module, Debug)]
pub(super) struct DurationPredictor {
    conv_1: Conv1d,
    norm_1: LayerNorm,
    conv_2: Conv1d,
    norm_2: LayerNorm,
    proj: Conv1d,
    cond: Option<Conv1d>,
    dropout: Dropout,
}

impl DurationPredictor {
    pub(super) fn new(sizes: &DurationSizes, device: &Device) -> Self {
        let filters = sizes.filter_channels;
        let conv = |channels: usize| {
            Conv1dConfig::new([channels, filters], sizes.kernel)
                .with_padding(sizes.kernel / 2)
                .init(device)
        };
        let norm = || {
            LayerNormConfig::new(filters)
                .with_epsilon(sizes.epsilon)
                .init(device)
        };
        Self {
            conv_1: conv(sizes.hidden_size),
            norm_1: norm(),
            conv_2: conv(filters),
            norm_2: norm(),
            proj: Conv1dConfig::new([filters, 1], 1).init(device),
            cond: (sizes.condition > 0)
                .then(|| Conv1dConfig::new([sizes.condition, sizes.hidden_size], 1).init(device)),
            dropout: DropoutConfig::new(sizes.dropout).init(),
        }
    }

    /// Logarithms of durations, `[batch, 1, tokens]`.
    ///
    /// # Shapes
    /// - hidden: `[batch, hidden, tokens]`, mask: `[batch, 1, tokens]`
    /// - condition: `[batch or 1, condition, 1]`
    pub(super) fn forward(
        &self,
        hidden: Tensor<3>,
        mask: &Tensor<3>,
        condition: Option<&Tensor<3>>,
    ) -> Tensor<3> {
        let mut x = hidden.detach();
        if let (Some(cond), Some(condition)) = (&self.cond, condition) {
            x = x + cond.forward(condition.clone().detach());
        }
        for (conv, norm) in [(&self.conv_1, &self.norm_1), (&self.conv_2, &self.norm_2)] {
            let y = Activation::Relu.forward(conv.forward(x * mask.clone()));
            x = self.dropout.forward(norm_channels(norm, y));
        }
        self.proj.forward(x * mask.clone()) * mask.clone()
    }
}
