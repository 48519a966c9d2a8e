//! The convolutions of encoders and decoders, which both models share.

use aigc_core::nn::{Activation, Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// The convolutions of an encoder, and those of the decoder that mirrors it.
pub(super) struct Stack<'a> {
    /// Strides, from the largest maps to the smallest.
    pub(super) strides: &'a [usize],
    /// Channels after each stride.
    pub(super) channels: &'a [usize],
    pub(super) residual_blocks: usize,
    pub(super) residual_channels: usize,
    pub(super) activation: Activation,
}

impl Stack<'_> {
    /// Channels of the smallest maps.
    pub(super) fn width(&self) -> usize {
        self.channels[self.channels.len() - 1]
    }

    /// Number of weights of the encoder.
    pub(super) fn encoder_weights(&self, inputs: usize) -> u128 {
        let width = self.width() as u128;
        let mut channels = inputs as u128;
        let mut sum = 9 * width * width + self.block_weights();
        for (stride, outputs) in self.strides.iter().zip(self.channels) {
            let (kernel_size, _) = kernel(*stride);
            sum += (kernel_size * kernel_size) as u128 * channels * *outputs as u128;
            channels = *outputs as u128;
        }
        sum
    }

    /// Number of weights of the decoder.
    pub(super) fn decoder_weights(&self, inputs: usize, outputs: usize) -> u128 {
        // The transposed convolutions are those of an encoder of `outputs` channels.
        let width = self.width() as u128;
        self.encoder_weights(outputs) - 9 * width * width + 9 * width * inputs as u128
    }

    fn block_weights(&self) -> u128 {
        self.residual_blocks as u128 * 10 * self.width() as u128 * self.residual_channels as u128
    }

    pub(super) fn encoder(&self, inputs: usize, device: &Device) -> ConvEncoder {
        let width = self.width();
        let mut channels = inputs;
        let mut down = Vec::new();
        for (stride, outputs) in self.strides.iter().zip(self.channels) {
            let (kernel_size, padding) = kernel(*stride);
            down.push(
                Conv2dConfig::new([channels, *outputs], kernel_size)
                    .with_stride(*stride)
                    .with_padding(padding)
                    .init(device),
            );
            channels = *outputs;
        }
        ConvEncoder {
            down,
            conv: Conv2dConfig::new([width, width], 3)
                .with_padding(1)
                .init(device),
            blocks: self.blocks(device),
            activation: self.activation,
        }
    }

    pub(super) fn decoder(&self, inputs: usize, outputs: usize, device: &Device) -> ConvDecoder {
        let mut channels = self.width();
        let mut up = Vec::new();
        for (index, stride) in self.strides.iter().enumerate().rev() {
            let next = match index {
                0 => outputs,
                _ => self.channels[index - 1],
            };
            let (kernel_size, padding) = kernel(*stride);
            up.push(
                ConvTranspose2dConfig::new([channels, next], kernel_size)
                    .with_stride(*stride)
                    .with_padding(padding)
                    .init(device),
            );
            channels = next;
        }
        ConvDecoder {
            conv: Conv2dConfig::new([inputs, self.width()], 3)
                .with_padding(1)
                .init(device),
            blocks: self.blocks(device),
            up,
            activation: self.activation,
        }
    }

    fn blocks(&self, device: &Device) -> Vec<ResidualBlock> {
        let (width, inner) = (self.width(), self.residual_channels);
        let block = |_| ResidualBlock {
            conv1: Conv2dConfig::new([width, inner], 3)
                .with_padding(1)
                .init(device),
            conv2: Conv2dConfig::new([inner, width], 1).init(device),
            activation: self.activation,
        };
        (0..self.residual_blocks).map(block).collect()
    }
}

/// Kernel size and padding with which a convolution divides, and a transposed one multiplies, the
/// sides by `stride`.
fn kernel(stride: usize) -> (usize, usize) {
    if stride.is_multiple_of(2) {
        (2 * stride, stride / 2)
    } else {
        (stride + 2, 1)
    }
}

/// `x + conv₁ₓ₁(act(conv₃ₓ₃(act(x))))`.
#[derive(Module, Debug)]
pub(super) struct ResidualBlock {
    conv1: Conv2d,
    conv2: Conv2d,
    #[module(skip)]
    activation: Activation,
}

impl ResidualBlock {
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let act = self.activation;
        let inner = self.conv1.forward(act.forward(x.clone()));
        x + self.conv2.forward(act.forward(inner))
    }
}

/// Strided convolutions, a convolution and residual blocks.
#[derive(Module, Debug)]
pub(super) struct ConvEncoder {
    down: Vec<Conv2d>,
    pub(super) conv: Conv2d,
    blocks: Vec<ResidualBlock>,
    #[module(skip)]
    activation: Activation,
}

impl ConvEncoder {
    /// The feature maps after the last activation, `[batch, width, …]`.
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let act = self.activation;
        let down = self.down.iter();
        let x = down.fold(x, |x, conv| act.forward(conv.forward(x)));
        let x = self.conv.forward(x);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        act.forward(x)
    }
}

/// A convolution, residual blocks and transposed convolutions.
#[derive(Module, Debug)]
pub(super) struct ConvDecoder {
    conv: Conv2d,
    blocks: Vec<ResidualBlock>,
    up: Vec<ConvTranspose2d>,
    #[module(skip)]
    activation: Activation,
}

impl ConvDecoder {
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let act = self.activation;
        let x = self.conv.forward(x);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let up = self.up.iter();
        up.fold(x, |x, conv| conv.forward(act.forward(x)))
    }
}
