//! Convolution and transposed convolution along time.
//!
//! Both run as convolutions of maps of height one. Their rows are as long as the signal, so that
//! the kernels for the CPU read whole vectors in place; in maps of width one, every sample would be
//! a row of its own.

use super::{
    Initializer, WeightNorm,
    weight_norm::{effective, folded},
};
use crate::ops;
use burn::{
    config::Config,
    module::{Module, Param},
    tensor::{
        Device, Tensor,
        ops::{ConvOptions, ConvTransposeOptions},
    },
};

/// Configuration to create a [`Conv1d`] layer.
#[derive(Config, Debug)]
pub struct Conv1dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Length of the kernel.
    pub kernel_size: usize,
    /// Stride.
    #[config(default = 1)]
    pub stride: usize,
    /// Distance of the inputs of neighbouring elements of the kernel.
    #[config(default = 1)]
    pub dilation: usize,
    /// Number of groups; it must divide the input and the output channels.
    #[config(default = 1)]
    pub groups: usize,
    /// Zero padding at both ends; see [`pad1d`](ops::pad1d) for other padding.
    #[config(default = 0)]
    pub padding: usize,
    /// Whether a bias is added.
    #[config(default = true)]
    pub bias: bool,
    /// Whether the weight is [normalised](WeightNorm).
    #[config(default = false)]
    pub weight_norm: bool,
    /// Initializer of weight and bias.
    #[config(default = "Initializer::PYTORCH")]
    pub initializer: Initializer,
}

/// One-dimensional convolution (cross-correlation).
#[derive(Module, Debug)]
pub struct Conv1d {
    /// Weight, `[channels_out, channels_in / groups, kernel]`; its direction if it is normalised.
    pub weight: Param<Tensor<3>>,
    /// Normalisation of the weight.
    pub weight_norm: Option<WeightNorm>,
    /// Bias, `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    stride: usize,
    dilation: usize,
    groups: usize,
    padding: usize,
}

impl Conv1dConfig {
    /// Creates the layer with weights of the normal distribution of the variance
    /// `gain² / fan_in`, and biases of 0: the mean square of the outputs is `gain²` times that of
    /// the inputs (He et al. 2015, <https://arxiv.org/abs/1502.01852>). PyTorch's weights have a
    /// third of that, and its biases drown quiet signals: many layers without norms learn slowly
    /// at first.
    ///
    /// # Panics
    /// As [`init`](Self::init).
    pub fn init_scaled(&self, gain: f64, device: &Device) -> Conv1d {
        let initializer = Initializer::KaimingNormal { gain };
        let layer = self.clone().with_initializer(initializer).init(device);
        Conv1d {
            bias: zeros(self.bias.then_some(self.channels[1]), device),
            ..layer
        }
    }

    /// Creates the layer on `device`.
    ///
    /// # Panics
    /// If `groups` does not divide the channels, the kernel is empty, or stride or dilation is 0.
    pub fn init(&self, device: &Device) -> Conv1d {
        let ([i, o], k, groups) = (self.channels, self.kernel_size, self.groups);
        check(self.channels, k, groups, [self.stride, self.dilation]);
        let (i, per_group) = (i / groups, o / groups);
        let weight = self
            .initializer
            .param([o, i, k], i * k, per_group * k, device);
        Conv1d {
            weight_norm: self.weight_norm.then(|| WeightNorm::new(&weight)),
            weight,
            bias: self
                .bias
                .then(|| self.initializer.param([o], i * k, per_group * k, device)),
            stride: self.stride,
            dilation: self.dilation,
            groups,
            padding: self.padding,
        }
    }
}

/// A bias of zeros for this number of channels.
fn zeros(channels: Option<usize>, device: &Device) -> Option<Param<Tensor<1>>> {
    channels.map(|channels| Initializer::ZEROS.param([channels], 1, 1, device))
}

