//! The discriminator of a waveform and its averages.

use super::{
    WaveDiscriminator, channels_apart,
    stack::{Layers, WaveStack},
};
use crate::vocoder::checks::MAX_LAYERS;
use aigc_core::{
    Result,
    adversarial::Verdict,
    check::{ensure_argument, in_range},
    nn::PaddingMode,
    ops,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`MultiScaleDiscriminator`]. The default is that of HiFi-GAN.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiScaleDiscriminatorConfig {
    /// Number of discriminators; each sees half of the samples of the one before.
    pub scales: usize,
    /// Channels of each layer.
    pub channels: Vec<usize>,
    /// Kernel of each layer. Odd.
    pub kernel_sizes: Vec<usize>,
    /// Stride of each layer.
    pub strides: Vec<usize>,
    /// Groups of each layer.
    pub groups: Vec<usize>,
    /// Slope of the leaky ReLU for negative inputs.
    pub leaky_relu_slope: f64,
    /// Whether weights are normalised.
    pub weight_norm: bool,
}

impl Default for MultiScaleDiscriminatorConfig {
    fn default() -> Self {
        Self {
            scales: 3,
            channels: vec![128, 128, 256, 512, 1024, 1024, 1024],
            kernel_sizes: vec![15, 41, 41, 41, 41, 41, 5],
            strides: vec![1, 2, 2, 4, 4, 1, 1],
            groups: vec![1, 4, 16, 16, 16, 16, 1],
            leaky_relu_slope: 0.1,
            weight_norm: true,
        }
    }
}

impl MultiScaleDiscriminatorConfig {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        in_range("scales", self.scales, 1..=MAX_LAYERS)?;
        self.layers().validate()
    }

    fn layers(&self) -> Layers<'_> {
        Layers {
            channels: &self.channels,
            kernels: &self.kernel_sizes,
            strides: &self.strides,
            groups: &self.groups,
            slope: self.leaky_relu_slope,
            weight_norm: self.weight_norm,
        }
    }

    /// Creates the discriminator on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<MultiScaleDiscriminator> {
        self.validate()?;
        let stack = |_| self.layers().init(device);
        Ok(MultiScaleDiscriminator {
            discriminators: (0..self.scales).map(stack).collect(),
            config: self.clone(),
        })
    }
}

/// Discriminators of a waveform, of its averages with half as many samples, and so on (Kumar et al.
/// 2019, <https://arxiv.org/abs/1910.06711>, §2.2; Kong et al. 2020,
/// <https://arxiv.org/abs/2010.05646>, §2.3). All have weight normalisation, where HiFi-GAN's first
/// one has spectral normalisation.
#[derive(Module, Debug)]
pub struct MultiScaleDiscriminator {
    /// One for each scale.
    discriminators: Vec<WaveStack>,
    #[module(skip)]
    config: MultiScaleDiscriminatorConfig,
}

impl MultiScaleDiscriminator {
    /// Configuration of the discriminator.
    pub fn config(&self) -> &MultiScaleDiscriminatorConfig {
        &self.config
    }
}

impl WaveDiscriminator for MultiScaleDiscriminator {
    fn judge(&self, wave: Tensor<3>) -> Vec<Verdict> {
        let batch = wave.dims()[0];
        let mut wave = channels_apart(wave);
        let mut verdicts = Vec::with_capacity(self.discriminators.len());
        for (scale, judge) in self.discriminators.iter().enumerate() {
            if scale > 0 {
                wave = halved(wave);
            }
            verdicts.push(judge.judge(wave.clone(), batch));
        }
        verdicts
    }

    fn check_len(&self, time: usize) -> Result<()> {
        ensure_argument(time > 0, "wave", "empty", "at least 1 sample")
    }
}

super::sample_discriminator!(MultiScaleDiscriminator);

/// Means over windows of four samples, one every two samples, with two zeros at both ends.
fn halved(wave: Tensor<3>) -> Tensor<3> {
    let [batch, channels, time] = wave.dims();
    let pairs = time / 2 + 2;
    let padded = ops::pad1d(wave, [2, 2], PaddingMode::Zeros).narrow(2, 0, 2 * pairs);
    let means = padded
        .reshape([batch, channels, pairs, 2])
        .mean_dim(3)
        .reshape([batch, channels, pairs]);
    let (first, second) = (
        means.clone().narrow(2, 0, pairs - 1),
        means.narrow(2, 1, pairs - 1),
    );
    (first + second) * 0.5
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;

    #[test]
    fn halves_are_means_over_four_samples() {
        let device = Device::flex();
        let x = Tensor::<1>::from_floats([4.0, 8.0, 0.0, 4.0, 8.0], &device);
        let found = halved(x.clone().reshape([1, 1, 5]));
        assert_eq!(values(found), [3.0, 4.0, 3.0]);
        let found = halved(x.narrow(0, 0, 4).reshape([1, 1, 4]));
        assert_eq!(values(found), [3.0, 4.0, 1.0]);
    }
}
