//! Flow matching: the network predicts the velocity from noise to image along straight lines
//! (Lipman et al. 2023,
//! <https://arxiv.org/abs/2210.02747>; Liu et al. 2023, <https://arxiv.org/abs/2209.03003>).

use super::{Scheduler, dpm::shift};
use crate::{
    grid::{SigmaGrid, SigmaScheduleFlags, SigmaSpacing, at, spaced},
    plan::{LinearCombination, ModelCall, SamplingPlan, Term},
    prediction::{NoiseLevel, PredictionType},
};
use aigc_core::{Error, Result, check};
use serde::{Deserialize, Serialize};

/// How dynamic shifting changes a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TimeShiftType {
    /// The shift is `e^μ`.
    Exponential,
    /// The shift is `μ`.
    Linear,
}

/// Euler's method; the fields are those of diffusers' `FlowMatchEulerDiscreteScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowEulerScheduler {
    /// Steps of the forward process.
    pub num_train_timesteps: usize,
    /// Shift of the sigmas: above 1, more steps are at high noise levels.
    pub shift: f64,
    /// Shift by the size of the image instead.
    pub use_dynamic_shifting: bool,
    /// `μ` of the smallest image.
    pub base_shift: Option<f64>,
    /// `μ` of the largest image.
    pub max_shift: Option<f64>,
    /// Tokens of the smallest image.
    pub base_image_seq_len: usize,
    /// Tokens of the largest image.
    pub max_image_seq_len: usize,
    /// Whether sampling runs from image to noise.
    pub invert_sigmas: bool,
    /// Stretch the σ so that they end here.
    pub shift_terminal: Option<f64>,
    /// How the sigmas are spaced.
    #[serde(flatten)]
    pub sigmas: SigmaScheduleFlags,
    /// The kind of dynamic shifting.
    pub time_shift_type: TimeShiftType,
    /// Go to the predicted image and back up by fresh noise.
    pub stochastic_sampling: bool,
    /// Tokens of the image, for dynamic shifting. (An argument of sampling, not written to a file.)
    #[serde(skip)]
    pub image_seq_len: Option<usize>,
}

impl Default for FlowEulerScheduler {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            shift: 1.0,
            use_dynamic_shifting: false,
            base_shift: Some(0.5),
            max_shift: Some(1.15),
            base_image_seq_len: 256,
            max_image_seq_len: 4096,
            invert_sigmas: false,
            shift_terminal: None,
            sigmas: SigmaScheduleFlags::default(),
            time_shift_type: TimeShiftType::Exponential,
            stochastic_sampling: false,
            image_seq_len: None,
        }
    }
}

/// σ from the first of the process, shifted by `by`, to the last.
fn sigmas(train: usize, steps: usize, by: f64) -> Result<Vec<f64>> {
    if train == 0 {
        return Err(Error::config("num_train_timesteps", train, "at least 1"));
    }
    if steps == 0 || steps > train {
        return Err(Error::argument(
            "steps",
            steps,
            format!("1 to num_train_timesteps ({train})"),
        ));
    }
    check::positive("shift", by)?;
    let min = shift(1.0 / train as f64, by);
    Ok((0..steps).map(|k| at(1.0, min, k, steps)).collect())
}

/// The grid of σ and times, rounded to 32 bits as diffusers computes them. The time embedding takes
/// the sine of times up to 1000, so a rounding error of the time changes the network's output.
fn grid(sigmas: &[f64], train: usize, last: f64) -> SigmaGrid {
    let sigmas = sigmas.iter().map(|sigma| *sigma as f32);
    let times = sigmas.clone().map(|sigma| f64::from(sigma * train as f32));
    SigmaGrid::new(times.collect(), sigmas.map(f64::from).collect(), last)
}

/// A call at σ of a flow.
fn call(time: f64, sigma: f64, next: LinearCombination) -> Result<ModelCall> {
    let level = NoiseLevel::flow(sigma);
    Ok(ModelCall::new(
        time,
        level,
        PredictionType::Flow.coefficients(level)?,
        next,
    ))
}

impl FlowEulerScheduler {
    /// `μ` of an image, between the smallest and the largest.
    fn mu(&self) -> Result<f64> {
        let field = |field, value: Option<f64>| {
            value.ok_or_else(|| Error::config(field, "null", "a number"))
        };
        let Some(tokens) = self.image_seq_len else {
            return Err(Error::config(
                "image_seq_len",
                "not set",
                "the image's tokens, for use_dynamic_shifting",
            ));
        };
        let (low, high) = (
            self.base_image_seq_len as f64,
            self.max_image_seq_len as f64,
        );
        if low >= high {
            return Err(Error::config(
                "max_image_seq_len",
                high,
                "more than base_image_seq_len",
            ));
        }
        let (base, max) = (
            field("base_shift", self.base_shift)?,
            field("max_shift", self.max_shift)?,
        );
        Ok(base + (max - base) * (tokens as f64 - low) / (high - low))
    }
}

impl Scheduler for FlowEulerScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        let by = if self.use_dynamic_shifting {
            1.0
        } else {
            self.shift
        };
        self.plan_of_sigmas(&sigmas(self.num_train_timesteps, steps, by)?)
    }
}

