//! What a network's output means.

use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// How noisy a sample is: `x = α·x₀ + σ·ε`.
///
/// Variance-preserving processes have `α² + σ² = 1`, variance-exploding ones `α = 1`, flows
/// `α + σ = 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseLevel {
    /// Share of the clean sample.
    pub alpha: f64,
    /// Standard deviation of the noise.
    pub sigma: f64,
}

impl NoiseLevel {
    /// Variance-preserving, by `ᾱ`.
    pub fn variance_preserving(alpha_cumprod: f64) -> Self {
        Self {
            alpha: alpha_cumprod.sqrt(),
            sigma: (1.0 - alpha_cumprod).sqrt(),
        }
    }

    /// Variance-preserving, by the ratio `σ/α`.
    pub fn preserving_ratio(ratio: f64) -> Self {
        let alpha = 1.0 / (ratio * ratio + 1.0).sqrt();
        Self {
            alpha,
            sigma: ratio * alpha,
        }
    }

    /// Variance-exploding: nothing of the clean sample is lost.
    pub fn variance_exploding(sigma: f64) -> Self {
        Self { alpha: 1.0, sigma }
    }

    /// On the straight line from clean to noise.
    pub fn flow(sigma: f64) -> Self {
        Self {
            alpha: 1.0 - sigma,
            sigma,
        }
    }

    /// Half of the logarithm of the signal-to-noise ratio, `ln α − ln σ`.
    pub fn half_log_snr(&self) -> f64 {
        self.alpha.ln() - self.sigma.ln()
    }
}

/// What a network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum PredictionType {
    /// The noise, ε (Ho et al. 2020).
    #[serde(rename = "epsilon")]
    Epsilon,
    /// The clean sample, x₀.
    #[serde(rename = "sample")]
    Sample,
    /// `v = α·ε − σ·x₀` of the variance-preserving sample (Salimans & Ho 2022,
    /// <https://arxiv.org/abs/2202.00512>).
    #[serde(rename = "v_prediction")]
    V,
    /// `ε − x₀`, the velocity of a flow (Lipman et al. 2023, <https://arxiv.org/abs/2210.02747>).
    #[serde(rename = "flow_prediction")]
    Flow,
}

/// `x₀ = x0.0·x + x0.1·output` and `ε = epsilon.0·x + epsilon.1·output`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PredictionCoefficients {
    /// Weights of sample and output in the clean sample.
    pub x0: (f64, f64),
    /// Weights of sample and output in the noise.
    pub epsilon: (f64, f64),
}

impl PredictionType {
    /// How to read an output at a level.
    ///
    /// # Errors
    /// [`Error::Config`] where the prediction does not determine the clean sample: ε without any
    /// signal, a velocity where the process is no flow.
    pub fn coefficients(self, level: NoiseLevel) -> Result<PredictionCoefficients> {
        let NoiseLevel { alpha, sigma } = level;
        if self == PredictionType::Epsilon && alpha <= 0.0 {
            let expected = "v_prediction or sample where the last step is pure noise";
            return Err(Error::config("prediction_type", "epsilon", expected));
        }
        if self == PredictionType::Flow && (alpha + sigma - 1.0).abs() > 1e-5 {
            return Err(Error::config(
                "prediction_type",
                "flow_prediction",
                "epsilon, sample or v_prediction; the process is no flow",
            ));
        }
        Ok(match self {
            PredictionType::Epsilon => PredictionCoefficients {
                x0: (1.0 / alpha, -sigma / alpha),
                epsilon: (0.0, 1.0),
            },
            PredictionType::Sample => PredictionCoefficients {
                x0: (0.0, 1.0),
                epsilon: (1.0 / sigma, -alpha / sigma),
            },
            PredictionType::V => {
                let norm = (alpha * alpha + sigma * sigma).sqrt();
                let (a, s) = (alpha / norm, sigma / norm);
                PredictionCoefficients {
                    x0: (a / norm, -s),
                    epsilon: (s / norm, a),
                }
            }
            PredictionType::Flow => PredictionCoefficients {
                x0: (1.0, -sigma),
                epsilon: (1.0, alpha),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The true prediction of any type gives back clean sample and noise.
    #[test]
    fn true_predictions_recover_x0_and_epsilon() {
        let (x0, epsilon) = (0.7, -1.3);
        for level in [
            NoiseLevel::variance_preserving(0.3),
            NoiseLevel::variance_exploding(2.5),
            NoiseLevel::flow(0.4),
            NoiseLevel::preserving_ratio(9.0),
        ] {
            let NoiseLevel { alpha, sigma } = level;
            let x = alpha * x0 + sigma * epsilon;
            let norm = (alpha * alpha + sigma * sigma).sqrt();
            let v = (alpha * epsilon - sigma * x0) / norm;
            let mut cases = vec![
                (PredictionType::Epsilon, epsilon),
                (PredictionType::Sample, x0),
                (PredictionType::V, v),
            ];
            if alpha + sigma == 1.0 {
                cases.push((PredictionType::Flow, epsilon - x0));
            }
            for (prediction, output) in cases {
                let reading = prediction.coefficients(level).unwrap();
                let [clean, noise] = [reading.x0, reading.epsilon].map(|(a, b)| a * x + b * output);
                assert!(
                    (clean - x0).abs() < 1e-12 && (noise - epsilon).abs() < 1e-12,
                    "{prediction:?} {level:?}"
                );
            }
        }
        assert!(
            PredictionType::Epsilon
                .coefficients(NoiseLevel::variance_preserving(0.0))
                .is_err()
        );
        assert!(
            PredictionType::Flow
                .coefficients(NoiseLevel::variance_preserving(0.3))
                .is_err()
        );
        assert!(
            PredictionType::V
                .coefficients(NoiseLevel::variance_preserving(0.0))
                .is_ok()
        );
    }
}
