//! DPM-Solver++ and DPM-Solver as multistep methods: one call a step.

use super::{
    Scheduler, Thresholding,
    dpm::{self, DpmAlgorithm, Expansion, SolverSchedule, SolverType, infinite},
};
use crate::{
    grid::{FinalSigmas, SigmaScheduleFlags, SigmaSpacing, TimestepSpacing},
    plan::{ModelCall, SamplingPlan, check_start},
    prediction::{NoiseLevel, PredictionType},
    schedule::{BetaSchedule, NoiseScheduleConfig},
};
use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Options and scheduler in one; the fields are those of diffusers' `DPMSolverMultistepScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DpmMultistepScheduler {
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
    /// The variant of second-order steps.
    pub solver_type: SolverType,
    /// Lower orders at the end of fewer than 15 steps.
    pub lower_order_final: bool,
    /// Whether the last steps have lower order.
    pub euler_at_final: bool,
    /// How the sigmas are spaced.
    #[serde(flatten)]
    pub sigmas: SigmaScheduleFlags,
    /// Evenly in λ.
    pub use_lu_lambdas: bool,
    /// Whether the process is a flow.
    pub use_flow_sigmas: bool,
    /// More steps where there is much noise, for a flow.
    pub flow_shift: f64,
    /// The sigma after the last call.
    pub final_sigmas_type: FinalSigmas,
    /// Times with a smaller λ are left out.
    #[serde(with = "infinite")]
    pub lambda_min_clipped: f64,
    /// How the timesteps are spaced.
    pub timestep_spacing: TimestepSpacing,
    /// Added to the timesteps of `leading`.
    pub steps_offset: usize,
    /// Whether the forward process ends in pure noise (zero terminal SNR).
    pub rescale_betas_zero_snr: bool,
    /// Give the third order its full curvature. diffusers gives it half, which converges with
    /// second order only. (Of sampling here, not written to a file; steps with fresh noise always
    /// have it.)
    #[serde(skip)]
    pub exact_curvature: bool,
}

/// Fields of diffusers' class that are not implemented here, and their only supported value.
pub(super) const UNSUPPORTED: &[(&str, &str)] = &[("use_dynamic_shifting", "false")];

impl Default for DpmMultistepScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig::default(),
            solver_order: 2,
            prediction_type: PredictionType::Epsilon,
            threshold: Thresholding::default(),
            algorithm_type: DpmAlgorithm::DpmPlusPlus,
            solver_type: SolverType::Midpoint,
            lower_order_final: true,
            euler_at_final: false,
            sigmas: SigmaScheduleFlags::default(),
            use_lu_lambdas: false,
            use_flow_sigmas: false,
            flow_shift: 1.0,
            final_sigmas_type: FinalSigmas::Zero,
            lambda_min_clipped: f64::NEG_INFINITY,
            timestep_spacing: TimestepSpacing::Linspace,
            steps_offset: 0,
            rescale_betas_zero_snr: false,
            exact_curvature: false,
        }
    }
}

impl Scheduler for DpmMultistepScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        self.plan_from(steps, 0)
    }

    fn plan_from(&self, steps: usize, at: usize) -> Result<SamplingPlan> {
        dpm::check_order(self.solver_order)?;
        dpm::check_last_sigma(self.final_sigmas_type, self.algorithm_type)?;
        if self.solver_order == 3 && self.algorithm_type == DpmAlgorithm::SdeDpm {
            return Err(Error::config("solver_order", 3, "1 or 2 for sde-dpmsolver"));
        }
        let spacing = dpm::spacing(&self.sigmas, self.use_lu_lambdas, self.use_flow_sigmas)?;
        let schedule = SolverSchedule {
            times: self.timestep_spacing,
            offset: self.steps_offset,
            zero_snr: self.rescale_betas_zero_snr,
            lambda_min: self.lambda_min_clipped,
            round: matches!(spacing, SigmaSpacing::Karras | SigmaSpacing::Lu)
                && self.noise.beta_schedule != BetaSchedule::Cosine,
            ..SolverSchedule::new(&self.noise, spacing, self.flow_shift)
        };
        let (grid, table) = schedule.grid(steps)?;
        check_start(at, steps)?;
        let last = dpm::last_sigma(self.final_sigmas_type, &table);
        let levels = dpm::levels(&grid, last, self.use_flow_sigmas);
        let euler_last = self.euler_at_final || self.final_sigmas_type == FinalSigmas::Zero;
        let order = |k| {
            let most = self.solver_order.min(k - at + 1);
            dpm::multistep_order(most, k, steps, self.lower_order_final, euler_last)
        };
        let expansion = Expansion {
            algorithm: self.algorithm_type,
            solver: self.solver_type,
            exact_curvature: self.exact_curvature
                || self.algorithm_type == DpmAlgorithm::SdeDpmPlusPlus,
        };
        let calls = (at..steps).map(|k| {
            let calls: Vec<usize> = (0..order(k)).map(|j| k - j).collect();
            let way: Vec<NoiseLevel> = (0..=calls.len()).map(|j| levels[k + 1 - j]).collect();
            let reading = self.prediction_type.coefficients(levels[k])?;
            Ok(ModelCall::new(
                grid.times[k],
                levels[k],
                reading,
                expansion.multistep(k, &way, &calls),
            ))
        });
        let calls = calls.collect::<Result<_>>()?;
        let plan = SamplingPlan {
            clip: self.threshold.clip()?,
            use_clipped_model_output: true,
            ..SamplingPlan::new(1.0, calls)?
        };
        Ok(plan.counted_from(at))
    }
}
