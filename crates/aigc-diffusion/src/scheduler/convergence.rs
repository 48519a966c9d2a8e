//! Orders of convergence with an exact solution: normal data, whose optimal network is a straight
//! line.
//!
//! With it, every sample of a plan is a weighted sum of the noise it began with and the noise that
//! was added, so its mean and variance need no sampling: the weights are followed through the plan,
//! in 64 bits.

use super::{
    dpm::{DpmAlgorithm, Expansion, SolverType},
    ve::{Way, ancestral, euler, straight},
    *,
};
use crate::{
    grid::{FinalSigmas, SigmaGrid, Steps, exponential},
    plan::{LinearCombination, Term},
    prediction::PredictionType,
    schedule::NoiseScheduleConfig,
};
use std::collections::HashMap;

/// Data of this mean and standard deviation.
#[derive(Clone, Copy)]
struct Normal {
    mean: f64,
    deviation: f64,
}

const DATA: Normal = Normal {
    mean: 0.3,
    deviation: 0.7,
};

impl Normal {
    fn mean(self, level: NoiseLevel) -> f64 {
        level.alpha * self.mean
    }

    fn deviation(self, level: NoiseLevel) -> f64 {
        (level.alpha * self.deviation).hypot(level.sigma)
    }

    /// `E[x₀ | x] = .0·x + .1`.
    fn denoise(self, level: NoiseLevel) -> (f64, f64) {
        let slope = level.alpha * self.deviation.powi(2) / self.deviation(level).powi(2);
        (slope, self.mean * (1.0 - slope * level.alpha))
    }
}

/// A weighted sum: a constant, the first noise, and each noise after it.
type Weights = Vec<f64>;

fn add(to: &mut Weights, weight: f64, of: &Weights) {
    to.resize(to.len().max(of.len()), 0.0);
    to.iter_mut().zip(of).for_each(|(a, b)| *a += weight * b);
}

/// The sample after the last call. The calls before `first` are given exact samples, so that what a
/// multistep method builds on is exact too.
fn carry_out(calls: &[ModelCall], first: usize) -> Weights {
    let mut known: HashMap<Term, Weights> = HashMap::new();
    let exact = |level: NoiseLevel| vec![DATA.mean(level), DATA.deviation(level)];
    let mut x = exact(calls[0].network_level);
    let mut noises = 0;
    for (k, call) in calls.iter().enumerate() {
        if k <= first {
            x = exact(call.network_level);
        }
        let NoiseLevel { alpha, sigma } = call.network_level;
        let (slope, constant) = DATA.denoise(call.network_level);
        let mut x0: Weights = x.iter().map(|weight| slope * weight).collect();
        x0[0] += constant;
        let mut epsilon: Weights = x.iter().map(|weight| weight / sigma).collect();
        add(&mut epsilon, -alpha / sigma, &x0);
        // The exact prediction.
        let (of_sample, of_output) = call.coefficients.x0;
        let mut output: Weights = x0.iter().map(|weight| weight / of_output).collect();
        add(&mut output, -of_sample / of_output, &x);
        known.extend([
            (Term::X0(k), x0),
            (Term::Epsilon(k), epsilon),
            (Term::Output(k), output),
        ]);
        known.insert(Term::Sample(k), x);
        let mut noise = vec![0.0; 3 + noises];
        noise[2 + noises] = 1.0;
        known.insert(Term::Noise, noise);
        let sum = |known: &HashMap<Term, Weights>, terms: &LinearCombination| {
            let mut sum = vec![0.0; 2];
            terms
                .iter()
                .for_each(|(source, weight)| add(&mut sum, *weight, &known[source]));
            sum
        };
        if !call.corrector.is_empty() && k > first {
            let corrected = sum(&known, &call.corrector);
            known.insert(Term::Sample(k), corrected);
        }
        x = sum(&known, &call.update);
        noises += usize::from(call.update.iter().any(|(source, _)| *source == Term::Noise));
    }
    x
}

