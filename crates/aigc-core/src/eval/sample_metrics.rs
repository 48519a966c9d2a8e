//! Metrics of samples during training.

use super::{
    FeatureExtractor, FeatureStatistics, FeatureStream, Features, KernelDistance, PrdcConfig,
    features::extract, frechet_distance,
};
use crate::{Result, data::SampleBatch, train::Metrics};
use burn::tensor::{Device, Tensor};

/// Compares samples with real data in one set of features. In an evaluation of a
/// [`Trainer`](crate::train::Trainer), any of the metrics can decide which model is best
/// ([`metric_for_best_model`](crate::train::TrainerConfig::metric_for_best_model)).
///
/// ```no_run
/// # use aigc_core::{burn::module::Module, burn::tensor::*, data::*, eval::*, train::*};
/// # fn example<M: Module + 'static>(
/// #     lenet: impl FeatureExtractor, held_out: DataLoader<ImageBatch>, device: Device,
/// #     sample: impl Fn(&M) -> aigc_core::Result<Tensor<4>>,
/// # ) -> aigc_core::Result<()> {
/// let metrics = SampleMetrics::new(&lenet, held_out.iter_once(), &device)?;
/// let config = TrainerConfig {
///     metric_for_best_model: Some("kid".into()),
///     ..TrainerConfig::new(2000)
/// };
/// let trainer = Trainer::new(config)
///     .with_evaluation(|model: &M| metrics.compute(&sample(model)?));
/// # Ok(()) }
/// ```
pub struct SampleMetrics<'a, const D: usize = 4> {
    extractor: &'a dyn FeatureExtractor<D>,
    real: Features,
    statistics: FeatureStatistics,
    prdc: PrdcConfig,
    batch_size: usize,
}

/// Seed of the subsets of the KID: the same in every evaluation.
const SEED: u64 = 0;

impl<const D: usize> std::fmt::Debug for SampleMetrics<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SampleMetrics")
            .field("extractor", &self.extractor.id())
            .field("real", &self.real.len())
            .field("prdc", &self.prdc)
            .finish_non_exhaustive()
    }
}

impl<'a, const D: usize> SampleMetrics<'a, D> {
    /// Names of the metrics, and whether a larger value is better
    /// ([`greater_is_better`](crate::train::TrainerConfig::greater_is_better)).
    pub const METRICS: [(&'static str, bool); 6] = [
        ("frechet", false),
        ("kid", false),
        ("precision", true),
        ("recall", true),
        ("density", true),
        ("coverage", true),
    ];

    /// Compares with the samples of `real`, whose features are kept: `4 × width` bytes each.
    ///
    /// # Errors
    /// As [`FeatureStream::features`].
    pub fn new<B: SampleBatch<D>>(
        extractor: &'a dyn FeatureExtractor<D>,
        real: impl IntoIterator<Item = Result<B>>,
        device: &Device,
    ) -> Result<Self> {
        let real = FeatureStream::new(extractor, device).features(real)?;
        let mut statistics = FeatureStatistics::new(real.width())?;
        statistics.add_features(&real)?;
        Ok(Self {
            extractor,
            real,
            statistics,
            prdc: PrdcConfig::default(),
            batch_size: 250,
        })
    }

    /// Computes precision, recall, density and coverage with these settings.
    pub fn with_prdc(self, prdc: PrdcConfig) -> Self {
        Self { prdc, ..self }
    }

    /// Computes features of `batch_size` samples at once; 250 by default.
    pub fn with_batch_size(self, batch_size: usize) -> Self {
        Self {
            batch_size: batch_size.max(1),
            ..self
        }
    }

    /// The [metrics](Self::METRICS) of samples. Subsets for the KID have at most 1,000 samples.
    ///
    /// # Shapes
    /// - samples: a batch, as the extractor takes it
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for too few samples; errors of the
    /// extractor.
    pub fn compute(&self, samples: &Tensor<D>) -> Result<Metrics> {
        let count = samples.dims()[0];
        let mut features = Features::empty(self.real.width())?;
        for first in (0..count).step_by(self.batch_size) {
            let rows = self.batch_size.min(count - first);
            let batch = samples.clone().narrow(0, first, rows);
            features.append(&extract(self.extractor, batch)?)?;
        }
        self.of_features(&features)
    }

    /// [`compute`](Self::compute) for samples whose features are known.
    ///
    /// # Errors
    /// As [`compute`](Self::compute).
    pub fn of_features(&self, features: &Features) -> Result<Metrics> {
        let prdc = self.prdc.compute(&self.real, features)?;
        let mut statistics = FeatureStatistics::new(features.width())?;
        statistics.add_features(features)?;
        let kid = KernelDistance::default();
        let most = self.real.len().min(features.len());
        let kid = KernelDistance {
            subset_size: kid.subset_size.min(most),
            ..kid
        };
        let values = [
            frechet_distance(&self.statistics, &statistics)?,
            kid.distance(&self.real, features, SEED)?.mean,
            prdc.precision,
            prdc.recall,
            prdc.density,
            prdc.coverage,
        ];
        let named = Self::METRICS.iter().zip(values);
        Ok(named
            .map(|((name, _), value)| (name.to_string(), value))
            .collect())
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        data::{collate_images, digits},
        eval::ClosureExtractor,
        rng::Rng,
    };

    /// Other real digits are near in every metric, and noise makes every metric worse.
    #[test]
    fn noise_makes_metrics_worse() {
        let device = Device::flex();
        let (train, held_out) = digits::train_test_split();
        let pixels = ClosureExtractor::new("pixels", 64, |x: Tensor<4>| Ok(x.flatten(1, 3)));
        let real = collate_images(held_out.0.clone());
        let metrics = SampleMetrics::new(&pixels, [Ok(real)], &device).unwrap();
        let train = collate_images(train.0[..300].to_vec()).to_tensor(&device);
        let noise: Tensor<4> = Rng::new(1).normal(train.dims(), &device) * 0.4;
        let good = metrics.compute(&train).unwrap();
        let bad = metrics.compute(&(train + noise)).unwrap();
        let names: Vec<&str> = good.iter().map(|(name, _)| name.as_str()).collect();
        let all = SampleMetrics::<4>::METRICS;
        assert_eq!(names, all.map(|(name, _)| name));
        for (((name, good), (_, bad)), (_, greater)) in good.iter().zip(&bad).zip(all) {
            let worse = if greater { bad < good } else { bad > good };
            // What real digits are inside the balls of scattered samples may grow.
            assert!(worse || name == "recall", "{name}: {good} {bad}");
        }
        let batches = metrics.with_batch_size(7);
        let again = batches
            .compute(&Tensor::zeros([6, 1, 8, 8], &device))
            .unwrap();
        assert_eq!(again.len(), 6);
        assert!(
            batches
                .compute(&Tensor::zeros([3, 1, 8, 8], &device))
                .is_err()
        );
    }
}
