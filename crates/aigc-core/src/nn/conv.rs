//! Convolution and transposed convolution.

use super::{Initializer, SpectralNorm};
use crate::ops;
use burn::{
    config::Config,
    module::{Module, Param},
    tensor::{
        Device, Tensor,
        ops::{ConvOptions, ConvTransposeOptions},
    },
};

/// Configuration to create a [`Conv2d`] layer with square kernels.
#[derive(Config, Debug)]
pub struct Conv2dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Height and width of the kernel.
    pub kernel_size: usize,
    /// Stride in both directions.
    #[config(default = 1)]
    pub stride: usize,
    /// Zero padding on every side.
    #[config(default = 0)]
    pub padding: usize,
    /// Number of groups; it must divide the input and the output channels.
    #[config(default = 1)]
    pub groups: usize,
    /// Whether a bias is added.
    #[config(default = true)]
    pub bias: bool,
    /// Initializer of weight and bias.
    #[config(default = "Initializer::PYTORCH")]
    pub initializer: Initializer,
    /// Whether the weight is spectrally normalised (divided by its largest singular value).
    #[config(default = false)]
    pub spectral: bool,
}

/// Two-dimensional convolution (cross-correlation).
#[derive(Module, Debug)]
pub struct Conv2d {
    /// Weight, `[channels_out, channels_in / groups, kernel, kernel]`.
    pub weight: Param<Tensor<4>>,
    /// Bias, `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Spectral normalisation of the weight.
    pub spectral: Option<SpectralNorm>,
    stride: usize,
    padding: usize,
    groups: usize,
}

impl Conv2dConfig {
    /// Creates the layer on `device`.
    ///
    /// # Panics
    /// If `groups` does not divide the channels.
    pub fn init(&self, device: &Device) -> Conv2d {
        let ([i, o], k, groups) = (self.channels, self.kernel_size, self.groups);
        assert!(
            groups > 0 && i % groups == 0 && o % groups == 0,
            "{groups} groups do not divide {i} input and {o} output channels"
        );
        let (i, per_group) = (i / groups, o / groups);
        Conv2d {
            weight: self
                .initializer
                .param([o, i, k, k], i * k * k, per_group * k * k, device),
            bias: self.bias.then(|| {
                self.initializer
                    .param([o], i * k * k, per_group * k * k, device)
            }),
            spectral: self.spectral.then(|| SpectralNorm::new(o, device)),
            stride: self.stride,
            padding: self.padding,
            groups,
        }
    }
}

impl Conv2d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x: `[batch, channels_in, height, width]`
    /// - output: `[batch, channels_out, (height + 2·padding − kernel) / stride + 1, …]`
    ///
    /// # Panics
    /// If `x` does not have `channels_in` channels.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let options = ConvOptions::new([self.stride; 2], [self.padding; 2], [1; 2], self.groups);
        let weight = self.weight.val();
        let weight = match &self.spectral {
            Some(spectral) => spectral.normalize(ops::cast(weight, x.dtype())),
            None => weight,
        };
        ops::conv2d(x, weight, self.bias.as_ref().map(|b| b.val()), options)
    }
}

/// Configuration to create a [`ConvTranspose2d`] layer with square kernels.
#[derive(Config, Debug)]
pub struct ConvTranspose2dConfig {
    /// Input and output channels.
    pub channels: [usize; 2],
    /// Height and width of the kernel.
    pub kernel_size: usize,
    /// Stride: distance between the outputs of neighbouring inputs.
    #[config(default = 1)]
    pub stride: usize,
    /// Rows and columns removed from every side of the result.
    #[config(default = 0)]
    pub padding: usize,
    /// Whether a bias is added.
    #[config(default = true)]
    pub bias: bool,
    /// Initializer of weight and bias.
    #[config(default = "Initializer::PYTORCH")]
    pub initializer: Initializer,
}

