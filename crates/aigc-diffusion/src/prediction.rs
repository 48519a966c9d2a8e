//! What a network's output means.

use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// How noisy a sample is: `x = α·x₀ + σ·ε`.
///
/// Variance-preserving processes have `α² + σ² = 1`, variance-exploding ones `α = 1`, flows
/// `α + σ = 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Level {
    /// Share of the clean sample.
    pub alpha: f64,
    /// Standard deviation of the noise.
    pub sigma: f64,
}

impl Level {
    /// Variance-preserving, by `ᾱ`.
    pub fn preserving(alpha_cumprod: f64) -> Self {
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
    pub fn exploding(sigma: f64) -> Self {
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
    pub fn lambda(&self) -> f64 {
        self.alpha.ln() - self.sigma.ln()
    }
}

/// What a network predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Prediction {
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
pub struct Reading {
    /// Weights of sample and output in the clean sample.
    pub x0: (f64, f64),
    /// Weights of sample and output in the noise.
    pub epsilon: (f64, f64),
}

impl Prediction {
    /// How to read an output at a level.
    ///
    /// # Errors
    /// [`Error::Config`] where the prediction says nothing about the clean sample: ε without any
    /// signal, a velocity where the process is no flow.
    pub fn read(self, level: Level) -> Result<Reading> {
        let Level { alpha, sigma } = level;
        if self == Prediction::Epsilon && alpha <= 0.0 {
            let expected = "v_prediction or sample where the last step is pure noise";
            return Err(Error::config("prediction_type", "epsilon", expected));
        }
        if self == Prediction::Flow && (alpha + sigma - 1.0).abs() > 1e-5 {
            return Err(Error::config(
                "prediction_type",
                "flow_prediction",
                "another, where the process is no flow",
            ));
        }
        Ok(match self {
            Prediction::Epsilon => Reading {
                x0: (1.0 / alpha, -sigma / alpha),
                epsilon: (0.0, 1.0),
            },
            Prediction::Sample => Reading {
                x0: (0.0, 1.0),
                epsilon: (1.0 / sigma, -alpha / sigma),
            },
            Prediction::V => {
                let norm = (alpha * alpha + sigma * sigma).sqrt();
                let (a, s) = (alpha / norm, sigma / norm);
                Reading {
                    x0: (a / norm, -s),
                    epsilon: (s / norm, a),
                }
            }
            Prediction::Flow => Reading {
                x0: (1.0, -sigma),
                epsilon: (1.0, alpha),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever is predicted, the true prediction gives back what the sample was made of.
    #[test]
    fn true_predictions_give_back_clean_sample_and_noise() {
        let (x0, epsilon) = (0.7, -1.3);
        for level in [
            Level::preserving(0.3),
            Level::exploding(2.5),
            Level::flow(0.4),
            Level::preserving_ratio(9.0),
        ] {
            let Level { alpha, sigma } = level;
            let x = alpha * x0 + sigma * epsilon;
            let norm = (alpha * alpha + sigma * sigma).sqrt();
            let v = (alpha * epsilon - sigma * x0) / norm;
            let mut cases = vec![
                (Prediction::Epsilon, epsilon),
                (Prediction::Sample, x0),
                (Prediction::V, v),
            ];
            if alpha + sigma == 1.0 {
                cases.push((Prediction::Flow, epsilon - x0));
            }
            for (prediction, output) in cases {
                let reading = prediction.read(level).unwrap();
                let [clean, noise] = [reading.x0, reading.epsilon].map(|(a, b)| a * x + b * output);
                assert!(
                    (clean - x0).abs() < 1e-12 && (noise - epsilon).abs() < 1e-12,
                    "{prediction:?} {level:?}"
                );
            }
        }
        assert!(Prediction::Epsilon.read(Level::preserving(0.0)).is_err());
        assert!(Prediction::Flow.read(Level::preserving(0.3)).is_err());
        assert!(Prediction::V.read(Level::preserving(0.0)).is_ok());
    }
}
