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
//!
//! | items | content |
//! |---|---|
//! | [`Vae`], [`Condition`] | the interface of models, and what they are conditioned on |
//! | [`VaeConfig`], [`AnyVae`]: [`MlpVae`], [`ConvVae`] | models with latent vectors |
//! | [`HierarchicalVae`] | groups of latent maps of several sizes |
//! | [`VqVae`], [`VqVae2`], [`DiscreteVae`] | models with quantised latents |
//! | [`AutoencoderKl`], [`AutoencoderTiny`], [`VqModel`] | autoencoders in diffusers' layout |
//! | [`AutoencoderKlWan`], [`AutoencoderKlTemporalDecoder`] | autoencoders of videos |
//! | [`TileConfig`] | large images in tiles |
//! | [`LikelihoodKind`], [`Likelihood`] | what decoders output |
//! | [`KlWeight`], [`KlTerm`], [`Mmd`] | settings of [`VaeObjective`] |
//! | [`IwaeObjective`] | importance-weighted bounds |
//! | [`BetaTcVaeObjective`], [`FactorVaeObjective`] | disentangled latents |
//! | [`AdversarialVaeObjective`] | VAE-GAN, VQGAN |
//! | [`Prior`], [`WithPrior`], [`encode_latents`] | priors, learned with a model or after it |
//! | [`Flow`], [`FlowPosteriorVae`] | normalising flows |
//! | [`Quantizer`], [`CodeUsage`] | quantisers, and the use of their codes |
//! | [`CodePrior`], [`CodePriorObjective`], [`VqSampler`] | priors over codes, and samples |
//! | [`evaluate()`], [`log_likelihood()`], [`rate_distortion()`], [`active_units()`] | evaluation |
//! | [`Interpolation`], [`AttributeDirection`] | operations on latents, methods of [`VaeSampler`] |
//! | [`SpatialLatents`] | latent vectors as maps |
//! | [`codec`] | codecs of sound: Encodec, DAC, Oobleck |
//! | [`speech`] | VITS, a small speaker of one's own, tokenizers, alignment search |
//! | [`compress`] | compression of images |
#![forbid(unsafe_code)]

pub mod codec;
pub mod compress;
mod condition;
mod elbo;
mod evaluate;
mod flow;
mod flow_posterior;
mod latent;
mod likelihood;
mod math;
mod models;
mod objective;
mod parallel;
mod posterior;
mod prior;
mod prior_codes;
mod quantizer;
mod sample;
mod spatial;
pub mod speech;
mod tiling;

