//! Thresholds with a known rate of false alarms.

use crate::{Error, Result, check::ensure, eval::Proportion};

/// The false alarms that a detector may make.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationConfig {
    /// Largest share of new samples that are reported as copies.
    pub false_alarm_rate: f64,
    /// Probability, over the draw of the held-out samples, that the share is not exceeded. Held-out
    /// images of real data sets may contain near-duplicates of training images. A high confidence
    /// with few held-out images puts the threshold below these; then copies may be missed.
    pub confidence: f64,
}

impl Default for CalibrationConfig {
    /// 1 %, with a confidence of 0.8.
    fn default() -> Self {
        Self {
            false_alarm_rate: 0.01,
            confidence: 0.8,
        }
    }
}

impl CalibrationConfig {
    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Config`] for a rate or a confidence outside (0, 1).
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [
            ("false_alarm_rate", self.false_alarm_rate),
            ("confidence", self.confidence),
        ] {
            ensure(
                value > 0.0 && value < 1.0,
                field,
                value,
                "between 0 and 1 (exclusive)",
            )?;
        }
        Ok(())
    }

    /// Number of held-out samples that a threshold needs, `ln(1 − confidence) / ln(1 − rate)`: 161
    /// by default.
    pub fn num_needed(&self) -> usize {
        ((1.0 - self.confidence).ln() / (-self.false_alarm_rate).ln_1p()).ceil() as usize
    }
}

/// The threshold of a detector, and how it was found.
///
/// Samples with a score below the threshold are copies. The threshold is the `k`-th smallest score
/// of `n` held-out samples. The rate of false alarms at that score has the distribution
/// `Beta(k, n − k + 1)` if new samples are distributed like the held-out ones; `k` is the largest
/// for which it is at most the given rate with the given confidence (a one-sided tolerance limit,
/// Wilks 1941, <https://doi.org/10.1214/aoms/1177731788>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calibration {
    /// Scores below are copies.
    pub threshold: f64,
    /// The false alarms that were allowed.
    pub config: CalibrationConfig,
    /// The share of the held-out samples themselves with a score below the threshold, with its
    /// interval.
    pub false_alarms: Proportion,
}

impl Calibration {
    /// The threshold for the scores of held-out samples. A smaller score is a closer match.
    ///
    /// # Errors
    /// [`Error::Config`] for a configuration out of range; [`Error::InvalidArgument`] for too few
    /// scores, scores that are not finite, and held-out samples that are copies themselves.
    pub fn new(held_out: &[f64], config: CalibrationConfig) -> Result<Self> {
        config.validate()?;
        if let Some(score) = held_out.iter().find(|score| !score.is_finite()) {
            return Err(Error::argument("held_out", score, "finite scores"));
        }
        let n = held_out.len();
        let k = rank(n, config);
        if k == 0 {
            let expected = format!(
                "at least {}, for a false-alarm rate of {} with a confidence of {}",
                config.num_needed(),
                config.false_alarm_rate,
                config.confidence
            );
            return Err(Error::argument(
                "held_out",
                format!("{n} samples"),
                expected,
            ));
        }
        let mut sorted = held_out.to_vec();
        sorted.sort_by(f64::total_cmp);
        let threshold = sorted[k - 1];
        if threshold <= 0.0 {
            return Err(Error::argument(
                "held_out",
                format!("{k} or more samples that equal training samples"),
                "samples that are not in the training set",
            ));
        }
        let alarms = sorted.iter().filter(|score| **score < threshold).count();
        Ok(Self {
            threshold,
            config,
            false_alarms: Proportion::new(alarms, n)?,
        })
    }

    /// Whether a sample with this score is a copy.
    pub fn is_copy(&self, score: f64) -> bool {
        score < self.threshold
    }
}

/// The largest `k` with `P(Binomial(n, rate) < k) ≤ 1 − confidence`; 0 if there is none.
fn rank(n: usize, config: CalibrationConfig) -> usize {
    let CalibrationConfig {
        false_alarm_rate: rate,
        confidence,
    } = config;
    let odds = (rate / (1.0 - rate)).ln();
    // Logarithms: for many samples the first terms are below the smallest number.
    let mut term = n as f64 * (-rate).ln_1p();
    let mut below = term.exp();
    let mut k = 0;
    while k < n && below <= 1.0 - confidence {
        term += ((n - k) as f64 / (k + 1) as f64).ln() + odds;
        below += term.exp();
        k += 1;
    }
    k
}

/// Distance to the match over the distance to the `k`-th nearest; 0 for an exact copy.
pub(super) fn ratio(distance: f64, scale: f64) -> f64 {
    if distance > 0.0 {
        distance / scale
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn config(false_alarm_rate: f64, confidence: f64) -> CalibrationConfig {
        CalibrationConfig {
            false_alarm_rate,
            confidence,
        }
    }

    /// For `k = 1` the condition is `(1 − rate)ⁿ ≤ 1 − confidence`.
    #[test]
    fn fewest_samples_match_closed_form() {
        assert_eq!(config(0.01, 0.95).num_needed(), 299);
        assert_eq!(CalibrationConfig::default().num_needed(), 161);
        for config in [config(0.01, 0.95), config(0.2, 0.5), config(0.05, 0.99)] {
            let n = config.num_needed();
            assert_eq!((rank(n - 1, config), rank(n, config)), (0, 1));
        }
    }

    /// Uniform scores: the rate of false alarms is the threshold itself. It exceeds the given rate
    /// in a tenth of the draws.
    #[test]
    fn rate_is_kept_with_given_confidence() {
        let mut rng = Rng::new(0);
        let exceeded = (0..1000).filter(|_| {
            let scores: Vec<f64> = rng
                .uniform_vec(400, 0.0, 1.0)
                .into_iter()
                .map(|score| f64::from(score) + 1e-9)
                .collect();
            let calibration = Calibration::new(&scores, config(0.05, 0.9)).unwrap();
            calibration.threshold > 0.05
        });
        let exceeded = exceeded.count();
        assert!((50..=130).contains(&exceeded), "{exceeded}");
    }

    #[test]
    fn many_samples_approach_the_rate() {
        let k = rank(2_000_000, CalibrationConfig::default());
        assert!((19_700..20_000).contains(&k), "{k}");
    }

    #[test]
    fn bad_scores_are_errors() {
        let message = |scores: &[f64], config| {
            let error = Calibration::new(scores, config).unwrap_err();
            error.to_string()
        };
        let few = message(&[1.0; 160], CalibrationConfig::default());
        assert!(
            few.contains("`held_out` is 160 samples, expected at least 161"),
            "{few}"
        );
        assert!(message(&[f64::NAN; 300], CalibrationConfig::default()).contains("NaN"));
        assert!(message(&[0.0; 300], CalibrationConfig::default()).contains("equal training"));
        assert!(message(&[1.0; 300], config(1.0, 0.9)).contains("`false_alarm_rate` is 1"));
        assert!(message(&[1.0; 300], config(0.1, 0.0)).contains("`confidence` is 0"));
    }
}
