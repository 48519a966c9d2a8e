//! Convolutions whose kernels change along time, and the network that predicts them.

use super::UnivNetConfig;
use aigc_core::nn::{Activation, Conv1d, Conv1dConfig, PaddingMode};
use aigc_core::ops;
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Kernel of the first layer of a network that predicts kernels.
const INPUT_KERNEL: usize = 5;

/// Predicts the kernels and biases of the convolutions of a block from a log-mel spectrogram.
#[derive(Module, Debug)]
pub struct UnivNetKernelPredictor {
    /// From mels to channels.
    pub input_conv: Conv1d,
    /// Residual blocks.
    pub resblocks: Vec<UnivNetKernelPredictorResidualBlock>,
    /// From channels to the weights of all kernels.
    pub kernel_conv: Conv1d,
    /// From channels to all biases.
    pub bias_conv: Conv1d,
    layers: usize,
    channels: usize,
    kernel: usize,
}

/// Two convolutions with a shortcut.
#[derive(Module, Debug)]
pub struct UnivNetKernelPredictorResidualBlock {
    /// The first convolution.
    pub conv1: Conv1d,
    /// The second convolution.
    pub conv2: Conv1d,
}

impl UnivNetKernelPredictorResidualBlock {
    fn forward(&self, x: Tensor<3>, activation: Activation) -> Tensor<3> {
        let y = activation.forward(self.conv1.forward(x.clone()));
        activation.forward(self.conv2.forward(y)) + x
    }

    fn fold(self) -> Self {
        Self {
            conv1: self.conv1.fold(),
            conv2: self.conv2.fold(),
        }
    }
}

impl UnivNetKernelPredictor {
    /// The network for `layers` convolutions with kernels of `kernel`.
    pub(super) fn new(
        config: &UnivNetConfig,
        kernel: usize,
        layers: usize,
        device: &Device,
    ) -> Self {
        let (hidden, channels) = (
            config.kernel_predictor_hidden_channels,
            config.model_hidden_channels,
        );
        let conv = |outputs, inputs, size: usize| {
            Conv1dConfig::new([inputs, outputs], size)
                .with_padding((size - 1) / 2)
                .with_weight_norm(config.weight_norm)
                .init(device)
        };
        let size = config.kernel_predictor_conv_size;
        let block = |_| UnivNetKernelPredictorResidualBlock {
            conv1: conv(hidden, hidden, size),
            conv2: conv(hidden, hidden, size),
        };
        Self {
            input_conv: conv(hidden, config.num_mel_bins, INPUT_KERNEL),
            resblocks: (0..config.kernel_predictor_num_blocks).map(block).collect(),
            kernel_conv: conv(layers * channels * 2 * channels * kernel, hidden, size),
            bias_conv: conv(layers * 2 * channels, hidden, size),
            layers,
            channels,
            kernel,
        }
    }

    /// The kernels and biases of every convolution, in their order.
    ///
    /// # Shapes
    /// - log_mel: `[batch, mels, frames]`
    /// - kernels: `[batch, channels, 2·channels, kernel, frames]`
    /// - biases: `[batch, 2·channels, frames]`
    ///
    /// # Panics
    /// For another number of mels.
    pub fn forward(
        &self,
        log_mel: Tensor<3>,
        activation: Activation,
    ) -> Vec<(Tensor<5>, Tensor<3>)> {
        let hidden = activation.forward(self.input_conv.forward(log_mel));
        let blocks = self.resblocks.iter();
        let hidden = blocks.fold(hidden, |hidden, block| block.forward(hidden, activation));
        let (channels, kernel) = (self.channels, self.kernel);
        let kernels = self.kernel_conv.forward(hidden.clone());
        let biases = self.bias_conv.forward(hidden);
        let [batch, all, frames] = kernels.dims();
        let each = all / self.layers;
        (0..self.layers)
            .map(|layer| {
                let kernels = kernels.clone().narrow(1, layer * each, each);
                let biases = biases.clone().narrow(1, layer * 2 * channels, 2 * channels);
                let shape = [batch, channels, 2 * channels, kernel, frames];
                (kernels.reshape(shape), biases)
            })
            .collect()
    }

