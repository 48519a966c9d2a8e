//! The distributions of a group of latents: the prior, and the posterior relative to it.

use aigc_core::{nn::Activation, ops};
use burn::tensor::Tensor;
use std::f64::consts::PI;

/// Bounds of `log σ`, approached smoothly.
const LOG_STD: f64 = 5.0;

/// Normal distribution of a group of latents under the prior, `[batch, channels, height, width]`.
pub(super) struct Normal {
    pub(super) mean: Tensor<4>,
    pub(super) log_std: Tensor<4>,
}

impl Normal {
    /// With these means; `log σ` is brought between its bounds.
    pub(super) fn new(mean: Tensor<4>, log_std: Tensor<4>) -> Self {
        Self {
            mean,
            log_std: soft_clamp(log_std),
        }
    }

    pub(super) fn sample(&self, noise: Tensor<4>) -> Tensor<4> {
        ops::reparameterize(self.mean.clone(), self.log_std.clone(), noise)
    }

    pub(super) fn log_prob(&self, z: Tensor<4>) -> Tensor<1> {
        let scaled = (z - self.mean.clone()) * (-self.log_std.clone()).exp();
        let terms = scaled.clone() * scaled * -0.5 - self.log_std.clone() - 0.5 * (2.0 * PI).ln();
        sum(terms)
    }
}

/// The difference of a posterior from its prior: `μ_q = μ_p + δ·σ_p`, `σ_q = σ_p·ρ`.
pub(super) struct Relative {
    /// `δ`
    pub(super) mean: Tensor<4>,
    /// `log ρ`
    pub(super) log_std: Tensor<4>,
}

impl Relative {
    /// With these `δ`; `log ρ` is brought between the bounds of `log σ`.
    pub(super) fn new(mean: Tensor<4>, log_std: Tensor<4>) -> Self {
        Self {
            mean,
            log_std: soft_clamp(log_std),
        }
    }

    /// A draw from the posterior as noise of the prior: `δ + ρ·ε`.
    pub(super) fn noise(&self, noise: Tensor<4>) -> Tensor<4> {
        ops::reparameterize(self.mean.clone(), self.log_std.clone(), noise)
    }

    /// `KL(q ‖ p) = Σ ½(δ² + ρ² − 1) − log ρ`; the prior's own mean and scale cancel.
    pub(super) fn kl(&self) -> Tensor<1> {
        let rows = |x: &Tensor<4>| x.clone().flatten::<2>(1, 3);
        ops::standard_normal_kl(rows(&self.mean), rows(&self.log_std))
    }

    /// `log q` at the noise `ε` of the posterior.
    pub(super) fn log_prob(&self, prior: &Normal, noise: Tensor<4>) -> Tensor<1> {
        let log_std = self.log_std.clone() + prior.log_std.clone();
        sum(noise.clone() * noise * -0.5 - log_std - 0.5 * (2.0 * PI).ln())
    }

    /// `log q − log p` at the noise `ε` of the posterior, and [the same draw](Self::noise) as noise
    /// of the prior.
    pub(super) fn log_ratio(&self, noise: Tensor<4>, of_prior: Tensor<4>) -> Tensor<1> {
        sum((of_prior.clone() * of_prior - noise.clone() * noise) * 0.5 - self.log_std.clone())
    }
}

fn soft_clamp(x: Tensor<4>) -> Tensor<4> {
    Activation::SoftClamp(LOG_STD).forward(x)
}

/// Sums all axes but the first.
fn sum(x: Tensor<4>) -> Tensor<1> {
    x.flatten::<2>(1, 3).sum_dim(1).squeeze_dim(1)
}
