//! What the terms of the loss are, and their weights.

use crate::Likelihood;
use aigc_core::{Result, adversarial::AdversarialLoss, check};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// How a reconstruction is compared with the sample, besides the discriminator.
///
/// The model's [auxiliary losses](crate::Vae::auxiliary_losses), such as those of a codebook, are
/// brought to its scale. For samples of `n` values:
///
/// | | reconstruction | auxiliary losses |
/// |---|---|---|
/// | `NegativeLogLikelihood` | a sum over values, in nats | those of the model, in nats |
/// | `L1`, `L2` | a mean over values | those of the model, divided by `n / (8σ²)` or `n` |
///
/// # Scale
///
/// `L1` and `L2` compare values in the range of the batch: `[0, 1]` for images. VQGAN (Esser et al.
/// 2021, <https://arxiv.org/abs/2012.09841>) compares images in `[−1, 1]`: `L1` is half of the
/// paper's loss, and `L2` a quarter of that for `[−1, 1]`, so that beside them, another term of the
/// same weight counts twice and four times as much.
///
/// For a Gaussian likelihood with a fixed standard deviation σ, `n / (8σ²)` is the factor by which
/// a [`VqModel`](crate::VqModel) multiplies its losses. Divided by it, they are means over the
/// values of the latents, as in VQGAN. The divisor is `n` for other likelihoods.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReconstructionLoss {
    /// `−log p(x|z)` in nats, the sum over the values of a sample.
    #[default]
    NegativeLogLikelihood,
    /// The absolute difference of the mean of `p(x|z)`, averaged over the values of a sample; that
    /// of VQGAN.
    L1,
    /// The squared difference of the mean of `p(x|z)`, averaged over the values of a sample.
    L2,
}

impl ReconstructionLoss {
    /// The loss, averaged over the batch, `[1]`. `mean` is that of the likelihood.
    pub(super) fn compare<const X: usize>(
        self,
        likelihood: &Likelihood<X>,
        mean: &Tensor<X>,
        x: &Tensor<X>,
    ) -> Tensor<1> {
        match self {
            ReconstructionLoss::NegativeLogLikelihood => -likelihood.log_prob(x.clone()).mean(),
            ReconstructionLoss::L1 => (mean.clone() - x.clone()).abs().mean(),
            ReconstructionLoss::L2 => {
                let difference = mean.clone() - x.clone();
                (difference.clone() * difference).mean()
            }
        }
    }

    /// The factor of auxiliary losses, for samples of `values` values.
    pub(super) fn auxiliary_scale<const X: usize>(
        self,
        likelihood: &Likelihood<X>,
        values: usize,
    ) -> f64 {
        match (self, likelihood) {
            (ReconstructionLoss::NegativeLogLikelihood, _) => 1.0,
            (_, Likelihood::Gaussian { std, .. }) => 8.0 * std * std / values as f64,
            _ => 1.0 / values as f64,
        }
    }
}

/// Weight of the adversarial term in the loss of the VAE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AdversarialWeight {
    /// This weight.
    Fixed(
        /// The weight.
        f64,
    ),
    /// `factor·λ` with `λ = ‖∇R‖ / (‖∇A‖ + 10⁻⁴)`, at most 10⁴: the ratio of the norms of the
    /// gradients, with respect to the weight of the last layer of the decoder, of the
    /// reconstruction terms (with the perceptual ones) and of the adversarial term (VQGAN, Esser
    /// et al. 2021, <https://arxiv.org/abs/2012.09841>, eq. 7).
    ///
    /// It costs two more passes of the decoder per step, without a graph before the last layer:
    /// burn frees a graph with its first backward pass. Discriminator and perceptual distance have
    /// no more passes than with a fixed weight: one of the perceptual distance, one of the
    /// discriminator for its logits, and those for its features, where they have a weight. Batch
    /// normalisation in the decoder sees the latents three times.
    Adaptive {
        /// Path of the weight in the VAE, as in weight files, such as `decoder.conv_out.weight`.
        last_layer: String,
        /// Factor of the ratio.
        factor: f64,
    },
}

/// Configuration of an [`AdversarialVaeObjective`](super::AdversarialVaeObjective).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdversarialVaeObjectiveConfig {
    /// Comparison of reconstructions with samples.
    pub reconstruction: ReconstructionLoss,
    /// Weight of the divergence in nats, the sum over the latents of a sample.
    pub kl_weight: f64,
    /// Weight of the [perceptual distance](super::AdversarialVaeObjective::with_perceptual), if
    /// there is one.
    pub perceptual_weight: f64,
    /// Weight of the distance between the discriminator's
    /// [features](aigc_core::adversarial::SampleDiscriminator::features) of reconstructions and of
    /// samples (VAE-GAN, Larsen et al. 2016, <https://arxiv.org/abs/1512.09300>).
    pub feature_weight: f64,
    /// Losses of the discriminator, and of the VAE against it.
    pub loss: AdversarialLoss,
    /// Weight of the adversarial term.
    pub adversarial_weight: AdversarialWeight,
    /// Whether the discriminator also judges samples that are decoded from the prior (Larsen et al.
    /// 2016), as many as reconstructions. It costs a pass of the decoder.
    pub prior_samples: bool,
    /// First step with a discriminator. Before it, the VAE is trained without one, and the
    /// discriminator is not trained.
    pub start_step: usize,
}

impl Default for AdversarialVaeObjectiveConfig {
    /// The ELBO and the non-saturating loss, with weight 1 each, from the first step on.
    fn default() -> Self {
        Self {
            reconstruction: ReconstructionLoss::NegativeLogLikelihood,
            kl_weight: 1.0,
            perceptual_weight: 1.0,
            feature_weight: 0.0,
            loss: AdversarialLoss::NonSaturating,
            adversarial_weight: AdversarialWeight::Fixed(1.0),
            prior_samples: false,
            start_step: 0,
        }
    }
}

impl AdversarialVaeObjectiveConfig {
    /// The objective of VQGAN: L1 and a perceptual distance, no divergence (quantised latents have
    /// a constant one), the hinge loss, and the adaptive weight with a factor of 0.8 (Esser et al.
    /// 2021). `last_layer` is the path of the weight of the decoder's last layer.
    ///
    /// The perceptual distance of images in `[−1, 1]` and the losses of the codes, means over the
    /// values of the latents, are those of the paper. L1 compares images in `[0, 1]` and is [half
    /// of the paper's](ReconstructionLoss#scale): half the `perceptual_weight` and half the weights
    /// of the losses of the codes give the paper's balance. The adaptive weight follows the scale.
    pub fn vqgan(last_layer: impl Into<String>, start_step: usize) -> Self {
        Self {
            reconstruction: ReconstructionLoss::L1,
            kl_weight: 0.0,
            loss: AdversarialLoss::Hinge,
            adversarial_weight: AdversarialWeight::Adaptive {
                last_layer: last_layer.into(),
                factor: 0.8,
            },
            start_step,
            ..Self::default()
        }
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check::non_negative("kl_weight", self.kl_weight)?;
        check::non_negative("perceptual_weight", self.perceptual_weight)?;
        check::non_negative("feature_weight", self.feature_weight)?;
        match self.adversarial_weight {
            AdversarialWeight::Fixed(weight) => check::non_negative("adversarial_weight", weight),
            AdversarialWeight::Adaptive { factor, .. } => {
                check::non_negative("adversarial_weight.factor", factor)
            }
        }
    }
}
