//! Learning-rate schedules: factors by step, plain host numbers.

use crate::{Result, check::ensure};
use serde::{Deserialize, Serialize};

/// How the factor falls once warm-up is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
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
pub struct Schedule {
    /// Steps of warm-up; step `t` of them uses `(t + 1) / warmup` of the rate.
    pub warmup: usize,
    /// What follows.
    pub decay: Decay,
    /// Factor at the last step, for decays that fall.
    pub floor: f64,
}

impl Schedule {
    /// The rate as it is, always.
    pub const CONSTANT: Self = Schedule {
        warmup: 0,
        decay: Decay::Constant,
        floor: 0.0,
    };

    /// Warm-up over `warmup` steps, then half a cosine down to zero.
    pub const fn cosine(warmup: usize) -> Self {
        Schedule {
            warmup,
            decay: Decay::Cosine,
            floor: 0.0,
        }
    }

    /// Warm-up over `warmup` steps, then a straight line down to zero.
    pub const fn linear(warmup: usize) -> Self {
        Schedule {
            warmup,
            decay: Decay::Linear,
            floor: 0.0,
        }
    }

    /// Factor for step `step` (counted from 0) of `steps`.
    pub fn factor(&self, step: usize, steps: usize) -> f64 {
        if step < self.warmup {
            return (step + 1) as f64 / self.warmup as f64;
        }
        let span = steps.saturating_sub(self.warmup + 1).max(1) as f64;
        let progress = ((step - self.warmup) as f64 / span).min(1.0);
        let fall = match self.decay {
            Decay::Constant => return 1.0,
            Decay::Linear => 1.0 - progress,
            Decay::Cosine => 0.5 * (1.0 + (std::f64::consts::PI * progress).cos()),
        };
        self.floor + (1.0 - self.floor) * fall
    }

    pub(crate) fn validate(&self) -> Result<()> {
        ensure(
            (0.0..=1.0).contains(&self.floor),
            "schedule.floor",
            self.floor,
            "0 to 1",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(schedule: Schedule, steps: usize) -> Vec<f64> {
        (0..steps).map(|t| schedule.factor(t, steps)).collect()
    }

    fn close(got: &[f64], expected: &[f64]) {
        assert_eq!(got.len(), expected.len());
        for (g, e) in got.iter().zip(expected) {
            assert!((g - e).abs() < 1e-12, "{got:?} for {expected:?}");
        }
    }

    #[test]
    fn tables_follow_their_formulas() {
        close(&table(Schedule::CONSTANT, 3), &[1.0; 3]);
        close(
            &table(Schedule::linear(2), 7),
            &[0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0],
        );
        let half = 0.5f64.sqrt();
        close(
            &table(Schedule::cosine(0), 5),
            &[1.0, 0.5 + half / 2.0, 0.5, 0.5 - half / 2.0, 0.0],
        );
        close(
            &table(
                Schedule {
                    floor: 0.2,
                    ..Schedule::linear(0)
                },
                3,
            ),
            &[1.0, 0.6, 0.2],
        );
    }

    #[test]
    fn beyond_the_end_the_factor_stays_at_the_floor() {
        assert_eq!(
            Schedule {
                floor: 0.1,
                ..Schedule::cosine(0)
            }
            .factor(99, 10),
            0.1
        );
        assert_eq!(Schedule::cosine(0).factor(0, 1), 1.0);
        assert_eq!(Schedule::cosine(5).factor(2, 3), 0.6);
    }
}