pub use aigc_core::encoder::Posterior;
pub use condition::{Condition, ConditionKind};
pub use elbo::{Elbo, elbo, evaluate, evaluate_with_condition};
pub use evaluate::{
    ActiveUnits, EvaluationOptions, LogLikelihood, LogLikelihoodOptions, PosteriorCollapse,
    RateDistortion, RateDistortionCurve, active_units, log_likelihood, posterior_collapse,
    rate_distortion, rate_distortion_curve,
};
pub use flow::{
    AnyFlow, Flow, FlowConfig, FlowKind, InverseAutoregressiveFlow, Made, MadeConfig,
    MaskedAutoregressiveFlow, PlanarFlow, RealNvp,
};
pub use flow_posterior::FlowPosterior;
pub use latent::{AttributeDirection, AttributeMethod, Geodesic, GeodesicConfig, Interpolation};
pub use likelihood::{Likelihood, LikelihoodKind, LogisticMixture};
pub use models::{
    AnyVae, AutoencoderKl, AutoencoderKlConfig, AutoencoderKlTemporalDecoder,
    AutoencoderKlTemporalDecoderConfig, AutoencoderKlWan, AutoencoderKlWanConfig, AutoencoderTiny,
    AutoencoderTinyConfig, ConvVae, ConvVaeConfig, DiscreteVae, DownEncoderBlockType,
    FlowPosteriorVae, HierarchicalLevel, HierarchicalPosterior, HierarchicalVae,
    HierarchicalVaeConfig, MlpVae, MlpVaeConfig, QuantizedLatents, UpDecoderBlockType, VaeConfig,
    VqModel, VqModelConfig, VqVae, VqVae2, VqVae2Config, VqVaeConfig, WithPrior,
};
pub use objective::{
    AdversarialVae, AdversarialVaeObjective, AdversarialVaeObjectiveConfig, AdversarialWeight,
    BetaTcVaeObjective, BetaTcVaeObjectiveConfig, FactorVae, FactorVaeObjective,
    FactorVaeObjectiveConfig, GradientEstimator, IwaeObjective, IwaeObjectiveConfig, KlCycle,
    KlDecomposition, KlTerm, KlWeight, LatentDiscriminator, LatentDiscriminatorConfig,
    MinibatchEstimator, Mmd, MmdKernel, ReconstructionLoss, ReparameterizedPosterior, VaeObjective,
    permute_dims,
};
pub use posterior::DiagonalGaussian;
pub use prior::{
    ClassConditionalPrior, CovarianceType, EmConfig, FlowPrior, GaussianMixture,
    GaussianMixtureConfig, LatentBatch, MixtureFit, ModelPrior, Prior, PriorObjective,
    PseudoInputRange, StandardNormal, VampPrior, VampPriorConfig, collate_latents, encode_latents,
    encode_latents_by_class, encode_latents_with_condition,
};
pub use prior_codes::{
    CodeBatch, CodePrior, CodePriorConfig, CodePriorObjective, CodeSample, CodeSamples,
    PriorCondition, VqSampler, collate_codes, encode_dataset, evaluate_codes,
};
pub use quantizer::{
    AnyQuantizer, CodeShape, CodeUsage, CodebookUpdate, FiniteScalarQuantizer,
    FiniteScalarQuantizerConfig, LookupFreeQuantizer, LookupFreeQuantizerConfig, Quantized,
    Quantizer, QuantizerConfig, QuantizerOutput, ResidualQuantizer, ResidualQuantizerConfig,
    VectorQuantizer, VectorQuantizerConfig, code_counts, flatten_positions, perplexity,
    unflatten_positions,
};
pub use sample::VaeSampler;
pub use spatial::SpatialLatents;
pub use tiling::TileConfig;

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
/// implement [`has_deterministic_posterior`](Self::has_deterministic_posterior),
/// [`auxiliary_losses`](Self::auxiliary_losses) for codebook and commitment terms,
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

    /// Whether samples of this shape can be encoded and reconstructed: by default, those of
    /// [`sample_shape`](Self::sample_shape) alone. Objectives and evaluations take no others in any
    /// case.
    fn accepts(&self, shape: SampleShape) -> bool {
        shape == self.sample_shape()
    }

    /// Number of latent dimensions.
    fn latent_dim(&self) -> usize {
        self.latent_shape().numel()
    }

    /// The conditions that the model takes; none by default.
    fn condition_kind(&self) -> ConditionKind {
        ConditionKind::default()
    }

    /// Whether the posterior has no uncertainty, so that every draw is the same latent, as that of
    /// quantised latents; false by default.
    fn has_deterministic_posterior(&self) -> bool {
        false
    }

    /// [`encode`](Self::encode) under a condition; a model without conditions ignores it.
    ///
    /// Labels are not read from their device to check them: those of the models of this crate that
    /// are not below [`num_classes`](ConditionKind::num_classes) make the outputs NaN.
    /// [`ConditionKind::check`] names them. A [`ClassConditionalPrior`] of a [`WithPrior`] does
    /// read them, for densities and samples of the prior, and panics.
    fn encode_with(&self, x: Tensor<X>, condition: &Condition) -> Self::Posterior {
        let _ = condition;
        self.encode(x)
    }

    /// [`decode`](Self::decode) under a condition; a model without conditions ignores it.
    fn decode_with(&self, z: Tensor<Z>, condition: &Condition) -> Likelihood<X> {
        let _ = condition;
        self.decode(z)
    }

    /// Draws a latent for each sample and computes the terms of the bound. Models whose posterior
    /// and likelihood share work override it.
    fn forward(
        &self,
        x: Tensor<X>,
        condition: &Condition,
        rng: &mut Rng,
    ) -> VaeOutput<Self::Posterior, X, Z> {
        let posterior = self.encode_with(x, condition);
        let z = posterior.sample(rng);
        VaeOutput {
            likelihood: self.decode_with(z.clone(), condition),
            kl: self.kl(&posterior, z.clone(), condition),
            posterior,
            z,
        }
    }

    /// The divergence of the posterior from the prior, for each group of latents, each `[batch]`.
    /// By default one group, compared with the standard normal prior in closed form. A model with
    /// another prior estimates it with the drawn latents `z`.
    fn kl(
        &self,
        posterior: &Self::Posterior,
        z: Tensor<Z>,
        condition: &Condition,
    ) -> Vec<Tensor<1>> {
        let _ = (z, condition);
        vec![posterior.kl()]
    }

    /// The log-density `log p(z)` of latents under the prior in nats, by default a standard normal
    /// distribution.
    ///
    /// # Shapes
    /// - z: `[batch, …]` of [`latent_shape`](Self::latent_shape)
    /// - output: `[batch]`
    fn prior_log_prob(&self, z: Tensor<Z>, condition: &Condition) -> Tensor<1> {
        let _ = condition;
        standard_normal_log_prob(z)
    }

    /// Logarithms of importance weights, `log p(x|z) + log p(z) − log q(z|x)` in nats, of `k`
    /// latents drawn from the posterior of each sample (Burda et al. 2016,
    /// <https://arxiv.org/abs/1509.00519>, eq. 8).
    ///
    /// # Shapes
    /// - x: `[batch, …]`, the samples that `posterior` is of
    /// - output: `[batch, k]`
    fn log_weights(
        &self,
        posterior: &Self::Posterior,
        x: Tensor<X>,
        condition: &Condition,
        k: usize,
        rng: &mut Rng,
    ) -> Tensor<2> {
        let batch = x.dims()[0];
        let (z, log_q): (Vec<_>, Vec<_>) =
            (0..k).map(|_| posterior.sample_with_log_prob(rng)).unzip();
        let (z, log_q) = (Tensor::cat(z, 0), Tensor::cat(log_q, 0));
        let condition = condition.repeat(k);
        let log_p = self
            .decode_with(z.clone(), &condition)
            .log_prob(x.repeat_dim(0, k));
        let log_w = log_p + self.prior_log_prob(z, &condition) - log_q;
        log_w.reshape([k, batch]).transpose()
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

    /// Draws `n` latents from the prior `p(z)`, by default a standard normal distribution. The
    /// `temperature` multiplies the standard deviations of the prior, each group's given the groups
    /// before; at 1 the latents are those of the prior. Priors without one, such as that of equally
    /// probable codes, ignore it.
    ///
    /// # Shapes
    /// - output: `[n, …]` of [`latent_shape`](Self::latent_shape)
    fn sample_prior(
        &self,
        n: usize,
        condition: &Condition,
        temperature: f64,
        rng: &mut Rng,
        device: &Device,
    ) -> Tensor<Z> {
        let _ = condition;
        let noise: Tensor<Z> = rng.normal(self.latent_shape().batched(n), device);
        noise * temperature
    }
}

