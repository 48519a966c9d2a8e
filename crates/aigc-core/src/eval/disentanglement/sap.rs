//! Separated attribute predictability.

use super::{FactorCodes, ScoreMatrix};

/// Result of [`separated_attribute_predictability`].
#[derive(Clone, Debug, PartialEq)]
pub struct SeparatedAttributePredictability {
    /// Mean of the gaps: 1 if each factor is a linear function of one code and independent of all
    /// other codes, 0 if two codes predict it as well as each other.
    pub score: f64,
    /// For each factor, the difference of the two largest predictabilities.
    pub gaps: Vec<f64>,
    /// How well each code alone predicts each factor, from 0 to 1.
    pub predictability: ScoreMatrix,
}

/// Computes the separated attribute predictability (SAP; Kumar et al. 2018,
/// <https://arxiv.org/abs/1711.00848>, §3) by predictions of a factor from one code.
///
/// - A factor with ordered values is predicted by linear regression; the predictability is `R²`,
///   the squared correlation, as in the paper.
/// - A categorical factor is predicted by thresholds of the code, as in the paper: between two
///   thresholds, the prediction is the value with the largest part of its samples there. The
///   predictability is the balanced accuracy, the mean over the values of the part of their samples
///   that is predicted. The thresholds are the bounds of 20 bins of equal width, or of twice as
///   many bins as values. By chance it is 1 over the number of values, so that the gap is below 1
///   even for a perfect code.
///
/// Predictions are made for the samples that they are fitted to, which matters only for fewer than
/// some thousands of samples. Locatello et al. 2019 (<https://arxiv.org/abs/1811.12359>) take the
/// accuracy of a linear support vector machine for all factors; their scores are not comparable.
pub fn separated_attribute_predictability(
    data: &FactorCodes<'_>,
) -> SeparatedAttributePredictability {
    let score = |code: usize, factor: usize| match data.categorical[factor] {
        true => balanced_accuracy(data, code, factor),
        false => squared_correlation(data, code, factor),
    };
    let predictability = ScoreMatrix::from_fn(data.num_codes(), data.num_factors(), score);
    let gaps: Vec<f64> = (0..data.num_factors())
        .map(|factor| predictability.gap(factor))
        .collect();
    SeparatedAttributePredictability {
        score: gaps.iter().sum::<f64>() / gaps.len() as f64,
        gaps,
        predictability,
    }
}

