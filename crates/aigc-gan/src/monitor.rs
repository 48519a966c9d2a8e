//! Watching for collapse.

use aigc_core::{Error, Result};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// When to say that a game is going wrong. Both measures are running means over looks, `every` steps apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Monitor {
    /// Steps between looks.
    pub every: usize,
    /// Looks before the first verdict.
    pub patience: usize,
    /// The generator has collapsed when its samples differ from each other by less than this share of how much real ones
    /// do (standard deviation over the batch, mean over the values).
    pub spread: f64,
    /// The critic has won when it is right more often than this.
    pub accuracy: f64,
}

impl Default for Monitor {
    fn default() -> Self {
        Self { every: 20, patience: 25, spread: 0.2, accuracy: 0.998 }
    }
}

/// What the monitor has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watch {
    looks: usize,
    spread: f64,
    accuracy: f64,
    alarmed: bool,
}

/// Share of the old running mean that a look keeps.
const KEEP: f64 = 0.9;

impl Monitor {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        if self.every == 0 {
            return Err(Error::config("monitor.every", self.every, "at least 1"));
        }
        for (field, value) in [("spread", self.spread), ("accuracy", self.accuracy)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::config(format!("monitor.{field}"), value, "from 0 to 1"));
            }
        }
        Ok(())
    }

    /// Takes a look; says what is wrong when it begins to be.
    pub(crate) fn look(
        &self,
        watch: &mut Watch,
        real: &Tensor<4>,
        fake: &Tensor<4>,
        accuracy: &Tensor<1>,
    ) -> Option<String> {
        let values = Tensor::cat(vec![spread(real), spread(fake), accuracy.clone().detach()], 0).into_data();
        let values: Vec<f64> = values.iter::<f64>().collect();
        let keep = if watch.looks == 0 { 0.0 } else { KEEP };
        watch.looks += 1;
        watch.spread = keep * watch.spread + (1.0 - keep) * values[1] / values[0].max(1e-12);
        watch.accuracy = keep * watch.accuracy + (1.0 - keep) * values[2];
        let text = if watch.spread < self.spread {
            Some(format!(
                "the generator is collapsing: its samples vary {:.0} % as much as real ones; a penalty (R1 and R2), a \
                 lower learning rate or another seed may help",
                100.0 * watch.spread
            ))
        } else if watch.accuracy > self.accuracy {
            Some(format!(
                "the critic has won: it is right about {:.1} % and the generator learns little from it; a penalty (R1), \
                 augmentation or a lower rate for the critic may help",
                100.0 * watch.accuracy
            ))
        } else {
            watch.alarmed = false;
            None
        };
        let new = text.is_some() && !watch.alarmed && watch.looks >= self.patience;
        watch.alarmed |= new;
        text.filter(|_| new)
    }
}

/// Standard deviation over the batch, mean over the values, `[1]`.
fn spread(x: &Tensor<4>) -> Tensor<1> {
    let x = x.clone().detach().flatten::<2>(1, 3);
    x.var_bias(0).sqrt().mean()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::rng::Rng;
    use burn::tensor::Device;

    #[test]
    fn collapse_is_told_once_and_again_after_recovery() {
        let device = Device::flex();
        let monitor = Monitor { patience: 3, ..Monitor::default() };
        let mut watch = Watch::default();
        let real: Tensor<4> = Rng::new(1).normal([32, 1, 2, 2], &device);
        let even = Tensor::from_floats([0.5], &device);
        let mut look =
            |factor: f64, accuracy: &Tensor<1>| monitor.look(&mut watch, &real, &(real.clone() * factor), accuracy);
        assert!((0..20).all(|_| look(1.0, &even).is_none()));
        let told: Vec<String> = (0..60).filter_map(|_| look(0.01, &even)).collect();
        assert!(told.len() == 1 && told[0].contains("collapsing"), "{told:?}");
        assert!((0..60).all(|_| look(1.0, &even).is_none()));
        assert_eq!((0..60).filter_map(|_| look(0.01, &even)).count(), 1);
        assert!((0..60).all(|_| look(1.0, &even).is_none()));
        let sure = Tensor::from_floats([1.0], &device);
        let told: Vec<String> = (0..80).filter_map(|_| look(1.0, &sure)).collect();
        assert!(told.len() == 1 && told[0].contains("the critic has won"), "{told:?}");
    }
}
