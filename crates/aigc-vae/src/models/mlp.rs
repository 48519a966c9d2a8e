//! Encoder and decoder with one hidden layer each, as in Kingma and Welling 2014.

use super::validate_common;
use crate::{DiagonalGaussian, Likelihood, LikelihoodKind, Vae};
use aigc_core::{
    Result,
    data::{ImageShape, SampleShape},
    nn::{Activation, Linear, LinearConfig},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// Configuration to create an [`MlpVae`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MlpVaeConfig {
    /// Shape of an image.
    pub shape: ImageShape,
    /// Width of the hidden layers.
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

impl MlpVaeConfig {
    /// Images of `shape`, 400 hidden units, 20 latent dimensions, Bernoulli pixels, ReLU.
    pub fn new(shape: ImageShape) -> Self {
        Self {
            shape,
            hidden_dim: 400,
            latent_dim: 20,
            likelihood: LikelihoodKind::Bernoulli,
            activation: Activation::Relu,
        }
    }

    /// Creates the model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, device: &Device) -> Result<MlpVae> {
        self.validate()?;
        let linear = |i, o| LinearConfig::new(i, o).init(device);
        let pixels = self.shape.numel();
        Ok(MlpVae {
            encoder: linear(pixels, self.hidden_dim),
            mean: linear(self.hidden_dim, self.latent_dim),
            log_variance: linear(self.hidden_dim, self.latent_dim),
            decoder: linear(self.latent_dim, self.hidden_dim),
            output: linear(self.hidden_dim, pixels),
            config: self.clone(),
        })
    }

    pub(super) fn validate(&self) -> Result<()> {
        validate_common(
            self.shape,
            self.latent_dim,
            self.hidden_dim,
            self.likelihood,
        )
    }
}

/// A VAE of linear layers: `pixels → hidden → (μ, log σ²)` and `latent → hidden → pixels`.
#[derive(Module, Debug)]
pub struct MlpVae {
    encoder: Linear,
    mean: Linear,
    log_variance: Linear,
    decoder: Linear,
    output: Linear,
    #[module(skip)]
    config: MlpVaeConfig,
}

impl MlpVae {
    /// Configuration of the model.
    pub fn config(&self) -> &MlpVaeConfig {
        &self.config
    }
}

impl Vae for MlpVae {
    type Posterior = DiagonalGaussian;

    fn encode(&self, x: Tensor<4>) -> DiagonalGaussian {
        let hidden = self
            .config
            .activation
            .forward(self.encoder.forward(x.flatten::<2>(1, 3)));
        DiagonalGaussian {
            mean: self.mean.forward(hidden.clone()),
            logvar: self.log_variance.forward(hidden),
        }
    }

    fn decode(&self, z: Tensor<2>) -> Likelihood {
        let ImageShape {
            channels,
            height,
            width,
        } = self.config.shape;
        let hidden = self.config.activation.forward(self.decoder.forward(z));
        let output = self.output.forward(hidden);
        let batch = output.dims()[0];
        Likelihood::new(
            self.config.likelihood,
            output.reshape([batch, channels, height, width]),
        )
    }

    fn latent_shape(&self) -> SampleShape {
        SampleShape::new(&[self.config.latent_dim])
    }

    fn sample_shape(&self) -> SampleShape {
        self.config.shape.into()
    }
}
