//! The convolutions of AlexNet.

use crate::{
    nn::{Activation, Conv2d, Conv2dConfig},
    ops::max_pool2d,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// The convolutions of AlexNet as torchvision has it (Krizhevsky 2014,
/// <https://arxiv.org/abs/1404.5997>).
#[derive(Module, Debug)]
pub(super) struct AlexNet {
    layers: Vec<Conv2d>,
}

impl AlexNet {
    /// Indices of the convolutions in torchvision's `features`.
    pub(super) const LAYERS: &[usize] = &[0, 3, 6, 8, 10];
    /// Index in `features` after each part of the network whose output is compared.
    pub(super) const SLICES: &[usize] = &[2, 5, 8, 10, 12];
    /// Channels of the outputs that are compared.
    pub(super) const CHANNELS: &[usize] = &[64, 192, 384, 256, 256];
    /// The smallest side of an image for which the last output has a pixel.
    pub(super) const SMALLEST_SIDE: usize = 31;

    pub(super) fn new(device: &Device) -> Self {
        let conv = |inputs: usize, outputs: usize, kernel: usize, stride: usize| {
            Conv2dConfig::new([inputs, outputs], kernel)
                .with_stride(stride)
                // torchvision pads the first convolution of 11 pixels by 2 only.
                .with_padding((kernel / 2).min(2))
                .init(device)
        };
        Self {
            layers: vec![
                conv(3, 64, 11, 4),
                conv(64, 192, 5, 1),
                conv(192, 384, 3, 1),
                conv(384, 256, 3, 1),
                conv(256, 256, 3, 1),
            ],
        }
    }

    /// The output after each ReLU.
    pub(super) fn features(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let mut outputs: Vec<Tensor<4>> = Vec::with_capacity(self.layers.len());
        for (index, conv) in self.layers.iter().enumerate() {
            let x = match outputs.last() {
                Some(output) if index <= 2 => max_pool2d(output.clone(), 3, 2, 0),
                Some(output) => output.clone(),
                None => x.clone(),
            };
            outputs.push(Activation::Relu.forward(conv.forward(x)));
        }
        outputs
    }
}
