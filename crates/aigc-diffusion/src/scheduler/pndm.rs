//! PNDM: linear multistep and Runge–Kutta methods on the curve that DDIM follows (Liu et al. 2022,
//! <https://arxiv.org/abs/2202.09778>).

use super::{Alphas, Scheduler};
use crate::{
    grid::{Steps, TimestepSpacing},
    plan::{LinearCombination, ModelCall, SamplingPlan, Term, check_start},
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
pub(super) const MULTISTEP: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

impl Scheduler for PndmScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        let (alphas, spread) = self.schedule(steps)?;
        SamplingPlan::new(1.0, self.calls(spread, &alphas)?)
    }

    /// Without Runge–Kutta steps, diffusers makes its predictor and corrector of the first two
    /// calls, even where their times differ.
    fn plan_from(&self, steps: usize, at: usize) -> Result<SamplingPlan> {
        if at == 0 || !self.skip_prk_steps {
            return self.plan(steps)?.starting_at(at);
        }
        let (alphas, spread) = self.schedule(steps)?;
        let times = spread.whole(self.timestep_spacing, self.steps_offset)?;
        let times = twice_second(&times);
        check_start(at, times.len())?;
        let transfers = multistep(&times[at..], spread.stride() as f64);
        SamplingPlan::new(1.0, self.model_calls(&transfers, &alphas)?)
    }
}

impl PndmScheduler {
    fn schedule(&self, steps: usize) -> Result<(Alphas, Steps)> {
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
        Ok((alphas, Steps::new(self.noise.num_train_timesteps, steps)?))
    }

    pub(super) fn calls(&self, spread: Steps, alphas: &Alphas) -> Result<Vec<ModelCall>> {
        let steps = spread.sample;
        let mut times = spread.whole(self.timestep_spacing, self.steps_offset)?;
        let stride = spread.stride() as f64;
        if self.skip_prk_steps {
            return self.model_calls(&multistep(&twice_second(&times), stride), alphas);
        }
        let mut transfers: Vec<(f64, Transfer)> = vec![];
        // Calls whose outputs the multistep part builds on.
        let mut known: Vec<usize> = vec![];
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
        for time in times {
            push_multistep(&mut transfers, &mut known, time, stride);
        }
        self.model_calls(&transfers, alphas)
    }

    fn model_calls(
        &self,
        transfers: &[(f64, Transfer)],
        alphas: &Alphas,
    ) -> Result<Vec<ModelCall>> {
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

/// The times of the calls without Runge–Kutta steps: the network is called twice at the second
/// time, by a predictor and a corrector.
fn twice_second(times: &[f64]) -> Vec<f64> {
    let first = times.iter().take(2);
    first.chain(times.iter().skip(1)).copied().collect()
}

/// The calls without Runge–Kutta steps: a predictor and a corrector from the first two, and
/// multistep ones after them.
fn multistep(times: &[f64], stride: f64) -> Vec<(f64, Transfer)> {
    let first = times[0];
    let predictor = Transfer {
        from: 0,
        times: (first, first - stride),
        outputs: vec![(0, 1.0)],
    };
    let (mut transfers, mut known) = (vec![(first, predictor)], vec![0]);
    if let Some(second) = times.get(1) {
        let corrector = Transfer {
            from: 0,
            times: (second + stride, *second),
            outputs: vec![(0, 0.5), (1, 0.5)],
        };
        transfers.push((*second, corrector));
    }
    for time in times.iter().skip(2) {
        push_multistep(&mut transfers, &mut known, *time, stride);
    }
    transfers
}

/// Adds the next call of the multistep part. `known` are the calls whose outputs it builds on.
fn push_multistep(
    transfers: &mut Vec<(f64, Transfer)>,
    known: &mut Vec<usize>,
    time: f64,
    stride: f64,
) {
    let call = transfers.len();
    known.push(call);
    let newest: Vec<usize> = known.iter().rev().take(4).copied().collect();
    let outputs = newest.iter().zip(MULTISTEP[newest.len() - 1]);
    let transfer = Transfer {
        from: call,
        times: (time, time - stride),
        outputs: outputs.map(|(call, weight)| (*call, *weight)).collect(),
    };
    transfers.push((time, transfer));
}