/// One pass of a batch through a model.
#[derive(Clone, Debug)]
pub struct VaeOutput<P, const X: usize = 4, const Z: usize = 2> {
    /// The posterior `q(z|x)`.
    pub posterior: P,
    /// A latent for each sample, drawn from the posterior, `[batch, …]`.
    pub z: Tensor<Z>,
    /// The likelihood `p(x|z)`.
    pub likelihood: Likelihood<X>,
    /// Divergence from the prior for each group of latents, each `[batch]`, in nats.
    pub kl: Vec<Tensor<1>>,
}

impl<P, const X: usize, const Z: usize> VaeOutput<P, X, Z> {
    /// The evidence lower bound of the samples `x` of the pass.
    ///
    /// # Shapes
    /// - x: `[batch, …]`
    pub fn elbo(&self, x: Tensor<X>) -> Elbo {
        let kl = self.kl.iter().cloned().reduce(|sum, kl| sum + kl);
        let log_likelihood = self.likelihood.log_prob(x);
        Elbo {
            kl: kl.unwrap_or_else(|| log_likelihood.zeros_like()),
            log_likelihood,
        }
    }
}

/// The log-density of a standard normal distribution in nats, summed over all axes but the first.
///
/// # Shapes
/// - z: `[batch, …]`
/// - output: `[batch]`
pub(crate) fn standard_normal_log_prob<const Z: usize>(z: Tensor<Z>) -> Tensor<1> {
    let terms = z.clone() * z + (2.0 * std::f64::consts::PI).ln();
    terms.flatten::<2>(1, Z - 1).sum_dim(1).squeeze_dim(1) * -0.5
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
