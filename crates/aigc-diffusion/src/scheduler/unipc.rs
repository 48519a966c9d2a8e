//! UniPC: a predictor, and a corrector that uses the next call's answer for the step before it, at
//! no cost (Zhao et al. 2023,
//! <https://arxiv.org/abs/2302.04867>).

use super::{
    Scheduler, Thresholding,
    dpm::{self, SolverSchedule},
};
use crate::{
    clip::Clip,
    grid::{FinalSigmas, SigmaScheduleFlags, SigmaSpacing, TimestepSpacing},
    plan::{LinearCombination, ModelCall, SamplingPlan, Term, check_start},
    prediction::{NoiseLevel, PredictionType},
    schedule::NoiseScheduleConfig,
};
use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// The function `B(h)` of the paper.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UniPcSolver {
    /// `B(h) = h`.
    Bh1,
    /// `B(h) = e^h − 1`.
    Bh2,
}

/// Options and scheduler in one; the fields are those of diffusers' `UniPCMultistepScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UniPcScheduler {
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
    /// Expand the predicted clean sample, not the noise.
    pub predict_x0: bool,
    /// `B(h)`.
    pub solver_type: UniPcSolver,
    /// Lower orders at the end.
    pub lower_order_final: bool,
    /// Calls whose step is not corrected.
    pub disable_corrector: Vec<usize>,
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
    /// The sigma after the last call.
    pub final_sigmas_type: FinalSigmas,
    /// Whether the forward process ends in pure noise (zero terminal SNR).
    pub rescale_betas_zero_snr: bool,
}

/// Fields of diffusers' class that are not implemented here, and their only supported value.
pub(super) const UNSUPPORTED: &[(&str, &str)] = &[
    ("use_dynamic_shifting", "false"),
    ("shift_terminal", "null"),
    ("sigma_min", "null"),
    ("sigma_max", "null"),
    ("solver_p", "null"),
];

impl Default for UniPcScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig::default(),
            solver_order: 2,
            prediction_type: PredictionType::Epsilon,
            threshold: Thresholding::default(),
            predict_x0: true,
            solver_type: UniPcSolver::Bh2,
            lower_order_final: true,
            disable_corrector: vec![],
            sigmas: SigmaScheduleFlags::default(),
            use_flow_sigmas: false,
            flow_shift: 1.0,
            timestep_spacing: TimestepSpacing::Linspace,
            steps_offset: 0,
            final_sigmas_type: FinalSigmas::Zero,
            rescale_betas_zero_snr: false,
        }
    }
}

impl Scheduler for UniPcScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        self.plan_from(steps, 0)
    }

    fn plan_from(&self, steps: usize, at: usize) -> Result<SamplingPlan> {
        dpm::check_order(self.solver_order)?;
        let to_zero = self.final_sigmas_type == FinalSigmas::Zero;
        if to_zero && !(self.lower_order_final && self.predict_x0) {
            let expected = "sigma_min, without lower_order_final or predict_x0";
            return Err(Error::config("final_sigmas_type", "zero", expected));
        }
        let spacing = dpm::spacing(&self.sigmas, false, self.use_flow_sigmas)?;
        let schedule = SolverSchedule {
            times: self.timestep_spacing,
            offset: self.steps_offset,
            zero_snr: self.rescale_betas_zero_snr,
            from_noise: true,
            ..SolverSchedule::new(&self.noise, spacing, self.flow_shift)
        };
        let (grid, table) = schedule.grid(steps)?;
        check_start(at, steps)?;
        let last = match self.final_sigmas_type {
            FinalSigmas::Zero => 0.0,
            FinalSigmas::SigmaMin if spacing == SigmaSpacing::Timesteps => table.min(),
            FinalSigmas::SigmaMin => grid.sigmas[steps - 1],
        };
        let levels = dpm::levels(&grid, last, self.use_flow_sigmas);
        let order = |k: usize| {
            let left = if self.lower_order_final {
                steps - k
            } else {
                self.solver_order
            };
            self.solver_order.min(left).min(k - at + 1)
        };
        let calls = (at..steps).map(|k| {
            let reading = self.prediction_type.coefficients(levels[k])?;
            let next = self.step(&levels, k, order(k), false);
            let corrected = k > at && !self.disable_corrector.contains(&(k - 1));
            let correct = if corrected {
                self.step(&levels, k - 1, order(k - 1), true)
            } else {
                vec![]
            };
            Ok(ModelCall {
                corrector: correct,
                ..ModelCall::new(grid.times[k], levels[k], reading, next)
            })
        });
        let calls = calls.collect::<Result<_>>()?;
        // Thresholding is of clean samples.
        let clip = if self.predict_x0 {
            self.threshold.clip()?
        } else {
            Clip::None
        };
        let plan = SamplingPlan {
            clip,
            use_clipped_model_output: true,
            ..SamplingPlan::new(1.0, calls)?
        };
        Ok(plan.counted_from(at))
    }
}

