//! EDM: a network whose input and output have unit variance, whatever σ is (Karras et al.
//! 2022,
//! <https://arxiv.org/abs/2206.00364>, table 1), sampled by Euler's method or DPM-Solver++.

use super::{
    Scheduler, Thresholding,
    dpm::{self, DpmAlgorithm, Expansion, SolverType},
};
use crate::{
    grid::{FinalSigmas, SigmaGrid, exponential, karras},
    plan::{LinearCombination, ModelCall, SamplingPlan, Term, check_start},
    prediction::{NoiseLevel, PredictionType},
    process::Preconditioning,
};
use aigc_core::{Error, Result, check};
use serde::{Deserialize, Serialize};

/// How the sigmas are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EdmSpacing {
    /// Sigmas are evenly spaced in `σ^(1/ρ)`.
    Karras,
    /// Sigmas are evenly spaced in `ln σ`.
    Exponential,
}

/// What both share: the preconditioning, and the σ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EdmConfig {
    /// The last σ.
    pub sigma_min: f64,
    /// The first σ.
    pub sigma_max: f64,
    /// Standard deviation of the data.
    pub sigma_data: f64,
    /// How the sigmas are spaced.
    pub sigma_schedule: EdmSpacing,
    /// Most steps.
    pub num_train_timesteps: usize,
    /// The sign of the output: `epsilon` as in the paper, `v_prediction` the opposite.
    pub prediction_type: PredictionType,
    /// The exponent ρ of the spacing of the sigmas.
    pub rho: f64,
    /// The sigma after the last call.
    pub final_sigmas_type: FinalSigmas,
}

impl Default for EdmConfig {
    fn default() -> Self {
        Self {
            sigma_min: 0.002,
            sigma_max: 80.0,
            sigma_data: 0.5,
            sigma_schedule: EdmSpacing::Karras,
            num_train_timesteps: 1000,
            prediction_type: PredictionType::Epsilon,
            rho: 7.0,
            final_sigmas_type: FinalSigmas::Zero,
        }
    }
}

impl EdmConfig {
    fn grid(&self, steps: usize) -> Result<SigmaGrid> {
        check::positive("sigma_min", self.sigma_min)?;
        check::positive("sigma_data", self.sigma_data)?;
        check::positive("rho", self.rho)?;
        if !(self.sigma_max > self.sigma_min && self.sigma_max.is_finite()) {
            return Err(Error::config(
                "sigma_max",
                self.sigma_max,
                "more than sigma_min",
            ));
        }
        if steps == 0 || steps > self.num_train_timesteps {
            let expected = format!("1 to num_train_timesteps ({})", self.num_train_timesteps);
            return Err(Error::argument("steps", steps, expected));
        }
        let sigmas = match self.sigma_schedule {
            EdmSpacing::Karras => karras(self.sigma_min, self.sigma_max, self.rho, steps),
            EdmSpacing::Exponential => exponential(self.sigma_min, self.sigma_max, steps),
        };
        let last = if self.final_sigmas_type == FinalSigmas::Zero {
            0.0
        } else {
            self.sigma_min
        };
        Ok(SigmaGrid::new(
            sigmas
                .iter()
                .map(|sigma| Preconditioning::time(*sigma))
                .collect(),
            sigmas,
            last,
        ))
    }

    fn call(&self, time: f64, sigma: f64, next: LinearCombination) -> Result<ModelCall> {
        let preconditioning = Preconditioning {
            sigma_data: self.sigma_data,
        };
        let reading = preconditioning.reading(self.prediction_type, sigma)?;
        Ok(ModelCall {
            input_scale: preconditioning.input(sigma),
            ..ModelCall::new(time, NoiseLevel::variance_exploding(sigma), reading, next)
        })
    }

    fn init_noise_sigma(&self) -> f64 {
        (self.sigma_max * self.sigma_max + 1.0).sqrt()
    }
}

/// Euler's method; the fields are those of diffusers' `EDMEulerScheduler`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EdmEulerScheduler(pub EdmConfig);

impl Scheduler for EdmEulerScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        let grid = self.0.grid(steps)?;
        let calls = (0..steps).map(|k| {
            let step = grid.sigmas[k + 1] - grid.sigmas[k];
            let next = vec![(Term::Sample(k), 1.0), (Term::Epsilon(k), step)];
            self.0.call(grid.times[k], grid.sigmas[k], next)
        });
        SamplingPlan::new(self.0.init_noise_sigma(), calls.collect::<Result<_>>()?)
    }
}

/// DPM-Solver++; the fields are those of diffusers' `EDMDPMSolverMultistepScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EdmDpmScheduler {
    /// The preconditioning, and the σ.
    #[serde(flatten)]
    pub edm: EdmConfig,
    /// 1 to 3.
    pub solver_order: usize,
    /// Clipping of predicted clean samples.
    #[serde(flatten)]
    pub threshold: Thresholding,
    /// Whether steps add fresh noise (`sde-dpmsolver++`) or not (`dpmsolver++`).
    pub algorithm_type: DpmAlgorithm,
    /// The variant of second-order steps.
    pub solver_type: SolverType,
    /// Lower orders at the end of fewer than 15 steps.
    pub lower_order_final: bool,
    /// Whether the last steps have lower order.
    pub euler_at_final: bool,
}

