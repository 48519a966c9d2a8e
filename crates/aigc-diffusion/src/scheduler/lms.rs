//! Linear multistep: the derivatives of up to four calls, interpolated by a polynomial that is then
//! integrated (Adams–Bashforth on an uneven grid).

use super::{
    Scheduler,
    ve::{SigmaSchedule, call},
};
use crate::{
    grid::{SigmaGrid, SigmaScheduleFlags, TimestepSpacing},
    plan::{ModelCall, SamplingPlan, Term},
    prediction::PredictionType,
    schedule::NoiseScheduleConfig,
};
use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Options and scheduler in one; the fields are those of diffusers' `LMSDiscreteScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LmsScheduler {
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
    /// Most derivatives to interpolate, 1 to 4. (An argument of sampling, not written to a file.)
    #[serde(skip, default = "four")]
    pub order: usize,
}

fn four() -> usize {
    4
}

impl Default for LmsScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig::default(),
            sigmas: SigmaScheduleFlags::default(),
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: TimestepSpacing::Linspace,
            steps_offset: 0,
            order: four(),
        }
    }
}

impl Scheduler for LmsScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        if !(1..=4).contains(&self.order) {
            return Err(Error::config("order", self.order, "1 to 4"));
        }
        let schedule = SigmaSchedule {
            flags: self.sigmas,
            ..SigmaSchedule::new(&self.noise, self.timestep_spacing, self.steps_offset)
        };
        let grid = schedule.grid(steps)?;
        SamplingPlan::new(schedule.init_noise_sigma(&grid), self.calls(&grid)?)
    }
}

impl LmsScheduler {
    pub(super) fn calls(&self, grid: &SigmaGrid) -> Result<Vec<ModelCall>> {
        let calls = (0..grid.len()).map(|k| {
            let order = self.order.min(k + 1);
            let nodes: Vec<f64> = (0..order).map(|j| grid.sigmas[k - j]).collect();
            let weights = (0..order).map(|j| {
                (
                    Term::Epsilon(k - j),
                    integral(&nodes, j, grid.sigmas[k + 1]),
                )
            });
            let next = [(Term::Sample(k), 1.0)]
                .into_iter()
                .chain(weights)
                .collect();
            call(grid.times[k], grid.sigmas[k], self.prediction_type, next)
        });
        calls.collect()
    }
}

/// Integral of the Lagrange polynomial of node `j` from the first node to `end`; exact, by Gauss's
/// rule with two points (up to degree three).
fn integral(nodes: &[f64], j: usize, end: f64) -> f64 {
    let polynomial = |x: f64| -> f64 {
        let others = nodes.iter().enumerate().filter(|(k, _)| *k != j);
        others
            .map(|(_, node)| (x - node) / (nodes[j] - node))
            .product()
    };
    let (middle, half) = (0.5 * (nodes[0] + end), 0.5 * (end - nodes[0]));
    let offset = half / 3f64.sqrt();
    half * (polynomial(middle - offset) + polynomial(middle + offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_grids_give_adams_bashforth() {
        let nodes = [3.0, 2.0, 1.0, 0.0];
        let expected = [55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0];
        for (j, expected) in expected.into_iter().enumerate() {
            assert!((integral(&nodes, j, 4.0) - expected).abs() < 1e-12);
        }
    }
}
