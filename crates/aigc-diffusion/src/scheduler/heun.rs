//! Heun's method on the probability flow: a step, and the same step once more with the mean of the
//! slopes at both ends (Karras et al. 2022, algorithm 1).

use super::{
    Scheduler,
    ve::{SigmaSchedule, call},
};
use crate::{
    clip::Clip,
    grid::{SigmaGrid, SigmaScheduleFlags, TimestepSpacing},
    plan::{ModelCall, SamplingPlan, Term},
    prediction::PredictionType,
    schedule::NoiseScheduleConfig,
};
use aigc_core::Result;
use serde::{Deserialize, Serialize};

/// Options and scheduler in one; the fields are those of diffusers' `HeunDiscreteScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeunScheduler {
    /// The forward process.
    #[serde(flatten)]
    pub noise: NoiseScheduleConfig,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// How the sigmas are spaced.
    #[serde(flatten)]
    pub sigmas: SigmaScheduleFlags,
    /// Whether predicted clean samples are kept within the range.
    pub clip_sample: bool,
    /// See [`Clip::Range`].
    pub clip_sample_range: f64,
    /// How the timesteps are spaced.
    pub timestep_spacing: TimestepSpacing,
    /// Added to the timesteps of `leading`.
    pub steps_offset: usize,
}

impl Default for HeunScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig {
                beta_start: 0.00085,
                beta_end: 0.012,
                ..NoiseScheduleConfig::default()
            },
            prediction_type: PredictionType::Epsilon,
            sigmas: SigmaScheduleFlags::default(),
            clip_sample: false,
            clip_sample_range: 1.0,
            timestep_spacing: TimestepSpacing::Linspace,
            steps_offset: 0,
        }
    }
}

impl Scheduler for HeunScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        let schedule = SigmaSchedule {
            flags: self.sigmas,
            ..SigmaSchedule::new(&self.noise, self.timestep_spacing, self.steps_offset)
        };
        let grid = schedule.grid(steps)?;
        let calls = self.calls(&grid)?;
        Ok(SamplingPlan {
            clip: Clip::range_if(self.clip_sample, self.clip_sample_range)?,
            use_clipped_model_output: true,
            ..SamplingPlan::new(schedule.init_noise_sigma(&grid), calls)?
        })
    }
}

impl HeunScheduler {
    pub(super) fn calls(&self, grid: &SigmaGrid) -> Result<Vec<ModelCall>> {
        let mut calls = vec![];
        for k in 0..grid.len() {
            let (first, step) = (calls.len(), grid.sigmas[k + 1] - grid.sigmas[k]);
            let next = vec![(Term::Sample(first), 1.0), (Term::Epsilon(first), step)];
            calls.push(call(
                grid.times[k],
                grid.sigmas[k],
                self.prediction_type,
                next,
            )?);
            // At σ = 0 there is no slope.
            if grid.sigmas[k + 1] > 0.0 {
                let half = |call| (Term::Epsilon(call), 0.5 * step);
                let next = vec![(Term::Sample(first), 1.0), half(first), half(first + 1)];
                let time = grid.times.get(k + 1).copied().unwrap_or(0.0);
                calls.push(call(time, grid.sigmas[k + 1], self.prediction_type, next)?);
            }
        }
        Ok(calls)
    }
}
