//! Normal distributions with a fixed, learned or optimal standard deviation.

use super::{soft_clamp, sum_values};
use burn::tensor::Tensor;
use std::f64::consts::TAU;

/// Range of the logarithms of learned standard deviations; the optimal one is not below it.
const LOG_STD: [f64; 2] = [-6.0, 4.0];

/// Number of values of a sample.
fn value_count<const X: usize>(x: &Tensor<X>) -> f64 {
    x.dims()[1..].iter().product::<usize>() as f64
}

/// `Σ (x − μ)²`, `[batch]`.
fn squared_error<const X: usize>(mean: Tensor<X>, x: Tensor<X>) -> Tensor<1> {
    let difference = x - mean;
    sum_values(difference.clone() * difference)
}

/// `−½ Σ (log 2πσ² + (x − μ)² / σ²)`, `[batch]`.
pub(super) fn log_prob<const X: usize>(mean: Tensor<X>, std: f64, x: Tensor<X>) -> Tensor<1> {
    let variance = std * std;
    let constant = 0.5 * value_count(&x) * (TAU * variance).ln();
    squared_error(mean, x) * (-0.5 / variance) - constant
}

/// The means and the logarithms of the standard deviations in the output of a decoder.
pub(super) fn split<const X: usize>(output: Tensor<X>) -> (Tensor<X>, Tensor<X>) {
    let outputs = output.dims()[1];
    assert!(
        outputs.is_multiple_of(2),
        "{outputs} outputs of a decoder are not a mean and a standard deviation per channel"
    );
    let channels = outputs / 2;
    let log_std = output.clone().narrow(1, channels, channels);
    (output.narrow(1, 0, channels), soft_clamp(log_std, LOG_STD))
}

/// `−½ Σ (log 2π + 2·log σ + (x − μ)² / σ²)`, `[batch]`.
pub(super) fn learned_log_prob<const X: usize>(
    mean: Tensor<X>,
    log_std: Tensor<X>,
    x: Tensor<X>,
) -> Tensor<1> {
    let constant = 0.5 * value_count(&x) * TAU.ln();
    let scaled = (x - mean) * (-log_std.clone()).exp();
    -sum_values(scaled.clone() * scaled * 0.5 + log_std) - constant
}

/// The variance under which a batch with these squared errors is most probable, `[1]`; a constant
/// for the gradient.
fn optimal_variance(errors: Tensor<1>, values: f64) -> Tensor<1> {
    (errors.detach().mean() / values).clamp_min((2.0 * LOG_STD[0]).exp())
}

/// [`log_prob`] with the optimal standard deviation of the batch.
pub(super) fn optimal_log_prob<const X: usize>(mean: Tensor<X>, x: Tensor<X>) -> Tensor<1> {
    let values = value_count(&x);
    let errors = squared_error(mean, x);
    let variance = optimal_variance(errors.clone(), values);
    let constant = (variance.clone().log() + TAU.ln()) * (0.5 * values);
    errors * (variance.recip() * -0.5) - constant
}

