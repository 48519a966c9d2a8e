//! DPM-Solver++ and DPM-Solver as single-step methods: two or three calls, and the step is taken
//! from where the first was.

use super::{
    Scheduler, Thresholding,
    dpm::{self, DpmAlgorithm, Expansion, SolverSchedule, SolverType, infinite},
};
use crate::{
    grid::{FinalSigmas, SigmaScheduleFlags},
    plan::{ModelCall, SamplingPlan},
    prediction::{NoiseLevel, PredictionType},
    schedule::NoiseScheduleConfig,
};
use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Options and scheduler in one; the fields are those of diffusers' `DPMSolverSinglestepScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DpmSinglestepScheduler {
    /// The forward process.
    #[serde(flatten)]
    pub noise: NoiseScheduleConfig,
    /// 1 to 3.
    pub solver_order: usize,
    /// What the network predicts.
    pub prediction_type: PredictionType,
    /// Clipping of predicted clean samples.
    #[serde(flatten)]
    pub threshold: Thresholding,
    /// The quantity that the Taylor expansion is of.
    pub algorithm_type: DpmAlgorithm,
    /// The variant of second- and third-order steps.
    pub solver_type: SolverType,
    /// Lower orders for the steps that are left when the order does not divide their number.
    pub lower_order_final: bool,
    /// How the sigmas are spaced.
    #[serde(flatten)]
    pub sigmas: SigmaScheduleFlags,
    /// Whether the process is a flow.
    pub use_flow_sigmas: bool,
    /// More steps where there is much noise, for a flow.
    pub flow_shift: f64,
    /// The sigma after the last call.
    pub final_sigmas_type: FinalSigmas,
    /// Times with a smaller λ are left out.
    #[serde(with = "infinite")]
    pub lambda_min_clipped: f64,
}

/// Fields of diffusers' class that are not implemented here, and their only supported value.
pub(super) const UNSUPPORTED: &[(&str, &str)] = &[("use_dynamic_shifting", "false")];

impl Default for DpmSinglestepScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig::default(),
            solver_order: 2,
            prediction_type: PredictionType::Epsilon,
            threshold: Thresholding::default(),
            algorithm_type: DpmAlgorithm::DpmPlusPlus,
            solver_type: SolverType::Midpoint,
            lower_order_final: false,
            sigmas: SigmaScheduleFlags::default(),
            use_flow_sigmas: false,
            flow_shift: 1.0,
            final_sigmas_type: FinalSigmas::Zero,
            lambda_min_clipped: f64::NEG_INFINITY,
        }
    }
}

impl DpmSinglestepScheduler {
    /// The order of each call: 1, 2, 3, 1, 2, 3, …, and lower ones for the remainder.
    fn orders(&self, steps: usize) -> Vec<usize> {
        let most = self.solver_order;
        let mut orders: Vec<usize> = (0..steps).map(|k| k % most + 1).collect();
        let zero = self.final_sigmas_type == FinalSigmas::Zero;
        if self.lower_order_final || zero || !steps.is_multiple_of(most) {
            if steps.is_multiple_of(most) && most > 1 {
                // The last full step is cut in two.
                orders[steps - 1] = 1;
            }
            if zero {
                orders[steps - 1] = 1;
            }
        }
        orders
    }
}

impl Scheduler for DpmSinglestepScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        dpm::check_order(self.solver_order)?;
        dpm::check_last_sigma(self.final_sigmas_type, self.algorithm_type)?;
        if self.algorithm_type == DpmAlgorithm::SdeDpm {
            return Err(Error::config(
                "algorithm_type",
                "sde-dpmsolver",
                "dpmsolver, dpmsolver++ or sde-dpmsolver++",
            ));
        }
        let spacing = dpm::spacing(&self.sigmas, false, self.use_flow_sigmas)?;
        let schedule = SolverSchedule {
            lambda_min: self.lambda_min_clipped,
            ..SolverSchedule::new(&self.noise, spacing, self.flow_shift)
        };
        let (grid, table) = schedule.grid(steps)?;
        let levels = dpm::levels(
            &grid,
            dpm::last_sigma(self.final_sigmas_type, &table),
            self.use_flow_sigmas,
        );
        let expansion = Expansion {
            algorithm: self.algorithm_type,
            solver: self.solver_type,
            exact_curvature: true,
        };
        let calls = self
            .orders(steps)
            .into_iter()
            .enumerate()
            .map(|(k, order)| {
                let calls: Vec<usize> = (0..order).map(|j| k - j).collect();
                let way: Vec<NoiseLevel> = (0..=order).map(|j| levels[k + 1 - j]).collect();
                let reading = self.prediction_type.coefficients(levels[k])?;
                Ok(ModelCall::new(
                    grid.times[k],
                    levels[k],
                    reading,
                    expansion.singlestep(&way, &calls),
                ))
            });
        let calls = calls.collect::<Result<_>>()?;
        Ok(SamplingPlan {
            clip: self.threshold.clip()?,
            use_clipped_model_output: true,
            ..SamplingPlan::new(1.0, calls)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_match_the_paper() {
        let orders = |solver_order, steps, final_sigmas_type| {
            let all = DpmSinglestepScheduler {
                solver_order,
                final_sigmas_type,
                ..Default::default()
            };
            all.orders(steps)
        };
        use FinalSigmas::{SigmaMin, Zero};
        // DPM-Solver, section 3.4: K calls are K/3 − 1 steps of third order, then one of second and
        // one of first, and so on.
        assert_eq!(orders(3, 9, Zero), [1, 2, 3, 1, 2, 3, 1, 2, 1]);
        assert_eq!(orders(3, 10, Zero), [1, 2, 3, 1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(orders(3, 11, SigmaMin), [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 2]);
        assert_eq!(orders(3, 11, Zero), [1, 2, 3, 1, 2, 3, 1, 2, 3, 1, 1]);
        assert_eq!(orders(2, 6, Zero), [1, 2, 1, 2, 1, 1]);
        assert_eq!(orders(2, 6, SigmaMin), [1, 2, 1, 2, 1, 2]);
        assert_eq!(orders(1, 3, Zero), [1, 1, 1]);
    }
}
