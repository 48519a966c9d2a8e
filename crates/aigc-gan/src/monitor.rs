//! Watching for collapse.

use aigc_core::{Error, Result};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// When to say that a game is going wrong. All measures are running means over looks, `every` steps
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CollapseMonitor {
    /// Steps between looks.
    pub interval: usize,
    /// Looks before the first verdict.
    pub patience: usize,
    /// The generator has collapsed when its samples differ from each other by less than this share
    /// of how much real ones do (standard deviation over the batch, within each class where there
    /// are classes, mean over the values).
    pub min_diversity: f64,
    /// It has collapsed too when the nearest other sample of the batch is, on the mean, less far
    /// than this share of what it is among real ones: few kinds of samples, however unlike. What is
    /// missing beside them shows in an evaluation only.
    pub min_nn_ratio: f64,
    /// The critic has won when it is right more often than this.
    pub max_accuracy: f64,
}

impl Default for CollapseMonitor {
    fn default() -> Self {
        Self {
            interval: 20,
            patience: 25,
            min_diversity: 0.2,
            min_nn_ratio: 0.1,
            max_accuracy: 0.998,
        }
    }
}

/// What the monitor has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watch {
    looks: usize,
    spread: f64,
    #[serde(default = "one")]
    nearest: f64,
    accuracy: f64,
    /// Which alarms are on: told, and not over yet.
    collapsed: bool,
    critic_won: bool,
}

/// Of a checkpoint that knows nothing of it.
fn one() -> f64 {
    1.0
}

/// Share of the old running mean that a look keeps.
const KEEP: f64 = 0.9;

impl CollapseMonitor {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        if self.interval == 0 {
            return Err(Error::config("monitor.every", self.interval, "at least 1"));
        }
        for (field, value) in [
            ("spread", self.min_diversity),
            ("nearest", self.min_nn_ratio),
            ("accuracy", self.max_accuracy),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::config(
                    format!("monitor.{field}"),
                    value,
                    "from 0 to 1",
                ));
            }
        }
        Ok(())
    }

    /// Takes a look; says what begins to be wrong, for programs and for people. `class` holds a row
    /// for each sample, one-hot.
    pub(crate) fn look(
        &self,
        watch: &mut Watch,
        real: &Tensor<4>,
        fake: &Tensor<4>,
        class: Option<&Tensor<2>>,
        accuracy: &Tensor<1>,
    ) -> Vec<(&'static str, String)> {
        let accuracy = accuracy.clone().detach();
        let parts = vec![
            spread(real, class),
            spread(fake, class),
            accuracy,
            nearest(real),
            nearest(fake),
        ];
        let values: Vec<f64> = Tensor::cat(parts, 0).into_data().iter::<f64>().collect();
        if values[0] <= 1e-6 {
            // Real samples that do not differ are no measure.
            return Vec::new();
        }
        let keep = if watch.looks == 0 { 0.0 } else { KEEP };
        watch.looks += 1;
        watch.spread = keep * watch.spread + (1.0 - keep) * values[1] / values[0];
        // Real samples that are there twice are no measure.
        let nearest = if values[3] > 1e-6 {
            values[4] / values[3]
        } else {
            1.0
        };
        watch.nearest = keep * watch.nearest + (1.0 - keep) * nearest;
        watch.accuracy = keep * watch.accuracy + (1.0 - keep) * values[2];
        let ready = watch.looks >= self.patience;
        let mut told = Vec::new();
        let mut check = |on: &mut bool, wrong: bool, kind, text: String| {
            if wrong && ready && !*on {
                told.push((kind, text));
            }
            *on = wrong && (ready || *on);
        };
        let text = format!(
            "the generator is collapsing: its samples vary {:.0} % as much as real ones, and lie {:.0} % as far from the \
             nearest other; a penalty (R1 and R2), a lower learning rate or another seed may help",
            100.0 * watch.spread,
            100.0 * watch.nearest
        );
        let wrong = watch.spread < self.min_diversity || watch.nearest < self.min_nn_ratio;
        check(&mut watch.collapsed, wrong, "collapse", text);
        let text = format!(
            "the critic has won: it is right about {:.1} % and the generator learns little from it; a penalty (R1), \
             augmentation or a lower rate for the critic may help",
            100.0 * watch.accuracy
        );
        check(
            &mut watch.critic_won,
            watch.accuracy > self.max_accuracy,
            "critic_won",
            text,
        );
        told
    }
}

/// Standard deviation over the batch, or about the means of the classes, mean over the values,
/// `[1]`.
fn spread(x: &Tensor<4>, class: Option<&Tensor<2>>) -> Tensor<1> {
    let x = x.clone().detach().flatten::<2>(1, 3);
    let centred = match class {
        None => x.clone() - x.mean_dim(0),
        Some(class) => {
            let sums = class.clone().transpose().matmul(x.clone());
            let counts = class.clone().sum_dim(0).clamp_min(1.0).transpose();
            x - class.clone().matmul(sums / counts)
        }
    };
    (centred.clone() * centred).mean_dim(0).sqrt().mean()
}