/// The squared correlation; 0 for a constant code.
fn squared_correlation(data: &FactorCodes<'_>, code: usize, factor: usize) -> f64 {
    let n = data.num_samples() as f64;
    // Squares of huge codes would overflow.
    let largest = data.code(code).fold(0.0f64, |most, x| most.max(x.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    let pairs = || {
        let codes = data.code(code).map(|x| x / largest);
        codes.zip(data.factor(factor).map(|value| value as f64))
    };
    let (x, y) = pairs().fold((0.0, 0.0), |(x, y), (a, b)| (x + a / n, y + b / n));
    let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
    for (a, b) in pairs() {
        xx += (a - x) * (a - x);
        xy += (a - x) * (b - y);
        yy += (b - y) * (b - y);
    }
    // A constant code may differ from its mean by rounding.
    if xx <= 1e-24 * n * x * x {
        return 0.0;
    }
    xy / xx * (xy / yy)
}

/// The balanced accuracy of the best prediction in each bin of the code.
fn balanced_accuracy(data: &FactorCodes<'_>, code: usize, factor: usize) -> f64 {
    let values = data.num_values[factor];
    let mut totals = vec![0usize; values];
    data.factor(factor).for_each(|value| totals[value] += 1);
    let bins = data.binned(code, (2 * values).max(20));
    let mut pairs: Vec<_> = bins.into_iter().zip(data.factor(factor)).collect();
    pairs.sort_unstable();
    let predicted = pairs.chunk_by(|a, b| a.0 == b.0).map(|bin| {
        let parts = bin.chunk_by(|a, b| a == b);
        let parts = parts.map(|equal| equal.len() as f64 / totals[equal[0].1] as f64);
        parts.fold(0.0, f64::max)
    });
    let present = totals.iter().filter(|total| **total > 0).count();
    predicted.sum::<f64>() / present as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::disentanglement::testing::{as_codes, binary_symmetric, grid, noise};

    #[test]
    fn codes_equal_to_factors_are_separated() {
        let num_values = [4, 5, 3];
        let factors = grid(&num_values, 10);
        let codes: Vec<f64> = as_codes(&factors).iter().map(|x| 2.0 - 3.0 * x).collect();
        let data = FactorCodes::new(&codes, 3, &factors, &num_values).unwrap();
        let found = separated_attribute_predictability(&data);
        assert!((found.score - 1.0).abs() < 1e-9, "{found:?}");
        // Perfect and chance: 1 − 1/3.
        let data = data.with_categorical(&[2]).unwrap();
        let found = separated_attribute_predictability(&data);
        assert!((found.predictability.get(2, 2) - 1.0).abs() < 1e-12);
        assert!((found.gaps[2] - 2.0 / 3.0).abs() < 1e-12, "{found:?}");
        assert!((found.score - (2.0 + 2.0 / 3.0) / 3.0).abs() < 1e-9);
    }

    /// Binary variables that differ in 1 of 8 cases have a correlation of 3/4 and an accuracy of
    /// 7/8.
    #[test]
    fn noisy_channel_matches_its_closed_form() {
        let (codes, factors) = binary_symmetric();
        let data = FactorCodes::new(&codes, 3, &factors, &[2, 2]).unwrap();
        let found = separated_attribute_predictability(&data);
        assert!((found.gaps[0] - 0.5625).abs() < 1e-12, "{found:?}");
        assert!((found.gaps[1] - 1.0).abs() < 1e-12);
        assert_eq!(found.predictability.code(1), [0.0, 0.0]);
        let data = data.with_categorical(&[0, 1]).unwrap();
        let found = separated_attribute_predictability(&data);
        assert!((found.predictability.get(0, 0) - 0.875).abs() < 1e-12);
        assert_eq!(found.predictability.code(1), [0.5, 0.5]);
        assert!((found.score - 0.5 * (0.375 + 0.5)).abs() < 1e-12);
    }

    /// Values that a code does not order are separated by thresholds, not by a line.
    #[test]
    fn thresholds_predict_values_without_an_order() {
        let factors = grid(&[3], 20);
        let codes: Vec<f64> = factors
            .iter()
            .map(|value| [0.0, 1.0, 0.5][*value as usize])
            .collect();
        let data = FactorCodes::new(&codes, 1, &factors, &[3]).unwrap();
        assert!((separated_attribute_predictability(&data).score - 0.25).abs() < 1e-12);
        let data = data.with_categorical(&[0]).unwrap();
        assert!((separated_attribute_predictability(&data).score - 1.0).abs() < 1e-12);
    }

    #[test]
    fn predictability_has_no_scale() {
        let (codes, factors) = binary_symmetric();
        let found = [1.0, 1e308, 1e-300].map(|scale| {
            let codes: Vec<f64> = codes.iter().map(|x| (x / 7.0) * scale).collect();
            let data = FactorCodes::new(&codes, 3, &factors, &[2, 2]).unwrap();
            separated_attribute_predictability(&data).gaps
        });
        for gaps in found {
            assert!((gaps[0] - 0.5625).abs() < 1e-12, "{gaps:?}");
            assert!((gaps[1] - 1.0).abs() < 1e-12, "{gaps:?}");
        }
    }

    #[test]
    fn noise_is_not_separated() {
        let factors = grid(&[4, 3], 400);
        let codes = noise(1, 3 * 4800);
        let data = FactorCodes::new(&codes, 3, &factors, &[4, 3]).unwrap();
        // A squared correlation is about 1/n.
        assert!(separated_attribute_predictability(&data).score < 0.01);
        let data = data.with_categorical(&[0, 1]).unwrap();
        let found = separated_attribute_predictability(&data);
        assert!(found.score < 0.03, "{found:?}");
        assert!(
            (found.predictability.get(0, 0) - 0.25).abs() < 0.05,
            "{found:?}"
        );
    }
}
