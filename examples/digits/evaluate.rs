//! Evaluation of samples: Fréchet distance to held-out images, and classes by the nearest training
//! image.

use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Tensor},
    data::{DataLoader, ImageBatch},
    eval::{ClassHistogram, Classifier, FeatureStatistics, NearestNeighbors, frechet_distance},
    train::Metrics,
};
use aigc_examples::{EvaluationCost, Images, Progress, outln};

/// Maximum number of samples.
const MAX_SAMPLES: usize = 1000;
/// Minimum number of samples for a meaningful distance or fraction.
const MIN_SAMPLES: usize = 50;

/// Maximum number of values of an image whose pixels are used as features: the cost grows with the
/// third power.
const MAX_PIXELS: usize = 1024;
/// Maximum number of training images to compare samples with.
const MAX_KNOWN: usize = 10_000;
/// Number of samples that are classified at once.
const BATCH: usize = 250;

fn num_samples(train_images: usize) -> usize {
    train_images.clamp(MIN_SAMPLES, MAX_SAMPLES)
}

pub(crate) struct Evaluator {
    /// Statistics of held-out images, and their distance to training images, which a perfect
    /// generator would reach. `None` if images are too large to use their pixels as features, or
    /// too few.
    held_out: Option<(FeatureStatistics, f64)>,
    held_out_images: usize,
    num_samples: usize,
    pub(crate) known: NearestNeighbors,
}

impl Evaluator {
    /// Evaluates with `samples` samples, by default as many as there are training images, within
    /// limits.
    pub(crate) fn new(images: &Images, samples: Option<u32>, device: &Device) -> Result<Self> {
        let moments = |loader: &DataLoader<ImageBatch>| {
            let mut moments = FeatureStatistics::new(images.shape.numel())?;
            // A signal stops training before its first step.
            let never = CancelToken::new();
            let progress = Progress::new("reading images", loader.num_items(), &never);
            for batch in loader.iter_once() {
                let batch = batch?;
                progress.add(batch.len())?;
                moments.add(&batch.to_tensor(device).flatten(1, 3))?;
            }
            Ok::<_, Error>(moments)
        };
        let held_out_images = images.held_out.num_items();
        let measurable = images.shape.numel() <= MAX_PIXELS
            && held_out_images > 1
            && images.train.num_items() > 1;
        let held_out = match measurable {
            true => {
                let held_out = moments(&images.held_out)?;
                let among_real = frechet_distance(&moments(&images.train)?, &held_out)?;
                Some((held_out, among_real))
            }
            false => None,
        };
        let known = NearestNeighbors::from_batches(images.train.iter_once(), MAX_KNOWN, device)?;
        Ok(Self {
            held_out,
            held_out_images,
            num_samples: samples.map_or_else(
                || num_samples(images.train.num_items()),
                |samples| samples as usize,
            ),
            known,
        })
    }

    /// Number of samples for an evaluation.
    pub(crate) fn num_samples(&self) -> usize {
        self.num_samples
    }

    /// Reduces the number of samples to those whose evaluation takes at most `minutes`.
    pub(crate) fn limit(&mut self, cost: EvaluationCost, minutes: f64) {
        self.num_samples = cost.samples_within(minutes, MIN_SAMPLES, self.num_samples);
    }

    /// Metrics of samples, and of their requested classes if there are any.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `stop` is cancelled.
    pub(crate) fn metrics(
        &self,
        samples: Tensor<4>,
        requested: &[u32],
        stop: &CancelToken,
    ) -> Result<Metrics> {
        let n = samples.dims()[0];
        let progress = Progress::new("evaluation", n, stop);
        let mut metrics = Vec::new();
        if let Some((held_out, _)) = &self.held_out {
            let mut moments = FeatureStatistics::new(held_out.mean().len())?;
            moments.add(&samples.clone().flatten(1, 3))?;
            progress.add(0)?;
            metrics.push(("frechet".to_string(), frechet_distance(held_out, &moments)?));
        }
        if let Some(classes) = self.known.num_classes() {
            let mut read = Vec::with_capacity(n);
            for start in (0..n).step_by(BATCH) {
                let batch = BATCH.min(n - start);
                let images = samples.clone().narrow(0, start, batch);
                read.extend(self.known.classify(images).predictions());
                progress.add(batch)?;
            }
            let right = read.iter().zip(requested).filter(|(a, b)| a == b).count();
            let mut histogram = ClassHistogram::new(classes)?;
            histogram.add(read)?;
            metrics.push(("uneven".into(), histogram.total_variation()));
            metrics.push(("classes".into(), histogram.num_seen() as f64));
            if !requested.is_empty() {
                metrics.push(("right".into(), right as f64 / requested.len() as f64));
            }
        }
        Ok(metrics)
    }

    /// Prints the metrics.
    pub(crate) fn print(&self, metrics: &Metrics) {
        let value = |name: &str| {
            metrics
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, value)| *value)
        };
        outln!();
        if let (Some(distance), Some((_, among_real))) = (value("frechet"), &self.held_out) {
            outln!(
                "Fréchet distance in pixels: {distance:.3} between {} samples and {} held-out images ({among_real:.3} \
                 between training and held-out images)\n  It measures how different the two sets of images are: lower is better.",
                self.num_samples,
                self.held_out_images,
            );
        }
        if let (Some(uneven), Some(seen)) = (value("uneven"), value("classes")) {
            outln!(
                "{seen:.0} classes appear; total variation from uniform classes: {:.1} %",
                100.0 * uneven
            );
        }
        if let Some(right) = value("right") {
            outln!(
                "{:.1} % of the samples are classified as the requested class (by the nearest training image)",
                100.0 * right
            );
        }
    }
}
