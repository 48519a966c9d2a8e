//! The discriminator of spectra.

use super::{WaveDiscriminator, channels_apart, per_sound};
use crate::vocoder::checks::{MAX_CHANNELS, MAX_LAYERS, check_slope};
use aigc_core::{
    Result,
    adversarial::Verdict,
    check::{self, ensure, in_range},
    dsp::{Stft, StftConfig},
    nn::{Activation, Initializer, WeightNorm},
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, ops::ConvOptions},
};
use serde::{Deserialize, Serialize};

/// Kernel, stride and zero padding of a layer, along frequency and time.
type Shape = ([usize; 2], [usize; 2], [usize; 2]);

/// Hidden layers.
const LAYERS: [Shape; 5] = [
    ([3, 9], [1, 1], [1, 4]),
    ([3, 9], [1, 2], [1, 4]),
    ([3, 9], [1, 2], [1, 4]),
    ([3, 9], [1, 2], [1, 4]),
    ([3, 3], [1, 1], [1, 1]),
];

/// The layer of logits.
const LAST: Shape = ([3, 3], [1, 1], [1, 1]);

/// Configuration to create a [`MultiResolutionDiscriminator`]. The default is that of the paper,
/// for sound of 24,000 samples per second.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiResolutionDiscriminatorConfig {
    /// For each discriminator the length of a frame, samples from one frame to the next, and the
    /// length of the window, in samples.
    pub resolutions: Vec<[usize; 3]>,
    /// Channels of all layers.
    pub channels: usize,
    /// Slope of the leaky ReLU for negative inputs.
    pub leaky_relu_slope: f64,
    /// Whether weights are normalised.
    pub weight_norm: bool,
}

impl Default for MultiResolutionDiscriminatorConfig {
    fn default() -> Self {
        Self {
            resolutions: vec![[1024, 120, 600], [2048, 240, 1200], [512, 50, 240]],
            channels: 32,
            leaky_relu_slope: 0.2,
            weight_norm: true,
        }
    }
}

impl MultiResolutionDiscriminatorConfig {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        in_range("resolutions", self.resolutions.len(), 1..=MAX_LAYERS)?;
        check::sizes(&[("channels", self.channels, MAX_CHANNELS)])?;
        check_slope(self.leaky_relu_slope)?;
        for [n_fft, hop, _] in &self.resolutions {
            let expected = format!("a distance of frames of at most {n_fft}, their length");
            ensure(hop <= n_fft, "resolutions", hop, &expected)?;
        }
        self.transforms().map(drop)
    }

    fn transforms(&self) -> Result<Vec<Stft>> {
        let resolutions = self.resolutions.iter();
        resolutions
            .map(|[n_fft, hop, window]| {
                StftConfig::new(*n_fft, *hop)
                    .with_win_length(*window)
                    .uncentered(n_fft.saturating_sub(*hop) / 2)
                    .init()
            })
            .collect()
    }

    /// Creates the discriminator on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<MultiResolutionDiscriminator> {
        self.validate()?;
        let stack = |_: &[usize; 3]| SpectrumStack::new(self, device);
        Ok(MultiResolutionDiscriminator {
            discriminators: self.resolutions.iter().map(stack).collect(),
            transforms: self.transforms()?,
            config: self.clone(),
        })
    }
}

/// For each resolution of the short-time Fourier transform, a discriminator of magnitudes (Jang et
/// al. 2021, <https://arxiv.org/abs/2106.07889>, §2.2).
#[derive(Module, Debug)]
pub struct MultiResolutionDiscriminator {
    discriminators: Vec<SpectrumStack>,
    #[module(skip)]
    transforms: Vec<Stft>,
    #[module(skip)]
    config: MultiResolutionDiscriminatorConfig,
}

impl MultiResolutionDiscriminator {
    /// Configuration of the discriminator.
    pub fn config(&self) -> &MultiResolutionDiscriminatorConfig {
        &self.config
    }
}

impl WaveDiscriminator for MultiResolutionDiscriminator {
    fn judge(&self, wave: Tensor<3>) -> Vec<Verdict> {
        let batch = wave.dims()[0];
        let wave = channels_apart(wave);
        let [sounds, _, time] = wave.dims();
        let wave = wave.reshape([sounds, time]);
        let judges = self.transforms.iter().zip(&self.discriminators);
        judges
            .map(|(stft, judge)| {
                let magnitude = stft.magnitude(wave.clone(), 0.0);
                let [_, bins, frames] = magnitude.dims();
                judge.judge(magnitude.reshape([sounds, 1, bins, frames]), batch)
            })
            .collect()
    }

    fn check_len(&self, time: usize) -> Result<()> {
        let mut transforms = self.transforms.iter();
        transforms.try_for_each(|stft| stft.frames(time).map(drop))
    }
}

super::sample_discriminator!(MultiResolutionDiscriminator);

/// Convolutions over frequency and time with leaky ReLU, and a layer of logits.
#[derive(Module, Debug)]
struct SpectrumStack {
    convs: Vec<SpectrumConv>,
    conv_post: SpectrumConv,
    slope: f64,
}

impl SpectrumStack {
    fn new(config: &MultiResolutionDiscriminatorConfig, device: &Device) -> Self {
        let (channels, norm) = (config.channels, config.weight_norm);
        let layer = |(index, shape): (usize, &Shape)| {
            let inputs = if index == 0 { 1 } else { channels };
            SpectrumConv::new([inputs, channels], *shape, norm, device)
        };
        Self {
            convs: LAYERS.iter().enumerate().map(layer).collect(),
            conv_post: SpectrumConv::new([channels, 1], LAST, norm, device),
            slope: config.leaky_relu_slope,
        }
    }

    fn judge(&self, magnitude: Tensor<4>, batch: usize) -> Verdict {
        let (mut hidden, mut features) = (magnitude, Vec::with_capacity(self.convs.len()));
        for conv in &self.convs {
            hidden = Activation::LeakyRelu(self.slope).forward(conv.forward(hidden));
            features.push(per_sound(hidden.clone(), batch));
        }
        Verdict {
            logits: per_sound(self.conv_post.forward(hidden), batch),
            features,
        }
    }
}

/// A convolution over frequency and time.
#[derive(Module, Debug)]
struct SpectrumConv {
    /// `[channels_out, channels_in, height, width]`; the direction if it is normalised.
    weight: Param<Tensor<4>>,
    weight_norm: Option<WeightNorm>,
    bias: Param<Tensor<1>>,
    stride: [usize; 2],
    padding: [usize; 2],
}

impl SpectrumConv {
    fn new(
        [inputs, outputs]: [usize; 2],
        (kernel, stride, padding): Shape,
        weight_norm: bool,
        device: &Device,
    ) -> Self {
        let [height, width] = kernel;
        let (fan_in, fan_out) = (inputs * height * width, outputs * height * width);
        let initializer = Initializer::PYTORCH;
        let weight = initializer.param([outputs, inputs, height, width], fan_in, fan_out, device);
        Self {
            weight_norm: weight_norm.then(|| WeightNorm::new(&weight)),
            weight,
            bias: initializer.param([outputs], fan_in, fan_out, device),
            stride,
            padding,
        }
    }

    /// `[batch, channels_in, height, width]` to
    /// `[batch, channels_out, (height + 2·padding − kernel) / stride + 1, …]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let weight = self.weight.val();
        let weight = match &self.weight_norm {
            Some(norm) => norm.normalize(weight),
            None => weight,
        };
        let options = ConvOptions::new(self.stride, self.padding, [1, 1], 1);
        ops::conv2d(x, weight, Some(self.bias.val()), options)
    }
}
