//! The steps of DPM-Solver and DPM-Solver++ (Lu et al. 2022, <https://arxiv.org/abs/2206.00927> and
//! <https://arxiv.org/abs/2211.01095>): the linear part of the probability flow is solved exactly,
//! the rest by a Taylor expansion in `λ = ln(α/σ)`.

use crate::{
    grid::{
        FinalSigmas, SigmaGrid, SigmaScheduleFlags, SigmaSpacing, SigmaTable, Steps,
        TimestepSpacing, at, spaced,
    },
    plan::{LinearCombination, Term},
    prediction::NoiseLevel,
    schedule::NoiseScheduleConfig,
};
use aigc_core::{Error, Result, check};
use serde::{Deserialize, Serialize};

/// The quantity that the expansion is of, and whether steps are those of the stochastic equation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DpmAlgorithm {
    /// The predicted noise.
    #[serde(rename = "dpmsolver")]
    Dpm,
    /// The predicted clean sample.
    #[serde(rename = "dpmsolver++")]
    DpmPlusPlus,
    /// The predicted noise, with fresh noise.
    #[serde(rename = "sde-dpmsolver")]
    SdeDpm,
    /// The predicted clean sample, with fresh noise.
    #[serde(rename = "sde-dpmsolver++")]
    SdeDpmPlusPlus,
}

impl DpmAlgorithm {
    /// The source that is expanded.
    pub(crate) fn expanded(self) -> fn(usize) -> Term {
        if self.is_plus_plus() {
            Term::X0
        } else {
            Term::Epsilon
        }
    }

    pub(crate) fn is_plus_plus(self) -> bool {
        matches!(
            self,
            DpmAlgorithm::DpmPlusPlus | DpmAlgorithm::SdeDpmPlusPlus
        )
    }
}

/// Which of two second-order expansions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SolverType {
    /// The slope as if at the middle.
    Midpoint,
    /// The slope integrated.
    Heun,
}

/// `(e^x − 1 − x)/x²`, without cancellation for small `x`.
fn phi_2(x: f64) -> f64 {
    if x.abs() > 0.5 {
        return (x.exp_m1() - x) / (x * x);
    }
    // Taylor: Σ x^n / (n + 2)!
    let (mut sum, mut term) = (0.0, 0.5);
    for n in 0..16 {
        sum += term;
        term *= x / f64::from(n + 3);
    }
    sum
}

/// The weights of the sample, the expansion's value, slope and curvature, and the noise, of a step
/// of length `h` in λ.
struct Weights {
    sample: f64,
    value: f64,
    slope: f64,
    curvature: f64,
    noise: f64,
}

/// A kind of step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expansion {
    pub(crate) algorithm: DpmAlgorithm,
    pub(crate) solver: SolverType,
    /// Of a third-order multistep: the weight of the curvature that gives third order, not half of
    /// it.
    pub(crate) exact_curvature: bool,
}

impl Expansion {
    fn weights(self, from: NoiseLevel, to: NoiseLevel, h: f64) -> Weights {
        let midpoint = self.solver == SolverType::Midpoint;
        match self.algorithm {
            DpmAlgorithm::DpmPlusPlus | DpmAlgorithm::SdeDpmPlusPlus => {
                let stochastic = self.algorithm == DpmAlgorithm::SdeDpmPlusPlus;
                let x = if stochastic { -2.0 * h } else { -h };
                let grown = x.exp_m1();
                Weights {
                    sample: to.sigma / from.sigma * if stochastic { (-h).exp() } else { 1.0 },
                    value: -to.alpha * grown,
                    slope: to.alpha
                        * if midpoint {
                            -0.5 * grown
                        } else {
                            1.0 - grown / x
                        },
                    curvature: to.alpha * (0.5 - phi_2(x)),
                    noise: if stochastic {
                        to.sigma * (-grown).sqrt()
                    } else {
                        0.0
                    },
                }
            }
            DpmAlgorithm::Dpm | DpmAlgorithm::SdeDpm => {
                let stochastic = self.algorithm == DpmAlgorithm::SdeDpm;
                let (twice, grown) = (if stochastic { 2.0 } else { 1.0 }, h.exp_m1());
                Weights {
                    sample: to.alpha / from.alpha,
                    value: -twice * to.sigma * grown,
                    slope: -twice
                        * to.sigma
                        * if midpoint {
                            0.5 * grown
                        } else {
                            grown / h - 1.0
                        },
                    curvature: -twice * to.sigma * (phi_2(h) - 0.5),
                    noise: if stochastic {
                        to.sigma * (2.0 * h).exp_m1().sqrt()
                    } else {
                        0.0
                    },
                }
            }
        }
    }

