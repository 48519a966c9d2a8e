//! Continuous Bernoulli distributions (Loaiza-Ganem and Cunningham 2019,
//! <https://arxiv.org/abs/1907.06845>): the density `p(x) = C(λ)·λˣ·(1 − λ)^(1−x)` over `[0, 1]`.
//!
//! In terms of the logit `l = log λ/(1 − λ)`, the density is proportional to `e^(l·x)`, and the
//! normalising constant is `C = 2·artanh(1 − 2λ)/(1 − 2λ) = l / tanh(l/2)`.

use super::{bernoulli, sum_values};
use aigc_core::{nn::Activation, rng::Rng};
use burn::tensor::Tensor;

/// Below this absolute value of a logit, where `λ` is close to ½, Taylor series replace quotients
/// whose parts both tend to 0. The first omitted terms are below 2e-7.
const SERIES: f64 = 0.5;

/// `Σ x·l − log(1 + eˡ) + log C(l)`.
///
/// # Shapes
/// - output: `[batch]`
pub(super) fn log_prob<const X: usize>(logits: Tensor<X>, x: Tensor<X>) -> Tensor<1> {
    bernoulli::log_prob(logits.clone(), x) + sum_values(log_normalizer(logits))
}

/// `log C(l) = log |l| − log tanh(|l|/2)`; near 0, `ln 2 + l²/12 − 7·l⁴/1440 + 31·l⁶/90720`.
fn log_normalizer<const X: usize>(logits: Tensor<X>) -> Tensor<X> {
    let size = logits.clone().abs();
    let near = size.clone().lower_elem(SERIES);
    // Both branches are evaluated for every logit: clamping keeps the unused one, and its gradient,
    // finite.
    let small = logits.clamp(-SERIES, SERIES);
    let square = small.clone() * small;
    let series = ((square.clone() * (31.0 / 90720.0) - 7.0 / 1440.0) * square.clone() + 1.0 / 12.0)
        * square
        + std::f64::consts::LN_2;
    let size = size.mask_fill(near.clone(), 1.0);
    let quotient = size.clone().log() - Activation::Tanh.forward(size * 0.5).log();
    quotient.mask_where(near, series)
}

/// The mean, `½ + ½·coth(l/2) − 1/l`; near 0, `½ + l/12 − l³/720 + l⁵/30240`.
pub(super) fn mean<const X: usize>(logits: Tensor<X>) -> Tensor<X> {
    let near = logits.clone().abs().lower_elem(SERIES);
    let small = logits.clone().clamp(-SERIES, SERIES);
    let square = small.clone() * small.clone();
    let series = ((square.clone() * (1.0 / 30240.0) - 1.0 / 720.0) * square + 1.0 / 12.0) * small;
    let logits = logits.mask_fill(near.clone(), 1.0);
    let coth = Activation::Tanh.forward(logits.clone() * 0.5).recip();
    (coth * 0.5 - logits.recip()).mask_where(near, series) + 0.5
}