/// How far a deterministic sampler is from the curve that it should follow.
fn off_the_curve(calls: &[ModelCall], first: usize, end: NoiseLevel) -> f64 {
    let x = carry_out(calls, first);
    (x[0] - DATA.mean(end)).hypot(x[1] - DATA.deviation(end))
}

/// The order of convergence between `n` and `2n` steps.
fn order(error: impl Fn(usize) -> f64, n: usize) -> f64 {
    (error(n) / error(2 * n)).log2()
}

const ENDS: (f64, f64) = (0.2, 8.0);

/// A continuous grid: even in `ln σ`, without the 32 bits of tables.
fn grid(n: usize) -> SigmaGrid {
    let sigmas = exponential(ENDS.0, ENDS.1, n + 1);
    SigmaGrid {
        times: vec![0.0; n],
        sigmas,
    }
}

/// Calls of a solver in λ that expands by what `sum` gives.
fn solver(
    n: usize,
    level: fn(f64) -> NoiseLevel,
    sum: impl Fn(usize, &[NoiseLevel]) -> LinearCombination,
) -> Vec<ModelCall> {
    let levels: Vec<NoiseLevel> = grid(n).sigmas.into_iter().map(level).collect();
    let call = |k: usize| {
        let reading = PredictionType::Epsilon.coefficients(levels[k]).unwrap();
        ModelCall::new(0.0, levels[k], reading, sum(k, &levels))
    };
    (0..n).map(call).collect()
}

fn multistep(
    expansion: Expansion,
    most: usize,
) -> impl Fn(usize, &[NoiseLevel]) -> LinearCombination {
    move |k, levels| {
        let calls: Vec<usize> = (0..most.min(k + 1)).map(|j| k - j).collect();
        let way: Vec<NoiseLevel> = (0..=calls.len()).map(|j| levels[k + 1 - j]).collect();
        expansion.multistep(k, &way, &calls)
    }
}

fn singlestep(
    expansion: Expansion,
    most: usize,
) -> impl Fn(usize, &[NoiseLevel]) -> LinearCombination {
    move |k, levels| {
        let calls: Vec<usize> = (0..=k % most).map(|j| k - j).collect();
        let way: Vec<NoiseLevel> = (0..=calls.len()).map(|j| levels[k + 1 - j]).collect();
        expansion.singlestep(&way, &calls)
    }
}

#[track_caller]
fn assert_order(name: &str, expected: f64, found: f64) {
    assert!(
        (found - expected).abs() < 0.2,
        "{name}: order {found:.2}, expected {expected}"
    );
}

#[test]
fn sigma_methods_converge_with_their_order() {
    let end = NoiseLevel::variance_exploding(ENDS.0);
    for prediction in [
        PredictionType::Epsilon,
        PredictionType::Sample,
        PredictionType::V,
    ] {
        let error = |n| off_the_curve(&euler(&grid(n), prediction, straight).unwrap(), 0, end);
        assert_order("Euler", 1.0, order(error, 256));
        let heun = HeunScheduler {
            prediction_type: prediction,
            ..HeunScheduler::default()
        };
        assert_order(
            "Heun",
            2.0,
            order(
                |n| off_the_curve(&heun.calls(&grid(n)).unwrap(), 0, end),
                128,
            ),
        );
        let kdpm2 = Kdpm2Scheduler {
            prediction_type: prediction,
            ..Kdpm2Scheduler::default()
        };
        let error = |n| off_the_curve(&kdpm2.calls(&grid(n), straight, |_| 0.0).unwrap(), 0, end);
        assert_order("KDPM2", 2.0, order(error, 128));
        for most in 1..=4 {
            let lms = LmsScheduler {
                prediction_type: prediction,
                order: most,
                ..LmsScheduler::default()
            };
            let error = |n| off_the_curve(&lms.calls(&grid(n)).unwrap(), most - 1, end);
            assert_order("LMS", most as f64, order(error, 256));
        }
    }
}