    /// A step that uses predictions of earlier calls (DPM-Solver++, algorithm 2). `levels`: where
    /// it goes, where it is, and where it was, newest first; as many calls as the order.
    pub(crate) fn multistep(
        self,
        sample: usize,
        levels: &[NoiseLevel],
        calls: &[usize],
    ) -> LinearCombination {
        let lambda = |i: usize| levels[i].half_log_snr();
        let h = lambda(0) - lambda(1);
        // A step that goes nowhere has no use for slopes.
        let calls = if h == 0.0 { &calls[..1] } else { calls };
        let w = self.weights(levels[1], levels[0], h);
        let m = match calls.len() {
            1 => vec![w.value],
            2 => {
                let slope = w.slope * h / (lambda(1) - lambda(2));
                vec![w.value + slope, -slope]
            }
            _ => {
                // The slope integrated, whatever the second order does: the curvature corrects
                // that.
                let w = Expansion {
                    solver: SolverType::Heun,
                    ..self
                }
                .weights(levels[1], levels[0], h);
                let (r0, r1) = ((lambda(1) - lambda(2)) / h, (lambda(2) - lambda(3)) / h);
                let curvature = if self.exact_curvature {
                    2.0 * w.curvature
                } else {
                    w.curvature
                };
                // Divided differences [m0, m1] and [m1, m2], and their weights in slope and
                // curvature.
                let newer = w.slope * (1.0 + r0 / (r0 + r1)) + curvature / (r0 + r1);
                let older = -w.slope * r0 / (r0 + r1) - curvature / (r0 + r1);
                vec![w.value + newer / r0, older / r1 - newer / r0, -older / r1]
            }
        };
        self.sum(sample, &w, calls, &m)
    }

    /// A step that starts again from the first of the calls that belong to it (DPM-Solver,
    /// algorithms 4 and 5). `levels`: where it goes, and where the calls were, newest first.
    pub(crate) fn singlestep(self, levels: &[NoiseLevel], calls: &[usize]) -> LinearCombination {
        let lambda = |i: usize| levels[i].half_log_snr();
        let first = calls.len();
        let h = lambda(0) - lambda(first);
        let w = self.weights(levels[first], levels[0], h);
        let r = |i: usize| (lambda(i) - lambda(first)) / h;
        let m = match first {
            1 => vec![w.value],
            2 => vec![w.slope / r(1), w.value - w.slope / r(1)],
            _ => {
                let (r0, r1) = (r(1), r(2));
                let integrated = Expansion {
                    solver: SolverType::Heun,
                    ..self
                }
                .weights(levels[3], levels[0], h);
                // Weights of the slopes from the first call to the newest, and to the one between.
                let (far, near) = if self.solver == SolverType::Midpoint {
                    (integrated.slope, 0.0)
                } else {
                    let (slope, curvature) = (
                        integrated.slope / (r0 - r1),
                        2.0 * integrated.curvature / (r0 - r1),
                    );
                    (curvature - slope * r1, slope * r0 - curvature)
                };
                vec![far / r0, near / r1, w.value - far / r0 - near / r1]
            }
        };
        self.sum(calls[first - 1], &w, calls, &m)
    }

    fn sum(self, sample: usize, w: &Weights, calls: &[usize], m: &[f64]) -> LinearCombination {
        let expanded = self.algorithm.expanded();
        let terms = calls
            .iter()
            .zip(m)
            .map(|(call, weight)| (expanded(*call), *weight));
        let mut sum: LinearCombination = [(Term::Sample(sample), w.sample)]
            .into_iter()
            .chain(terms)
            .collect();
        if w.noise > 0.0 {
            sum.push((Term::Noise, w.noise));
        }
        sum
    }
}

