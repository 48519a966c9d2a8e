//! Learning-rate schedules as factors by step, and the number of steps that fit into a time limit.

use crate::{Result, check::ensure};
use serde::{Deserialize, Serialize};

/// Shape of the decay after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrDecay {
    /// No decay.
    #[default]
    Constant,
    /// Linear decay.
    Linear,
    /// Half a cosine (Loshchilov and Hutter 2017, <https://arxiv.org/abs/1608.03983>).
    Cosine,
}

/// Linear warm-up, then a decay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LrSchedule {
    /// Number of warm-up steps; step `t` of them uses `(t + 1) / warmup_steps` of the rate.
    #[serde(alias = "warmup")]
    pub warmup_steps: usize,
    /// The decay after warm-up.
    pub decay: LrDecay,
    /// Factor at the last step, for decays other than constant.
    #[serde(alias = "floor")]
    pub min_lr_ratio: f64,
}

impl LrSchedule {
    /// Factor 1 at every step.
    pub const CONSTANT: Self = LrSchedule {
        warmup_steps: 0,
        decay: LrDecay::Constant,
        min_lr_ratio: 0.0,
    };

    /// Warm-up over `warmup` steps, then half a cosine to zero.
    pub const fn cosine(warmup: usize) -> Self {
        LrSchedule {
            warmup_steps: warmup,
            decay: LrDecay::Cosine,
            min_lr_ratio: 0.0,
        }
    }

    /// Warm-up over `warmup` steps, then a linear decay to zero.
    pub const fn linear(warmup: usize) -> Self {
        LrSchedule {
            warmup_steps: warmup,
            decay: LrDecay::Linear,
            min_lr_ratio: 0.0,
        }
    }

    /// Factor of the learning rate at `step` (counted from 0) of `steps`.
    pub fn lr_factor(&self, step: usize, steps: usize) -> f64 {
        if step < self.warmup_steps {
            return (step + 1) as f64 / self.warmup_steps as f64;
        }
        let span = steps.saturating_sub(self.warmup_steps + 1).max(1) as f64;
        let progress = ((step - self.warmup_steps) as f64 / span).min(1.0);
        let fall = match self.decay {
            LrDecay::Constant => return 1.0,
            LrDecay::Linear => 1.0 - progress,
            LrDecay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.min_lr_ratio + (1.0 - self.min_lr_ratio) * fall
    }

    pub(crate) fn validate(&self) -> Result<()> {
        ensure(
            (0.0..=1.0).contains(&self.min_lr_ratio),
            "lr_schedule.min_lr_ratio",
            self.min_lr_ratio,
            "0 to 1",
        )
    }
}

/// Fraction of the time limit after which the measured time per step is used.
const MEASURED: f64 = 0.05;

/// The number of steps after which training ends by its first limit: `max_steps`, or fewer if
/// `max_seconds` are over before. `step` steps took `seconds` so far.
pub(super) fn planned_steps(
    step: usize,
    seconds: f64,
    max_steps: usize,
    max_seconds: f64,
) -> usize {
    if step == 0 || seconds < MEASURED * max_seconds || !max_seconds.is_finite() {
        return max_steps;
    }
    let left = (max_seconds - seconds).max(0.0) * step as f64 / seconds;
    // At least one more step is always run.
    max_steps.min(step + (left as usize).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schedule: LrSchedule, steps: usize) -> Vec<f64> {
        (0..steps).map(|t| schedule.lr_factor(t, steps)).collect()
    }

    fn close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() < 1e-12, "{got:?} for {expected:?}");
        }
    }

    #[test]
    fn factors_match_formulas() {
        close(&table(LrSchedule::CONSTANT, 3), &[1.0; 3]);
        close(
            &table(LrSchedule::linear(2), 7),
            &[0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0],
        );
        let half = 0.5f64.sqrt();
        close(
            &table(LrSchedule::cosine(0), 5),
            &[1.0, 0.5 + half / 2.0, 0.5, 0.5 - half / 2.0, 0.0],
        );
        close(
            &table(
                LrSchedule {
                    min_lr_ratio: 0.2,
                    ..LrSchedule::linear(0)
                },
                3,
            ),
            &[1.0, 0.6, 0.2],
        );
    }

    #[test]
    fn factor_stays_at_minimum_beyond_the_end() {
        assert_eq!(
            LrSchedule {
                min_lr_ratio: 0.1,
                ..LrSchedule::cosine(0)
            }
            .lr_factor(99, 10),
            0.1
        );
        assert_eq!(LrSchedule::cosine(0).lr_factor(0, 1), 1.0);
        assert_eq!(LrSchedule::cosine(5).lr_factor(2, 3), 0.6);
    }

    #[test]
    fn planned_steps_follow_the_budget_that_ends_first() {
        // One step per second: a minute is enough for 30 steps, but not for 100.
        for step in 1..30 {
            assert_eq!(planned_steps(step, step as f64, 30, 60.0), 30);
        }
        assert_eq!(planned_steps(0, 0.0, 100, 60.0), 100);
        assert_eq!(
            planned_steps(2, 2.0, 100, 60.0),
            100,
            "nothing was measured yet"
        );
        for step in 3..60 {
            assert_eq!(planned_steps(step, step as f64, 100, 60.0), 60);
        }
        assert_eq!(planned_steps(70, 70.0, 100, 60.0), 71);
        assert_eq!(planned_steps(5, 1.0, 100, f64::INFINITY), 100);
    }
}
