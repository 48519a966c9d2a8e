//! What judges samples: distance to held-out images, and classes by the nearest training image.

use aigc_core::{
    Error, Result,
    burn::tensor::{Device, Tensor},
    data::{DataLoader, ImageBatch},
    eval::{ClassHistogram, Classifier, FeatureStatistics, NearestNeighbors, frechet_distance},
    train::Metrics,
};
use aigc_examples::Images;

/// Samples that an evaluation looks at.
pub(crate) const JUDGED: usize = 1000;

/// Values of the largest images whose pixels are features: the work grows with the third power.
const MOST_PIXELS: usize = 1024;
/// Nobody is judged by more than this many training images.
const MOST_KNOWN: usize = 10_000;

pub(crate) struct Judge {
    /// Of held-out images, and their distance to training images: what a perfect generator would
    /// reach. Nothing where images are too large for their pixels to be features, or too few.
    held_out: Option<(FeatureStatistics, f64)>,
    held_out_images: usize,
    pub(crate) known: NearestNeighbors,
}

impl Judge {
    pub(crate) fn new(images: &Images, device: &Device) -> Result<Self> {
        let moments = |loader: &DataLoader<ImageBatch>| {
            let mut moments = FeatureStatistics::new(images.shape.numel())?;
            for batch in loader.iter_once() {
                moments.add(&batch?.to_tensor(device).flatten(1, 3))?;
            }
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
            known,
        })
    }

    /// Of pictures, and of the classes that were asked for, if any were.
    pub(crate) fn metrics(&self, pictures: Tensor<4>, asked: &[u32]) -> Result<Metrics> {
        let mut metrics = Vec::new();
        if let Some((held_out, _)) = &self.held_out {
            let mut moments = FeatureStatistics::new(held_out.mean().len())?;
            moments.add(&pictures.clone().flatten(1, 3))?;
            metrics.push(("frechet".to_string(), frechet_distance(held_out, &moments)?));
        }
        if let Some(classes) = self.known.num_classes() {
            let read = self.known.classify(pictures).predictions();
            let right = read.iter().zip(asked).filter(|(a, b)| a == b).count();
            let mut histogram = ClassHistogram::new(classes)?;
            histogram.add(read)?;
            metrics.push(("uneven".into(), histogram.total_variation()));
            metrics.push(("classes".into(), histogram.num_seen() as f64));
            if !asked.is_empty() {
                metrics.push(("right".into(), right as f64 / asked.len() as f64));
            }
        }
        Ok(metrics)
    }

    /// Says in words what the metrics are.
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
                "Fréchet distance in pixels: {distance:.3} between {JUDGED} samples and {} held-out images ({among_real:.3} \
                 between training and held-out images)\n  How far the two clouds of images lie apart: lower is better.",
                self.held_out_images,
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