impl FlowEulerScheduler {
    /// The plan of steps from one of these σ to the next, before they are shifted: falling from 1.
    /// FLUX.1 has n σ from 1 to 1/n.
    ///
    /// # Errors
    /// As [`plan`](Scheduler::plan); [`Error::InvalidArgument`] for σ that do not fall within 0
    /// and 1.
    pub fn plan_of_sigmas(&self, sigmas: &[f64]) -> Result<SamplingPlan> {
        let steps = sigmas.len();
        let within = sigmas.iter().all(|sigma| *sigma > 0.0 && *sigma <= 1.0);
        let falling = sigmas.windows(2).all(|pair| pair[0] >= pair[1]);
        if steps == 0 || !within || !falling {
            let expected = "one or more falling numbers above 0, at most 1";
            return Err(Error::argument("sigmas", format!("{sigmas:?}"), expected));
        }
        check::positive("shift", self.shift)?;
        let mut sigmas: Vec<f64> = if self.use_dynamic_shifting {
            let mu = self.mu()?;
            let by = if self.time_shift_type == TimeShiftType::Exponential {
                mu.exp()
            } else {
                mu
            };
            let by = by as f32;
            let shifted = |sigma: &f64| f64::from(by / (by + (1.0 / *sigma as f32 - 1.0)));
            sigmas.iter().map(shifted).collect()
        } else {
            sigmas
                .iter()
                .map(|sigma| shift(*sigma, self.shift))
                .collect()
        };
        if let Some(end) = self.shift_terminal.filter(|end| *end != 0.0) {
            if !(end > 0.0 && end < 1.0) {
                return Err(Error::config("shift_terminal", end, "0 to 1"));
            }
            let scale = (1.0 - sigmas[steps - 1]) / (1.0 - end);
            sigmas
                .iter_mut()
                .for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
        }
        let spacing = self.sigmas.spacing()?;
        if spacing != SigmaSpacing::Timesteps {
            let range = (sigmas[0], sigmas[steps - 1]);
            sigmas = spaced(spacing, range, steps);
        }
        if self.invert_sigmas {
            sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - *sigma);
        }
        let last = if self.invert_sigmas { 1.0 } else { 0.0 };
        let grid = grid(&sigmas, self.num_train_timesteps, last);
        let calls = (0..steps).map(|k| {
            let (sigma, next) = (grid.sigmas[k], grid.sigmas[k + 1]);
            let sum = if self.stochastic_sampling {
                let mut sum = vec![(Term::X0(k), 1.0 - next)];
                if next > 0.0 {
                    sum.push((Term::Noise, next));
                }
                sum
            } else {
                vec![(Term::Sample(k), 1.0), (Term::Output(k), next - sigma)]
            };
            call(grid.times[k], sigma, sum)
        });
        SamplingPlan::new(1.0, calls.collect::<Result<_>>()?)
    }
}

/// Heun's method; the fields are those of diffusers' `FlowMatchHeunDiscreteScheduler`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowHeunScheduler {
    /// Steps of the forward process.
    pub num_train_timesteps: usize,
    /// Shift of the sigmas: above 1, more steps are at high noise levels.
    pub shift: f64,
}

impl Default for FlowHeunScheduler {
    fn default() -> Self {
        Self {
            num_train_timesteps: 1000,
            shift: 1.0,
        }
    }
}

impl Scheduler for FlowHeunScheduler {
    fn plan(&self, steps: usize) -> Result<SamplingPlan> {
        let train = self.num_train_timesteps;
        let sigmas = sigmas(train, steps, self.shift)?.into_iter();
        let sigmas: Vec<f64> = sigmas.map(|sigma| shift(sigma, self.shift)).collect();
        let grid = grid(&sigmas, train, 0.0);
        let mut calls = vec![];
        for k in 0..steps {
            let (first, step) = (calls.len(), grid.sigmas[k + 1] - grid.sigmas[k]);
            let next = vec![(Term::Sample(first), 1.0), (Term::Output(first), step)];
            calls.push(call(grid.times[k], grid.sigmas[k], next)?);
            if k + 1 < steps {
                let half = |call| (Term::Output(call), 0.5 * step);
                let next = vec![(Term::Sample(first), 1.0), half(first), half(first + 1)];
                calls.push(call(grid.times[k + 1], grid.sigmas[k + 1], next)?);
            }
        }
        SamplingPlan::new(1.0, calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn given_sigmas_fall_within_the_process() {
        let scheduler = FlowEulerScheduler::default();
        let plan = scheduler.plan_of_sigmas(&[1.0, 0.75, 0.25]).unwrap();
        assert_eq!(plan.times(), [1000.0, 750.0, 250.0]);
        for sigmas in [&[][..], &[1.5], &[0.5, 0.0], &[0.5, f64::NAN], &[0.25, 0.5]] {
            let message = scheduler.plan_of_sigmas(sigmas).unwrap_err().to_string();
            assert!(message.contains("`sigmas`"), "{sigmas:?}: {message}");
        }
    }
}
