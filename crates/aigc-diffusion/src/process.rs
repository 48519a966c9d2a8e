//! Forward processes: how noise is added to images in training.

use crate::{
    prediction::{NoiseLevel, PredictionCoefficients, PredictionType},
    schedule::NoiseScheduleConfig,
};
use aigc_core::{Error, Result, check, rng::Rng};
use serde::{Deserialize, Serialize};

/// How noise is added to images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ForwardProcess {
    /// Variance-preserving, in discrete steps, drawn uniformly (Ho et al. 2020).
    #[serde(alias = "steps")]
    Discrete {
        /// The noise schedule.
        noise: NoiseScheduleConfig,
        /// Whether the schedule is rescaled so that the last step is pure noise.
        rescale_betas_zero_snr: bool,
    },
    /// Variance-exploding, `ln σ` normally distributed; input and output of the network are scaled
    /// to unit variance (Karras et al. 2022, <https://arxiv.org/abs/2206.00364>, table 1). Sampled
    /// by `EdmEulerScheduler` and `EdmDpmScheduler`.
    Edm {
        /// Mean of `ln σ`.
        mean: f64,
        /// Standard deviation of `ln σ`.
        deviation: f64,
        /// Standard deviation of the data.
        sigma_data: f64,
    },
    /// The straight line from image to noise, `(1 − σ)·x₀ + σ·ε` (Lipman et al. 2023,
    /// <https://arxiv.org/abs/2210.02747>). Sampled by `FlowEulerScheduler` and
    /// `FlowHeunScheduler`.
    #[serde(alias = "flow")]
    FlowMatching {
        /// How σ is drawn.
        draw: TimestepSampling,
        /// Scale of the time: the network receives σ times this number.
        num_train_timesteps: usize,
        /// How noise and images are paired.
        coupling: Coupling,
    },
}

/// How the σ of a flow is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimestepSampling {
    /// σ is uniform in `[0, 1]`.
    #[default]
    Uniform,
    /// `ln(σ/(1 − σ))` is normal, so that σ near 0 and 1 are drawn less often (Esser et al. 2024,
    /// <https://arxiv.org/abs/2403.03206>, section 3.1).
    LogitNormal {
        /// Mean of the logit.
        mean: f64,
        /// Standard deviation of the logit.
        deviation: f64,
    },
}

/// How noise and images are paired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Coupling {
    /// Noise is drawn independently of the images.
    #[default]
    Independent,
    /// Noise and images of a batch are paired so that the sum of squared distances is smallest,
    /// which gives straighter flows (Tong et al. 2024, <https://arxiv.org/abs/2302.00482>). Where
    /// images have classes, pairs are exchanged only within a class, so that the noise carries no
    /// information about the class.
    OptimalTransport,
}

impl Default for ForwardProcess {
    /// The process of DDPM: the default noise schedule, not rescaled.
    fn default() -> Self {
        Self::Discrete {
            noise: NoiseScheduleConfig::default(),
            rescale_betas_zero_snr: false,
        }
    }
}

impl ForwardProcess {
    /// EDM with the values of Karras et al. 2022, table 1.
    pub const fn edm() -> Self {
        Self::Edm {
            mean: -1.2,
            deviation: 1.2,
            sigma_data: 0.5,
        }
    }

    /// A flow with uniform σ, times up to 1,000 and independent noise.
    pub const fn flow() -> Self {
        Self::FlowMatching {
            draw: TimestepSampling::Uniform,
            num_train_timesteps: 1000,
            coupling: Coupling::Independent,
        }
    }
}

/// One noisy sample to learn from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Noised {
    pub(crate) level: NoiseLevel,
    /// The time that the network receives.
    pub(crate) time: f64,
    /// Scale of the network's input.
    pub(crate) input: f64,
    /// What the output means.
    pub(crate) reading: PredictionCoefficients,
}

impl Noised {
    /// What the network is to predict, as weights of clean sample and noise: `x₀ = a·x + b·output`
    /// solved for the output.
    pub(crate) fn target(&self) -> (f64, f64) {
        let ((a, b), NoiseLevel { alpha, sigma }) = (self.reading.x0, self.level);
        ((1.0 - a * alpha) / b, -a * sigma / b)
    }
}

/// The smallest σ of a flow in training: without noise, the velocity cannot be predicted.
const MIN_FLOW_SIGMA: f64 = 1e-5;

/// A process whose values are in range, ready to be drawn from.
#[derive(Clone, Debug)]
pub(crate) enum Draws {
    Steps(Vec<Noised>),
    Edm {
        mean: f64,
        deviation: f64,
        preconditioning: Preconditioning,
        prediction: PredictionType,
    },
    Flow {
        draw: TimestepSampling,
        scale: f64,
    },
}

