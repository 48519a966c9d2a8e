//! Convolutions along time with logits behind them.

use super::per_sound;
use crate::vocoder::checks::{
    MAX_CHANNELS, MAX_KERNEL, MAX_LAYERS, check_layer, check_list, check_odd, check_slope,
};
use aigc_core::{
    Result,
    adversarial::Verdict,
    check::{ensure, in_range},
    nn::{Activation, Conv1d, Conv1dConfig},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Kernel of the layer of logits.
const LAST_KERNEL: usize = 3;

/// Layers of a [`WaveStack`], each list with an element for every layer.
pub(super) struct Layers<'a> {
    pub(super) channels: &'a [usize],
    pub(super) kernels: &'a [usize],
    pub(super) strides: &'a [usize],
    pub(super) groups: &'a [usize],
    pub(super) slope: f64,
    pub(super) weight_norm: bool,
}

impl Layers<'_> {
    /// Fails unless there are as many elements in every list as there are layers, within their
    /// limits, and groups divide channels.
    pub(super) fn validate(&self) -> Result<()> {
        let layers = self.channels.len();
        in_range("channels", layers, 1..=MAX_LAYERS)?;
        check_list("channels", self.channels, layers, MAX_CHANNELS)?;
        check_list("kernel_sizes", self.kernels, layers, MAX_KERNEL)?;
        check_odd("kernel_sizes", self.kernels)?;
        check_list("strides", self.strides, layers, MAX_KERNEL)?;
        check_list("groups", self.groups, layers, MAX_CHANNELS)?;
        let mut inputs: usize = 1;
        for (layer, outputs) in self.channels.iter().enumerate() {
            let (groups, kernel) = (self.groups[layer], self.kernels[layer]);
            let expected =
                format!("a divisor of {inputs} and {outputs}, the channels of layer {layer}");
            let divides = inputs.is_multiple_of(groups) && outputs.is_multiple_of(groups);
            ensure(divides, "groups", groups, &expected)?;
            check_layer("channels", &[inputs / groups, *outputs, kernel])?;
            inputs = *outputs;
        }
        check_slope(self.slope)
    }

    /// The layers, which must be [valid](Self::validate).
    pub(super) fn init(&self, device: &Device) -> WaveStack {
        let mut inputs: usize = 1;
        let layer = |(layer, outputs): (usize, &usize)| {
            let kernel = self.kernels[layer];
            let conv = Conv1dConfig::new([inputs, *outputs], kernel)
                .with_stride(self.strides[layer])
                .with_padding(kernel / 2)
                .with_groups(self.groups[layer])
                .with_weight_norm(self.weight_norm);
            inputs = *outputs;
            conv.init(device)
        };
        let convs = self.channels.iter().enumerate().map(layer).collect();
        let last = self.channels.last().copied().unwrap_or(1);
        let conv_post = Conv1dConfig::new([last, 1], LAST_KERNEL)
            .with_padding(LAST_KERNEL / 2)
            .with_weight_norm(self.weight_norm);
        WaveStack {
            convs,
            conv_post: conv_post.init(device),
            slope: self.slope,
        }
    }
}

/// Convolutions along time with leaky ReLU, and a layer of logits.
#[derive(Module, Debug)]
pub(super) struct WaveStack {
    convs: Vec<Conv1d>,
    conv_post: Conv1d,
    slope: f64,
}

impl WaveStack {
    /// The verdict on waveforms `[parts, 1, time]`, of which each of `batch` sounds has as many.
    pub(super) fn judge(&self, wave: Tensor<3>, batch: usize) -> Verdict {
        let (mut hidden, mut features) = (wave, Vec::with_capacity(self.convs.len()));
        for conv in &self.convs {
            hidden = Activation::LeakyRelu(self.slope).forward(conv.forward(hidden));
            features.push(per_sound(hidden.clone(), batch));
        }
        Verdict {
            logits: per_sound(self.conv_post.forward(hidden), batch),
            features,
        }
    }
}
