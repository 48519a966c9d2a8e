//! Diversity of samples during training.

use super::{Callback, Event, Metrics};
use crate::{Error, Result, check};
use burn::tensor::{Bool, Tensor};

/// Rows of pairs of samples that are compared at once.
const ROWS: usize = 512;

/// Standard deviation over the batch, or within classes, averaged over the values of a sample,
/// `[1]`.
///
/// # Shapes
/// - x: `[batch, values]`; class: `[batch, num_classes]`, one-hot
///
/// # Panics
/// If the batch has no samples or these no values.
pub fn batch_spread(x: &Tensor<2>, class: Option<&Tensor<2>>) -> Tensor<1> {
    check_batch(x);
    let x = x.clone().detach();
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

/// Distance to the nearest other sample of the batch, averaged over the batch, `[1]`. A single
/// sample has no other: its distance is infinite.
///
/// # Shapes
/// - x: `[batch, values]`
///
/// # Panics
/// If the batch has no samples or these no values.
pub fn nearest_distance(x: &Tensor<2>) -> Tensor<1> {
    let batch = check_batch(x);
    // Around zero, products of 32 bits keep the digits of distances.
    let x = x.clone().detach();
    let x = x.clone() - x.mean_dim(0);
    let squares = (x.clone() * x.clone()).sum_dim(1);
    let of = |first: usize| {
        let rows = ROWS.min(batch - first);
        let part = x.clone().narrow(0, first, rows);
        let apart = squares.clone().narrow(0, first, rows) + squares.clone().transpose()
            - part.matmul(x.clone().transpose()) * 2.0;
        // Excludes the distance of each sample to itself.
        let itself = Tensor::<2, Bool>::diag_mask([rows, rows], 0, &x.device()).bool_not();
        let own = apart.clone().narrow(1, first, rows);
        let own = own.mask_fill(itself, f32::INFINITY);
        let apart = apart.slice_assign([0..rows, first..first + rows], own);
        apart.min_dim(1).clamp_min(0.0).sqrt()
    };
    Tensor::cat((0..batch).step_by(ROWS).map(of).collect(), 0).mean()
}

/// The number of samples of a batch.
fn check_batch(x: &Tensor<2>) -> usize {
    let [batch, values] = x.dims();
    assert!(
        batch > 0 && values > 0,
        "a batch of {batch} samples of {values} values, expected at least 1 of both"
    );
    batch
}

/// Compares the diversity of samples with that of real data, for a model of any family.
///
/// [`metrics`](Self::metrics) computes it in an evaluation. As a [`Callback`], the watch raises an
/// [`Event::Alert`] of the kind `collapse` when the evaluation has too low a value, once until it
/// recovers.
///
/// ```no_run
/// # use aigc_core::{burn::module::Module, burn::tensor::*, train::*};
/// # fn example<M: Module + 'static>(
/// #     real: Tensor<2>, sample: impl Fn(&M) -> aigc_core::Result<Tensor<4>>,
/// # ) -> aigc_core::Result<()> {
/// let watch = DiversityWatch::new(&real)?;
/// let trainer = Trainer::new(TrainerConfig::new(2000))
///     .with_callback(watch.clone())
///     .with_evaluation(|model: &M| watch.metrics(&sample(model)?.flatten(1, 3)));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct DiversityWatch {
    /// Number of values of a sample.
    values: usize,
    spread: f64,
    nearest: f64,
    min_diversity: f64,
    min_nn_ratio: f64,
    collapsed: bool,
    alerts: Vec<(&'static str, String)>,
}

impl DiversityWatch {
    /// Name of the metric of [`batch_spread`], as a fraction of that of real samples.
    pub const DIVERSITY: &'static str = "diversity";
    /// Name of the metric of [`nearest_distance`], as a fraction of that of real samples.
    pub const NN_RATIO: &'static str = "nn_ratio";

    /// Compares with `real`, preferably as many samples as will be evaluated: the nearest of many
    /// is nearer. Alerts are raised below 20 % of the diversity and 10 % of the distance.
    ///
    /// # Shapes
    /// - real: `[samples, values]`, pixels or features
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for fewer than two samples, values that are not finite, and
    /// samples that are all the same.
    pub fn new(real: &Tensor<2>) -> Result<Self> {
        let (spread, nearest) = measure("real", real)?;
        if spread <= 1e-6 {
            return Err(Error::argument(
                "real",
                "samples that are all the same",
                "samples that differ",
            ));
        }
        Ok(Self {
            values: real.dims()[1],
            spread,
            nearest,
            min_diversity: 0.2,
            min_nn_ratio: 0.1,
            collapsed: false,
            alerts: Vec::new(),
        })
    }

    /// Raises alerts below these fractions.
    ///
    /// # Errors
    /// [`Error::Config`] for values outside [0, 1].
    pub fn with_limits(mut self, min_diversity: f64, min_nn_ratio: f64) -> Result<Self> {
        check::fraction("min_diversity", min_diversity)?;
        check::fraction("min_nn_ratio", min_nn_ratio)?;
        (self.min_diversity, self.min_nn_ratio) = (min_diversity, min_nn_ratio);
        Ok(self)
    }

    /// [`DIVERSITY`](Self::DIVERSITY) and [`NN_RATIO`](Self::NN_RATIO) of samples; both are about 1
    /// for real samples. The second is left out if real samples are repeated.
    ///
    /// # Shapes
    /// - samples: `[samples, values]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for fewer than two samples, another number of values than those
    /// of the real ones, or values that are not finite.
    pub fn metrics(&self, samples: &Tensor<2>) -> Result<Metrics> {
        let values = samples.dims()[1];
        if values != self.values {
            return Err(Error::argument(
                "samples",
                format!("{values} values"),
                format!("{} values, as many as the real ones", self.values),
            ));
        }
        let (spread, nearest) = measure("samples", samples)?;
        let mut metrics = vec![(Self::DIVERSITY.to_string(), spread / self.spread)];
        if self.nearest > 1e-6 {
            metrics.push((Self::NN_RATIO.to_string(), nearest / self.nearest));
        }
        Ok(metrics)
    }
}

fn measure(name: &str, samples: &Tensor<2>) -> Result<(f64, f64)> {
    let [count, values] = samples.dims();
    if count < 2 || values == 0 {
        return Err(Error::argument(
            name,
            format!("{count} of {values} values"),
            "at least 2 samples with values",
        ));
    }
    let both = vec![batch_spread(samples, None), nearest_distance(samples)];
    let both: Vec<f64> = Tensor::cat(both, 0).into_data().iter::<f64>().collect();
    match both.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(Error::argument(name, value, "finite values")),
        None => Ok((both[0], both[1])),
    }
}

