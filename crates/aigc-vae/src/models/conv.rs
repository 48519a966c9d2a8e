//! Convolutional encoder and decoder.

use super::validate_common;
use crate::{DiagonalGaussian, Likelihood, LikelihoodKind, Vae};
use aigc_core::{
    Result,
    check::ensure,
    data::{ImageShape, SampleShape},
    nn::{
        Activation, Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig, Linear,
        LinearConfig,
    },
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`ConvVae`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvVaeConfig {
    /// Shape of an image; its sides must be divisible by `2^channels.len()`.
    pub shape: ImageShape,
    /// Channels of the encoder after each halving of the sides; the decoder has them in reverse.
    pub channels: Vec<usize>,
    /// Width of the linear layer between convolutions and latents.
    #[serde(alias = "hidden")]
    pub hidden_dim: usize,
    /// Number of latent dimensions.
    #[serde(alias = "latent")]
    pub latent_dim: usize,
    /// Type of the distribution that the decoder outputs.
    pub likelihood: LikelihoodKind,
    /// Activation between the layers.
    pub activation: Activation,
}

impl ConvVaeConfig {
    /// Images of `shape`, 32 and 64 channels, 256 hidden units, 32 latent dimensions, Bernoulli
    /// pixels, ReLU.
    pub fn new(shape: ImageShape) -> Self {
        Self {
            shape,
            channels: vec![32, 64],
            hidden_dim: 256,
            latent_dim: 32,
            likelihood: LikelihoodKind::Bernoulli,
            activation: Activation::Relu,
        }
    }

    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<ConvVae> {
        self.validate()?;
        let levels = self.channels.len();
        let factor = 1 << levels;
        let top = [
            self.channels[levels - 1],
            self.shape.height / factor,
            self.shape.width / factor,
        ];
        let flat = top.iter().product();
        let sizes: Vec<usize> = std::iter::once(self.shape.channels)
            .chain(self.channels.iter().copied())
            .collect();
        let linear = |i, o| LinearConfig::new(i, o).init(device);
        let down = |pair: &[usize]| {
            Conv2dConfig::new([pair[0], pair[1]], 4)
                .with_stride(2)
                .with_padding(1)
                .init(device)
        };
        let up = |pair: &[usize]| {
            ConvTranspose2dConfig::new([pair[1], pair[0]], 4)
                .with_stride(2)
                .with_padding(1)
                .init(device)
        };
        Ok(ConvVae {
            down: sizes.windows(2).map(down).collect(),
            encoder: linear(flat, self.hidden_dim),
            mean: linear(self.hidden_dim, self.latent_dim),
            log_variance: linear(self.hidden_dim, self.latent_dim),
            decoder: linear(self.latent_dim, self.hidden_dim),
            unflatten: linear(self.hidden_dim, flat),
            up: sizes.windows(2).rev().map(up).collect(),
            top,
            config: self.clone(),
        })
    }

    pub(super) fn validate(&self) -> Result<()> {
        validate_common(
            self.shape,
            self.latent_dim,
            self.hidden_dim,
            self.likelihood,
        )?;
        let levels = self.channels.len();
        ensure(
            (1..=8).contains(&levels) && self.channels.iter().all(|c| (1..=4096).contains(c)),
            "channels",
            format!("{:?}", self.channels),
            "1 to 8 numbers from 1 to 4096",
        )?;
        let factor = 1 << levels;
        for (field, side) in [
            ("shape.height", self.shape.height),
            ("shape.width", self.shape.width),
        ] {
            let expected = format!("a multiple of {factor}, for {levels} halvings");
            ensure(side % factor == 0, field, side, &expected)?;
        }
        Ok(())
    }
}

/// A VAE of convolutions: the encoder halves the sides once per level, the decoder doubles them.
#[derive(Module, Debug)]
pub struct ConvVae {
    down: Vec<Conv2d>,
    encoder: Linear,
    mean: Linear,
    log_variance: Linear,
    decoder: Linear,
    unflatten: Linear,
    up: Vec<ConvTranspose2d>,
    /// Channels, height and width of the smallest feature maps.
    top: [usize; 3],
    #[module(skip)]
    config: ConvVaeConfig,
}

impl ConvVae {
    /// Configuration of the model.
    pub fn config(&self) -> &ConvVaeConfig {
        &self.config
    }
}

impl Vae for ConvVae {
    type Posterior = DiagonalGaussian;

    fn encode(&self, x: Tensor<4>) -> DiagonalGaussian {
        let act = self.config.activation;
        let features = self
            .down
            .iter()
            .fold(x, |x, conv| act.forward(conv.forward(x)));
        let hidden = act.forward(self.encoder.forward(features.flatten::<2>(1, 3)));
        DiagonalGaussian {
            mean: self.mean.forward(hidden.clone()),
            logvar: self.log_variance.forward(hidden),
        }
    }

    fn decode(&self, z: Tensor<2>) -> Likelihood {
        let (act, [channels, height, width]) = (self.config.activation, self.top);
        let batch = z.dims()[0];
        let hidden = act.forward(self.unflatten.forward(act.forward(self.decoder.forward(z))));
        let mut x = hidden.reshape([batch, channels, height, width]);
        for (level, conv) in self.up.iter().enumerate() {
            x = conv.forward(x);
            if level + 1 < self.up.len() {
                x = act.forward(x);
            }
        }
        Likelihood::new(self.config.likelihood, x)
    }

    fn latent_shape(&self) -> SampleShape {
        SampleShape::new(&[self.config.latent_dim])
    }

    fn sample_shape(&self) -> SampleShape {
        self.config.shape.into()
    }
}
