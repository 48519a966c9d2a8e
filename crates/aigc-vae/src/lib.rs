//! Variational autoencoders (Kingma and Welling 2014, <https://arxiv.org/abs/1312.6114>; Rezende et
//! al. 2014).
//!
//! A model is two distributions, and everything else follows from them:
//!
//! ```text
//! encode(x) → posterior q(z|x)        decode(z) → likelihood p(x|z)
//! ```
//!
//! Training maximises `E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))`, with `p(z)` the prior:
//!
//! 1. initialise encoder and decoder ([`VaeConfig::init`]);
//! 2. draw a batch `x` ([`DataLoader`](aigc_core::data::DataLoader));
//! 3. encode it to `q(z|x)` and draw `z` ([`Vae::encode`], [`Posterior::sample`]);
//! 4. decode `z` to `p(x|z)` ([`Vae::decode`]);
//! 5. measure the reconstruction error and the divergence ([`elbo`]);
//! 6. update the weights ([`Trainer`](aigc_core::train::Trainer));
//! 7. repeat until it converges.
//!
//! [`VaeObjective`] is steps 3 to 5; [`VaeSampler`] samples, reconstructs and interpolates with a
//! trained model, and [`AnyVae::from_pretrained`] opens one.
#![forbid(unsafe_code)]

mod elbo;
mod likelihood;
mod models;
mod objective;
mod posterior;
mod sample;
mod spatial;

pub use aigc_core::encoder::Posterior;
pub use elbo::{Elbo, KlWeight, elbo, evaluate};
pub use likelihood::{Likelihood, LikelihoodKind};
pub use models::{AnyVae, ConvVae, ConvVaeConfig, MlpVae, MlpVaeConfig, VaeConfig};
pub use objective::VaeObjective;
pub use posterior::DiagonalGaussian;
pub use sample::VaeSampler;
pub use spatial::SpatialLatents;

use aigc_core::{
    Error, Result,
    data::{SampleBatch, SampleShape},
    rng::Rng,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// A variational autoencoder.
///
/// `X` and `Z` are the ranks of samples and latents, batch axis included: 4 and 2 for images and
/// latent vectors, 4 and 4 for images and latent maps.
///
/// Only the first four functions are required. Models whose latents are not Gaussian add what their
/// posterior needs: [`auxiliary_losses`](Self::auxiliary_losses) for codebook and commitment terms,
/// [`update_codebook`](Self::update_codebook) for codes that follow running means, and
/// [`sample_prior`](Self::sample_prior) for another prior.
pub trait Vae<const X: usize = 4, const Z: usize = 2>: Module {
    /// The approximate posterior `q(z|x)`.
    type Posterior: Posterior<Z>;

    /// The approximate posterior of each sample.
    ///
    /// # Shapes
    /// - x: `[batch, …]` of [`sample_shape`](Self::sample_shape); images in `[0, 1]`
    /// - output: of latents `[batch, …]` of [`latent_shape`](Self::latent_shape)
    ///
    /// # Panics
    /// If the samples are not of the model's shape.
    fn encode(&self, x: Tensor<X>) -> Self::Posterior;

    /// The likelihood `p(x|z)`.
    ///
    /// # Shapes
    /// - z: `[batch, …]` of [`latent_shape`](Self::latent_shape)
    /// - output: of samples `[batch, …]` of [`sample_shape`](Self::sample_shape)
    ///
    /// # Panics
    /// If the latents are not of the model's shape.
    fn decode(&self, z: Tensor<Z>) -> Likelihood<X>;

    /// Shape of a latent.
    fn latent_shape(&self) -> SampleShape;

    /// Shape of a sample.
    fn sample_shape(&self) -> SampleShape;

    /// Number of latent dimensions.
    fn latent_dim(&self) -> usize {
        self.latent_shape().numel()
    }

    /// Named terms that training adds to the bound, each `[1]` and with its weight, such as the
    /// codebook and commitment losses of quantised latents (van den Oord et al. 2017,
    /// <https://arxiv.org/abs/1711.00937>, eq. 3).
    fn auxiliary_losses(&self, posterior: &Self::Posterior) -> Vec<(&'static str, Tensor<1>)> {
        let _ = posterior;
        Vec::new()
    }

    /// Called after every update with the posteriors of its batches; the returned model takes the
    /// model's place. Codes that follow running means of what is assigned to them are updated here
    /// (van den Oord et al. 2017, appendix A.1).
    fn update_codebook(self, posteriors: &[Self::Posterior]) -> Self {
        let _ = posteriors;
        self
    }

    /// `n` latents drawn from the prior `p(z)`, a standard normal distribution.
    ///
    /// # Shapes
    /// - output: `[n, …]` of [`latent_shape`](Self::latent_shape)
    fn sample_prior(&self, n: usize, rng: &mut Rng, device: &Device) -> Tensor<Z> {
        rng.normal(self.latent_shape().batched(n), device)
    }
}

/// Fails unless the samples of `batch` are of the model's shape.
fn check_batch<V: Vae<X, Z>, B: SampleBatch<X>, const X: usize, const Z: usize>(
    model: &V,
    batch: &B,
) -> Result<()> {
    if batch.sample_shape() == model.sample_shape() {
        return Ok(());
    }
    Err(Error::config(
        "images",
        batch.sample_shape(),
        format!("{}, the shape of the model", model.sample_shape()),
    ))
}