#[test]
fn dpm_solvers_converge_with_their_order() {
    for algorithm in [DpmAlgorithm::Dpm, DpmAlgorithm::DpmPlusPlus] {
        for kind in [SolverType::Midpoint, SolverType::Heun] {
            let expansion = Expansion {
                algorithm,
                solver: kind,
                exact_curvature: true,
            };
            for level in [
                NoiseLevel::preserving_ratio as fn(f64) -> NoiseLevel,
                NoiseLevel::variance_exploding,
            ] {
                let end = level(ENDS.0);
                // As diffusers has it, the third order has half of its curvature.
                let halved = Expansion {
                    exact_curvature: false,
                    ..expansion
                };
                let error = |n| off_the_curve(&solver(n, level, multistep(halved, 3)), 2, end);
                assert_order(
                    "third order with half of its curvature",
                    2.0,
                    order(error, 256),
                );
                for most in 1..=3 {
                    let name = format!("{algorithm:?} {kind:?} {most}");
                    let error = |n| {
                        off_the_curve(&solver(n, level, multistep(expansion, most)), most - 1, end)
                    };
                    assert_order(&name, most as f64, order(error, 256));
                    let error =
                        |n| off_the_curve(&solver(n, level, singlestep(expansion, most)), 0, end);
                    assert_order(
                        &format!("{name}, single"),
                        most as f64,
                        order(error, 96 * most),
                    );
                }
            }
        }
    }
}

#[test]
fn deis_and_unipc_converge_with_their_order() {
    let level: fn(f64) -> NoiseLevel = NoiseLevel::preserving_ratio;
    let end = level(ENDS.0);
    for most in 2..=3 {
        let sum = |k: usize, levels: &[NoiseLevel]| {
            let first = Expansion {
                algorithm: DpmAlgorithm::Dpm,
                solver: SolverType::Midpoint,
                exact_curvature: true,
            };
            if k == 0 {
                multistep(first, 1)(k, levels)
            } else {
                deis::step(levels, k, most.min(k + 1))
            }
        };
        let error = |n| off_the_curve(&solver(n, level, sum), most - 1, end);
        assert_order("DEIS", most as f64, order(error, 256));
    }
    for predict_x0 in [true, false] {
        for solver_type in [UniPcSolver::Bh1, UniPcSolver::Bh2] {
            for most in 1..=3 {
                let unipc = UniPcScheduler {
                    predict_x0,
                    solver_type,
                    ..UniPcScheduler::default()
                };
                let predicted =
                    |k: usize, levels: &[NoiseLevel]| unipc.step(levels, k, most.min(k + 1), false);
                let error = |n| off_the_curve(&solver(n, level, predicted), most - 1, end);
                assert_order("UniP", most as f64, order(error, 256));
                // The corrector adds one (theorem 3.1).
                let error = |n| {
                    let mut calls = solver(n, level, predicted);
                    let levels: Vec<NoiseLevel> = grid(n).sigmas.into_iter().map(level).collect();
                    for (k, call) in calls.iter_mut().enumerate().skip(1) {
                        call.corrector = unipc.step(&levels, k - 1, most.min(k), true);
                    }
                    off_the_curve(&calls, most - 1, end)
                };
                assert_order("UniPC", most as f64 + 1.0, order(error, 128));
            }
        }
    }
}

