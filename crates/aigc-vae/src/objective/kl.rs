//! The part of the loss that the divergence from the prior makes up.

use aigc_core::{Error, Result, check};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Weight `β` of the divergence, with an optional warm-up or cycles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KlWeight {
    /// Weight after the warm-up; 1 for the ELBO.
    pub value: f64,
    /// Number of steps over which the weight rises linearly from 0; 0 for no warm-up. A slow rise
    /// keeps the decoder from ignoring the latents (Bowman et al. 2016,
    /// <https://arxiv.org/abs/1511.06349>).
    #[serde(alias = "anneal")]
    pub warmup_steps: usize,
    /// Rises that repeat, in place of one warm-up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycle: Option<KlCycle>,
}

/// Cyclical schedule of a weight (Fu et al. 2019, <https://arxiv.org/abs/1903.10145>): in each
/// cycle, the weight rises linearly from 0, then stays.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct KlCycle {
    /// Number of steps of a cycle.
    pub cycle_steps: usize,
    /// Fraction of a cycle over which the weight rises, above 0 and at most 1.
    #[serde(default = "half")]
    pub rising_fraction: f64,
}

fn half() -> f64 {
    0.5
}

impl KlCycle {
    /// Cycles of `cycle_steps` steps; the weight rises during half of them, as in the paper.
    pub fn new(cycle_steps: usize) -> Self {
        Self {
            cycle_steps,
            rising_fraction: half(),
        }
    }
}

impl Default for KlWeight {
    fn default() -> Self {
        Self::new(1.0)
    }
}

impl KlWeight {
    /// A constant weight.
    pub fn new(value: f64) -> Self {
        Self {
            value,
            warmup_steps: 0,
            cycle: None,
        }
    }

    /// Sets the number of steps over which the weight rises linearly from 0.
    pub fn with_warmup(self, warmup_steps: usize) -> Self {
        Self {
            warmup_steps,
            ..self
        }
    }

    /// Sets a cyclical schedule.
    pub fn with_cycle(self, cycle: KlCycle) -> Self {
        Self {
            cycle: Some(cycle),
            ..self
        }
    }

    /// The weight at `step` (counted from 0). In step `s` of a warm-up, the share
    /// `(s + 1)/warmup_steps` of its value; in step `s` of a cycle, the smaller of
    /// `(s + 1)/(rising_fraction·cycle_steps)` and 1.
    pub fn at_step(&self, step: usize) -> f64 {
        if let Some(cycle) = self.cycle {
            let rising = cycle.rising_fraction * cycle.cycle_steps as f64;
            let position = step % cycle.cycle_steps.max(1);
            return self.value * ((position + 1) as f64 / rising).min(1.0);
        }
        if step < self.warmup_steps {
            self.value * (step + 1) as f64 / self.warmup_steps as f64
        } else {
            self.value
        }
    }

    /// Fails unless the weight is finite and at least 0, a cycle has at least one step and a rising
    /// fraction above 0 and at most 1, and there are not both a warm-up and cycles.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::non_negative("beta.value", self.value)?;
        let Some(cycle) = self.cycle else {
            return Ok(());
        };
        check::ensure(
            cycle.cycle_steps > 0,
            "beta.cycle.cycle_steps",
            cycle.cycle_steps,
            "at least 1",
        )?;
        check::ensure(
            cycle.rising_fraction > 0.0 && cycle.rising_fraction <= 1.0,
            "beta.cycle.rising_fraction",
            cycle.rising_fraction,
            "above 0 and at most 1",
        )?;
        match self.warmup_steps {
            0 => Ok(()),
            steps => Err(Error::config(
                "beta.warmup_steps",
                steps,
                "0 with `beta.cycle`: a cycle has its own rise",
            )),
        }
    }
}

/// How the divergence from the prior enters the loss.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum KlTerm {
    /// `β·KL`: the loss of the ELBO for `β = 1`, of the β-VAE (Higgins et al. 2017) for others.
    Weighted(
        /// The weight `β`.
        KlWeight,
    ),
    /// `γ·|KL − C|`: the divergence is held at a capacity `C` that rises linearly (Burgess et al.
    /// 2018, <https://arxiv.org/abs/1804.03599>).
    Capacity {
        /// The weight `γ`.
        gamma: f64,
        /// The capacity after the rise, in nats.
        max_nats: f64,
        /// Number of steps over which the capacity rises linearly from 0; 0 for no rise.
        steps: usize,
    },
}

impl Default for KlTerm {
    fn default() -> Self {
        KlTerm::Weighted(KlWeight::default())
    }
}

impl From<KlWeight> for KlTerm {
    fn from(weight: KlWeight) -> Self {
        KlTerm::Weighted(weight)
    }
}

