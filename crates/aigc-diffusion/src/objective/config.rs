//! Configuration of the objective.

use crate::{
    prediction::PredictionType,
    process::{ForwardProcess, Noised},
};
use aigc_core::{Result, check};
use serde::{Deserialize, Serialize};

/// The weight of an error, by the noise level of the sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LossWeighting {
    /// Errors of the network's output have the same weight (Ho et al. 2020, equation 14).
    #[default]
    Uniform,
    /// Errors of x̂₀ are weighted by the signal-to-noise ratio, at most γ (Hang et al. 2023,
    /// <https://arxiv.org/abs/2303.09556>).
    MinSnr {
        /// γ, the largest weight; 5 in the paper.
        gamma: f64,
    },
    /// Errors of x̂₀ are weighted by `(s² + σ²)/(s·σ)²`, where `s` is the data's standard
    /// deviation (Karras et al. 2022, table 1). [`ForwardProcess::Edm`] has it with `Uniform`
    /// already.
    Edm {
        /// `s`, the standard deviation of the data; 0.5 in the paper.
        sigma_data: f64,
    },
}

impl LossWeighting {
    pub(super) fn validate(self) -> Result<()> {
        match self {
            LossWeighting::Uniform => Ok(()),
            LossWeighting::MinSnr { gamma } => check::positive("weighting.gamma", gamma),
            LossWeighting::Edm { sigma_data } => {
                check::positive("weighting.sigma_data", sigma_data)
            }
        }
    }

    /// The weight of the squared error of the network's output.
    pub(super) fn of(self, noised: &Noised) -> f64 {
        let ratio = noised.level.sigma / noised.level.alpha;
        let of_x0 = match self {
            LossWeighting::Uniform => return 1.0,
            LossWeighting::MinSnr { gamma } => ratio.powi(-2).min(gamma),
            LossWeighting::Edm { sigma_data } => sigma_data.powi(-2) + ratio.powi(-2),
        };
        of_x0 * noised.reading.x0.1.powi(2)
    }
}

/// Configuration of a [`DiffusionObjective`](super::DiffusionObjective).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DiffusionObjectiveConfig {
    /// The forward process.
    pub process: ForwardProcess,
    /// What the network learns to predict.
    pub prediction: PredictionType,
    /// Weights of the errors.
    pub weighting: LossWeighting,
    /// Share of samples whose condition is dropped: the class label is replaced by the network's
    /// [null class](crate::Denoiser::null_class), encoder hidden states by the null ones.
    /// Classifier-free guidance needs it (Ho & Salimans 2022, <https://arxiv.org/abs/2207.12598>).
    #[serde(alias = "class_dropout")]
    pub conditioning_dropout: f64,
    /// Share of batches in which the network receives its first prediction of the clean sample
    /// beside the noisy one (Chen et al. 2023, <https://arxiv.org/abs/2208.04202>, section 3; a
    /// half there); it needs twice the input channels.
    pub self_conditioning: f64,
}

impl Default for DiffusionObjectiveConfig {
    /// The objective of DDPM.
    fn default() -> Self {
        Self {
            process: ForwardProcess::default(),
            prediction: PredictionType::Epsilon,
            weighting: LossWeighting::Uniform,
            conditioning_dropout: 0.0,
            self_conditioning: 0.0,
        }
    }
}