impl Conv1d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x: `[batch, channels_in, time]`
    /// - output:
    ///   `[batch, channels_out, (time + 2·padding − dilation·(kernel − 1) − 1) / stride + 1]`
    ///
    /// # Panics
    /// If `x` does not have `channels_in` channels, or is shorter than the kernel with the padding.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, channels, time] = x.dims();
        let weight = effective(&self.weight, self.weight_norm.as_ref(), x.dtype());
        let [outputs, inputs, kernel] = weight.dims();
        let reach = self.dilation * (kernel - 1) + 1;
        assert!(
            time + 2 * self.padding >= reach,
            "a signal of {time} samples and a padding of {} at both ends is shorter than a kernel \
             that reaches over {reach}",
            self.padding
        );
        let options = ConvOptions::new(
            [1, self.stride],
            [0, self.padding],
            [1, self.dilation],
            self.groups,
        );
        let y = ops::conv2d(
            x.reshape([batch, channels, 1, time]),
            weight.reshape([outputs, inputs, 1, kernel]),
            self.bias.as_ref().map(|bias| bias.val()),
            options,
        );
        let [.., time] = y.dims();
        y.reshape([batch, outputs, time])
    }

    /// The layer without weight normalisation, which computes the same with less work.
    pub fn fold(self) -> Self {
        Self {
            weight: folded(self.weight, self.weight_norm.as_ref()),
            weight_norm: None,
            ..self
        }
    }
}

/// Configuration to create a [`ConvTranspose1d`] layer.
#[derive(Config, Debug)]
pub struct ConvTranspose1dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Length of the kernel.
    pub kernel_size: usize,
    /// Stride: distance between the outputs of neighbouring inputs.
    #[config(default = 1)]
    pub stride: usize,
    /// Number of groups; it must divide the input and the output channels.
    #[config(default = 1)]
    pub groups: usize,
    /// Samples removed from both ends of the result.
    #[config(default = 0)]
    pub padding: usize,
    /// Samples added to the end of the result, fewer than the stride.
    #[config(default = 0)]
    pub output_padding: usize,
    /// Whether a bias is added.
    #[config(default = true)]
    pub bias: bool,
    /// Whether the weight is [normalised](WeightNorm).
    #[config(default = false)]
    pub weight_norm: bool,
    /// Initializer of weight and bias.
    #[config(default = "Initializer::PYTORCH")]
    pub initializer: Initializer,
}

/// Transposed one-dimensional convolution: the transpose of [`Conv1d`] as a linear map.
#[derive(Module, Debug)]
pub struct ConvTranspose1d {
    /// Weight, `[channels_in, channels_out / groups, kernel]`; its direction if it is normalised.
    pub weight: Param<Tensor<3>>,
    /// Normalisation of the weight, with a gain for every input channel.
    pub weight_norm: Option<WeightNorm>,
    /// Bias, `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    stride: usize,
    groups: usize,
    padding: usize,
    output_padding: usize,
}

impl ConvTranspose1dConfig {
    /// Creates the layer with weights of the normal distribution and biases of 0, so that the mean
    /// square of the outputs is `gain²` times that of the inputs; see
    /// [`Conv1dConfig::init_scaled`]. An output is the sum of `kernel / stride` elements of the
    /// kernel for each input channel.
    ///
    /// # Panics
    /// As [`init`](Self::init).
    pub fn init_scaled(&self, gain: f64, device: &Device) -> ConvTranspose1d {
        let inputs = self.channels[0] / self.groups.max(1);
        let terms = inputs as f64 * self.kernel_size as f64 / self.stride.max(1) as f64;
        let std = gain / terms.max(1.0).sqrt();
        let initializer = Initializer::Normal { mean: 0.0, std };
        let layer = self.clone().with_initializer(initializer).init(device);
        ConvTranspose1d {
            bias: zeros(self.bias.then_some(self.channels[1]), device),
            ..layer
        }
    }