impl Default for EdmDpmScheduler {
    fn default() -> Self {
        Self {
            edm: EdmConfig::default(),
            solver_order: 2,
            threshold: Thresholding::default(),
            algorithm_type: DpmAlgorithm::DpmPlusPlus,
            solver_type: SolverType::Midpoint,
            lower_order_final: true,
            euler_at_final: false,
        }
    }
}

impl Scheduler for EdmDpmScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        self.plan_from(steps, 0)
    }

    fn plan_from(&self, steps: usize, at: usize) -> Result<SamplingPlan> {
        dpm::check_order(self.solver_order)?;
        if !self.algorithm_type.is_plus_plus() {
            return Err(Error::config(
                "algorithm_type",
                "without ++",
                "dpmsolver++ or sde-dpmsolver++",
            ));
        }
        let grid = self.edm.grid(steps)?;
        check_start(at, steps)?;
        let levels: Vec<NoiseLevel> = grid
            .sigmas
            .iter()
            .map(|sigma| NoiseLevel::variance_exploding(*sigma))
            .collect();
        let euler_last = self.euler_at_final || self.edm.final_sigmas_type == FinalSigmas::Zero;
        let expansion = Expansion {
            algorithm: self.algorithm_type,
            solver: self.solver_type,
            exact_curvature: self.algorithm_type == DpmAlgorithm::SdeDpmPlusPlus,
        };
        let calls = (at..steps).map(|k| {
            let order = dpm::multistep_order(
                self.solver_order.min(k - at + 1),
                k,
                steps,
                self.lower_order_final,
                euler_last,
            );
            let calls: Vec<usize> = (0..order).map(|j| k - j).collect();
            let way: Vec<NoiseLevel> = (0..=order).map(|j| levels[k + 1 - j]).collect();
            self.edm.call(
                grid.times[k],
                grid.sigmas[k],
                expansion.multistep(k, &way, &calls),
            )
        });
        let calls = calls.collect::<Result<_>>()?;
        let plan = SamplingPlan {
            clip: self.threshold.clip()?,
            use_clipped_model_output: true,
            ..SamplingPlan::new(self.edm.init_noise_sigma(), calls)?
        };
        Ok(plan.counted_from(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weight(call: &ModelCall, term: Term) -> f64 {
        let found = call.update.iter().find(|(source, _)| *source == term);
        found.map_or(0.0, |(_, weight)| *weight)
    }

    /// The first step has the first order, with noise if steps have; the second one has the second
    /// order, with the predictions of both calls. From then on the steps are those of the whole
    /// plan.
    #[test]
    fn late_starts_begin_as_the_first_call() {
        for (algorithm_type, draws) in [
            (DpmAlgorithm::DpmPlusPlus, false),
            (DpmAlgorithm::SdeDpmPlusPlus, true),
        ] {
            let scheduler = EdmDpmScheduler {
                algorithm_type,
                ..EdmDpmScheduler::default()
            };
            let whole = scheduler.plan(20).unwrap();
            assert_eq!(scheduler.plan_from(20, 0).unwrap(), whole);
            let late = scheduler.plan_from(20, 7).unwrap();
            assert_eq!(late.times(), &whole.times()[7..]);
            let sigma = |k: usize| late.calls[k].level.sigma;
            // How much of the sample is kept, and the noise that makes up for the rest.
            let share = |k: usize| (sigma(k + 1) / sigma(k)).powi(if draws { 2 } else { 1 });
            let noise = |k: usize| {
                let left = 1.0 - (sigma(k + 1) / sigma(k)).powi(2);
                sigma(k + 1) * left.sqrt() * f64::from(u8::from(draws))
            };
            // How much further the slope of the midpoint goes than from the call before.
            let ratio = (sigma(1) / sigma(2)).ln() / (sigma(0) / sigma(1)).ln();
            let slope = 0.5 * (1.0 - share(1)) * ratio;
            for (k, term, expected) in [
                (0, Term::Sample(0), share(0)),
                (0, Term::X0(0), 1.0 - share(0)),
                (0, Term::Noise, noise(0)),
                (1, Term::Sample(1), share(1)),
                (1, Term::X0(1), 1.0 - share(1) + slope),
                (1, Term::X0(0), -slope),
                (1, Term::Noise, noise(1)),
            ] {
                let found = weight(&late.calls[k], term);
                let apart = (found - expected).abs();
                assert!(apart < 1e-9 * sigma(0), "{k} {term:?}: {found} {expected}");
            }
            assert_eq!(late.calls[0].update.len(), if draws { 3 } else { 2 });
            assert_eq!(late.calls[1..], whole.starting_at(7).unwrap().calls[1..]);
            let message = scheduler.plan_from(20, 20).unwrap_err().to_string();
            assert!(message.contains("`at` is 20"), "{message}");
        }
    }
}
