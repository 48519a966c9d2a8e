//! The convolutions of VGG16.

use crate::{
    nn::{Activation, Conv2d, Conv2dConfig},
    ops::max_pool2d,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Channels and number of the convolutions of each stage; stages are separated by maximum pooling.
const STAGES: [(usize, usize); 5] = [(64, 2), (128, 2), (256, 3), (512, 3), (512, 3)];

/// The convolutions of VGG16 (Simonyan and Zisserman 2014, <https://arxiv.org/abs/1409.1556>,
/// table 1, D).
#[derive(Module, Debug)]
pub(super) struct Vgg16 {
    layers: Vec<Conv2d>,
}

impl Vgg16 {
    /// Indices of the convolutions in torchvision's `features`.
    pub(super) const LAYERS: &[usize] = &[0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];
    /// Index in `features` after each part of the network whose output is compared.
    pub(super) const SLICES: &[usize] = &[4, 9, 16, 23, 30];
    /// Channels of the outputs that are compared.
    pub(super) const CHANNELS: &[usize] = &[64, 128, 256, 512, 512];
    /// The smallest side of an image for which the last output has a pixel.
    pub(super) const SMALLEST_SIDE: usize = 16;

    pub(super) fn new(device: &Device) -> Self {
        let mut inputs = 3;
        let mut layers = Vec::new();
        for (channels, count) in STAGES {
            for _ in 0..count {
                let conv = Conv2dConfig::new([inputs, channels], 3).with_padding(1);
                layers.push(conv.init(device));
                inputs = channels;
            }
        }
        Self { layers }
    }

    /// The output after the last ReLU of each stage.
    pub(super) fn features(&self, x: Tensor<4>) -> Vec<Tensor<4>> {
        let mut layers = self.layers.iter();
        let mut outputs: Vec<Tensor<4>> = Vec::with_capacity(STAGES.len());
        for (_, count) in STAGES {
            let x = match outputs.last() {
                Some(output) => max_pool2d(output.clone(), 2, 2, 0),
                None => x.clone(),
            };
            let stage = layers.by_ref().take(count);
            outputs.push(stage.fold(x, |x, conv| Activation::Relu.forward(conv.forward(x))));
        }
        outputs
    }
}