/// Inverse of the distribution function `(e^(l·x) − 1) / (eˡ − 1)` at a uniform number `t`. For
/// negative logits it is `−log(1 − t·(1 − e^−|l|)) / |l|`, which does not overflow; for positive
/// ones, one minus that.
pub(super) fn sample<const X: usize>(logits: Tensor<X>, rng: &mut Rng) -> Tensor<X> {
    let uniform = rng.uniform(logits.dims(), 0.0, 1.0, &logits.device());
    let size = logits.clone().abs().clamp_min(1e-4);
    // 1 − e^−a = 2·tanh(a/2) / (1 + tanh(a/2)), without cancellation for small a.
    let tanh = Activation::Tanh.forward(size.clone() * 0.5);
    let mass = tanh.clone() * 2.0 / (tanh + 1.0);
    let below = (-(-uniform * mass).log1p() / size).clamp(0.0, 1.0);
    let above = -below.clone() + 1.0;
    below.mask_where(logits.greater_elem(0.0), above)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{Likelihood, LikelihoodKind};
    use aigc_core::testing::values;
    use burn::tensor::{Device, TensorData};

    /// Logits on both sides of the limits of the series, at 0, and far from it.
    const LOGITS: [f32; 12] = [
        -400.0, -20.0, -3.0, -0.501, -0.499, -1e-3, 0.0, 0.2, 0.499, 0.501, 2.0, 400.0,
    ];

    fn column(values: &[f32], device: &Device) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len(), 1]), device)
    }

    fn of(logits: Tensor<2>) -> Likelihood<2> {
        Likelihood::new(LikelihoodKind::ContinuousBernoulli, logits)
    }

    /// The mean in f64; by its series where that is exact.
    fn true_mean(l: f64) -> f64 {
        match l.abs() < 1e-2 {
            true => 0.5 + l / 12.0,
            false => 0.5 + 0.5 / (l / 2.0).tanh() - 1.0 / l,
        }
    }

    /// The density of the paper, in terms of `λ`.
    #[test]
    fn log_prob_is_the_density_of_the_paper() {
        let device = Device::flex();
        for lambda in [0.01f64, 0.3, 0.45, 0.55, 0.9] {
            let logit = (lambda / (1.0 - lambda)).ln() as f32;
            let constant = 2.0 * (1.0 - 2.0 * lambda).atanh() / (1.0 - 2.0 * lambda);
            let xs = [0.0f32, 0.25, 1.0];
            let got = of(column(&[logit; 3], &device)).log_prob(column(&xs, &device));
            for (x, got) in xs.iter().map(|x| f64::from(*x)).zip(values(got)) {
                let expected = x * lambda.ln() + (1.0 - x) * (1.0 - lambda).ln() + constant.ln();
                assert!((f64::from(got) - expected).abs() < 4e-6, "{lambda} {x}");
            }
        }
    }

    #[test]
    fn density_integrates_to_one() {
        let device = Device::flex();
        let n = 4000;
        let xs: Vec<f32> = (0..=n).map(|i| i as f32 / n as f32).collect();
        for logit in LOGITS {
            let density = of(column(&vec![logit; n + 1], &device))
                .log_prob(column(&xs, &device))
                .exp();
            // Simpson's rule.
            let weight = |i: usize| match i {
                0 => 1.0,
                i if i == n => 1.0,
                i => [2.0, 4.0][i % 2],
            };
            let sum: f64 = (values(density).iter().enumerate())
                .map(|(i, p)| weight(i) * f64::from(*p))
                .sum();
            let integral = sum / (3.0 * n as f64);
            // log p is a difference of numbers as large as the logit, in f32.
            let tolerance = 1e-5 + 1e-6 * f64::from(logit.abs());
            assert!((integral - 1.0).abs() < tolerance, "{logit}: {integral}");
        }
    }

    /// The distributions are an exponential family with natural parameter `l`: the derivative of
    /// `log p(x)` is `x` minus the mean.
    #[test]
    fn gradient_is_x_minus_mean() {
        let device = Device::flex().autodiff();
        let logits = column(&LOGITS, &device).require_grad();
        let x = 0.3;
        let likelihood = of(logits.clone());
        let gradients = likelihood
            .log_prob(Tensor::full([LOGITS.len(), 1], x, &device))
            .backward();
        let gradient = values(logits.grad(&gradients).unwrap());
        let mean = values(likelihood.mean());
        for ((logit, gradient), mean) in LOGITS.iter().zip(gradient).zip(mean) {
            let expected = true_mean(f64::from(*logit));
            assert!((f64::from(mean) - expected).abs() < 2e-6, "{logit} {mean}");
            let found = x - f64::from(gradient);
            assert!((found - expected).abs() < 3e-6, "{logit} {found}");
        }
    }

    #[test]
    fn samples_follow_the_distribution_function() {
        let n = 20_000;
        for logit in [-6.0f64, -1e-8, 0.0, 0.4, 6.0, 300.0] {
            let logits = Tensor::<2>::full([n, 1], logit, &Device::flex());
            let samples = values(of(logits).sample(&mut Rng::new(5)));
            assert!(samples.iter().all(|x| (0.0..=1.0).contains(x)));
            let below = samples.iter().filter(|x| **x < 0.7).count() as f64 / n as f64;
            let expected = match logit.abs() < 1e-6 {
                true => 0.7,
                false => (0.7 * logit).exp_m1() / logit.exp_m1(),
            };
            // Five standard deviations of a share, and a single sample.
            let deviation = (expected * (1.0 - expected) / n as f64).sqrt();
            let tolerance = 5.0 * deviation + 1.0 / n as f64;
            assert!((below - expected).abs() < tolerance, "{logit}: {below}");
        }
    }

    #[test]
    fn mode_is_the_end_that_the_density_rises_to() {
        let mode = of(column(&[-0.1, 0.1], &Device::flex())).mode();
        assert_eq!(values(mode), [0.0, 1.0]);
    }
}