    pub(super) fn fold(self) -> Self {
        let blocks = self.resblocks.into_iter();
        Self {
            input_conv: self.input_conv.fold(),
            resblocks: blocks
                .map(UnivNetKernelPredictorResidualBlock::fold)
                .collect(),
            kernel_conv: self.kernel_conv.fold(),
            bias_conv: self.bias_conv.fold(),
            ..self
        }
    }
}

/// A convolution with zero padding and a kernel of its own for every frame (Zeng et al. 2021,
/// <https://arxiv.org/abs/2102.10815>).
///
/// # Shapes
/// - x: `[batch, inputs, frames·hop]`
/// - kernels: `[batch, inputs, outputs, kernel, frames]`, of odd length
/// - biases: `[batch, outputs, frames]`
/// - output: `[batch, outputs, frames·hop]`
///
/// # Panics
/// If the shapes do not fit each other.
pub fn location_variable_convolution(
    x: Tensor<3>,
    kernels: Tensor<5>,
    biases: Tensor<3>,
) -> Tensor<3> {
    let [batch, inputs, time] = x.dims();
    let [_, _, outputs, kernel, frames] = kernels.dims();
    assert!(
        frames > 0 && time.is_multiple_of(frames) && kernel % 2 == 1,
        "{time} samples and a kernel of {kernel} for {frames} frames: a multiple of the frames and \
         an odd kernel are needed"
    );
    let (hop, side) = (time / frames, kernel / 2);
    // The samples below every element of the kernel, frame by frame: one product of matrices for
    // each frame.
    let padded = ops::pad1d(x, [side, side], PaddingMode::Zeros);
    let shifted = (0..kernel).map(|shift| {
        let part = padded.clone().narrow(2, shift, time);
        part.reshape([batch, inputs, frames, hop])
    });
    let windows = Tensor::stack::<5>(shifted.collect(), 2)
        .permute([0, 3, 1, 2, 4])
        .reshape([batch * frames, inputs * kernel, hop]);
    let weights =
        kernels
            .permute([0, 4, 2, 1, 3])
            .reshape([batch * frames, outputs, inputs * kernel]);
    let biases = biases.swap_dims(1, 2).reshape([batch * frames, outputs, 1]);
    (weights.matmul(windows) + biases)
        .reshape([batch, frames, outputs, hop])
        .swap_dims(1, 2)
        .reshape([batch, outputs, time])
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::Rng,
        testing::{assert_close, values},
    };

    /// With the same kernel in every frame it is a convolution.
    #[test]
    fn equal_kernels_are_a_convolution() {
        let device = Device::flex();
        let mut rng = Rng::new(1);
        let x: Tensor<3> = rng.normal([2, 3, 20], &device);
        let kernel: Tensor<3> = rng.normal([3, 4, 5], &device);
        let bias: Tensor<1> = rng.normal([4], &device);
        let kernels = kernel
            .clone()
            .reshape([1, 3, 4, 5, 1])
            .expand([2, 3, 4, 5, 10]);
        let biases = bias.clone().reshape([1, 4, 1]).expand([2, 4, 10]);
        let found = location_variable_convolution(x.clone(), kernels, biases);
        let mut conv = Conv1dConfig::new([3, 4], 5).with_padding(2).init(&device);
        conv.weight = burn::module::Param::from_tensor(kernel.swap_dims(0, 1));
        conv.bias = Some(burn::module::Param::from_tensor(bias));
        assert_close(&values(found), &values(conv.forward(x)), 1e-5);
    }

    /// A frame's kernel changes the frame's samples alone.
    #[test]
    fn kernels_are_those_of_their_frames() {
        let device = Device::flex();
        let x = Tensor::<3>::ones([1, 1, 6], &device);
        let kernels = Tensor::<1>::from_floats([0.0, 0.0, 1.0, 2.0, 0.0, 0.0], &device);
        let biases = Tensor::<1>::from_floats([0.5, 0.0], &device).reshape([1, 1, 2]);
        let kernels = kernels.reshape([1, 1, 1, 3, 2]);
        let found = location_variable_convolution(x, kernels, biases);
        assert_eq!(values(found), [1.5, 1.5, 1.5, 2.0, 2.0, 2.0]);
    }
}
