//! DPM-Solver-2: the slope in the middle of a step, where the middle is that of `ln σ` (Karras et
//! al. 2022, section C.1; Lu et al. 2022, <https://arxiv.org/abs/2206.00927>, algorithm 1).

use super::{
    Scheduler,
    ve::{SigmaSchedule, Way, ancestral, call, straight},
};
use crate::{
    grid::{SigmaGrid, SigmaScheduleFlags, TimestepSpacing},
    plan::{ModelCall, SamplingPlan, Term},
    prediction::{NoiseLevel, PredictionType},
    schedule::NoiseScheduleConfig,
};
use aigc_core::Result;
use serde::{Deserialize, Serialize};

/// Options and scheduler in one; the fields are those of diffusers' `KDPM2DiscreteScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kdpm2Scheduler {
    /// The forward process.
    #[serde(flatten)]
    pub noise: NoiseScheduleConfig,
    /// How the sigmas are spaced.
    #[serde(flatten)]
    pub sigmas: SigmaScheduleFlags,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// How the timesteps are spaced.
    pub timestep_spacing: TimestepSpacing,
    /// Added to the timesteps of `leading`.
    pub steps_offset: usize,
}

impl Default for Kdpm2Scheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig {
                beta_start: 0.00085,
                beta_end: 0.012,
                ..NoiseScheduleConfig::default()
            },
            sigmas: SigmaScheduleFlags::default(),
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: TimestepSpacing::Linspace,
            steps_offset: 0,
        }
    }
}

impl Scheduler for Kdpm2Scheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        self.plan_with(steps, straight)
    }
}

/// The same with ancestral steps: down further than the next σ, and back up by fresh noise. The
/// fields are those of diffusers' `KDPM2AncestralDiscreteScheduler`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kdpm2AncestralScheduler(pub Kdpm2Scheduler);

impl Scheduler for Kdpm2AncestralScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        self.0.plan_with(steps, ancestral)
    }
}

impl Kdpm2Scheduler {
    fn plan_with(&self, steps: usize, way: Way) -> Result<SamplingPlan> {
        let schedule = SigmaSchedule {
            flags: self.sigmas,
            ..SigmaSchedule::new(&self.noise, self.timestep_spacing, self.steps_offset)
        };
        let mut grid = schedule.grid(steps)?;
        if self.sigmas.use_karras_sigmas {
            grid.times
                .iter_mut()
                .for_each(|time| *time = time.round_ties_even());
        }
        let table = schedule.table()?;
        let calls = self.calls(&grid, way, |sigma| table.time(sigma))?;
        SamplingPlan::new(schedule.init_noise_sigma(&grid), calls)
    }

    /// `time`: of a σ between two of the schedule.
    pub(super) fn calls(
        &self,
        grid: &SigmaGrid,
        way: Way,
        time: impl Fn(f64) -> f64,
    ) -> Result<Vec<ModelCall>> {
        let SigmaGrid { times, sigmas } = grid;
        let mut calls = vec![];
        for k in 0..grid.len() {
            let (first, sigma, next) = (calls.len(), sigmas[k], sigmas[k + 1]);
            let (down, up) = way(sigma, next);
            let from = |slope, to: f64| {
                vec![
                    (Term::Sample(first), 1.0),
                    (Term::Epsilon(slope), to - sigma),
                ]
            };
            if next == 0.0 {
                calls.push(call(
                    times[k],
                    sigma,
                    self.prediction_type,
                    from(first, 0.0),
                )?);
                continue;
            }
            let middle = (sigma * down).sqrt();
            calls.push(call(
                times[k],
                sigma,
                self.prediction_type,
                from(first, middle),
            )?);
            let mut sum = from(first + 1, down);
            if up > 0.0 {
                sum.push((Term::Noise, up));
            }
            let mut second = call(time(middle), middle, self.prediction_type, sum)?;
            // Nobody begins in the middle of a step: at its end instead.
            second.level = NoiseLevel::variance_exploding(next);
            calls.push(second);
        }
        Ok(calls)
    }
}
