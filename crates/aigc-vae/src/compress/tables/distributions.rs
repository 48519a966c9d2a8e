//! Distribution functions that are the same on every machine.

use std::f64::consts::SQRT_2;

/// The highest level of an 8-bit pixel.
pub(super) const MAX_LEVEL: f64 = 255.0;

/// Exponentials of `logits`, scaled so that the largest is 1.
pub(super) fn softmax(logits: &[f64]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials = logits.iter().map(|logit| libm::exp(logit - largest));
    exponentials.collect()
}

/// The distribution function of the standard normal distribution. The error is that of
/// `libm::erfc`, below 1 unit in the last place.
pub(super) fn normal_cdf(x: f64) -> f64 {
    // Beyond, the result differs from 0 or 1 by less than 1e-17.
    if x.abs() > 8.5 {
        return if x < 0.0 { 0.0 } else { 1.0 };
    }
    0.5 * libm::erfc(-x / SQRT_2)
}

/// The distribution function of the standard logistic distribution.
pub(super) fn logistic_cdf(x: f64) -> f64 {
    // Beyond, the result differs from 0 or 1 by less than 1e-17.
    if x.abs() > 40.0 {
        return if x < 0.0 { 0.0 } else { 1.0 };
    }
    1.0 / (1.0 + libm::exp(-x))
}

/// The distribution function at `x` in `[0, 1]` of the continuous Bernoulli distribution with this
/// logit, `(e^(l·x) − 1) / (eˡ − 1)`.
pub(super) fn continuous_bernoulli_cdf(x: f64, logit: f64) -> f64 {
    if logit == 0.0 {
        x
    } else if logit < 0.0 {
        libm::expm1(logit * x) / libm::expm1(logit)
    } else {
        1.0 - continuous_bernoulli_cdf(1.0 - x, -logit)
    }
}

/// The inverse of [`normal_cdf`], by bisection.
pub(super) fn normal_quantile(probability: f64) -> f64 {
    let (mut low, mut high) = (-8.5, 8.5);
    // An interval of 17/2^60 is smaller than the distance of neighbouring numbers above 0.1.
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if normal_cdf(middle) < probability {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

/// Probabilities of the intervals between limits, given the distribution function at each.
pub(super) fn differences(below: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut last = 0.0f64;
    // Differences of nearly equal numbers may come out negative.
    below
        .chain([1.0])
        .map(|below| (below - std::mem::replace(&mut last, below)).max(0.0))
        .collect()
}

/// Probabilities of the 256 levels, given the distribution function in levels.
pub(super) fn of_levels(cdf: impl Fn(f64) -> f64) -> Vec<f64> {
    differences((0..255u8).map(|level| cdf(f64::from(level) + 0.5)))
}
