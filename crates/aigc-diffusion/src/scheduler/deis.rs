//! DEIS: the predicted noise is interpolated by a polynomial in `ln ρ`, `ρ = σ/α`, and integrated
//! exactly (Zhang & Chen 2023,
//! <https://arxiv.org/abs/2204.13902>).

use super::{
    Scheduler, Thresholding,
    dpm::{self, DpmAlgorithm, Expansion, SolverSchedule, SolverType},
};
use crate::{
    grid::{SigmaScheduleFlags, SigmaSpacing, TimestepSpacing},
    plan::{LinearCombination, ModelCall, SamplingPlan, Term, check_start},
    prediction::{NoiseLevel, PredictionType},
    schedule::NoiseScheduleConfig,
};
use aigc_core::Result;
use serde::{Deserialize, Serialize};

/// Options and scheduler in one; the fields are those of diffusers' `DEISMultistepScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeisScheduler {
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
    /// Lower orders at the end of fewer than 15 steps.
    pub lower_order_final: bool,
    /// How the sigmas are spaced.
    #[serde(flatten)]
    pub sigmas: SigmaScheduleFlags,
    /// Whether the process is a flow.
    pub use_flow_sigmas: bool,
    /// More steps where there is much noise, for a flow.
    pub flow_shift: f64,
    /// How the timesteps are spaced.
    pub timestep_spacing: TimestepSpacing,
    /// Added to the timesteps of `leading`.
    pub steps_offset: usize,
}

/// Fields of diffusers' class that are not implemented here, and their only supported value.
pub(super) const UNSUPPORTED: &[(&str, &str)] = &[("use_dynamic_shifting", "false")];

impl Default for DeisScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig::default(),
            solver_order: 2,
            prediction_type: PredictionType::Epsilon,
            threshold: Thresholding::default(),
            lower_order_final: true,
            sigmas: SigmaScheduleFlags::default(),
            use_flow_sigmas: false,
            flow_shift: 1.0,
            timestep_spacing: TimestepSpacing::Linspace,
            steps_offset: 0,
        }
    }
}

impl Scheduler for DeisScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        self.plan_from(steps, 0)
    }

    fn plan_from(&self, steps: usize, at: usize) -> Result<SamplingPlan> {
        dpm::check_order(self.solver_order)?;
        let spacing = dpm::spacing(&self.sigmas, false, self.use_flow_sigmas)?;
        let schedule = SolverSchedule {
            times: self.timestep_spacing,
            offset: self.steps_offset,
            ..SolverSchedule::new(&self.noise, spacing, self.flow_shift)
        };
        let (grid, table) = schedule.grid(steps)?;
        check_start(at, steps)?;
        let last = if spacing == SigmaSpacing::Timesteps {
            table.min()
        } else {
            grid.sigmas[steps - 1]
        };
        let levels = dpm::levels(&grid, last, self.use_flow_sigmas);
        let calls = (at..steps).map(|k| {
            let most = self.solver_order.min(k - at + 1);
            let order = dpm::multistep_order(most, k, steps, self.lower_order_final, false);
            let reading = self.prediction_type.coefficients(levels[k])?;
            let next = if order == 1 {
                let first = Expansion {
                    algorithm: DpmAlgorithm::Dpm,
                    solver: SolverType::Midpoint,
                    exact_curvature: true,
                };
                first.multistep(k, &[levels[k + 1], levels[k]], &[k])
            } else {
                step(&levels, k, order)
            };
            Ok(ModelCall::new(grid.times[k], levels[k], reading, next))
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

/// From call `k` to the next: `x/α` changes by the integral of ε over ρ.
pub(super) fn step(levels: &[NoiseLevel], k: usize, order: usize) -> LinearCombination {
    let rho = |level: NoiseLevel| level.sigma / level.alpha;
    let nodes: Vec<f64> = (0..order).map(|j| rho(levels[k - j]).ln()).collect();
    let (from, to) = (rho(levels[k]), rho(levels[k + 1]));
    let (alpha, alpha_from) = (levels[k + 1].alpha, levels[k].alpha);
    let weights = (0..order).map(|j| (Term::Epsilon(k - j), alpha * integral(&nodes, j, from, to)));
    [(Term::Sample(k), alpha / alpha_from)]
        .into_iter()
        .chain(weights)
        .collect()
}

/// `∫ Π (ln ρ − node)/(node_j − node) dρ`, by the antiderivatives of `1`, `ln ρ` and `ln² ρ`.
fn integral(nodes: &[f64], j: usize, from: f64, to: f64) -> f64 {
    let others: Vec<f64> = nodes
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != j)
        .map(|(_, node)| *node)
        .collect();
    let denominator: f64 = others.iter().map(|other| nodes[j] - other).product();
    let antiderivative = |rho: f64| {
        let log = rho.ln();
        let (linear, square) = (rho * (log - 1.0), rho * (log * log - 2.0 * log + 2.0));
        match others[..] {
            [a] => linear - a * rho,
            [a, b] => square - (a + b) * linear + a * b * rho,
            _ => unreachable!("orders 2 and 3"),
        }
    };
    (antiderivative(to) - antiderivative(from)) / denominator
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integrals_match_the_trapezoid_rule() {
        let nodes = [1.0f64.ln(), 2.0f64.ln(), 5.0f64.ln()];
        for j in 0..3 {
            let polynomial = |rho: f64| -> f64 {
                (0..3)
                    .filter(|i| *i != j)
                    .map(|i| (rho.ln() - nodes[i]) / (nodes[j] - nodes[i]))
                    .product()
            };
            let n = 20_000;
            let rho = |i: usize| 1.0 - 0.6 * i as f64 / n as f64;
            let sum: f64 = (0..n)
                .map(|i| {
                    0.5 * (polynomial(rho(i)) + polynomial(rho(i + 1))) * (rho(i + 1) - rho(i))
                })
                .sum();
            assert!((integral(&nodes, j, 1.0, 0.4) - sum).abs() < 1e-8, "{j}");
        }
    }
}