/// Distance to the nearest other sample of the batch, mean over the batch, `[1]`.
fn nearest(x: &Tensor<4>) -> Tensor<1> {
    let x = x.clone().detach().flatten::<2>(1, 3);
    let batch = x.dims()[0];
    let squares = (x.clone() * x.clone()).sum_dim(1);
    let apart =
        squares.clone() + squares.transpose() - x.clone().matmul(x.clone().transpose()) * 2.0;
    // Not itself.
    let apart = apart + Tensor::<2>::eye(batch, &x.device()) * 1e30;
    apart.min_dim(1).clamp_min(0.0).sqrt().mean()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::rng::Rng;
    use burn::tensor::Device;

    fn kinds(looks: impl Iterator<Item = Vec<(&'static str, String)>>) -> Vec<&'static str> {
        looks.flatten().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn each_trouble_is_told_once_and_again_after_recovery() {
        let device = Device::flex();
        let monitor = CollapseMonitor {
            patience: 3,
            ..CollapseMonitor::default()
        };
        let mut watch = Watch::default();
        let real: Tensor<4> = Rng::new(1).normal([32, 1, 2, 2], &device);
        let mut looks = |times: usize, factor: f64, accuracy: f32| {
            let accuracy = Tensor::from_floats([accuracy], &device);
            kinds((0..times).map(|_| {
                monitor.look(&mut watch, &real, &(real.clone() * factor), None, &accuracy)
            }))
        };
        assert!(looks(20, 1.0, 0.5).is_empty());
        assert_eq!(looks(60, 0.01, 0.5), ["collapse"]);
        assert!(looks(60, 1.0, 0.5).is_empty());
        assert_eq!(looks(60, 0.01, 0.5), ["collapse"]);
        assert!(looks(60, 1.0, 0.5).is_empty());
        assert_eq!(looks(80, 1.0, 1.0), ["critic_won"]);
        // The usual order: the critic wins first, and stays sure while the generator collapses.
        assert_eq!(looks(60, 0.01, 1.0), ["collapse"]);
    }

    #[test]
    fn one_picture_per_class_is_a_collapse() {
        let device = Device::flex();
        // By the spread alone, which looks within classes.
        let monitor = CollapseMonitor {
            patience: 3,
            min_nn_ratio: 0.0,
            ..CollapseMonitor::default()
        };
        let accuracy = Tensor::from_floats([0.5], &device);
        let class = Tensor::<2>::eye(4, &device).repeat_dim(0, 8);
        let pictures: Tensor<4> = Rng::new(1).normal([4, 1, 2, 2], &device);
        let fake = pictures.repeat_dim(0, 8);
        let real = fake.clone() + Rng::new(2).normal([32, 1, 2, 2], &device);
        let told = |class: Option<&Tensor<2>>| {
            let mut watch = Watch::default();
            kinds((0..60).map(|_| monitor.look(&mut watch, &real, &fake, class, &accuracy)))
        };
        assert!(told(None).is_empty());
        assert_eq!(told(Some(&class)), ["collapse"]);
    }

    #[test]
    fn a_few_unlike_pictures_again_and_again_are_a_collapse() {
        let device = Device::flex();
        let monitor = CollapseMonitor {
            patience: 3,
            ..CollapseMonitor::default()
        };
        let accuracy = Tensor::from_floats([0.5], &device);
        let real: Tensor<4> = Rng::new(2).normal([32, 1, 4, 4], &device);
        let told = |fake: Tensor<4>| {
            let mut watch = Watch::default();
            kinds((0..60).map(|_| monitor.look(&mut watch, &real, &fake, None, &accuracy)))
        };
        let few: Tensor<4> = Rng::new(1).normal([4, 1, 4, 4], &device);
        assert_eq!(told(few.repeat_dim(0, 8)), ["collapse"]);
        assert!(told(Rng::new(3).normal([32, 1, 4, 4], &device)).is_empty());
        // The distance itself, of three points on a line.
        let line =
            Tensor::<4>::from_floats([[[[0.0, 0.0]]], [[[3.0, 4.0]]], [[[9.0, 12.0]]]], &device);
        assert!((nearest(&line).into_scalar::<f32>() - (5.0 + 5.0 + 10.0) / 3.0).abs() < 1e-4);
    }

    #[test]
    fn a_batch_without_differences_is_no_measure() {
        let device = Device::flex();
        let (monitor, mut watch) = (
            CollapseMonitor {
                patience: 1,
                ..CollapseMonitor::default()
            },
            Watch::default(),
        );
        let one: Tensor<4> = Tensor::ones([1, 1, 2, 2], &device);
        let accuracy = Tensor::from_floats([0.5], &device);
        assert!(
            kinds((0..9).map(|_| monitor.look(&mut watch, &one, &one, None, &accuracy))).is_empty()
        );
        assert_eq!(watch, Watch::default());
    }
}
