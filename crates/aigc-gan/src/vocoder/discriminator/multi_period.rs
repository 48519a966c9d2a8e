//! The discriminator of periodic parts.

use super::{
    WaveDiscriminator, channels_apart,
    stack::{Layers, WaveStack},
};
use crate::vocoder::checks::{MAX_LAYERS, check_list};
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

/// Limit on a period, in samples.
const MAX_PERIOD: usize = 1 << 10;

/// Configuration to create a [`MultiPeriodDiscriminator`]. The default is that of the paper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiPeriodDiscriminatorConfig {
    /// Period of each discriminator in samples; primes share the fewest samples.
    pub periods: Vec<usize>,
    /// Channels of each layer.
    pub channels: Vec<usize>,
    /// Kernel of all layers. Odd.
    pub kernel_size: usize,
    /// Stride of all layers but the last.
    pub stride: usize,
    /// Slope of the leaky ReLU for negative inputs.
    pub leaky_relu_slope: f64,
    /// Whether weights are normalised.
    pub weight_norm: bool,
}

impl Default for MultiPeriodDiscriminatorConfig {
    fn default() -> Self {
        Self {
            periods: vec![2, 3, 5, 7, 11],
            channels: vec![32, 128, 512, 1024, 1024],
            kernel_size: 5,
            stride: 3,
            leaky_relu_slope: 0.1,
            weight_norm: true,
        }
    }
}

impl MultiPeriodDiscriminatorConfig {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        in_range("periods", self.periods.len(), 1..=MAX_LAYERS)?;
        check_list("periods", &self.periods, self.periods.len(), MAX_PERIOD)?;
        self.with_layers(|layers| layers.validate())
    }

    fn with_layers<T>(&self, f: impl FnOnce(Layers<'_>) -> T) -> T {
        let layers = self.channels.len();
        let mut strides = vec![self.stride; layers];
        if let Some(last) = strides.last_mut().filter(|_| layers > 1) {
            *last = 1;
        }
        f(Layers {
            channels: &self.channels,
            kernels: &vec![self.kernel_size; layers],
            strides: &strides,
            groups: &vec![1; layers],
            slope: self.leaky_relu_slope,
            weight_norm: self.weight_norm,
        })
    }

    /// Creates the discriminator on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<MultiPeriodDiscriminator> {
        self.validate()?;
        let stack = |_: &usize| self.with_layers(|layers| layers.init(device));
        Ok(MultiPeriodDiscriminator {
            discriminators: self.periods.iter().map(stack).collect(),
            config: self.clone(),
        })
    }
}

/// For each period p, a discriminator that sees every p-th sample alone, from each of the p first
/// samples on (Kong et al. 2020, <https://arxiv.org/abs/2010.05646>, §2.3). Waveforms are mirrored
/// at their end up to a multiple of the period.
#[derive(Module, Debug)]
pub struct MultiPeriodDiscriminator {
    /// One for each period.
    discriminators: Vec<WaveStack>,
    #[module(skip)]
    config: MultiPeriodDiscriminatorConfig,
}

impl MultiPeriodDiscriminator {
    /// Configuration of the discriminator.
    pub fn config(&self) -> &MultiPeriodDiscriminatorConfig {
        &self.config
    }
}

impl WaveDiscriminator for MultiPeriodDiscriminator {
    fn judge(&self, wave: Tensor<3>) -> Vec<Verdict> {
        let batch = wave.dims()[0];
        let wave = channels_apart(wave);
        let [sounds, _, time] = wave.dims();
        let judges = self.config.periods.iter().zip(&self.discriminators);
        judges
            .map(|(period, judge)| {
                let rows = time.div_ceil(*period);
                let rest = [0, rows * period - time];
                let padded = ops::pad1d(wave.clone(), rest, PaddingMode::Reflect);
                let parts = padded.reshape([sounds, rows, *period]).swap_dims(1, 2);
                judge.judge(parts.reshape([sounds * period, 1, rows]), batch)
            })
            .collect()
    }

    fn check_len(&self, time: usize) -> Result<()> {
        ensure_argument(time > 0, "wave", "empty", "at least 1 sample")
    }
}

super::sample_discriminator!(MultiPeriodDiscriminator);