/// Logarithm of the optimal standard deviation, `[1]`.
pub(super) fn optimal_log_std<const X: usize>(mean: Tensor<X>, x: Tensor<X>) -> Tensor<1> {
    let values = value_count(&x);
    optimal_variance(squared_error(mean, x), values).log() * 0.5
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{Likelihood, LikelihoodKind};
    use aigc_core::{rng::Rng, testing::values};
    use burn::tensor::Device;

    /// `log N(x; mean, std²)` in f64.
    fn log_normal(x: f32, mean: f32, std: f64) -> f64 {
        let scaled = f64::from(x - mean) / std;
        -0.5 * (TAU * std * std).ln() - 0.5 * scaled * scaled
    }

    const MEAN: [f32; 4] = [0.5, 0.2, -1.0, 0.9];
    const X: [f32; 4] = [0.6, 0.2, 0.5, 0.7];

    /// Two samples of two channels.
    fn pair(values: [f32; 4], device: &Device) -> Tensor<4> {
        Tensor::<1>::from_floats(values, device).reshape([2, 2, 1, 1])
    }

    #[test]
    fn log_prob_is_the_normal_density() {
        let device = Device::flex();
        let likelihood = Likelihood::new(LikelihoodKind::Gaussian(0.1), pair(MEAN, &device));
        let got = values(likelihood.log_prob(pair(X, &device)));
        for (sample, got) in got.iter().enumerate() {
            let expected: f64 = (2 * sample..2 * sample + 2)
                .map(|i| log_normal(X[i], MEAN[i], 0.1))
                .sum();
            assert!(
                (f64::from(*got) - expected).abs() < 1e-4,
                "{got} {expected}"
            );
        }
    }

    /// Every value has its own standard deviation; the means come first.
    #[test]
    fn learned_log_prob_is_the_normal_density() {
        let device = Device::flex();
        let raw = [-1.0f32, 0.5, -9.0, 7.0];
        let output = Tensor::cat(vec![pair(MEAN, &device), pair(raw, &device)], 1);
        let likelihood = Likelihood::new(LikelihoodKind::LearnedGaussian, output);
        let Likelihood::LearnedGaussian { log_std, .. } = &likelihood else {
            panic!("{likelihood:?}");
        };
        let log_std = values(log_std.clone());
        let softplus = |x: f64| x.exp().ln_1p();
        for (raw, log_std) in raw.iter().zip(&log_std) {
            let above = softplus(f64::from(*raw) + 6.0) - 6.0;
            let expected = 4.0 - softplus(4.0 - above);
            assert!((f64::from(*log_std) - expected).abs() < 1e-5, "{raw}");
        }
        let got = values(likelihood.log_prob(pair(X, &device)));
        for (sample, got) in got.iter().enumerate() {
            let expected: f64 = (2 * sample..2 * sample + 2)
                .map(|i| log_normal(X[i], MEAN[i], f64::from(log_std[i]).exp()))
                .sum();
            let error = (f64::from(*got) - expected).abs();
            assert!(error < 1e-5 * expected.abs().max(1.0), "{got} {expected}");
        }
    }

    /// Standard deviations far beyond the range still have finite probabilities and gradients, and
    /// gradients that lead back.
    #[test]
    fn extreme_standard_deviations_have_finite_gradients() {
        let device = Device::flex().autodiff();
        let raw = Tensor::<2>::from_floats([[0.0, -8.0], [0.0, 1e4], [0.0, -30.0]], &device)
            .require_grad();
        let likelihood = Likelihood::new(LikelihoodKind::LearnedGaussian, raw.clone());
        let log_prob = likelihood.log_prob(Tensor::full([3, 1], 3.0, &device));
        assert!(values(log_prob.clone()).iter().all(|p| p.is_finite()));
        let gradient = values(raw.grad(&log_prob.backward()).unwrap());
        assert!(gradient.iter().all(|g| g.is_finite()), "{gradient:?}");
        assert!(gradient[1] > 0.0, "{gradient:?}");
    }

    /// No other standard deviation makes the batch more probable, and the gradient is that of the
    /// normal distribution with that standard deviation.
    #[test]
    fn optimal_standard_deviation_is_the_most_probable() {
        let device = Device::flex().autodiff();
        let rms = (MEAN.iter().zip(X))
            .map(|(m, x)| f64::from(x - m).powi(2))
            .sum::<f64>()
            .sqrt()
            / 2.0;
        let mean = pair(MEAN, &device).require_grad();
        let optimal = Likelihood::new(LikelihoodKind::OptimalGaussian, mean.clone());
        let log_prob = optimal.log_prob(pair(X, &device));
        let total = |std: f64| {
            let likelihood = Likelihood::new(LikelihoodKind::Gaussian(std), pair(MEAN, &device));
            f64::from(
                likelihood
                    .log_prob(pair(X, &device))
                    .sum()
                    .into_scalar::<f32>(),
            )
        };
        let found = f64::from(log_prob.clone().sum().into_scalar::<f32>());
        assert!((found - total(rms)).abs() < 1e-5, "{found}");
        assert!(found > total(rms * 1.05) && found > total(rms * 0.95));
        let gradient = values(mean.grad(&log_prob.backward()).unwrap());
        for i in 0..4 {
            let expected = f64::from(X[i] - MEAN[i]) / (rms * rms);
            assert!((f64::from(gradient[i]) - expected).abs() < 1e-5);
        }
        // With the standard deviation fixed, every sample keeps its probability.
        let fitted = Likelihood::OptimalGaussian {
            mean: pair(MEAN, &device),
        }
        .fitted(pair(X, &device));
        let difference = fitted.log_prob(pair(X, &device)) - log_prob;
        assert!(values(difference).iter().all(|d| d.abs() < 1e-5));
    }

    /// Exact reconstructions have the smallest standard deviation, `e^−6`, and finite gradients.
    #[test]
    fn optimal_standard_deviation_has_a_lower_limit() {
        let device = Device::flex().autodiff();
        let mean = pair(MEAN, &device).require_grad();
        let likelihood = Likelihood::OptimalGaussian { mean: mean.clone() };
        let log_prob = likelihood.log_prob(pair(MEAN, &device));
        let expected = 2.0 * log_normal(0.0, 0.0, (-6.0f64).exp());
        for found in values(log_prob.clone()) {
            assert!((f64::from(found) - expected).abs() < 1e-4, "{found}");
        }
        let gradient = values(mean.grad(&log_prob.backward()).unwrap());
        assert_eq!(gradient, [0.0; 4]);
    }

    /// Within five standard deviations of the moments of `n` samples.
    #[test]
    fn samples_have_the_moments_of_the_likelihood() {
        let (n, std, device) = (20_000, 0.2f64, Device::flex());
        let mean = Tensor::<4>::full([1, 1, 100, 200], 0.5, &device);
        let log_std = Tensor::<4>::full([1, 1, 100, 200], std.ln(), &device);
        let fixed = Likelihood::Gaussian {
            mean: mean.clone(),
            std,
        };
        let learned = Likelihood::LearnedGaussian { mean, log_std };
        for likelihood in [fixed, learned] {
            let samples = values(likelihood.sample(&mut Rng::new(1)));
            let moment = |f: &dyn Fn(f64) -> f64| {
                samples.iter().map(|x| f(f64::from(*x))).sum::<f64>() / n as f64
            };
            let average = moment(&|x| x);
            let variance = moment(&|x| (x - 0.5) * (x - 0.5));
            let root = f64::from(n).sqrt();
            assert!((average - 0.5).abs() < 5.0 * std / root, "{average}");
            let tolerance = 5.0 * 2f64.sqrt() * std * std / root;
            assert!((variance - std * std).abs() < tolerance, "{variance}");
        }
    }
}