impl UniPcScheduler {
    /// From call `k` to the next (equations 3 and 4): predicted, or corrected by the output of the
    /// next call.
    pub(super) fn step(
        &self,
        levels: &[NoiseLevel],
        k: usize,
        order: usize,
        correct: bool,
    ) -> LinearCombination {
        let (from, to) = (levels[k], levels[k + 1]);
        let h = to.half_log_snr() - from.half_log_snr();
        // A step that goes nowhere has no use for slopes.
        let order = if h == 0.0 { 1 } else { order };
        let (x, outer, sample) = if self.predict_x0 {
            (-h, to.alpha, to.sigma / from.sigma)
        } else {
            (h, to.sigma, to.alpha / from.alpha)
        };
        let source = if self.predict_x0 {
            Term::X0
        } else {
            Term::Epsilon
        };
        let mut terms = vec![(Term::Sample(k), sample)];
        let mut value = -outer * x.exp_m1();
        // Where the other values are known, in units of h: those before, and the next if it is.
        let mut nodes: Vec<(usize, f64)> = (1..order)
            .map(|i| {
                (
                    k - i,
                    (levels[k - i].half_log_snr() - from.half_log_snr()) / h,
                )
            })
            .collect();
        if correct {
            nodes.push((k + 1, 1.0));
        }
        let scale = match self.solver_type {
            UniPcSolver::Bh1 => x,
            UniPcSolver::Bh2 => x.exp_m1(),
        };
        // Order 2 predicted and order 1 corrected have one node, which is weighted by a half.
        let weights = match nodes.len() {
            0 => vec![],
            1 => vec![0.5],
            _ => solve(&nodes, x, scale),
        };
        for ((call, at), weight) in nodes.iter().zip(weights) {
            let weight = -outer * scale * weight / at;
            terms.push((source(*call), weight));
            value -= weight;
        }
        terms.insert(1, (source(k), value));
        terms
    }
}

/// Weights `ρ` with `Σ ρ_m r_m^(n−1) = φ_{n+1}(x)·n!·x/B` for each `n` up to the number of nodes
/// (theorem 3.1).
fn solve(nodes: &[(usize, f64)], x: f64, scale: f64) -> Vec<f64> {
    let n = nodes.len();
    let (mut phi, mut factorial) = (x.exp_m1() / x - 1.0, 1.0);
    let mut rows: Vec<Vec<f64>> = vec![];
    for i in 0..n {
        let mut row: Vec<f64> = nodes.iter().map(|(_, node)| node.powi(i as i32)).collect();
        row.push(phi * factorial / scale);
        rows.push(row);
        factorial *= (i + 2) as f64;
        phi = phi / x - 1.0 / factorial;
    }
    // Gauss's elimination with pivots, of three equations at most.
    for i in 0..n {
        let pivot = (i..n)
            .max_by(|a, b| rows[*a][i].abs().total_cmp(&rows[*b][i].abs()))
            .expect("not empty");
        rows.swap(i, pivot);
        let pivot = rows[i].clone();
        for (_, row) in rows.iter_mut().enumerate().filter(|(j, _)| *j != i) {
            let factor = row[i] / pivot[i];
            row.iter_mut()
                .zip(&pivot)
                .for_each(|(a, b)| *a -= factor * b);
        }
    }
    (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_system_is_solved() {
        let nodes = [(0, -0.7), (1, -1.9), (2, 1.0)];
        let (x, scale) = (-0.4f64, (-0.4f64).exp_m1());
        let weights = solve(&nodes, x, scale);
        let (mut phi, mut factorial) = (x.exp_m1() / x - 1.0, 1.0);
        for i in 0..3 {
            let left: f64 = nodes
                .iter()
                .zip(&weights)
                .map(|((_, r), weight)| weight * r.powi(i))
                .sum();
            assert!((left - phi * factorial / scale).abs() < 1e-12);
            factorial *= f64::from(i + 2);
            phi = phi / x - 1.0 / factorial;
        }
    }
}