/// The sigmas of a solver in λ.
pub(crate) struct SolverSchedule<'a> {
    pub(crate) noise: &'a NoiseScheduleConfig,
    pub(crate) spacing: SigmaSpacing,
    pub(crate) times: TimestepSpacing,
    pub(crate) offset: usize,
    pub(crate) zero_snr: bool,
    /// Times with a smaller λ are left out.
    pub(crate) lambda_min: f64,
    pub(crate) flow_shift: f64,
    /// Round times found from σ to the nearest step, before what is left of a fraction is cut off.
    pub(crate) round: bool,
    /// A flow's σ begin at pure noise.
    pub(crate) from_noise: bool,
}

impl<'a> SolverSchedule<'a> {
    /// With `linspace` timesteps, all of them, without zero terminal SNR; of Karras's spacing,
    /// times are rounded.
    pub(crate) fn new(
        noise: &'a NoiseScheduleConfig,
        spacing: SigmaSpacing,
        flow_shift: f64,
    ) -> Self {
        Self {
            noise,
            spacing,
            times: TimestepSpacing::Linspace,
            offset: 0,
            zero_snr: false,
            lambda_min: f64::NEG_INFINITY,
            flow_shift,
            round: spacing == SigmaSpacing::Karras,
            from_noise: false,
        }
    }

    /// Falling σ, without one after the last; and the σ of the forward process.
    pub(crate) fn grid(&self, steps: usize) -> Result<(SigmaGrid, SigmaTable)> {
        let table = SigmaTable::of(self.noise, self.zero_snr)?;
        let train = self.noise.num_train_timesteps;
        let spread = Steps::new(train, steps)?;
        check::positive("flow_shift", self.flow_shift)?;
        let clipped = table
            .sigmas
            .iter()
            .filter(|sigma| -sigma.ln() < self.lambda_min)
            .count();
        if clipped > 0 && (train - clipped <= steps || self.times == TimestepSpacing::Trailing) {
            let expected =
                format!("a smaller number, or another spacing than trailing, for {steps} steps");
            return Err(Error::config(
                "lambda_min_clipped",
                self.lambda_min,
                expected,
            ));
        }
        let (times, sigmas) = match self.spacing {
            SigmaSpacing::Timesteps => {
                let times = spread.solver(self.times, self.offset, train - clipped)?;
                let sigmas = times.iter().map(|time| table.sigma(*time)).collect();
                (times, sigmas)
            }
            SigmaSpacing::Flow => {
                let line = |k: usize| at(1.0, 1.0 / train as f64, k, steps + 1);
                let mut sigmas: Vec<f64> = if self.from_noise {
                    (0..steps)
                        .map(|k| shift(line(k), self.flow_shift))
                        .collect()
                } else {
                    (1..=steps)
                        .rev()
                        .map(|k| shift(1.0 - line(k), self.flow_shift))
                        .collect()
                };
                // Nothing at all of the image would be left.
                sigmas[0] = sigmas[0].min(1.0 - 1e-6);
                (
                    sigmas.iter().map(|sigma| sigma * train as f64).collect(),
                    sigmas,
                )
            }
            spacing => {
                let sigmas = spaced(spacing, (table.max(), table.min()), steps);
                let time = |sigma: &f64| {
                    if self.round {
                        table.time(*sigma).round_ties_even()
                    } else {
                        table.time(*sigma)
                    }
                };
                (sigmas.iter().map(time).collect(), sigmas)
            }
        };
        Ok((
            SigmaGrid {
                times: times.into_iter().map(f64::trunc).collect(),
                sigmas,
            },
            table,
        ))
    }
}

/// More of a flow's steps where there is much noise (Esser et al. 2024,
/// <https://arxiv.org/abs/2403.03206>, equation 23).
pub(crate) fn shift(sigma: f64, by: f64) -> f64 {
    by * sigma / (1.0 + (by - 1.0) * sigma)
}