impl KlTerm {
    /// The term of the loss at `step` (counted from 0), for the mean divergence `kl` of a batch in
    /// nats.
    ///
    /// # Shapes
    /// - kl and output: `[1]`
    pub fn loss(&self, kl: Tensor<1>, step: usize) -> Tensor<1> {
        match *self {
            KlTerm::Weighted(weight) => kl * weight.at_step(step),
            KlTerm::Capacity {
                gamma,
                max_nats,
                steps,
            } => {
                let capacity = KlWeight::new(max_nats).with_warmup(steps).at_step(step);
                (kl - capacity).abs() * gamma
            }
        }
    }

    /// Fails unless the weights and the capacity are finite and at least 0.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        match *self {
            KlTerm::Weighted(weight) => weight.validate(),
            KlTerm::Capacity {
                gamma, max_nats, ..
            } => {
                check::non_negative("kl.capacity.gamma", gamma)?;
                check::non_negative("kl.capacity.max_nats", max_nats)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    #[test]
    fn weight_rises_linearly() {
        let beta = KlWeight::new(2.0).with_warmup(4);
        let rising: Vec<f64> = (0..6).map(|step| beta.at_step(step)).collect();
        assert_eq!(rising, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]);
        assert_eq!(KlWeight::default().at_step(0), 1.0);
    }

    #[test]
    fn weight_rises_in_every_cycle() {
        let beta = KlWeight::new(2.0).with_cycle(KlCycle::new(4));
        let weights: Vec<f64> = (0..9).map(|step| beta.at_step(step)).collect();
        assert_eq!(weights, [1.0, 2.0, 2.0, 2.0, 1.0, 2.0, 2.0, 2.0, 1.0]);
        let whole = KlWeight::new(1.0).with_cycle(KlCycle {
            cycle_steps: 2,
            rising_fraction: 1.0,
        });
        assert_eq!(
            [0, 1, 2, 3].map(|step| whole.at_step(step)),
            [0.5, 1.0, 0.5, 1.0]
        );
    }

    #[test]
    fn values_out_of_range_are_refused_by_field() {
        let cycle = |cycle_steps, rising_fraction| {
            KlTerm::from(KlWeight::default().with_cycle(KlCycle {
                cycle_steps,
                rising_fraction,
            }))
        };
        let capacity = |gamma, max_nats| KlTerm::Capacity {
            gamma,
            max_nats,
            steps: 3,
        };
        let both = KlWeight::default()
            .with_warmup(5)
            .with_cycle(KlCycle::new(9));
        for (term, expected) in [
            (KlWeight::new(f64::NAN).into(), "`beta.value` is NaN"),
            (cycle(0, 0.5), "`beta.cycle.cycle_steps` is 0"),
            (cycle(1, 0.0), "`beta.cycle.rising_fraction` is 0"),
            (cycle(1, 1.5), "above 0 and at most 1"),
            (both.into(), "`beta.warmup_steps` is 5"),
            (capacity(-1.0, 1.0), "`kl.capacity.gamma` is -1"),
            (
                capacity(1.0, f64::INFINITY),
                "`kl.capacity.max_nats` is inf",
            ),
        ] {
            let message = KlTerm::validate(&term).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        cycle(7, 1.0).validate().unwrap();
        capacity(0.0, 0.0).validate().unwrap();
    }

    /// A weight without cycles is written as before there were cycles.
    #[test]
    fn terms_are_read_and_written_as_json() {
        let weight = KlWeight::new(2.0).with_warmup(5);
        for (term, file) in [
            (
                KlTerm::from(weight),
                json!({"weighted": {"value": 2.0, "warmup_steps": 5}}),
            ),
            (
                weight.with_warmup(0).with_cycle(KlCycle::new(8)).into(),
                json!({"weighted": {
                    "value": 2.0,
                    "warmup_steps": 0,
                    "cycle": {"cycle_steps": 8, "rising_fraction": 0.5},
                }}),
            ),
            (
                KlTerm::Capacity {
                    gamma: 100.0,
                    max_nats: 25.0,
                    steps: 10,
                },
                json!({"capacity": {"gamma": 100.0, "max_nats": 25.0, "steps": 10}}),
            ),
        ] {
            assert_eq!(to_value(term).unwrap(), file);
            assert_eq!(from_value::<KlTerm>(file).unwrap(), term);
        }
        let short = json!({"value": 2.0, "cycle": {"cycle_steps": 8}});
        let read: KlWeight = from_value(short).unwrap();
        assert_eq!(read, KlWeight::new(2.0).with_cycle(KlCycle::new(8)));
    }
}
