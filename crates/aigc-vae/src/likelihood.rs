//! The likelihood of an image.

use aigc_core::{ops::binary_cross_entropy, rng::Rng};
use burn::tensor::{Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

/// Which likelihood a decoder speaks of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LikelihoodKind {
    /// Each value is the chance of a white pixel.
    #[default]
    Bernoulli,
    /// Each value is the mean of a normal distribution with this standard deviation.
    Gaussian(
        /// Standard deviation, in units of the pixels' range `[0, 1]`.
        f64,
    ),
}

/// `p(x|z)`: independent pixels.
///
/// # Shapes
/// All tensors are `[batch, channels, height, width]`.
#[derive(Clone, Debug)]
pub enum Likelihood {
    /// White with chance `1 / (1 + e^−logit)`. Grey pixels count as that chance, the usual reading
    /// of MNIST.
    Bernoulli {
        /// Log-odds of white.
        logits: Tensor<4>,
    },
    /// Normal around `mean`.
    Gaussian {
        /// Means.
        mean: Tensor<4>,
        /// Standard deviation, in units of the pixels' range `[0, 1]`.
        std: f64,
    },
}

impl Likelihood {
    /// The likelihood of `kind` that a decoder's raw output stands for.
    pub fn new(kind: LikelihoodKind, output: Tensor<4>) -> Self {
        match kind {
            LikelihoodKind::Bernoulli => Likelihood::Bernoulli { logits: output },
            LikelihoodKind::Gaussian(std) => Likelihood::Gaussian { mean: output, std },
        }
    }

    /// `log p(x|z)` in nats.
    ///
    /// - Bernoulli: `Σ x·l − log(1 + eˡ)` for logits `l`, computed so that no logit overflows;
    /// - Gaussian: `−½ Σ (log 2πσ² + (x − μ)² / σ²)`.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]` in `[0, 1]`
    /// - output: `[batch]`
    pub fn log_prob(&self, x: Tensor<4>) -> Tensor<1> {
        match self {
            Likelihood::Bernoulli { logits } => {
                -binary_cross_entropy(logits.clone().flatten(1, 3), x.flatten(1, 3))
            }
            Likelihood::Gaussian { mean, std } => {
                let difference = x - mean.clone();
                let constant = (2.0 * std::f64::consts::PI * std * std).ln();
                let terms = (difference.clone() * difference / (std * std) + constant) * -0.5;
                terms.flatten::<2>(1, 3).sum_dim(1).squeeze_dim(1)
            }
        }
    }

    /// The mean image, in `[0, 1]` for Bernoulli pixels.
    pub fn mean(&self) -> Tensor<4> {
        match self {
            Likelihood::Bernoulli { logits } => activation::sigmoid(logits.clone()),
            Likelihood::Gaussian { mean, .. } => mean.clone(),
        }
    }

    /// The most probable image: Bernoulli pixels are black or white.
    pub fn mode(&self) -> Tensor<4> {
        match self {
            Likelihood::Bernoulli { logits } => logits.clone().greater_equal_elem(0.0).float(),
            Likelihood::Gaussian { mean, .. } => mean.clone(),
        }
    }

    /// An image drawn from the likelihood, with pixel noise from `rng`.
    pub fn sample(&self, rng: &mut Rng) -> Tensor<4> {
        let mean = self.mean();
        let (shape, device) = (mean.dims(), mean.device());
        match self {
            Likelihood::Bernoulli { .. } => {
                let bars =
                    TensorData::new(rng.uniform_vec(shape.iter().product(), 0.0, 1.0), shape);
                mean.greater(Tensor::from_data(bars, &device)).float()
            }
            Likelihood::Gaussian { std, .. } => mean + rng.normal(shape, &device) * *std,
        }
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::Device;

    fn value(x: Tensor<1>) -> f64 {
        f64::from(x.into_scalar::<f32>())
    }

    #[test]
    fn bernoulli_is_the_log_of_the_chance_even_for_huge_logits() {
        let device = Device::flex();
        let logits = Tensor::from_floats([[[[0.3, -2.0], [200.0, -200.0]]]], &device);
        let x = Tensor::from_floats([[[[1.0, 0.25], [1.0, 0.0]]]], &device);
        let chance = |l: f64| 1.0 / (1.0 + (-l).exp());
        let expected =
            chance(0.3).ln() + 0.25 * chance(-2.0).ln() + 0.75 * (1.0 - chance(-2.0)).ln();
        let likelihood = Likelihood::new(LikelihoodKind::Bernoulli, logits);
        assert!((value(likelihood.log_prob(x)) - expected).abs() < 1e-5);
        let wrong = Tensor::from_floats([[[[1.0, 0.0], [0.0, 0.0]]]], &device);
        let lost = value(likelihood.log_prob(wrong));
        assert!(lost.is_finite() && lost < -199.0, "{lost}");
    }

    #[test]
    fn bernoulli_gradient_is_x_minus_the_chance() {
        let device = Device::flex().autodiff();
        let logits = Tensor::<4>::from_floats([[[[0.3, -2.0, 0.0]]]], &device).require_grad();
        let x = Tensor::from_floats([[[[1.0, 0.25, 0.5]]]], &device);
        let gradients = Likelihood::Bernoulli {
            logits: logits.clone(),
        }
        .log_prob(x)
        .backward();
        let got = logits
            .grad(&gradients)
            .unwrap()
            .into_data()
            .try_into_vec::<f32>()
            .unwrap();
        let chance = |l: f32| 1.0 / (1.0 + (-l).exp());
        for (g, e) in got
            .iter()
            .zip([1.0 - chance(0.3), 0.25 - chance(-2.0), 0.0])
        {
            assert!((g - e).abs() < 1e-6, "{got:?}");
        }
    }

    #[test]
    fn gaussian_is_the_normal_density() {
        let device = Device::flex();
        let likelihood = Likelihood::new(
            LikelihoodKind::Gaussian(0.1),
            Tensor::from_floats([[[[0.5, 0.2]]]], &device),
        );
        let x = Tensor::from_floats([[[[0.6, 0.2]]]], &device);
        let expected = -(2.0 * std::f64::consts::PI * 0.01).ln() - 0.5;
        assert!((value(likelihood.log_prob(x)) - expected).abs() < 1e-5);
    }

    #[test]
    fn samples_have_the_means_they_are_drawn_with() {
        let device = Device::flex();
        let logits = Tensor::<4>::full([1, 1, 100, 100], 1.0, &device);
        let chance = 1.0 / (1.0 + (-1.0f64).exp());
        let got = value(
            Likelihood::Bernoulli { logits }
                .sample(&mut Rng::new(1))
                .mean(),
        );
        assert!((got - chance).abs() < 5.0 * (chance * (1.0 - chance) / 1e4).sqrt());
        let gaussian = Likelihood::Gaussian {
            mean: Tensor::full([1, 1, 100, 100], 0.5, &device),
            std: 0.2,
        };
        assert!((value(gaussian.sample(&mut Rng::new(1)).mean()) - 0.5).abs() < 5.0 * 0.2 / 100.0);
    }
}