#[test]
fn flow_and_edm_converge_with_their_order() {
    let train = 1_000_000_000;
    let end = NoiseLevel::flow(0.0);
    let flow = FlowEulerScheduler {
        num_train_timesteps: train,
        ..FlowEulerScheduler::default()
    };
    assert_order(
        "flow, Euler",
        1.0,
        order(|n| off_the_curve(&flow.plan(n).unwrap().calls, 0, end), 256),
    );
    let heun = FlowHeunScheduler {
        num_train_timesteps: train,
        shift: 3.0,
    };
    assert_order(
        "flow, Heun",
        2.0,
        order(|n| off_the_curve(&heun.plan(n).unwrap().calls, 0, end), 128),
    );
    let edm = EdmConfig {
        sigma_min: ENDS.0,
        sigma_max: ENDS.1,
        final_sigmas_type: FinalSigmas::SigmaMin,
        ..EdmConfig::default()
    };
    let end = NoiseLevel::variance_exploding(ENDS.0);
    let euler = EdmEulerScheduler(edm.clone());
    assert_order(
        "EDM, Euler",
        1.0,
        order(
            |n| off_the_curve(&euler.plan(n).unwrap().calls, 0, end),
            256,
        ),
    );
    let dpm = EdmDpmScheduler {
        edm,
        lower_order_final: false,
        ..EdmDpmScheduler::default()
    };
    // The last call is where it goes: nothing happens there.
    let error = |n| {
        let mut calls = dpm.plan(n).unwrap().calls;
        calls.pop();
        off_the_curve(&calls, 1, end)
    };
    assert_order("EDM, DPM-Solver++", 2.0, order(error, 128));
}

#[test]
fn pndm_converges_with_its_order() {
    // ln(σ/α) a straight line over time.
    let train = 1 << 14;
    let ratio = |t: usize| ENDS.0 * (ENDS.1 / ENDS.0).powf(t as f64 / train as f64);
    let alphas = Alphas::of(
        (0..train)
            .map(|t| NoiseLevel::preserving_ratio(ratio(t)).alpha.powi(2))
            .collect(),
    );
    let end = NoiseLevel::preserving_ratio(ENDS.0);
    for prediction_type in [PredictionType::Epsilon, PredictionType::V] {
        for skip_prk_steps in [true, false] {
            let pndm = PndmScheduler {
                prediction_type,
                skip_prk_steps,
                ..PndmScheduler::default()
            };
            let error = |n: usize| {
                let mut calls = pndm.calls(Steps::new(train, n).unwrap(), &alphas).unwrap();
                // To before the first time.
                calls.pop();
                off_the_curve(&calls, 0, end)
            };
            // Earlier v are interpreted as if predicted now, as in diffusers, which costs an order.
            let expected = if prediction_type == PredictionType::V {
                1.0
            } else {
                2.0
            };
            assert_order(
                &format!("PNDM {prediction_type:?} {skip_prk_steps}"),
                expected,
                order(error, 256),
            );
        }
    }
}

/// How far mean and variance of a stochastic sampler are from those of the data, relative to the
/// deviation there.
fn off_in_moments(calls: &[ModelCall], first: usize, end: NoiseLevel) -> f64 {
    let x = carry_out(calls, first);
    let (mean, variance) = (
        x[0],
        x[1..].iter().map(|weight| weight * weight).sum::<f64>(),
    );
    let deviation = DATA.deviation(end);
    ((mean - DATA.mean(end)) / deviation)
        .abs()
        .max((variance / deviation.powi(2) - 1.0).abs())
}

