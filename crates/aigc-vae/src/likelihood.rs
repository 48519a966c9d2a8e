//! Likelihoods of samples.

use aigc_core::{ops::binary_cross_entropy, rng::Rng};
use burn::tensor::{Tensor, TensorData, activation};
use serde::{Deserialize, Serialize};

/// Type of the distribution that a decoder outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LikelihoodKind {
    /// Independent Bernoulli distributions; each output is the logit of a white pixel.
    #[default]
    Bernoulli,
    /// Independent normal distributions with this standard deviation; each output is a mean.
    Gaussian(
        /// Standard deviation, in the units of the data, `[0, 1]` for images.
        f64,
    ),
}

/// The likelihood `p(x|z)` of a batch, with independent values. `X` is the rank of a batch of
/// samples.
///
/// # Shapes
/// All tensors are `[batch, …]`, in the shape of the samples.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Likelihood<const X: usize = 4> {
    /// Each pixel is white with probability `1 / (1 + e^−logit)`. The value of a grey pixel counts
    /// as its probability of being white, as is usual for MNIST.
    Bernoulli {
        /// Logits of white.
        logits: Tensor<X>,
    },
    /// Each value is normally distributed around its mean.
    Gaussian {
        /// Means of the values.
        mean: Tensor<X>,
        /// Standard deviation, in the units of the data, `[0, 1]` for images.
        std: f64,
    },
}

impl<const X: usize> Likelihood<X> {
    /// The likelihood of type `kind` for the `output` of a decoder: logits or means.
    pub fn new(kind: LikelihoodKind, output: Tensor<X>) -> Self {
        match kind {
            LikelihoodKind::Bernoulli => Likelihood::Bernoulli { logits: output },
            LikelihoodKind::Gaussian(std) => Likelihood::Gaussian { mean: output, std },
        }
    }

    /// The log-likelihood `log p(x|z)` in nats.
    ///
    /// - Bernoulli: `Σ x·l − log(1 + eˡ)` for logits `l`, computed without overflow;
    /// - Gaussian: `−½ Σ (log 2πσ² + (x − μ)² / σ²)`.
    ///
    /// # Shapes
    /// - x: `[batch, …]`, in `[0, 1]` for Bernoulli
    /// - output: `[batch]`
    pub fn log_prob(&self, x: Tensor<X>) -> Tensor<1> {
        match self {
            Likelihood::Bernoulli { logits } => {
                -binary_cross_entropy(logits.clone().flatten(1, X - 1), x.flatten(1, X - 1))
            }
            Likelihood::Gaussian { mean, std } => {
                let difference = x - mean.clone();
                let constant = (2.0 * std::f64::consts::PI * std * std).ln();
                let terms = (difference.clone() * difference / (std * std) + constant) * -0.5;
                terms.flatten::<2>(1, X - 1).sum_dim(1).squeeze_dim(1)
            }
        }
    }

    /// The mean of the distribution, `[batch, …]`; in `[0, 1]` for Bernoulli.
    pub fn mean(&self) -> Tensor<X> {
        match self {
            Likelihood::Bernoulli { logits } => activation::sigmoid(logits.clone()),
            Likelihood::Gaussian { mean, .. } => mean.clone(),
        }
    }

    /// The most probable sample, `[batch, …]`; for Bernoulli, pixels are black or white.
    pub fn mode(&self) -> Tensor<X> {
        match self {
            Likelihood::Bernoulli { logits } => logits.clone().greater_equal_elem(0.0).float(),
            Likelihood::Gaussian { mean, .. } => mean.clone(),
        }
    }

    /// Draws a sample, `[batch, …]`.
    pub fn sample(&self, rng: &mut Rng) -> Tensor<X> {
        let mean = self.mean();
        let (shape, device) = (mean.dims(), mean.device());
        match self {
            Likelihood::Bernoulli { .. } => {
                let thresholds =
                    TensorData::new(rng.uniform_vec(shape.iter().product(), 0.0, 1.0), shape);
                mean.greater(Tensor::from_data(thresholds, &device)).float()
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
    fn bernoulli_log_prob_is_exact_for_huge_logits() {
        let device = Device::flex();
        let logits = Tensor::<4>::from_floats([[[[0.3, -2.0], [200.0, -200.0]]]], &device);
        let x = Tensor::<4>::from_floats([[[[1.0, 0.25], [1.0, 0.0]]]], &device);
        let probability = |l: f64| 1.0 / (1.0 + (-l).exp());
        let expected = probability(0.3).ln()
            + 0.25 * probability(-2.0).ln()
            + 0.75 * (1.0 - probability(-2.0)).ln();
        let likelihood = Likelihood::new(LikelihoodKind::Bernoulli, logits);
        assert!((value(likelihood.log_prob(x)) - expected).abs() < 1e-5);
        let wrong = Tensor::<4>::from_floats([[[[1.0, 0.0], [0.0, 0.0]]]], &device);
        let lost = value(likelihood.log_prob(wrong));
        assert!(lost.is_finite() && lost < -199.0, "{lost}");
    }

    #[test]
    fn bernoulli_gradient_is_x_minus_probability() {
        let device = Device::flex().autodiff();
        let logits = Tensor::<4>::from_floats([[[[0.3, -2.0, 0.0]]]], &device).require_grad();
        let x = Tensor::<4>::from_floats([[[[1.0, 0.25, 0.5]]]], &device);
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
        let probability = |l: f32| 1.0 / (1.0 + (-l).exp());
        for (g, e) in got
            .iter()
            .zip([1.0 - probability(0.3), 0.25 - probability(-2.0), 0.0])
        {
            assert!((g - e).abs() < 1e-6, "{got:?}");
        }
    }

    #[test]
    fn gaussian_log_prob_is_the_normal_density() {
        let device = Device::flex();
        let likelihood = Likelihood::new(
            LikelihoodKind::Gaussian(0.1),
            Tensor::<4>::from_floats([[[[0.5, 0.2]]]], &device),
        );
        let x = Tensor::<4>::from_floats([[[[0.6, 0.2]]]], &device);
        let expected = -(2.0 * std::f64::consts::PI * 0.01).ln() - 0.5;
        assert!((value(likelihood.log_prob(x)) - expected).abs() < 1e-5);
    }

    #[test]
    fn samples_have_the_mean_of_the_likelihood() {
        let device = Device::flex();
        let logits = Tensor::<4>::full([1, 1, 100, 100], 1.0, &device);
        let probability = 1.0 / (1.0 + (-1.0f64).exp());
        let got = value(
            Likelihood::Bernoulli { logits }
                .sample(&mut Rng::new(1))
                .mean(),
        );
        assert!((got - probability).abs() < 5.0 * (probability * (1.0 - probability) / 1e4).sqrt());
        let gaussian = Likelihood::Gaussian {
            mean: Tensor::<4>::full([1, 1, 100, 100], 0.5, &device),
            std: 0.2,
        };
        assert!((value(gaussian.sample(&mut Rng::new(1)).mean()) - 0.5).abs() < 5.0 * 0.2 / 100.0);
    }
}
