//! The layer that all blocks consist of, and their pools.

use crate::{
    nn::{Activation, BatchNorm, BatchNormConfig, Initializer},
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, ops::ConvOptions},
};

/// Convolution without bias, batch normalisation, ReLU.
#[derive(Module, Debug)]
pub(super) struct BasicConv2d {
    conv: Kernel,
    /// `None` once it is part of the convolution.
    bn: Option<BatchNorm>,
}

#[derive(Module, Debug)]
struct Kernel {
    /// `[channels_out, channels_in, height, width]`.
    weight: Param<Tensor<4>>,
    /// `[channels_out]`, of a folded layer.
    bias: Option<Param<Tensor<1>>>,
    stride: usize,
    padding: [usize; 2],
}

/// Added to the variance.
const EPSILON: f64 = 1e-3;

impl BasicConv2d {
    /// A layer that keeps the size: the padding is half of the kernel.
    pub(super) fn same(channels: [usize; 2], kernel: [usize; 2], device: &Device) -> Self {
        Self::new(channels, kernel, 1, kernel.map(|side| side / 2), device)
    }

    pub(super) fn pointwise(channels: [usize; 2], device: &Device) -> Self {
        Self::same(channels, [1, 1], device)
    }

    /// A layer with a kernel of 3×3, without padding.
    pub(super) fn valid(channels: [usize; 2], stride: usize, device: &Device) -> Self {
        Self::new(channels, [3, 3], stride, [0, 0], device)
    }

    fn new(
        [i, o]: [usize; 2],
        [height, width]: [usize; 2],
        stride: usize,
        padding: [usize; 2],
        device: &Device,
    ) -> Self {
        let taps = height * width;
        let shape = [o, i, height, width];
        Self {
            conv: Kernel {
                weight: Initializer::PYTORCH.param(shape, i * taps, o * taps, device),
                bias: None,
                stride,
                padding,
            },
            bn: Some(BatchNormConfig::new(o).with_epsilon(EPSILON).init(device)),
        }
    }

    /// Makes the normalisation, whose statistics are fixed, part of the convolution.
    pub(super) fn fold(mut self) -> Self {
        if let Some(bn) = self.bn.take() {
            let deviation = (bn.running_var.value_sync() + EPSILON).sqrt();
            let scale = bn.gamma.val() / deviation;
            let bias = bn.beta.val() - bn.running_mean.value_sync() * scale.clone();
            let scale = scale.reshape([-1, 1, 1, 1]);
            let weight = self.conv.weight.val() * scale;
            self.conv.weight = Param::from_tensor(weight);
            self.conv.bias = Some(Param::from_tensor(bias));
        }
        self
    }

    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = self.forward_without_activation(x);
        Activation::Relu.forward(x)
    }

    /// The layer without its ReLU.
    pub(super) fn forward_without_activation(&self, x: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new([self.conv.stride; 2], self.conv.padding, [1; 2], 1);
        let bias = self.conv.bias.as_ref().map(Param::val);
        let x = ops::conv2d(x, self.conv.weight.val(), bias, options);
        match &self.bn {
            Some(bn) => bn.forward(x),
            None => x,
        }
    }
}

/// The largest value of 3×3 pixels, every second pixel.
pub(super) fn max_pool(x: Tensor<4>) -> Tensor<4> {
    ops::max_pool2d(x, 3, 2, 0)
}

/// The mean of the pixels around each pixel that exist.
pub(super) fn mean_around(x: Tensor<4>) -> Tensor<4> {
    ops::avg_pool2d(x, 3, 1, 1)
}

/// The largest value of the pixels around each pixel.
pub(super) fn max_around(x: Tensor<4>) -> Tensor<4> {
    ops::max_pool2d(x, 3, 1, 1)
}
