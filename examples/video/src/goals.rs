//! Goals of moving digits of a class that is asked for.

use crate::{Compared, figures::STEADY};
use aigc_core::eval::Proportion;
use aigc_examples::outln;
use serde_json::{Value, json};

/// A goal that figures reach or miss.
struct Goal {
    /// What is measured.
    what: &'static str,
    /// The value.
    value: f64,
    /// The bound.
    bound: f64,
    /// Whether the value should be at least the bound.
    at_least: bool,
}

impl Goal {
    fn is_met(&self) -> bool {
        match self.at_least {
            true => self.value >= self.bound,
            false => self.value <= self.bound,
        }
    }
}

impl Compared {
    /// The goals for moving digits of a class that is asked for; those without a value are left
    /// out.
    fn goals(&self) -> Vec<Goal> {
        let of = |what, value: Option<f64>, bound, at_least| {
            let goal = |value| Goal {
                what,
                value,
                bound,
                at_least,
            };
            value.map(goal)
        };
        let ours = &self.samples;
        let value = |share: Option<Proportion>| share.map(|share| share.value());
        [
            of("frames read as asked", value(ours.right), 0.95, true),
            of("clips of one class", value(ours.constant), 0.9, true),
            of(
                "deviation of the speed",
                Some(ours.deviation),
                STEADY,
                false,
            ),
            of(
                "flicker over the data's",
                Some(self.flicker_ratio()),
                1.5,
                false,
            ),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Prints which goals are met, and returns them as JSON.
    pub fn print_goals(&self) -> Value {
        let goals = self.goals();
        for goal in &goals {
            let (sign, met) = (
                if goal.at_least { "≥" } else { "≤" },
                if goal.is_met() { "met" } else { "missed" },
            );
            let Goal {
                what, value, bound, ..
            } = goal;
            outln!("  goal: {what} {value:.4}, {sign} {bound}: {met}");
        }
        let entry = |goal: &Goal| {
            json!({
                "what": goal.what,
                "value": goal.value,
                "bound": goal.bound,
                "met": goal.is_met(),
            })
        };
        Value::Array(goals.iter().map(entry).collect())
    }
}
