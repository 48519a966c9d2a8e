//! Detection of mode collapse.

use aigc_core::{
    Result, check,
    train::{batch_spread, nearest_distance},
};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Raises an alert on mode collapse (low diversity or repeated samples) and when the discriminator
/// wins. All measures are running means over observations, which are `interval` steps apart.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CollapseMonitor {
    /// Steps between observations.
    #[serde(alias = "every")]
    pub interval: usize,
    /// Number of observations before the first alert.
    pub patience: usize,
    /// Mode collapse is reported if the diversity of generated samples is below this fraction of
    /// the diversity of real samples. Diversity is the standard deviation over the batch (within
    /// each class for class-conditional networks), averaged over the values of a sample.
    #[serde(alias = "spread")]
    pub min_diversity: f64,
    /// Mode collapse is also reported if the mean distance from a generated sample to the nearest
    /// other one in the batch is below this fraction of the same distance among real samples. This
    /// detects few repeated samples, even if they are diverse. A few missing modes beside others
    /// are only found by an evaluation.
    #[serde(alias = "nearest")]
    pub min_nn_ratio: f64,
    /// The discriminator has won if its accuracy is above this.
    #[serde(alias = "accuracy")]
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

/// State of the monitor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Watch {
    #[serde(alias = "looks")]
    observations: usize,
    spread: f64,
    #[serde(default = "one")]
    nearest: f64,
    accuracy: f64,
    /// Whether the generator has collapsed, so that no further alert is raised until it recovers.
    collapsed: bool,
    /// Whether the discriminator has won; used in the same way.
    #[serde(alias = "critic_won")]
    discriminator_won: bool,
}

/// Value of the field in checkpoints of earlier versions, which do not have it.
fn one() -> f64 {
    1.0
}

/// Decay of the running means per observation.
const DECAY: f64 = 0.9;