impl Draws {
    /// # Errors
    /// [`Error::Config`] for a value out of range, or a prediction that is not defined for this
    /// process.
    pub(crate) fn new(process: &ForwardProcess, prediction: PredictionType) -> Result<Self> {
        match process {
            ForwardProcess::Discrete {
                noise,
                rescale_betas_zero_snr,
            } => {
                if prediction == PredictionType::Flow {
                    return Err(Error::config(
                        "prediction",
                        "flow_prediction",
                        "epsilon, sample or v_prediction",
                    ));
                }
                // Without any signal, ε carries no information about the image: sampling could not
                // begin.
                if prediction == PredictionType::Epsilon && *rescale_betas_zero_snr {
                    let expected = "v_prediction or sample, with rescale_betas_zero_snr";
                    return Err(Error::config("prediction", "epsilon", expected));
                }
                let alphas = if *rescale_betas_zero_snr {
                    noise.alphas_cumprod_zero_snr()?
                } else {
                    noise.alphas_cumprod()?
                };
                if let Some(step) = alphas.iter().position(|alpha| *alpha >= 1.0) {
                    return Err(Error::config(
                        "process.noise",
                        format!("none at step {step}"),
                        "some at every step",
                    ));
                }
                let noised = |(time, alpha): (usize, &f64)| {
                    let level = NoiseLevel::variance_preserving(*alpha);
                    Ok(Noised {
                        level,
                        time: time as f64,
                        input: 1.0,
                        reading: prediction.coefficients(level)?,
                    })
                };
                Ok(Self::Steps(
                    alphas
                        .iter()
                        .enumerate()
                        .map(noised)
                        .collect::<Result<_>>()?,
                ))
            }
            ForwardProcess::Edm {
                mean,
                deviation,
                sigma_data,
            } => {
                check_normal("process.mean", *mean, "process.deviation", *deviation)?;
                if !matches!(prediction, PredictionType::Epsilon | PredictionType::V) {
                    return Err(Error::config(
                        "prediction",
                        format!("{prediction:?}"),
                        "epsilon or v_prediction, of EDM",
                    ));
                }
                check::positive("process.sigma_data", *sigma_data)?;
                let preconditioning = Preconditioning {
                    sigma_data: *sigma_data,
                };
                Ok(Self::Edm {
                    mean: *mean,
                    deviation: *deviation,
                    preconditioning,
                    prediction,
                })
            }
            ForwardProcess::FlowMatching {
                draw,
                num_train_timesteps,
                ..
            } => {
                if prediction != PredictionType::Flow {
                    return Err(Error::config(
                        "prediction",
                        format!("{prediction:?}"),
                        "flow_prediction, of a flow",
                    ));
                }
                if let TimestepSampling::LogitNormal { mean, deviation } = draw {
                    check_normal(
                        "process.draw.mean",
                        *mean,
                        "process.draw.deviation",
                        *deviation,
                    )?;
                }
                if *num_train_timesteps == 0 {
                    return Err(Error::config(
                        "process.num_train_timesteps",
                        0,
                        "at least 1",
                    ));
                }
                Ok(Self::Flow {
                    draw: *draw,
                    scale: *num_train_timesteps as f64,
                })
            }
        }
    }

    /// The infimum of the times that the network receives.
    pub(crate) fn min_time(&self) -> f64 {
        match self {
            Draws::Steps(all) => all
                .iter()
                .map(|noised| noised.time)
                .fold(f64::MAX, f64::min),
            Draws::Edm { .. } => f64::NEG_INFINITY,
            Draws::Flow { scale, .. } => MIN_FLOW_SIGMA * scale,
        }
    }

    pub(crate) fn draw(&self, rng: &mut Rng) -> Noised {
        match self {
            Draws::Steps(all) => all[rng.random_index(all.len())],
            Draws::Edm {
                mean,
                deviation,
                preconditioning,
                prediction,
            } => {
                let sigma = (mean + deviation * f64::from(rng.normal_vec(1)[0])).exp();
                preconditioning.noised(*prediction, sigma)
            }
            Draws::Flow { draw, scale } => {
                let sigma = match draw {
                    TimestepSampling::Uniform => f64::from(rng.uniform_vec(1, 0.0, 1.0)[0]),
                    TimestepSampling::LogitNormal { mean, deviation } => {
                        1.0 / (1.0 + (-mean - deviation * f64::from(rng.normal_vec(1)[0])).exp())
                    }
                };
                let level = NoiseLevel::flow(sigma.clamp(MIN_FLOW_SIGMA, 1.0));
                let reading = PredictionType::Flow
                    .coefficients(level)
                    .expect("a flow's level");
                Noised {
                    level,
                    time: level.sigma * scale,
                    input: 1.0,
                    reading,
                }
            }
        }
    }
}

fn check_normal(mean_field: &str, mean: f64, deviation_field: &str, deviation: f64) -> Result<()> {
    // Exponentials of them have to stay within 32 bits.
    if !(-10.0..=10.0).contains(&mean) {
        return Err(Error::config(mean_field, mean, "−10 to 10"));
    }
    if !(0.0..=10.0).contains(&deviation) {
        return Err(Error::config(deviation_field, deviation, "0 to 10"));
    }
    Ok(())
}

/// EDM's scaling of input and output to unit variance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Preconditioning {
    pub(crate) sigma_data: f64,
}

