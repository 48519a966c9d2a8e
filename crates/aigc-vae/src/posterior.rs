//! The Gaussian posterior.

use aigc_core::{encoder::Posterior, ops, rng::Rng};
use burn::tensor::Tensor;

/// Normal distributions with independent dimensions, one for each sample of a batch. `Z` is the
/// rank of a batch of latents: 2 for vectors, 4 for maps.
#[derive(Clone, Debug)]
pub struct DiagonalGaussian<const Z: usize = 2> {
    /// Means `μ`, `[batch, latent…]`.
    pub mean: Tensor<Z>,
    /// Logarithms of the variances, `log σ²`, `[batch, latent…]`.
    pub logvar: Tensor<Z>,
}

impl<const Z: usize> DiagonalGaussian<Z> {
    /// Draws one latent per sample, `z = μ + σ·ε` with `ε` from `rng`; differentiable with respect
    /// to `μ` and `σ` (Kingma and Welling 2014, §2.4).
    ///
    /// # Shapes
    /// - output: `[batch, latent…]`
    pub fn sample(&self, rng: &mut Rng) -> Tensor<Z> {
        let noise = rng.normal(self.mean.dims(), &self.mean.device());
        ops::reparameterize(self.mean.clone(), self.log_std(), noise)
    }

    /// Logarithms of the standard deviations, `log σ`.
    fn log_std(&self) -> Tensor<Z> {
        self.logvar.clone() * 0.5
    }

    /// The mode of the distribution, which is the mean, `[batch, latent…]`.
    pub fn mode(&self) -> Tensor<Z> {
        self.mean.clone()
    }

    /// The log-density `log q(z)` in nats: `−½ Σ (log 2π + log σ² + (z − μ)² / σ²)`.
    ///
    /// # Shapes
    /// - z: `[batch, latent…]`
    /// - output: `[batch]`
    pub fn log_prob(&self, z: Tensor<Z>) -> Tensor<1> {
        let difference = z - self.mean.clone();
        let scaled = difference.clone() * difference * (-self.logvar.clone()).exp();
        let terms = scaled + self.logvar.clone() + (2.0 * std::f64::consts::PI).ln();
        terms.flatten::<2>(1, Z - 1).sum_dim(1).squeeze_dim(1) * -0.5
    }

    /// The divergence `KL(q ‖ N(0, I))` in nats, in closed form: `½ Σ (μ² + σ² − 1 − log σ²)`
    /// (Kingma and Welling 2014, app. B).
    ///
    /// # Shapes
    /// - output: `[batch]`
    pub fn kl(&self) -> Tensor<1> {
        let rows = |x: Tensor<Z>| x.flatten::<2>(1, Z - 1);
        ops::standard_normal_kl(rows(self.mean.clone()), rows(self.log_std()))
    }
}

impl<const Z: usize> Posterior<Z> for DiagonalGaussian<Z> {
    fn sample(&self, rng: &mut Rng) -> Tensor<Z> {
        DiagonalGaussian::sample(self, rng)
    }

    fn sample_with_log_prob(&self, rng: &mut Rng) -> (Tensor<Z>, Tensor<1>) {
        let z = self.sample(rng);
        (z.clone(), self.log_prob(z))
    }

    fn mode(&self) -> Tensor<Z> {
        DiagonalGaussian::mode(self)
    }

    fn kl(&self) -> Tensor<1> {
        DiagonalGaussian::kl(self)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;
    use burn::tensor::Device;

    fn gaussian() -> DiagonalGaussian {
        let device = Device::flex();
        DiagonalGaussian {
            mean: Tensor::from_floats([[0.5, -1.0], [0.0, 0.0]], &device),
            logvar: Tensor::from_floats([[0.2, -0.7], [0.0, 0.0]], &device),
        }
    }

    #[test]
    fn kl_is_zero_at_the_prior_and_its_closed_form_elsewhere() {
        let kl = values(gaussian().kl());
        let by_hand: f64 = [(0.5f64, 0.2f64), (-1.0, -0.7)]
            .iter()
            .map(|(m, l)| 0.5 * (m * m + l.exp() - 1.0 - l))
            .sum();
        assert!((f64::from(kl[0]) - by_hand).abs() < 1e-6);
        assert!(kl[1].abs() < 1e-7);
    }

    #[test]
    fn log_prob_is_the_normal_density() {
        let z = Tensor::from_floats([[0.1, 0.2], [1.0, -2.0]], &Device::flex());
        let got = values(gaussian().log_prob(z));
        let log_normal = |z: f64, m: f64, l: f64| {
            -0.5 * ((2.0 * std::f64::consts::PI).ln() + l + (z - m).powi(2) / l.exp())
        };
        let expected = [
            log_normal(0.1, 0.5, 0.2) + log_normal(0.2, -1.0, -0.7),
            log_normal(1.0, 0.0, 0.0) + log_normal(-2.0, 0.0, 0.0),
        ];
        for (g, e) in got.iter().zip(expected) {
            assert!((f64::from(*g) - e).abs() < 1e-5);
        }
    }

    /// The divergence is the mean of `log q(z) − log p(z)` under q.
    #[test]
    fn kl_agrees_with_monte_carlo() {
        let device = Device::flex();
        let n = 40_000;
        let repeated = DiagonalGaussian {
            mean: Tensor::<2>::from_floats([[0.5, -1.0]], &device).repeat_dim(0, n),
            logvar: Tensor::<2>::from_floats([[0.2, -0.7]], &device).repeat_dim(0, n),
        };
        let prior = DiagonalGaussian {
            mean: Tensor::zeros([n, 2], &device),
            logvar: Tensor::zeros([n, 2], &device),
        };
        let z = repeated.sample(&mut Rng::new(3));
        let gaps = values(repeated.log_prob(z.clone()) - prior.log_prob(z));
        let mean = gaps.iter().map(|g| f64::from(*g)).sum::<f64>() / n as f64;
        let variance = gaps
            .iter()
            .map(|g| (f64::from(*g) - mean).powi(2))
            .sum::<f64>()
            / n as f64;
        let kl = f64::from(values(repeated.kl())[0]);
        assert!(
            (mean - kl).abs() < 5.0 * (variance / n as f64).sqrt(),
            "{mean} {kl}"
        );
    }
}
