//! Bernoulli distributions of black and white pixels.

use aigc_core::{ops::binary_cross_entropy, rng::Rng};
use burn::tensor::{Tensor, activation};

/// `Σ x·l − log(1 + eˡ)`.
///
/// # Shapes
/// - output: `[batch]`
pub(super) fn log_prob<const X: usize>(logits: Tensor<X>, x: Tensor<X>) -> Tensor<1> {
    -binary_cross_entropy(logits.flatten(1, X - 1), x.flatten(1, X - 1))
}

pub(super) fn mean<const X: usize>(logits: Tensor<X>) -> Tensor<X> {
    activation::sigmoid(logits)
}

pub(super) fn mode<const X: usize>(logits: Tensor<X>) -> Tensor<X> {
    logits.greater_equal_elem(0.0).float()
}

pub(super) fn sample<const X: usize>(logits: Tensor<X>, rng: &mut Rng) -> Tensor<X> {
    let thresholds = rng.uniform(logits.dims(), 0.0, 1.0, &logits.device());
    mean(logits).greater(thresholds).float()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use crate::{Likelihood, LikelihoodKind};
    use aigc_core::{rng::Rng, testing::values};
    use burn::tensor::{Device, Tensor};

    fn value(x: Tensor<1>) -> f64 {
        f64::from(x.into_scalar::<f32>())
    }

    #[test]
    fn log_prob_is_exact_for_huge_logits() {
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
    fn gradient_is_x_minus_probability() {
        let device = Device::flex().autodiff();
        let logits = Tensor::<4>::from_floats([[[[0.3, -2.0, 0.0]]]], &device).require_grad();
        let x = Tensor::<4>::from_floats([[[[1.0, 0.25, 0.5]]]], &device);
        let gradients = Likelihood::Bernoulli {
            logits: logits.clone(),
        }
        .log_prob(x)
        .backward();
        let got = values(logits.grad(&gradients).unwrap());
        let probability = |l: f32| 1.0 / (1.0 + (-l).exp());
        for (g, e) in got
            .iter()
            .zip([1.0 - probability(0.3), 0.25 - probability(-2.0), 0.0])
        {
            assert!((g - e).abs() < 1e-6, "{got:?}");
        }
    }

    #[test]
    fn samples_have_the_mean_of_the_likelihood() {
        let logits = Tensor::<4>::full([1, 1, 100, 100], 1.0, &Device::flex());
        let probability = 1.0 / (1.0 + (-1.0f64).exp());
        let samples = Likelihood::Bernoulli { logits }.sample(&mut Rng::new(1));
        let got = value(samples.clone().mean());
        assert!((got - probability).abs() < 5.0 * (probability * (1.0 - probability) / 1e4).sqrt());
        assert!(values(samples).iter().all(|x| *x == 0.0 || *x == 1.0));
    }
}
