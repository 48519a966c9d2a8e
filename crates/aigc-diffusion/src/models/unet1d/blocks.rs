//! Blocks at one rate: convolutions, attention, and the change of the rate before or after them.

use super::resample::Lowpass;
use aigc_core::{
    nn::{Activation, Conv1d, Conv1dConfig, GroupNorm, GroupNormConfig, Linear, LinearConfig},
    ops,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Least width of a head of attention: 48 channels have one head, 64 two.
pub(super) const HEAD_WIDTH: usize = 32;
/// Length of the kernels.
const KERNEL: usize = 5;

/// Two convolutions around a skip.
#[derive(Module, Debug)]
struct ResConvBlock {
    conv_skip: Option<Conv1d>,
    conv_1: Conv1d,
    group_norm_1: GroupNorm,
    conv_2: Conv1d,
    group_norm_2: Option<GroupNorm>,
}

impl ResConvBlock {
    /// `channels`: before, between and after the convolutions. A block without its last norm has
    /// no activation there either.
    fn new(channels: [usize; 3], is_normed: bool, device: &Device) -> Self {
        let [from, between, to] = channels;
        let conv = |from, to| {
            Conv1dConfig::new([from, to], KERNEL)
                .with_padding(KERNEL / 2)
                .init(device)
        };
        let norm = |channels| GroupNormConfig::new(1, channels).init(device);
        let skip = || {
            Conv1dConfig::new([from, to], 1)
                .with_bias(false)
                .init(device)
        };
        Self {
            conv_skip: (from != to).then(skip),
            conv_1: conv(from, between),
            group_norm_1: norm(between),
            conv_2: conv(between, to),
            group_norm_2: is_normed.then(|| norm(to)),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let residual = match &self.conv_skip {
            Some(conv) => conv.forward(x.clone()),
            None => x.clone(),
        };
        let h = self
            .group_norm_1
            .forward_with_activation(self.conv_1.forward(x), Activation::Gelu);
        let h = self.conv_2.forward(h);
        let h = match &self.group_norm_2 {
            Some(norm) => norm.forward_with_activation(h, Activation::Gelu),
            None => h,
        };
        h + residual
    }
}

/// Attention of all times to each other.
#[derive(Module, Debug)]
struct SelfAttention1d {
    group_norm: GroupNorm,
    query: Linear,
    key: Linear,
    value: Linear,
    proj_attn: Linear,
    heads: usize,
}

impl SelfAttention1d {
    fn new(channels: usize, device: &Device) -> Self {
        let linear = || LinearConfig::new(channels, channels).init(device);
        Self {
            group_norm: GroupNormConfig::new(1, channels).init(device),
            query: linear(),
            key: linear(),
            value: linear(),
            proj_attn: linear(),
            heads: (channels / HEAD_WIDTH).max(1),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, channels, time] = x.dims();
        let tokens = self.group_norm.forward(x.clone());
        let tokens = ops::contiguous(tokens.swap_dims(1, 2));
        let heads = |layer: &Linear| {
            let shape = [batch, time, self.heads, channels / self.heads];
            let projected: Tensor<3> = layer.forward(tokens.clone());
            projected.reshape(shape).swap_dims(1, 2)
        };
        let [q, k, v] = [&self.query, &self.key, &self.value].map(heads);
        let attended = ops::attention(q, k, v, None, false)
            .swap_dims(1, 2)
            .reshape([batch, time, channels]);
        let attended = self.proj_attn.forward(attended);
        x + ops::contiguous(attended.swap_dims(1, 2))
    }
}

/// What a block consists of.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockConfig {
    /// Before, between and after its layers.
    pub(super) channels: [usize; 3],
    pub(super) layers: usize,
    /// Whether attention follows every layer.
    pub(super) attends: bool,
    /// Whether the rate is halved before the layers.
    pub(super) halves: bool,
    /// Whether the rate is doubled after the layers.
    pub(super) doubles: bool,
    /// Whether the last layer ends without norm and activation.
    pub(super) is_output: bool,
}

impl BlockConfig {
    /// Layers, without attention or a change of the rate.
    pub(super) fn new(channels: [usize; 3], layers: usize) -> Self {
        Self {
            channels,
            layers,
            attends: false,
            halves: false,
            doubles: false,
            is_output: false,
        }
    }

    pub(super) fn init(self, device: &Device) -> Block {
        let [from, between, to] = self.channels;
        let last = self.layers - 1;
        let output = |layer: usize| if layer == last { to } else { between };
        let resnet = |layer: usize| {
            let input = if layer == 0 { from } else { between };
            let is_normed = !(self.is_output && layer == last);
            ResConvBlock::new([input, between, output(layer)], is_normed, device)
        };
        let attention = |layer: usize| SelfAttention1d::new(output(layer), device);
        let attending = if self.attends { self.layers } else { 0 };
        Block {
            down: self.halves.then(|| Lowpass::halving(device)),
            resnets: (0..self.layers).map(resnet).collect(),
            attentions: (0..attending).map(attention).collect(),
            up: self.doubles.then(|| Lowpass::doubling(device)),
        }
    }
}

/// Layers at one rate.
#[derive(Module, Debug)]
pub(super) struct Block {
    down: Option<Lowpass>,
    resnets: Vec<ResConvBlock>,
    /// One after each layer, or none at all.
    attentions: Vec<SelfAttention1d>,
    up: Option<Lowpass>,
}

impl Block {
    /// # Shapes
    /// - x: `[batch, channels_in, time]`
    /// - output: `[batch, channels_out, time]`, half or twice as long if the rate changes
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let mut x = match &self.down {
            Some(filter) => filter.halve(x),
            None => x,
        };
        for (layer, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x);
            if let Some(attention) = self.attentions.get(layer) {
                x = attention.forward(x);
            }
        }
        match &self.up {
            Some(filter) => filter.double(x),
            None => x,
        }
    }
}
