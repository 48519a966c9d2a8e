//! Euler's method on the probability flow (Karras et al. 2022, algorithm 2 without its correction).

use super::{
    Scheduler,
    ve::{SigmaSchedule, euler, straight},
};
use crate::{
    grid::{FinalSigmas, SigmaGrid, SigmaScheduleFlags, TimestepSpacing, at},
    plan::SamplingPlan,
    prediction::PredictionType,
    schedule::NoiseScheduleConfig,
};
use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// How σ is interpolated between two timesteps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SigmaInterpolation {
    /// Linear in σ.
    Linear,
    /// Sigmas are evenly spaced in `ln σ`, from the last to the first.
    LogLinear,
}

/// Which time the network receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimestepType {
    /// The timestep of the forward process.
    Discrete,
    /// With v: `ln σ / 4`.
    Continuous,
}

/// Options and scheduler in one; the fields are those of diffusers' `EulerDiscreteScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EulerScheduler {
    /// The forward process.
    #[serde(flatten)]
    pub noise: NoiseScheduleConfig,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Between the σ of two times.
    pub interpolation_type: SigmaInterpolation,
    /// How the sigmas are spaced.
    #[serde(flatten)]
    pub sigmas: SigmaScheduleFlags,
    /// Instead of the last σ.
    pub sigma_min: Option<f64>,
    /// Instead of the first σ.
    pub sigma_max: Option<f64>,
    /// How the timesteps are spaced.
    pub timestep_spacing: TimestepSpacing,
    /// Which time the network receives.
    pub timestep_type: TimestepType,
    /// Added to the timesteps of `leading`.
    pub steps_offset: usize,
    /// Whether the forward process ends in pure noise (zero terminal SNR).
    pub rescale_betas_zero_snr: bool,
    /// The sigma after the last call.
    pub final_sigmas_type: FinalSigmas,
}

impl Default for EulerScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig::default(),
            prediction_type: PredictionType::Epsilon,
            interpolation_type: SigmaInterpolation::Linear,
            sigmas: SigmaScheduleFlags::default(),
            sigma_min: None,
            sigma_max: None,
            timestep_spacing: TimestepSpacing::Linspace,
            timestep_type: TimestepType::Discrete,
            steps_offset: 0,
            rescale_betas_zero_snr: false,
            final_sigmas_type: FinalSigmas::Zero,
        }
    }
}

impl Scheduler for EulerScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        for (field, sigma) in [("sigma_min", self.sigma_min), ("sigma_max", self.sigma_max)] {
            if let Some(sigma) = sigma.filter(|sigma| sigma.is_nan() || *sigma <= 0.0) {
                return Err(Error::config(field, sigma, "more than 0"));
            }
        }
        let schedule = SigmaSchedule {
            flags: self.sigmas,
            range: (self.sigma_min, self.sigma_max),
            zero_snr: self.rescale_betas_zero_snr,
            ..SigmaSchedule::new(&self.noise, self.timestep_spacing, self.steps_offset)
        };
        let SigmaGrid {
            mut times,
            mut sigmas,
        } = schedule.grid(steps)?;
        let table = schedule.table()?;
        if self.final_sigmas_type == FinalSigmas::SigmaMin {
            sigmas[steps] = table.min();
        }
        if self.interpolation_type == SigmaInterpolation::LogLinear {
            if self.sigmas != SigmaScheduleFlags::default() {
                return Err(Error::config(
                    "interpolation_type",
                    "log_linear",
                    "linear, with another spacing of σ",
                ));
            }
            let (first, last) = (table.max().ln(), table.min().ln());
            sigmas = (0..=steps)
                .map(|k| at(first, last, k, steps + 1).exp())
                .collect();
        }
        if self.timestep_type == TimestepType::Continuous
            && self.prediction_type == PredictionType::V
        {
            times = sigmas[..steps]
                .iter()
                .map(|sigma| 0.25 * sigma.ln())
                .collect();
        }
        let grid = SigmaGrid { times, sigmas };
        let calls = euler(&grid, self.prediction_type, straight)?;
        SamplingPlan::new(schedule.init_noise_sigma(&grid), calls)
    }
}
