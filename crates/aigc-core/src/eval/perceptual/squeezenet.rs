//! The convolutions of SqueezeNet 1.1.

use crate::{
    nn::{Activation, Conv2d, Conv2dConfig},
    ops::max_pool2d,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Input, squeezed and output channels of the fire modules.
const FIRES: [[usize; 3]; 8] = [
    [64, 16, 128],
    [128, 16, 128],
    [128, 32, 256],
    [256, 32, 256],
    [256, 48, 384],
    [384, 48, 384],
    [384, 64, 512],
    [512, 64, 512],
];

/// The convolutions of SqueezeNet 1.1 as torchvision has it (Iandola et al. 2016,
/// <https://arxiv.org/abs/1602.07360>).
#[derive(Module, Debug)]
pub(super) struct SqueezeNet {
    conv: Conv2d,
    layers: Vec<Fire>,
}

/// A convolution of one pixel to few channels, then one of one pixel and one of three beside each
/// other.
#[derive(Module, Debug)]
struct Fire {
    squeeze: Conv2d,
    expand1x1: Conv2d,
    expand3x3: Conv2d,
}

impl Fire {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let relu = Activation::Relu;
        let x = relu.forward(self.squeeze.forward(x));
        let (one, three) = (self.expand1x1.forward(x.clone()), self.expand3x3.forward(x));
        relu.forward(Tensor::cat(vec![one, three], 1))
    }
}

impl SqueezeNet {
    /// Indices of the fire modules in torchvision's `features`; the first convolution is index 0.
    pub(super) const LAYERS: &[usize] = &[3, 4, 6, 7, 9, 10, 11, 12];
    /// Index in `features` after each part of the network whose output is compared.
    pub(super) const SLICES: &[usize] = &[2, 5, 8, 10, 11, 12, 13];
    /// Channels of the outputs that are compared.
    pub(super) const CHANNELS: &[usize] = &[64, 128, 256, 384, 384, 512, 512];
    /// The smallest side of an image for which the last output has a pixel.
    pub(super) const SMALLEST_SIDE: usize = 17;

    pub(super) fn new(device: &Device) -> Self {
        let fire = |[inputs, squeezed, outputs]: [usize; 3]| Fire {
            squeeze: Conv2dConfig::new([inputs, squeezed], 1).init(device),
            expand1x1: Conv2dConfig::new([squeezed, outputs / 2], 1).init(device),
            expand3x3: Conv2dConfig::new([squeezed, outputs / 2], 3)
                .with_padding(1)
                .init(device),
        };
        Self {
            conv: Conv2dConfig::new([3, 64], 3).with_stride(2).init(device),
            layers: FIRES.into_iter().map(fire).collect(),
        }
    }

    /// The outputs at the ends of the [slices](Self::SLICES).
    pub(super) fn features(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let mut outputs = vec![Activation::Relu.forward(self.conv.forward(x))];
        let mut x = outputs[0].clone();
        for (index, fire) in self.layers.iter().enumerate() {
            if matches!(index, 0 | 2 | 4) {
                x = pooled(x);
            }
            x = fire.forward(x);
            if !matches!(index, 0 | 2) {
                outputs.push(x.clone());
            }
        }
        outputs
    }
}

/// The largest of 3×3 pixels, one every second pixel; also of windows that the last row or column
/// cuts (`ceil_mode` in torchvision).
fn pooled(x: Tensor<4>) -> Tensor<4> {
    let [_, _, height, width] = x.dims();
    let cut = |side: usize| usize::from(side.is_multiple_of(2));
    let x = match (cut(height), cut(width)) {
        (0, 0) => x,
        // Zeros change no maximum of outputs of ReLU, which are not negative.
        (below, right) => x.pad((0, right, 0, below), 0.0),
    };
    max_pool2d(x, 3, 2, 0)
}