/// Transposed two-dimensional convolution: the transpose of [`Conv2d`] as a linear map.
#[derive(Module, Debug)]
pub struct ConvTranspose2d {
    /// Weight, `[channels_in, channels_out, kernel, kernel]`.
    pub weight: Param<Tensor<4>>,
    /// Bias, `[channels_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    stride: usize,
    padding: usize,
}

impl ConvTranspose2dConfig {
    /// Creates the layer on `device`.
    pub fn init(&self, device: &Device) -> ConvTranspose2d {
        let ([i, o], k) = (self.channels, self.kernel_size);
        // As in PyTorch, which takes the fan-in from the second axis here too: the output channels.
        ConvTranspose2d {
            weight: self
                .initializer
                .param([i, o, k, k], o * k * k, i * k * k, device),
            bias: self
                .bias
                .then(|| self.initializer.param([o], o * k * k, i * k * k, device)),
            stride: self.stride,
            padding: self.padding,
        }
    }
}

impl ConvTranspose2d {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x: `[batch, channels_in, height, width]`
    /// - output: `[batch, channels_out, (height − 1)·stride − 2·padding + kernel, …]`
    ///
    /// # Panics
    /// If `x` does not have `channels_in` channels.
    pub fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let options =
            ConvTransposeOptions::new([self.stride; 2], [self.padding; 2], [0; 2], [1; 2], 1);
        ops::conv_transpose2d(
            x,
            self.weight.val(),
            self.bias.as_ref().map(|b| b.val()),
            options,
        )
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::rng::{InitWeights, Rng};

    /// ⟨conv(x), y⟩ = ⟨x, convᵀ(y)⟩ defines the transpose for any kernel.
    #[test]
    fn conv_transpose2d_is_adjoint_of_conv2d() {
        let device = Device::flex();
        let conv = Conv2dConfig::new([3, 5], 4)
            .with_stride(2)
            .with_padding(1)
            .with_bias(false)
            .init(&device)
            .init_weights(1);
        let transpose = ConvTranspose2dConfig::new([5, 3], 4)
            .with_stride(2)
            .with_padding(1)
            .with_bias(false)
            .init(&device);
        let transpose = ConvTranspose2d {
            weight: conv.weight.clone(),
            ..transpose
        };
        let mut rng = Rng::new(2);
        let x = rng.normal([2, 3, 8, 8], &device);
        let y = rng.normal([2, 5, 4, 4], &device);
        let left = (conv.forward(x.clone()) * y.clone())
            .sum()
            .into_scalar::<f32>();
        let right = (x * transpose.forward(y)).sum().into_scalar::<f32>();
        assert!(
            (left - right).abs() < 1e-3 * left.abs().max(1.0),
            "{left} {right}"
        );
    }

    #[test]
    fn conv2d_matches_definition() {
        let device = Device::flex();
        let conv = Conv2dConfig::new([2, 3], 3)
            .with_padding(1)
            .init(&device)
            .init_weights(3);
        let x: Tensor<4> = Rng::new(4).normal([1, 2, 5, 5], &device);
        let data = |t: Tensor<4>| t.into_data().try_into_vec::<f32>().unwrap();
        let (got, w, xs) = (
            data(conv.forward(x.clone())),
            data(conv.weight.val()),
            data(x),
        );
        let bias = conv
            .bias
            .as_ref()
            .unwrap()
            .val()
            .into_data()
            .try_into_vec::<f32>()
            .unwrap();
        for (o, r, c) in [(0usize, 0i32, 0i32), (1, 2, 3), (2, 4, 4)] {
            let mut sum = bias[o];
            for i in 0..2usize {
                for (kr, kc) in (0..3i32).flat_map(|a| (0..3i32).map(move |b| (a, b))) {
                    let (row, col) = (r + kr - 1, c + kc - 1);
                    if (0..5).contains(&row) && (0..5).contains(&col) {
                        sum += xs[i * 25 + (row * 5 + col) as usize]
                            * w[(o * 2 + i) * 9 + (kr * 3 + kc) as usize];
                    }
                }
            }
            assert!((got[o * 25 + (r * 5 + c) as usize] - sum).abs() < 1e-5);
        }
    }
}
