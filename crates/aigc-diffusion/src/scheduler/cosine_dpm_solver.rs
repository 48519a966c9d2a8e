//! The solver of Stable Audio (Evans et al. 2024, <https://arxiv.org/abs/2407.14358>):
//! DPM-Solver++ with fresh noise, for networks that receive the angle `arctan σ` as the time.

use super::{
    DpmAlgorithm, EdmConfig, EdmDpmScheduler, EdmSpacing, Scheduler, SolverType, Thresholding,
};
use crate::{grid::FinalSigmas, plan::SamplingPlan, prediction::PredictionType};
use aigc_core::{Result, check};
use serde::{Deserialize, Serialize};
use std::f64::consts::FRAC_2_PI;

/// DPM-Solver++ of the stochastic equation; the fields are those of diffusers'
/// `CosineDPMSolverMultistepScheduler`.
///
/// Inputs and outputs of the network are scaled as in EDM. Its time is `2/π·arctan σ`, the place of
/// σ on a cosine schedule: 0 without noise, 1 for noise alone. Every step adds independent noise:
/// the increments of a Brownian motion over intervals that do not overlap.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CosineDpmMultistepScheduler {
    /// The preconditioning, and the σ.
    #[serde(flatten)]
    pub edm: EdmConfig,
    /// 1 or 2.
    pub solver_order: usize,
    /// The variant of second-order steps.
    pub solver_type: SolverType,
    /// First order at the end of fewer than 15 steps.
    pub lower_order_final: bool,
    /// Whether the last step has first order.
    pub euler_at_final: bool,
}

impl Default for CosineDpmMultistepScheduler {
    fn default() -> Self {
        Self {
            edm: EdmConfig {
                sigma_min: 0.3,
                sigma_max: 500.0,
                sigma_data: 1.0,
                sigma_schedule: EdmSpacing::Exponential,
                num_train_timesteps: 1000,
                prediction_type: PredictionType::V,
                rho: 7.0,
                final_sigmas_type: FinalSigmas::Zero,
            },
            solver_order: 2,
            solver_type: SolverType::Midpoint,
            lower_order_final: true,
            euler_at_final: false,
        }
    }
}

impl Scheduler for CosineDpmMultistepScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        self.plan_from(steps, 0)
    }

    fn plan_from(&self, steps: usize, at: usize) -> Result<SamplingPlan> {
        check::in_range("solver_order", self.solver_order, 1..=2)?;
        // The steps are those of EDM's solver; only the network's times differ.
        let solver = EdmDpmScheduler {
            edm: self.edm.clone(),
            solver_order: self.solver_order,
            threshold: Thresholding::default(),
            algorithm_type: DpmAlgorithm::SdeDpmPlusPlus,
            solver_type: self.solver_type,
            lower_order_final: self.lower_order_final,
            euler_at_final: self.euler_at_final,
        };
        let mut plan = solver.plan_from(steps, at)?;
        for call in &mut plan.calls {
            call.time = call.level.sigma.atan() * FRAC_2_PI;
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Term;

    /// The variance of a step: noise of σ before it has σ' after it, whatever the order, if the
    /// network predicts 0 for the clean sample.
    #[test]
    fn steps_keep_the_variance_of_noise() {
        let plan = CosineDpmMultistepScheduler::default().plan(12).unwrap();
        for (k, call) in plan.calls.iter().enumerate() {
            let weight = |term: Term| {
                let found = call.update.iter().find(|(source, _)| *source == term);
                found.map_or(0.0, |(_, weight)| *weight)
            };
            let next = plan.calls.get(k + 1).map_or(0.0, |next| next.level.sigma);
            let kept = weight(Term::Sample(k)) * call.level.sigma;
            let variance = kept.powi(2) + weight(Term::Noise).powi(2);
            assert!((variance.sqrt() - next).abs() < 1e-9 * next.max(1.0), "{k}");
            let clean: f64 = (0..=k).map(|j| weight(Term::X0(j))).sum();
            let kept = next.powi(2) / call.level.sigma.powi(2);
            assert!((clean - (1.0 - kept)).abs() < 1e-9, "{k}: {clean}");
        }
    }

    /// A late start keeps the variance of noise from its first step on, which adds noise too.
    #[test]
    fn late_starts_add_noise() {
        let scheduler = CosineDpmMultistepScheduler::default();
        let (whole, late) = (scheduler.plan(20), scheduler.plan_from(20, 5));
        let (whole, late) = (whole.unwrap(), late.unwrap());
        assert_eq!(late.times(), &whole.times()[5..]);
        let [from, to] = [0, 1].map(|k| late.calls[k].level.sigma);
        let kept = (to / from).powi(2);
        let expected = [
            (Term::Sample(0), kept),
            (Term::X0(0), 1.0 - kept),
            (Term::Noise, to * (1.0 - kept).sqrt()),
        ];
        assert_eq!(late.calls[0].update.len(), expected.len());
        for (found, expected) in late.calls[0].update.iter().zip(expected) {
            assert_eq!(found.0, expected.0);
            assert!((found.1 - expected.1).abs() < 1e-9 * from, "{found:?}");
        }
        assert_eq!(late.calls[1..], whole.starting_at(5).unwrap().calls[1..]);
    }

    #[test]
    fn times_are_angles() {
        let scheduler = CosineDpmMultistepScheduler {
            edm: EdmConfig {
                sigma_min: 1.0,
                sigma_max: 1e9,
                ..CosineDpmMultistepScheduler::default().edm
            },
            ..CosineDpmMultistepScheduler::default()
        };
        let times = scheduler.plan(10).unwrap().times();
        assert!((times[0] - 1.0).abs() < 1e-8 && (times[9] - 0.5).abs() < 1e-8);
        assert!(times.windows(2).all(|pair| pair[0] > pair[1]));
    }

    #[test]
    fn errors_name_the_field() {
        let with = |change: fn(&mut CosineDpmMultistepScheduler)| {
            let mut scheduler = CosineDpmMultistepScheduler::default();
            change(&mut scheduler);
            scheduler.plan(10).unwrap_err().to_string()
        };
        let message = with(|scheduler| scheduler.solver_order = 3);
        assert!(message.contains("`solver_order` is 3"), "{message}");
        let message = with(|scheduler| scheduler.edm.prediction_type = PredictionType::Sample);
        assert!(message.contains("`prediction_type`"), "{message}");
        let message = with(|scheduler| scheduler.edm.sigma_max = 0.1);
        assert!(message.contains("`sigma_max` is 0.1"), "{message}");
    }
}
