//! Variational autoencoders (Kingma and Welling 2014, <https://arxiv.org/abs/1312.6114>; Rezende et
//! al. 2014).
//!
//! A model consists of two conditional distributions:
//!
//! ```text
//! encode(x) → posterior q(z|x)        decode(z) → likelihood p(x|z)
//! ```
//!
//! Training maximises `E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))`, with `p(z)` the prior. It initialises
//! encoder and decoder ([`VaeConfig::init`]), then repeats:
//!
//! 1. draw a batch `x` ([`DataLoader`](aigc_core::data::DataLoader));
//! 2. encode it to `q(z|x)` and draw `z` ([`Vae::encode`], [`Posterior::sample`]);
//! 3. decode `z` to `p(x|z)` ([`Vae::decode`]);
//! 4. compute the reconstruction term and the divergence ([`elbo`]);
//! 5. update the weights ([`Trainer`](aigc_core::train::Trainer)).
//!
//! [`VaeObjective`] computes steps 2 to 4; [`VaeSampler`] samples, reconstructs and interpolates
//! with a trained model, and [`AnyVae::from_pretrained`] opens one; `AnyVae::from_hub` (feature
//! `download`) opens one of the Hugging Face hub by its name.
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
/// Only the first four methods are required. A model whose posterior is not Gaussian may also
/// implement [`auxiliary_losses`](Self::auxiliary_losses) for codebook and commitment terms,
/// [`codebook_posterior`](Self::codebook_posterior) and
/// [`update_codebook`](Self::update_codebook) for codes that follow running means, and
/// [`sample_prior`](Self::sample_prior) for another prior.
pub trait Vae<const X: usize = 4, const Z: usize = 2>: Module {
    /// The approximate posterior `q(z|x)`.
    type Posterior: Posterior<Z>;

    /// Encodes samples to their approximate posterior.
    ///
    /// # Shapes
    /// - x: `[batch, …]` of [`sample_shape`](Self::sample_shape); images in `[0, 1]`
    /// - output: a distribution over latents `[batch, …]` of [`latent_shape`](Self::latent_shape)
    ///
    /// # Panics
    /// If the samples do not have the shape [`sample_shape`](Self::sample_shape).
    fn encode(&self, x: Tensor<X>) -> Self::Posterior;

    /// Decodes latents to the likelihood `p(x|z)`.
    ///
    /// # Shapes
    /// - z: `[batch, …]` of [`latent_shape`](Self::latent_shape)
    /// - output: a distribution over samples `[batch, …]` of [`sample_shape`](Self::sample_shape)
    ///
    /// # Panics
    /// If the latents do not have the shape [`latent_shape`](Self::latent_shape).
    fn decode(&self, z: Tensor<Z>) -> Likelihood<X>;

    /// Shape of a latent, without the batch axis.
    fn latent_shape(&self) -> SampleShape;

    /// Shape of a sample, without the batch axis.
    fn sample_shape(&self) -> SampleShape;

    /// Number of latent dimensions.
    fn latent_dim(&self) -> usize {
        self.latent_shape().numel()
    }

    /// Additional loss terms by name, each `[1]` and already multiplied by its weight, such as the
    /// codebook and commitment losses of quantised latents (van den Oord et al. 2017,
    /// <https://arxiv.org/abs/1711.00937>, eq. 3). By default there are none.
    fn auxiliary_losses(&self, posterior: &Self::Posterior) -> Vec<(&'static str, Tensor<1>)> {
        let _ = posterior;
        Vec::new()
    }

    /// The part of a batch's posterior that [`update_codebook`](Self::update_codebook) needs, kept
    /// until the next update of the weights. A model with a codebook returns the posterior with
    /// tensors off the autodiff graph ([`Tensor::inner`]), so that the graph is freed. By default
    /// nothing is kept.
    fn codebook_posterior(&self, posterior: Self::Posterior) -> Option<Self::Posterior> {
        let _ = posterior;
        None
    }

    /// Called after every update of the weights with what
    /// [`codebook_posterior`](Self::codebook_posterior) returned for its batches; returns the model
    /// to continue with. Models whose codes follow the running means of the latents assigned to
    /// them update the codes here (van den Oord et al. 2017, appendix A.1). By default the model is
    /// returned unchanged.
    fn update_codebook(self, posteriors: &[Self::Posterior]) -> Self {
        let _ = posteriors;
        self
    }

    /// Draws `n` latents from the prior `p(z)`, by default a standard normal distribution.
    ///
    /// # Shapes
    /// - output: `[n, …]` of [`latent_shape`](Self::latent_shape)
    fn sample_prior(&self, n: usize, rng: &mut Rng, device: &Device) -> Tensor<Z> {
        rng.normal(self.latent_shape().batched(n), device)
    }
}

/// Fails unless the samples of `batch` have the shape of the model's samples.
fn check_batch<V: Vae<X, Z>, B: SampleBatch<X>, const X: usize, const Z: usize>(
    model: &V,
    batch: &B,
) -> Result<()> {
    if batch.sample_shape() == model.sample_shape() {
        return Ok(());
    }
    Err(Error::config(
        "samples",
        batch.sample_shape(),
        format!("{}, the shape of the model's samples", model.sample_shape()),
    ))
}
