//! Evaluation of samples: distance to held-out images, and classes by the nearest training image.

use aigc_core::{
    Error, Result,
    burn::tensor::{Device, Tensor},
    data::{DataLoader, ImageBatch},
    eval::{ClassHistogram, Classifier, FeatureStatistics, NearestNeighbors, frechet_distance},
    train::Metrics,
};
use aigc_examples::Images;
use indicatif::{ProgressBar, ProgressStyle};

/// Most samples of an evaluation.
const MAX_SAMPLES: usize = 1000;
/// Fewest: of less, neither a distance nor a share means anything.
const MIN_SAMPLES: usize = 50;

/// Most values of an image whose pixels are features: the work grows with their third power.
const MOST_PIXELS: usize = 1024;
/// Most training images that samples are compared with.
const MOST_KNOWN: usize = 10_000;

fn num_samples(train_images: usize) -> usize {
    train_images.clamp(MIN_SAMPLES, MAX_SAMPLES)
}

/// A bar that counts to `total`, where there is a terminal.
pub(crate) fn progress(what: &'static str, total: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} ETA {eta}");
    ProgressBar::new(total as u64)
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_message(what)
}

pub(crate) struct Judge {
    /// Statistics of held-out images, and their distance to training images, which a perfect
    /// generator would reach. `None` if images are too large for their pixels to be features, or
    /// too few.
    held_out: Option<(FeatureStatistics, f64)>,
    held_out_images: usize,
    num_samples: usize,
    pub(crate) known: NearestNeighbors,
}

impl Judge {
    pub(crate) fn new(images: &Images, device: &Device) -> Result<Self> {
        let moments = |loader: &DataLoader<ImageBatch>| {
            let mut moments = FeatureStatistics::new(images.shape.numel())?;
            let bar = progress("reading images", loader.num_items());
            for batch in loader.iter_once() {
                let batch = batch?;
                bar.inc(batch.len() as u64);
                moments.add(&batch.to_tensor(device).flatten(1, 3))?;
            }
            bar.finish_and_clear();
            Ok::<_, Error>(moments)
        };
        let held_out_images = images.held_out.num_items();
        let measurable = images.shape.numel() <= MOST_PIXELS
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
        let known = NearestNeighbors::from_batches(images.train.iter_once(), MOST_KNOWN, device)?;
        Ok(Self {
            held_out,
            held_out_images,
            num_samples: num_samples(images.train.num_items()),
            known,
        })
    }

    /// Samples of an evaluation: as many as there are training images, within bounds.
    pub(crate) fn num_samples(&self) -> usize {
        self.num_samples
    }

    /// Metrics of samples, and of the classes that were requested, if any were.
    pub(crate) fn metrics(&self, pictures: Tensor<4>, requested: &[u32]) -> Result<Metrics> {
        let mut metrics = Vec::new();
        if let Some((held_out, _)) = &self.held_out {
            let mut moments = FeatureStatistics::new(held_out.mean().len())?;
            moments.add(&pictures.clone().flatten(1, 3))?;
            metrics.push(("frechet".to_string(), frechet_distance(held_out, &moments)?));
        }
        if let Some(classes) = self.known.num_classes() {
            let read = self.known.classify(pictures).predictions();
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
    pub(crate) fn say(&self, metrics: &Metrics) {
        let value = |name: &str| {
            metrics
                .iter()
                .find(|(n, _)| n == name)
                .map(|(_, value)| *value)
        };
        println!();
        if let (Some(distance), Some((_, among_real))) = (value("frechet"), &self.held_out) {
            println!(
                "Fréchet distance in pixels: {distance:.3} between {} samples and {} held-out images ({among_real:.3} \
                 between training and held-out images)\n  How far the two clouds of images lie apart: lower is better.",
                self.num_samples, self.held_out_images,
            );
        }
        if let (Some(uneven), Some(seen)) = (value("uneven"), value("classes")) {
            println!(
                "{seen:.0} classes appear; {:.1} % of the samples would have to move to make them even",
                100.0 * uneven
            );
        }
        if let Some(right) = value("right") {
            println!(
                "{:.1} % of the samples are read as the class asked for (by the nearest training image)",
                100.0 * right
            );
        }
    }
}
