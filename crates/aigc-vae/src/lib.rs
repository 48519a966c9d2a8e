//! Variational autoencoders (Kingma and Welling 2014, <https://arxiv.org/abs/1312.6114>; Rezende et
//! al. 2014).
//!
//! A model says two things, and everything else follows from them:
//!
//! ```text
//! encode(x) → Posterior q(z|x)        decode(z) → Likelihood p(x|z)
//! ```
//!
//! Training makes `E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))` as large as it can, with `p(z)` the
//! standard normal:
//!
//! 1. initialise encoder and decoder ([`VaeConfig::init`]);
//! 2. draw a batch `x` ([`DataLoader`](aigc_core::data::DataLoader));
//! 3. encode it to `q(z|x)` and draw `z` ([`Vae::encode`], [`DiagonalGaussian::sample`]);
//! 4. decode `z` to `p(x|z)` ([`Vae::decode`]);
//! 5. measure the reconstruction error and the divergence ([`elbo`]);
//! 6. update the weights ([`Trainer`](aigc_core::train::Trainer));
//! 7. repeat until it converges.
//!
//! [`VaeObjective`] is steps 3 to 5; [`sample`], [`reconstruct`], [`interpolate`] and
//! [`latent_grid`] use what was learned, and [`load`] opens it again.
#![forbid(unsafe_code)]

mod elbo;
mod folded;
mod likelihood;
mod models;
mod objective;
mod posterior;
mod sample;

pub use elbo::{Elbo, KlWeight, elbo, evaluate};
pub use folded::SpatialLatents;
pub use likelihood::{Likelihood, LikelihoodKind};
pub use models::{AnyVae, ConvVae, ConvVaeConfig, MlpVae, MlpVaeConfig, VaeConfig, load};
pub use objective::VaeObjective;
pub use posterior::DiagonalGaussian;
pub use sample::{interpolate, latent_grid, reconstruct, sample};

use aigc_core::data::ImageShape;
use burn::{module::Module, tensor::Tensor};

/// Where all variational autoencoders meet.
pub trait Vae: Module {
    /// The approximate posterior `q(z|x)`.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]` in `[0, 1]`
    /// - output: means and variances, `[batch, latent]`
    ///
    /// # Panics
    /// If the images are not of the model's shape.
    fn encode(&self, x: Tensor<4>) -> DiagonalGaussian;

    /// The likelihood `p(x|z)`.
    ///
    /// # Shapes
    /// - z: `[batch, latent]`
    /// - output: of images `[batch, channels, height, width]`
    ///
    /// # Panics
    /// If the vectors are not of the model's latent dimensions.
    fn decode(&self, z: Tensor<2>) -> Likelihood;

    /// Number of latent dimensions.
    fn latent_dim(&self) -> usize;

    /// Shape of an image.
    fn sample_shape(&self) -> ImageShape;
}