    /// Creates the layer on `device`.
    ///
    /// # Panics
    /// If `groups` does not divide the channels, the kernel is empty, the stride is 0, or the
    /// output padding is not below the stride.
    pub fn init(&self, device: &Device) -> ConvTranspose1d {
        let ([i, o], k, groups) = (self.channels, self.kernel_size, self.groups);
        check(self.channels, k, groups, [self.stride, 1]);
        assert!(
            self.output_padding < self.stride,
            "output padding of {} with a stride of {}: it must be below the stride",
            self.output_padding,
            self.stride
        );
        let (i_group, o_group) = (i / groups, o / groups);
        // As in PyTorch, which takes the fan-in from the second axis here too: the output channels.
        let weight = self
            .initializer
            .param([i, o_group, k], o_group * k, i_group * k, device);
        ConvTranspose1d {
            weight_norm: self.weight_norm.then(|| WeightNorm::new(&weight)),
            weight,
            bias: self.bias.then(|| {
                self.initializer
                    .param([o], o_group * k, i_group * k, device)
            }),
            stride: self.stride,
            groups,
            padding: self.padding,
            output_padding: self.output_padding,
        }
    }
}

impl ConvTranspose1d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x: `[batch, channels_in, time]`
    /// - output:
    ///   `[batch, channels_out, (time − 1)·stride − 2·padding + kernel + output_padding]`
    ///
    /// # Panics
    /// If `x` does not have `channels_in` channels, or the output would be empty.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, channels, time] = x.dims();
        let weight = effective(&self.weight, self.weight_norm.as_ref(), x.dtype());
        let [inputs, per_group, kernel] = weight.dims();
        assert!(
            time > 0 && (time - 1) * self.stride + kernel + self.output_padding > 2 * self.padding,
            "a transposed convolution with a kernel of {kernel}, a stride of {} and a padding of \
             {} turns {time} samples into none",
            self.stride,
            self.padding
        );
        let options = ConvTransposeOptions::new(
            [1, self.stride],
            [0, self.padding],
            [0, self.output_padding],
            [1, 1],
            self.groups,
        );
        let y = ops::conv_transpose2d(
            x.reshape([batch, channels, 1, time]),
            weight.reshape([inputs, per_group, 1, kernel]),
            self.bias.as_ref().map(|bias| bias.val()),
            options,
        );
        let [_, outputs, _, time] = y.dims();
        y.reshape([batch, outputs, time])
    }

    /// The layer without weight normalisation, which computes the same with less work.
    pub fn fold(self) -> Self {
        Self {
            weight: folded(self.weight, self.weight_norm.as_ref()),
            weight_norm: None,
            ..self
        }
    }
}

#[track_caller]
fn check([i, o]: [usize; 2], kernel: usize, groups: usize, [stride, dilation]: [usize; 2]) {
    assert!(
        groups > 0 && i.is_multiple_of(groups) && o.is_multiple_of(groups),
        "{groups} groups do not divide {i} input and {o} output channels"
    );
    assert!(kernel > 0, "the kernel of a convolution is empty");
    assert!(
        stride > 0 && dilation > 0,
        "a convolution with a stride of {stride} and a dilation of {dilation}: expected at least 1"
    );
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{rng::Rng, testing::values};

    /// Outputs have the asked mean square, with and without groups and normalisation.
    #[test]
    fn scaled_layers_keep_the_mean_square() {
        let device = Device::flex();
        let x: Tensor<3> = Rng::new(3).normal([2, 24, 600], &device);
        let mean_square = |y: Tensor<3>| {
            let y = values(y);
            y.iter().map(|y| y * y).sum::<f32>() / y.len() as f32
        };
        for (groups, weight_norm) in [(1, false), (1, true), (3, true)] {
            let conv = Conv1dConfig::new([24, 96], 5)
                .with_groups(groups)
                .with_weight_norm(weight_norm)
                .init_scaled(1.3, &device);
            let up = ConvTranspose1dConfig::new([24, 96], 16)
                .with_stride(8)
                .with_groups(groups)
                .with_weight_norm(weight_norm)
                .init_scaled(1.3, &device);
            for y in [conv.forward(x.clone()), up.forward(x.clone())] {
                let found = mean_square(y);
                assert!((found / 1.69 - 1.0).abs() < 0.15, "{groups}: {found}");
            }
            for bias in [conv.bias, up.bias] {
                assert!(values(bias.unwrap().val()).iter().all(|bias| *bias == 0.0));
            }
        }
    }
}