impl Callback for DiversityWatch {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        let Event::Evaluated { metrics, .. } = event else {
            return Ok(());
        };
        let value = |name: &str| metrics.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        let Some(diversity) = value(Self::DIVERSITY) else {
            return Ok(());
        };
        let nearest = value(Self::NN_RATIO);
        let wrong = diversity < self.min_diversity
            || nearest.is_some_and(|nearest| nearest < self.min_nn_ratio);
        if wrong && !self.collapsed {
            let nearest = nearest.map_or(String::new(), |nearest| {
                let percent = 100.0 * nearest;
                format!(", the distance to the nearest other sample {percent:.0} %")
            });
            let text = format!(
                "the model is collapsing: the diversity of its samples is {:.0} % of that of real \
                 samples{nearest}; a lower learning rate or another seed may help",
                100.0 * diversity
            );
            self.alerts.push(("collapse", text));
        }
        self.collapsed = wrong;
        Ok(())
    }

    fn take_alerts(&mut self) -> Vec<(&'static str, String)> {
        std::mem::take(&mut self.alerts)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use burn::tensor::{Device, FloatDType};

    #[test]
    fn distances_match_points_on_a_line() {
        let device = Device::flex();
        let line = Tensor::<2>::from_floats([[0.0, 0.0], [3.0, 4.0], [9.0, 12.0]], &device);
        let nearest = |x: Tensor<2>| nearest_distance(&x).cast(FloatDType::F32);
        let nearest = |x: Tensor<2>| nearest(x).into_scalar::<f32>();
        let expected = (5.0 + 5.0 + 10.0) / 3.0;
        assert!((nearest(line.clone()) - expected).abs() < 1e-4);
        // Half precision has no number as large as 1e5.
        let half = nearest(line.clone().cast(FloatDType::F16));
        assert!((half - expected).abs() < 0.05, "{half}");
        assert_eq!(nearest(line.narrow(0, 1, 1)), f32::INFINITY);
        // ±1 in the first value: deviation 1 and 0, and no deviation within classes.
        let pairs = Tensor::<2>::from_floats([[1.0, 0.5], [-1.0, 0.5]], &device);
        assert_eq!(batch_spread(&pairs, None).into_scalar::<f32>(), 0.5);
        let class = Tensor::<2>::eye(2, &device);
        assert_eq!(batch_spread(&pairs, Some(&class)).into_scalar::<f32>(), 0.0);
    }

    #[test]
    fn empty_batches_are_rejected() {
        let device = Device::flex();
        let spread = |x: &Tensor<2>| batch_spread(x, None);
        let measures: [&dyn Fn(&Tensor<2>) -> Tensor<1>; 2] = [&spread, &nearest_distance];
        for measure in measures {
            for shape in [[0, 3], [3, 0]] {
                let empty = Tensor::zeros(shape, &device);
                let call = std::panic::AssertUnwindSafe(|| measure(&empty));
                let panic = std::panic::catch_unwind(call).unwrap_err();
                let message = panic.downcast::<String>().unwrap();
                assert!(message.contains("expected at least 1 of both"), "{message}");
            }
        }
    }

    /// Over several blocks of rows.
    #[test]
    fn nearest_distance_matches_all_pairs() {
        let device = Device::flex();
        let n = ROWS + 70;
        let values = Rng::new(8).normal_vec(n * 3);
        let rows: Vec<&[f32]> = values.chunks_exact(3).collect();
        let distance = |a: &[f32], b: &[f32]| {
            let squares = a.iter().zip(b).map(|(x, y)| f64::from(x - y).powi(2));
            squares.sum::<f64>().sqrt()
        };
        let nearest = |i: usize| {
            let others = (0..n).filter(|j| *j != i);
            others
                .map(|j| distance(rows[i], rows[j]))
                .fold(f64::INFINITY, f64::min)
        };
        let expected = (0..n).map(nearest).sum::<f64>() / n as f64;
        let x = burn::tensor::TensorData::new(values.clone(), [n, 3]);
        let found = nearest_distance(&Tensor::from_data(x, &device)).into_scalar::<f32>();
        assert!(
            (f64::from(found) - expected).abs() < 1e-4,
            "{found} {expected}"
        );
    }

    #[test]
    fn collapse_is_reported_once_until_it_recovers() {
        let device = Device::flex();
        let real: Tensor<2> = Rng::new(1).normal([64, 8], &device);
        let mut watch = DiversityWatch::new(&real).unwrap();
        let mut alerts = |samples: Tensor<2>| {
            let metrics = watch.metrics(&samples).unwrap();
            let event = Event::Evaluated {
                step: 1,
                metrics: &metrics,
                best: false,
            };
            watch.on_event(&event).unwrap();
            watch.take_alerts().len()
        };
        let good: Tensor<2> = Rng::new(2).normal([64, 8], &device);
        let few: Tensor<2> = Rng::new(3).normal([4, 8], &device);
        assert_eq!(alerts(good.clone()), 0);
        assert_eq!(alerts(good.clone() * 0.1), 1);
        assert_eq!(alerts(good.clone() * 0.1), 0);
        assert_eq!(alerts(good), 0);
        // Diverse, but repeated.
        assert_eq!(alerts(few.repeat_dim(0, 16)), 1);
    }

    #[test]
    fn unusable_samples_are_errors() {
        let device = Device::flex();
        let text = |real: Tensor<2>| DiversityWatch::new(&real).unwrap_err().to_string();
        assert!(text(Tensor::zeros([1, 4], &device)).contains("`real` is 1 of 4 values"));
        assert!(text(Tensor::ones([5, 4], &device)).contains("all the same"));
        assert!(text(Tensor::ones([5, 4], &device) / 0.0).contains("finite"));
        let watch = DiversityWatch::new(&Rng::new(1).normal([9, 4], &device)).unwrap();
        let error = watch.metrics(&Rng::new(1).normal([9, 3], &device));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("`samples` is 3 values, expected 4"),
            "{error}"
        );
    }
}
