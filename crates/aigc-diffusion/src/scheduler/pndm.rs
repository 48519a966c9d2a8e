//! PNDM: linear multistep and Runge–Kutta methods on the curve that DDIM follows (Liu et al. 2022,
//! <https://arxiv.org/abs/2202.09778>).

use super::{Alphas, Scheduler};
use crate::{
    grid::{Steps, TimestepSpacing},
    plan::{LinearCombination, ModelCall, SamplingPlan, Term},
    prediction::{NoiseLevel, PredictionType},
    schedule::NoiseScheduleConfig,
};
use aigc_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// Options and scheduler in one; the fields are those of diffusers' `PNDMScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PndmScheduler {
    /// The forward process.
    #[serde(flatten)]
    pub noise: NoiseScheduleConfig,
    /// Begin with lower orders instead of three Runge–Kutta steps of four calls each.
    pub skip_prk_steps: bool,
    /// Whether the step past the first leaves no noise, or as much as the first.
    pub set_alpha_to_one: bool,
    /// What the network predicts: ε or v.
    pub prediction_type: PredictionType,
    /// How the timesteps are spaced.
    pub timestep_spacing: TimestepSpacing,
    /// Added to the timesteps of `leading`.
    pub steps_offset: usize,
}

impl Default for PndmScheduler {
    fn default() -> Self {
        Self {
            noise: NoiseScheduleConfig::default(),
            skip_prk_steps: false,
            set_alpha_to_one: false,
            prediction_type: PredictionType::Epsilon,
            timestep_spacing: TimestepSpacing::Leading,
            steps_offset: 0,
        }
    }
}

/// A step of the transfer part (equation 11).
struct Transfer {
    /// The call whose sample it starts from.
    from: usize,
    /// The times before and after the step.
    times: (f64, f64),
    /// The weights of outputs.
    outputs: Vec<(usize, f64)>,
}

/// Adams–Bashforth, newest first.
const MULTISTEP: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

impl Scheduler for PndmScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        if !matches!(
            self.prediction_type,
            PredictionType::Epsilon | PredictionType::V
        ) {
            return Err(Error::config(
                "prediction_type",
                format!("{:?}", self.prediction_type),
                "epsilon or v_prediction",
            ));
        }
        let alphas = Alphas::new(&self.noise, false, self.set_alpha_to_one)?;
        let spread = Steps::new(self.noise.num_train_timesteps, steps)?;
        SamplingPlan::new(1.0, self.calls(spread, &alphas)?)
    }
}

impl PndmScheduler {
    pub(super) fn calls(&self, spread: Steps, alphas: &Alphas) -> Result<Vec<ModelCall>> {
        let steps = spread.sample;
        let mut times = spread.whole(self.timestep_spacing, self.steps_offset)?;
        let stride = spread.stride() as f64;
        let mut transfers: Vec<(f64, Transfer)> = vec![];
        // Calls whose outputs the multistep part builds on.
        let mut known: Vec<usize> = vec![];
        if self.skip_prk_steps {
            if steps > 1 {
                // A predictor and a corrector: the network is called twice at the second time.
                let (first, second) = (times[0], times[1]);
                transfers.push((
                    first,
                    Transfer {
                        from: 0,
                        times: (first, first - stride),
                        outputs: vec![(0, 1.0)],
                    },
                ));
                let outputs = vec![(0, 0.5), (1, 0.5)];
                transfers.push((
                    second,
                    Transfer {
                        from: 0,
                        times: (second + stride, second),
                        outputs,
                    },
                ));
                known.push(0);
                times.remove(0);
            }
        } else {
            if steps < 4 {
                return Err(Error::argument(
                    "steps",
                    steps,
                    "at least 4, or `skip_prk_steps`",
                ));
            }
            let half = (spread.stride() / 2) as f64;
            for i in 0..3 {
                let (start, end, from) = (times[i], times[i + 1], 4 * i);
                let middle = end + half;
                let one = |call: usize| vec![(from + call, 1.0)];
                let all = [1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0];
                let all = all
                    .iter()
                    .enumerate()
                    .map(|(call, weight)| (from + call, *weight))
                    .collect();
                for (time, to, outputs) in [
                    (start, start - half, one(0)),
                    (middle, middle, one(1)),
                    (middle, middle - half, one(2)),
                    (end, end, all),
                ] {
                    transfers.push((
                        time,
                        Transfer {
                            from,
                            times: (start, to),
                            outputs,
                        },
                    ));
                }
                known.push(from);
            }
            times.drain(..3);
        }
        for time in times {
            let call = transfers.len();
            known.push(call);
            let newest: Vec<usize> = known.iter().rev().take(4).copied().collect();
            let outputs = newest
                .iter()
                .zip(MULTISTEP[newest.len() - 1])
                .map(|(call, weight)| (*call, *weight))
                .collect();
            transfers.push((
                time,
                Transfer {
                    from: call,
                    times: (time, time - stride),
                    outputs,
                },
            ));
        }
        let call = |(time, transfer): &(f64, Transfer)| {
            let level = alphas.level(*time);
            Ok(ModelCall::new(
                *time,
                level,
                self.prediction_type.coefficients(level)?,
                self.sum(transfer, alphas),
            ))
        };
        transfers.iter().map(call).collect()
    }

    fn sum(&self, transfer: &Transfer, alphas: &Alphas) -> LinearCombination {
        let [from, to] = [transfer.times.0, transfer.times.1].map(|time| alphas.level(time));
        let NoiseLevel { alpha, sigma } = from;
        // Equation 11, by levels: ε moves a sample along the curve on which x/α changes by σ/α.
        let (mut sample, weight) = (to.alpha / alpha, to.sigma - to.alpha * sigma / alpha);
        let mut scale = weight;
        if self.prediction_type == PredictionType::V {
            sample += weight * sigma;
            scale *= alpha;
        }
        let outputs = transfer
            .outputs
            .iter()
            .map(|(call, share)| (Term::Output(*call), scale * share));
        [(Term::Sample(transfer.from), sample)]
            .into_iter()
            .chain(outputs)
            .collect()
    }
}
