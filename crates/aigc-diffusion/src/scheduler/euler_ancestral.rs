//! Euler's method, down further than the next σ and back up by fresh noise: DDPM's steps over σ.

use super::{
    Scheduler,
    ve::{SigmaSchedule, ancestral, euler},
};
use crate::{
    grid::TimestepSpacing, plan::SamplingPlan, prediction::PredictionType,
    schedule::NoiseScheduleConfig,
};
use aigc_core::Result;
use serde::{Deserialize, Serialize};

/// Options and scheduler in one; the fields are those of diffusers'
/// `EulerAncestralDiscreteScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EulerAncestralScheduler {
    /// The forward process.
    #[serde(flatten)]
    pub noise: NoiseScheduleConfig,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// How the timesteps are spaced.
    pub timestep_spacing: TimestepSpacing,
    /// Added to the timesteps of `leading`.
    pub steps_offset: usize,
    /// Whether the forward process ends in pure noise (zero terminal SNR).
    pub rescale_betas_zero_snr: bool,
}

impl Default for EulerAncestralScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig::default(),
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: TimestepSpacing::Linspace,
            steps_offset: 0,
            rescale_betas_zero_snr: false,
        }
    }
}

impl Scheduler for EulerAncestralScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        let schedule = SigmaSchedule {
            zero_snr: self.rescale_betas_zero_snr,
            ..SigmaSchedule::new(&self.noise, self.timestep_spacing, self.steps_offset)
        };
        let grid = schedule.grid(steps)?;
        let calls = euler(&grid, self.prediction_type, ancestral)?;
        SamplingPlan::new(schedule.init_noise_sigma(&grid), calls)
    }
}