impl Preconditioning {
    /// What a noisy sample is multiplied by.
    pub(crate) fn input(&self, sigma: f64) -> f64 {
        1.0 / (sigma * sigma + self.sigma_data * self.sigma_data).sqrt()
    }

    /// The time that the network receives.
    pub(crate) fn time(sigma: f64) -> f64 {
        0.25 * sigma.ln()
    }

    /// # Errors
    /// [`Error::Config`] for predictions other than "ε" and "v", which differ in sign only here.
    pub(crate) fn reading(
        &self,
        prediction: PredictionType,
        sigma: f64,
    ) -> Result<PredictionCoefficients> {
        let data = self.sigma_data;
        let all = sigma * sigma + data * data;
        let (skip, out) = (data * data / all, sigma * data / all.sqrt());
        let out = match prediction {
            PredictionType::Epsilon => out,
            PredictionType::V => -out,
            other => {
                return Err(Error::config(
                    "prediction_type",
                    format!("{other:?}"),
                    "epsilon or v_prediction",
                ));
            }
        };
        Ok(PredictionCoefficients {
            x0: (skip, out),
            epsilon: ((1.0 - skip) / sigma, -out / sigma),
        })
    }

    fn noised(&self, prediction: PredictionType, sigma: f64) -> Noised {
        Noised {
            level: NoiseLevel::variance_exploding(sigma),
            time: Self::time(sigma),
            input: self.input(sigma),
            reading: self.reading(prediction, sigma).expect("checked before"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_true_predictions() {
        let level = NoiseLevel::variance_preserving(0.3);
        let of = |prediction: PredictionType, level: NoiseLevel| {
            Noised {
                level,
                time: 0.0,
                input: 1.0,
                reading: prediction.coefficients(level).unwrap(),
            }
            .target()
        };
        let NoiseLevel { alpha, sigma } = level;
        for (prediction, level, expected) in [
            (PredictionType::Epsilon, level, (0.0, 1.0)),
            (PredictionType::Sample, level, (1.0, 0.0)),
            (PredictionType::V, level, (-sigma, alpha)),
            (PredictionType::Flow, NoiseLevel::flow(0.4), (-1.0, 1.0)),
        ] {
            let (a, b) = of(prediction, level);
            assert!(
                (a - expected.0).abs() < 1e-12 && (b - expected.1).abs() < 1e-12,
                "{prediction:?}: {a} {b}"
            );
        }
    }

    /// Karras et al. 2022, appendix B.6: inputs and targets have unit variance, at every σ.
    #[test]
    fn edm_inputs_and_targets_have_unit_variance() {
        for sigma_data in [0.5, 1.3] {
            for sigma in [0.002, 0.3, 1.0, 80.0] {
                for prediction in [PredictionType::Epsilon, PredictionType::V] {
                    let noised = Preconditioning { sigma_data }.noised(prediction, sigma);
                    let variance = noised.input.powi(2) * (sigma_data.powi(2) + sigma * sigma);
                    assert!((variance - 1.0).abs() < 1e-12);
                    let (a, b) = noised.target();
                    assert!(
                        (a * a * sigma_data.powi(2) + b * b - 1.0).abs() < 1e-9,
                        "{sigma}: {a} {b}"
                    );
                }
            }
        }
    }

    #[test]
    fn draws_match_their_distributions() {
        let mut rng = Rng::new(0);
        let n = 20_000;
        let mut moments = |draws: &Draws, of: fn(f64) -> f64| {
            let values: Vec<f64> = (0..n)
                .map(|_| of(draws.draw(&mut rng).level.sigma))
                .collect();
            let mean = values.iter().sum::<f64>() / f64::from(n);
            let variance = values
                .iter()
                .map(|value| (value - mean).powi(2))
                .sum::<f64>()
                / f64::from(n);
            (mean, variance.sqrt())
        };
        let edm = Draws::new(&ForwardProcess::edm(), PredictionType::Epsilon).unwrap();
        let (mean, deviation) = moments(&edm, f64::ln);
        assert!(
            (mean + 1.2).abs() < 0.05 && (deviation - 1.2).abs() < 0.04,
            "{mean} {deviation}"
        );
        let flow = Draws::new(&ForwardProcess::flow(), PredictionType::Flow).unwrap();
        let (mean, deviation) = moments(&flow, |sigma| sigma);
        assert!(
            (mean - 0.5).abs() < 0.011 && (deviation - 12f64.powf(-0.5)).abs() < 0.008,
            "{mean} {deviation}"
        );
        let draw = TimestepSampling::LogitNormal {
            mean: 0.5,
            deviation: 0.8,
        };
        let process = ForwardProcess::FlowMatching {
            draw,
            num_train_timesteps: 1000,
            coupling: Coupling::Independent,
        };
        let logit = Draws::new(&process, PredictionType::Flow).unwrap();
        let (mean, deviation) = moments(&logit, |sigma| (sigma / (1.0 - sigma)).ln());
        assert!(
            (mean - 0.5).abs() < 0.03 && (deviation - 0.8).abs() < 0.03,
            "{mean} {deviation}"
        );
    }
}