impl CollapseMonitor {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        check::ensure(
            self.interval > 0,
            "monitor.interval",
            self.interval,
            "at least 1",
        )?;
        check::fraction("monitor.min_diversity", self.min_diversity)?;
        check::fraction("monitor.min_nn_ratio", self.min_nn_ratio)?;
        check::fraction("monitor.max_accuracy", self.max_accuracy)
    }

    /// Observes a batch; returns new alerts, each as a kind for programs and a text for the user.
    ///
    /// # Shapes
    /// - real and fake: `[batch, values]`; class: `[batch, num_classes]`, one-hot; accuracy: `[1]`
    pub(crate) fn observe(
        &self,
        watch: &mut Watch,
        real: &Tensor<2>,
        fake: &Tensor<2>,
        class: Option<&Tensor<2>>,
        accuracy: &Tensor<1>,
    ) -> Vec<(&'static str, String)> {
        let accuracy = accuracy.clone().detach();
        let parts = vec![
            batch_spread(real, class),
            batch_spread(fake, class),
            accuracy,
            nearest_distance(real),
            nearest_distance(fake),
        ];
        let values: Vec<f64> = Tensor::cat(parts, 0).into_data().iter::<f64>().collect();
        if values[0] <= 1e-6 {
            // Constant real samples give no scale.
            return Vec::new();
        }
        let keep = if watch.observations == 0 { 0.0 } else { DECAY };
        watch.observations += 1;
        watch.spread = keep * watch.spread + (1.0 - keep) * values[1] / values[0];
        // Equal real samples give no scale.
        let nearest = if values[3] > 1e-6 {
            values[4] / values[3]
        } else {
            1.0
        };
        watch.nearest = keep * watch.nearest + (1.0 - keep) * nearest;
        watch.accuracy = keep * watch.accuracy + (1.0 - keep) * values[2];
        let ready = watch.observations >= self.patience;
        let mut alerts = Vec::new();
        let mut check = |on: &mut bool, wrong: bool, kind, text: String| {
            if wrong && ready && !*on {
                alerts.push((kind, text));
            }
            *on = wrong && (ready || *on);
        };
        let text = format!(
            "the generator is collapsing: the diversity of its samples is {:.0} % of that of real samples, \
             the distance to the nearest other sample {:.0} %; a penalty (R1 and R2), a lower \
             learning rate or another seed may help",
            100.0 * watch.spread,
            100.0 * watch.nearest
        );
        let wrong = watch.spread < self.min_diversity || watch.nearest < self.min_nn_ratio;
        check(&mut watch.collapsed, wrong, "collapse", text);
        let text = format!(
            "the discriminator has won: its accuracy is {:.1} % and the generator learns little \
             from it; a penalty (R1), augmentation or a lower learning rate for the discriminator \
             may help",
            100.0 * watch.accuracy
        );
        check(
            &mut watch.discriminator_won,
            watch.accuracy > self.max_accuracy,
            "discriminator_won",
            text,
        );
        alerts
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::rng::Rng;
    use burn::tensor::Device;

    fn kinds(observe: impl Iterator<Item = Vec<(&'static str, String)>>) -> Vec<&'static str> {
        observe.flatten().map(|(kind, _)| kind).collect()
    }

    #[test]
    fn alerts_are_raised_once_and_again_after_recovery() {
        let device = Device::flex();
        let monitor = CollapseMonitor {
            patience: 3,
            ..CollapseMonitor::default()
        };
        let mut watch = Watch::default();
        let real: Tensor<2> = Rng::new(1).normal([32, 4], &device);
        let mut observe = |times: usize, factor: f64, accuracy: f32| {
            let accuracy = Tensor::from_floats([accuracy], &device);
            kinds((0..times).map(|_| {
                monitor.observe(&mut watch, &real, &(real.clone() * factor), None, &accuracy)
            }))
        };
        assert!(observe(20, 1.0, 0.5).is_empty());
        assert_eq!(observe(60, 0.01, 0.5), ["collapse"]);
        assert!(observe(60, 1.0, 0.5).is_empty());
        assert_eq!(observe(60, 0.01, 0.5), ["collapse"]);
        assert!(observe(60, 1.0, 0.5).is_empty());
        assert_eq!(observe(80, 1.0, 1.0), ["discriminator_won"]);
        // As usual, the discriminator wins first, and then the generator collapses.
        assert_eq!(observe(60, 0.01, 1.0), ["collapse"]);
    }

    #[test]
    fn one_sample_per_class_is_a_collapse() {
        let device = Device::flex();
        // Only diversity, which is measured within classes.
        let monitor = CollapseMonitor {
            patience: 3,
            min_nn_ratio: 0.0,
            ..CollapseMonitor::default()
        };
        let accuracy = Tensor::from_floats([0.5], &device);
        let class = Tensor::<2>::eye(4, &device).repeat_dim(0, 8);
        let samples: Tensor<2> = Rng::new(1).normal([4, 4], &device);
        let fake = samples.repeat_dim(0, 8);
        let real = fake.clone() + Rng::new(2).normal([32, 4], &device);
        let alerts = |class: Option<&Tensor<2>>| {
            let mut watch = Watch::default();
            kinds((0..60).map(|_| monitor.observe(&mut watch, &real, &fake, class, &accuracy)))
        };
        assert!(alerts(None).is_empty());
        assert_eq!(alerts(Some(&class)), ["collapse"]);
    }

    #[test]
    fn few_repeated_samples_are_a_collapse() {
        let device = Device::flex();
        let monitor = CollapseMonitor {
            patience: 3,
            ..CollapseMonitor::default()
        };
        let accuracy = Tensor::from_floats([0.5], &device);
        let real: Tensor<2> = Rng::new(2).normal([32, 16], &device);
        let alerts = |fake: Tensor<2>| {
            let mut watch = Watch::default();
            kinds((0..60).map(|_| monitor.observe(&mut watch, &real, &fake, None, &accuracy)))
        };
        let few: Tensor<2> = Rng::new(1).normal([4, 16], &device);
        assert_eq!(alerts(few.repeat_dim(0, 8)), ["collapse"]);
        assert!(alerts(Rng::new(3).normal([32, 16], &device)).is_empty());
    }

    #[test]
    fn identical_real_samples_raise_no_alert() {
        let device = Device::flex();
        let (monitor, mut watch) = (
            CollapseMonitor {
                patience: 1,
                ..CollapseMonitor::default()
            },
            Watch::default(),
        );
        let one: Tensor<2> = Tensor::ones([1, 4], &device);
        let accuracy = Tensor::from_floats([0.5], &device);
        assert!(
            kinds((0..9).map(|_| monitor.observe(&mut watch, &one, &one, None, &accuracy)))
                .is_empty()
        );
        assert_eq!(watch, Watch::default());
    }
}