#[test]
fn stochastic_methods_converge_in_mean_and_variance() {
    let check = |name: &str, least: f64, error: &dyn Fn(usize) -> f64| {
        let found = order(error, 256);
        assert!(
            found > least && error(512) < 0.02,
            "{name}: order {found:.2}, error {:.1e}",
            error(512)
        );
    };
    let end = NoiseLevel::variance_exploding(ENDS.0);
    let way: Way = ancestral;
    check("Euler", 0.9, &|n| {
        off_in_moments(
            &euler(&grid(n), PredictionType::Epsilon, way).unwrap(),
            0,
            end,
        )
    });
    let kdpm2 = Kdpm2Scheduler::default();
    check("KDPM2", 0.9, &|n| {
        off_in_moments(&kdpm2.calls(&grid(n), way, |_| 0.0).unwrap(), 0, end)
    });
    let end = NoiseLevel::preserving_ratio(ENDS.0);
    for algorithm in [DpmAlgorithm::SdeDpm, DpmAlgorithm::SdeDpmPlusPlus] {
        for kind in [SolverType::Midpoint, SolverType::Heun] {
            let expansion = Expansion {
                algorithm,
                solver: kind,
                exact_curvature: true,
            };
            let most = if algorithm == DpmAlgorithm::SdeDpm {
                2
            } else {
                3
            };
            for most in 1..=most {
                check(&format!("{algorithm:?} {kind:?} {most}"), 0.9, &|n| {
                    let calls = solver(n, NoiseLevel::preserving_ratio, multistep(expansion, most));
                    off_in_moments(&calls, most - 1, end)
                });
            }
        }
    }
    // A call for each order, and EDM's noise, which is added and not mixed in.
    for kind in [SolverType::Midpoint, SolverType::Heun] {
        let expansion = Expansion {
            algorithm: DpmAlgorithm::SdeDpmPlusPlus,
            solver: kind,
            exact_curvature: true,
        };
        for most in 1..=2 {
            check(&format!("singlestep {kind:?} {most}"), 0.9, &|n| {
                off_in_moments(
                    &solver(n, NoiseLevel::preserving_ratio, singlestep(expansion, most)),
                    0,
                    end,
                )
            });
            check(&format!("exploding {kind:?} {most}"), 0.9, &|n| {
                off_in_moments(
                    &solver(
                        n,
                        NoiseLevel::variance_exploding,
                        multistep(expansion, most),
                    ),
                    most - 1,
                    NoiseLevel::variance_exploding(ENDS.0),
                )
            });
        }
    }
    // On their tables, at all of the times.
    let end = NoiseLevel::variance_preserving(1.0);
    let ddpm = DdpmScheduler {
        clipping: Clipping::NONE,
        ..DdpmScheduler::default()
    };
    let error = |plan: Result<SamplingPlan>| off_in_moments(&plan.unwrap().calls, 0, end);
    for variance_type in [VarianceType::FixedSmall, VarianceType::FixedLargeLog] {
        let ddpm = DdpmScheduler {
            variance_type,
            ..ddpm.clone()
        };
        assert!(
            error(ddpm.plan(1000)) < 0.02 && error(ddpm.plan(1000)) < error(ddpm.plan(250)),
            "{}",
            error(ddpm.plan(1000))
        );
    }
    let ddim = DdimScheduler {
        clipping: Clipping::NONE,
        eta: 1.0,
        ..DdimScheduler::default()
    };
    assert!(
        error(ddim.plan(1000)) < 0.02 && error(ddim.plan(1000)) < error(ddim.plan(250)),
        "{}",
        error(ddim.plan(1000))
    );
}

/// The first order of DPM-Solver++ is DDIM (Lu et al. 2022, section 4).
#[test]
fn ddim_equals_first_order_solvers() {
    let ddim = DdimScheduler {
        clipping: Clipping::NONE,
        ..DdimScheduler::default()
    }
    .plan(20)
    .unwrap();
    let alphas = Alphas::new(&NoiseScheduleConfig::default(), false, true).unwrap();
    let expansion = Expansion {
        algorithm: DpmAlgorithm::DpmPlusPlus,
        solver: SolverType::Midpoint,
        exact_curvature: true,
    };
    for (k, call) in ddim.calls.iter().enumerate().take(19) {
        let to = alphas.level(call.time - 50.0);
        let mut other = call.clone();
        other.update = expansion.multistep(k, &[to, call.network_level], &[k]);
        let [a, b] = [call, &other].map(|call| {
            let next = call.update.iter().map(|(source, weight)| match source {
                Term::Epsilon(_) => (Term::Epsilon(0), *weight),
                Term::X0(_) => (Term::X0(0), *weight),
                _ => (Term::Sample(0), *weight),
            });
            carry_out(
                &[ModelCall {
                    update: next.collect(),
                    ..call.clone()
                }],
                0,
            )
        });
        assert!(
            (a[0] - b[0]).abs() + (a[1] - b[1]).abs() < 1e-12,
            "{k}: {a:?} {b:?}"
        );
    }
}
