//! Priors of latent vectors, learned with a model or after it.
//!
//! [`WithPrior`](crate::WithPrior) gives a model another prior. A prior that is learned after the
//! model is fitted to the latents of the training data
//! ([`encode_latents`]), by [`GaussianMixtureConfig::fit`] or by training with a
//! [`PriorObjective`]. [`ClassConditionalPrior::fit`] fits one for each class.

mod class_conditional;
mod em;
mod flow;
mod latents;
mod mixture;
mod objective;
mod vamp;

pub use class_conditional::ClassConditionalPrior;
pub use em::EmConfig;
pub use flow::FlowPrior;
pub use latents::{
    LatentBatch, collate_latents, encode_latents, encode_latents_by_class,
    encode_latents_with_condition,
};
pub use mixture::{CovarianceType, GaussianMixture, GaussianMixtureConfig, MixtureFit};
pub use objective::PriorObjective;
pub use vamp::{PseudoInputRange, VampPrior, VampPriorConfig};

use crate::{Condition, Vae, standard_normal_log_prob};
use aigc_core::{Error, Result, check, data::SampleShape, rng::Rng};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Device, Tensor},
};

/// A distribution of latent vectors.
pub trait Prior: Module + ModuleDisplay {
    /// Number of dimensions of a latent.
    fn dim(&self) -> usize;

    /// The log-density `log p(z)` in nats.
    ///
    /// # Shapes
    /// - z: `[batch, dim]`
    /// - output: `[batch]`
    fn log_prob(&self, z: Tensor<2>) -> Tensor<1>;

    /// Draws `n` latents. The `temperature` multiplies the standard deviation of the noise that
    /// they are made of; at 1 the latents are those of the distribution.
    ///
    /// # Shapes
    /// - output: `[n, dim]`
    fn sample(&self, n: usize, temperature: f64, rng: &mut Rng, device: &Device) -> Tensor<2>;
}

/// A prior of the latents of a model `V`, which may use the model, such as its encoder, and the
/// condition, which has a class and vectors for each latent, or none. Every [`Prior`] is one.
pub trait ModelPrior<V, const X: usize = 4>: Module + ModuleDisplay {
    /// Fails unless the prior fits the model.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    fn check_model(&self, model: &V) -> Result<()>;

    /// [`Prior::log_prob`] in this model.
    ///
    /// # Shapes
    /// - z: `[batch, dim]`
    /// - output: `[batch]`
    fn log_prob_with(&self, model: &V, z: Tensor<2>, condition: &Condition) -> Tensor<1>;

    /// [`Prior::sample`] in this model.
    ///
    /// # Shapes
    /// - output: `[n, dim]`
    fn sample_with(
        &self,
        model: &V,
        n: usize,
        condition: &Condition,
        temperature: f64,
        rng: &mut Rng,
        device: &Device,
    ) -> Tensor<2>;
}

impl<P: Prior, V: Vae<X, 2>, const X: usize> ModelPrior<V, X> for P {
    fn check_model(&self, model: &V) -> Result<()> {
        let latent = model.latent_shape();
        if latent == SampleShape::new(&[self.dim()]) {
            return Ok(());
        }
        let expected = format!("{latent}, the shape of the model's latents");
        Err(Error::config("prior.dim", self.dim(), expected))
    }

    fn log_prob_with(&self, _model: &V, z: Tensor<2>, _condition: &Condition) -> Tensor<1> {
        self.log_prob(z)
    }

    fn sample_with(
        &self,
        _model: &V,
        n: usize,
        _condition: &Condition,
        temperature: f64,
        rng: &mut Rng,
        device: &Device,
    ) -> Tensor<2> {
        self.sample(n, temperature, rng, device)
    }
}

/// Limit on the number of dimensions of a latent.
const MAX_DIM: usize = 1 << 14;

/// The standard normal distribution, the prior of models without another one.
#[derive(Module, Debug)]
pub struct StandardNormal {
    dim: usize,
}

impl StandardNormal {
    /// The distribution of vectors of `dim` dimensions.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn new(dim: usize) -> Result<Self> {
        check::sizes(&[("dim", dim, MAX_DIM)])?;
        Ok(Self { dim })
    }
}

impl Prior for StandardNormal {
    fn dim(&self) -> usize {
        self.dim
    }

    fn log_prob(&self, z: Tensor<2>) -> Tensor<1> {
        standard_normal_log_prob(z)
    }

    fn sample(&self, n: usize, temperature: f64, rng: &mut Rng, device: &Device) -> Tensor<2> {
        rng.normal([n, self.dim], device) * temperature
    }
}
