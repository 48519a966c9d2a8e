//! Learning-rate schedules: factors by step, plain host numbers.

use crate::{Result, check::ensure};
use serde::{Deserialize, Serialize};

/// How the factor falls once warm-up is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrDecay {
    /// Not at all.
    #[default]
    Constant,
    /// In a straight line.
    Linear,
    /// Along half a cosine (Loshchilov and Hutter 2017, <https://arxiv.org/abs/1608.03983>).
    Cosine,
}

/// Warm-up in a straight line, then a decay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LrSchedule {
    /// Steps of warm-up; step `t` of them uses `(t + 1) / warmup` of the rate.
    pub warmup_steps: usize,
    /// What follows.
    pub decay: LrDecay,
    /// Factor at the last step, for decays that fall.
    pub min_lr_ratio: f64,
}

impl LrSchedule {
    /// The rate as it is, always.
    pub const CONSTANT: Self = LrSchedule {
        warmup_steps: 0,
        decay: LrDecay::Constant,
        min_lr_ratio: 0.0,
    };

    /// Warm-up over `warmup` steps, then half a cosine down to zero.
    pub const fn cosine(warmup: usize) -> Self {
        LrSchedule {
            warmup_steps: warmup,
            decay: LrDecay::Cosine,
            min_lr_ratio: 0.0,
        }
    }

    /// Warm-up over `warmup` steps, then a straight line down to zero.
    pub const fn linear(warmup: usize) -> Self {
        LrSchedule {
            warmup_steps: warmup,
            decay: LrDecay::Linear,
            min_lr_ratio: 0.0,
        }
    }

    /// Factor for step `step` (counted from 0) of `steps`.
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
            "schedule.floor",
            self.min_lr_ratio,
            "0 to 1",
        )
    }
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
    fn tables_follow_their_formulas() {
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
    fn beyond_the_end_the_factor_stays_at_the_floor() {
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
}