/// The levels of σ, with that after the last.
pub(crate) fn levels(grid: &SigmaGrid, last: f64, flow: bool) -> Vec<NoiseLevel> {
    let level = |sigma: f64| {
        if flow {
            NoiseLevel::flow(sigma)
        } else {
            NoiseLevel::preserving_ratio(sigma)
        }
    };
    let rounded = grid
        .sigmas
        .iter()
        .chain([&last])
        .map(|sigma| crate::grid::in_32_bits(*sigma));
    rounded.map(level).collect()
}

/// The σ after the last call.
pub(crate) fn last_sigma(last: FinalSigmas, table: &SigmaTable) -> f64 {
    if last == FinalSigmas::Zero {
        0.0
    } else {
        table.min()
    }
}

/// The one choice of flags and the solvers' own.
pub(crate) fn spacing(flags: &SigmaScheduleFlags, lu: bool, flow: bool) -> Result<SigmaSpacing> {
    flags.with(&[
        ("use_lu_lambdas", lu, SigmaSpacing::Lu),
        ("use_flow_sigmas", flow, SigmaSpacing::Flow),
    ])
}

/// # Errors
/// [`Error::Config`] for a last σ of 0 with an expansion of the predicted noise, whose weights are
/// not finite there.
pub(crate) fn check_last_sigma(last: FinalSigmas, algorithm: DpmAlgorithm) -> Result<()> {
    if last == FinalSigmas::Zero && !algorithm.is_plus_plus() {
        return Err(Error::config(
            "final_sigmas_type",
            "zero",
            "sigma_min for the algorithms without ++",
        ));
    }
    Ok(())
}

/// # Errors
/// [`Error::Config`] unless the order is 1 to 3.
pub(crate) fn check_order(order: usize) -> Result<()> {
    if (1..=3).contains(&order) {
        Ok(())
    } else {
        Err(Error::config("solver_order", order, "1 to 3"))
    }
}

/// The order of a multistep call: as many calls as there are, and lower towards the end of a short
/// sampling.
pub(crate) fn multistep_order(
    most: usize,
    k: usize,
    steps: usize,
    lower_last: bool,
    euler_last: bool,
) -> usize {
    let left = if k + 1 == steps && euler_last {
        1
    } else if lower_last && steps < 15 {
        steps - k
    } else {
        most
    };
    most.min(k + 1).min(left)
}

/// Minus infinity, which Python writes into JSON files that have no word for it.
pub(crate) mod infinite {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        if *value == f64::NEG_INFINITY {
            serializer.serialize_str("-Infinity")
        } else {
            serializer.serialize_f64(*value)
        }
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Number {
        Finite(f64),
        Word(String),
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        match Number::deserialize(deserializer)? {
            Number::Finite(value) => Ok(value),
            Number::Word(word) if word == "-Infinity" => Ok(f64::NEG_INFINITY),
            Number::Word(word) => Err(D::Error::custom(format!("{word:?} is not a number"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phi_2_is_continuous() {
        for x in [0.4999999f64, 0.5000001, -0.4999999, -0.5000001, 1e-9] {
            let series: f64 = (0..30)
                .map(|n| x.powi(n) / (1..=n + 2).map(f64::from).product::<f64>())
                .sum();
            assert!((phi_2(x) - series).abs() < 1e-14, "{x}");
        }
    }

    #[test]
    fn orders_warm_up_and_taper() {
        let orders = |most, steps, lower, euler| -> Vec<usize> {
            (0..steps)
                .map(|k| multistep_order(most, k, steps, lower, euler))
                .collect()
        };
        assert_eq!(orders(3, 6, true, true), [1, 2, 3, 3, 2, 1]);
        assert_eq!(orders(3, 6, false, true), [1, 2, 3, 3, 3, 1]);
        assert_eq!(orders(2, 6, false, false), [1, 2, 2, 2, 2, 2]);
        assert_eq!(orders(3, 20, true, false)[16..], [3, 3, 3, 3]);
    }
}
