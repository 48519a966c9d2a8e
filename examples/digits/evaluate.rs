//! Evaluation of samples: quality and diversity in pixels beside held-out images, classes by the
//! nearest training image, and copies of training images.

use crate::copies::{self, Copies};
use aigc_core::{
    CancelToken, Result,
    burn::tensor::{Device, Tensor},
    checkpoint::RunDir,
    eval::{
        ClassHistogram, Classifier, ClosureExtractor, ConditionalAccuracy, FeatureStatistics,
        FeatureStream, Features, NearestNeighbors, PrdcConfig, class_entropy, frechet_distance,
    },
    sampling::Samples,
    train::Metrics,
};
use aigc_examples::{EvaluationCost, Gallery, Images, Progress, outln};

/// Maximum number of samples.
const MAX_SAMPLES: usize = 1000;
/// Minimum number of samples for a meaningful distance or fraction.
const MIN_SAMPLES: usize = 50;

/// Maximum number of values of an image whose pixels are used as features: the cost grows with the
/// third power.
const MAX_PIXELS: usize = 1024;
/// Maximum number of held-out images, and of samples, for precision, recall, density and coverage:
/// the cost grows with the square.
const MAX_COMPARED: usize = 1000;
/// Maximum number of training images to compare samples with.
const MAX_KNOWN: usize = 10_000;
/// Number of samples that are classified at once.
const BATCH: usize = 250;

/// The line of [`list`](crate::job::list) for samples and their neighbours.
pub(crate) const NEAREST: (&str, &str) = (
    "nearest.png",
    "ten samples, and below each the most similar training image",
);

fn num_samples(train_images: usize) -> usize {
    train_images.clamp(MIN_SAMPLES, MAX_SAMPLES)
}

/// Pixels of held-out images.
struct HeldOut {
    statistics: FeatureStatistics,
    /// The Fréchet distance to training images, which a perfect generator would reach.
    among_real: f64,
    /// Number of these training images.
    train_images: usize,
    /// Those for precision, recall, density and coverage, at equal distances from all.
    compared: Features,
}

pub(crate) struct Evaluator {
    /// `None` if images are too large to use their pixels as features, or too few.
    held_out: Option<HeldOut>,
    held_out_images: usize,
    num_samples: usize,
    known: NearestNeighbors,
    copies: Option<Copies>,
}

impl Evaluator {
    /// Evaluates with `samples` samples, by default as many as there are training images, within
    /// limits.
    pub(crate) fn new(images: &Images, samples: Option<u32>, device: &Device) -> Result<Self> {
        let held_out_images = images.held_out.num_items();
        let measurable = images.shape.numel() <= MAX_PIXELS
            && held_out_images > 1
            && images.train.num_items() > 1;
        let held_out = match measurable {
            true => Some(HeldOut::read(images, device)?),
            false => None,
        };
        Ok(Self {
            held_out,
            held_out_images,
            num_samples: samples.map_or_else(
                || num_samples(images.train.num_items()),
                |samples| samples as usize,
            ),
            known: NearestNeighbors::from_batches(images.train.iter_once(), MAX_KNOWN, device)?,
            copies: Copies::new(images, MAX_KNOWN, device)?,
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
    /// [`Error::Cancelled`](aigc_core::Error::Cancelled) if `stop` is cancelled.
    pub(crate) fn metrics(
        &self,
        samples: Tensor<4>,
        requested: &[u32],
        stop: &CancelToken,
    ) -> Result<Metrics> {
        let n = samples.dims()[0];
        let checked = self.copies.as_ref().map_or(0, |_| copies::checked(n));
        let progress = Progress::new("evaluation", n + checked, stop);
        let mut metrics = Vec::new();
        if let Some(held_out) = &self.held_out {
            progress.add(0)?;
            metrics.extend(held_out.metrics(&samples)?);
        }
        if let Some(classes) = self.known.num_classes() {
            metrics.extend(self.of_classes(classes, &samples, requested, &progress)?);
        }
        if let Some(copies) = &self.copies {
            metrics.push(copies.metric(&samples, &progress)?);
        }
        Ok(metrics)
    }

    /// How even the classes of the samples are, and how many are those that were requested.
    fn of_classes(
        &self,
        classes: usize,
        samples: &Tensor<4>,
        requested: &[u32],
        progress: &Progress,
    ) -> Result<Metrics> {
        let n = samples.dims()[0];
        let mut histogram = ClassHistogram::new(classes)?;
        // The known images need not have all classes that can be requested.
        let most = requested
            .iter()
            .max()
            .map_or(0, |class| *class as usize + 1);
        let mut accuracy = ConditionalAccuracy::new(classes.max(most))?;
        for start in (0..n).step_by(BATCH) {
            let batch = BATCH.min(n - start);
            let images = samples.clone().narrow(0, start, batch);
            let read = self.known.classify(images).predictions();
            if !requested.is_empty() {
                accuracy.add(&read, &requested[start..start + batch])?;
            }
            histogram.add(read)?;
            progress.add(batch)?;
        }
        let mut metrics = vec![
            ("uneven".to_string(), histogram.total_variation()),
            ("classes".into(), histogram.num_seen() as f64),
            ("entropy".into(), class_entropy(&histogram)?.normalized),
        ];
        if !requested.is_empty() {
            metrics.push(("right".into(), accuracy.overall()?.value()));
        }
        Ok(metrics)
    }

    /// Writes ten samples, and below each the most similar training image.
    pub(crate) fn save_nearest(
        &self,
        samples: &Samples,
        gallery: &Gallery,
        run: &RunDir,
    ) -> Result<()> {
        let nearest = self.known.nearest_images(&samples.values)?;
        let both = Tensor::cat(vec![samples.values.clone(), nearest], 0);
        let (file, content) = NEAREST;
        let gallery = gallery.clone().with_samples(samples);
        let gallery = gallery.with_setting("content", content);
        gallery.save(&both, &run.path().join(file))
    }

    /// Prints the metrics.
    pub(crate) fn print(&self, metrics: &Metrics) {
        let value = |name: &str| {
            let found = metrics.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| *value)
        };
        outln!();
        if let (Some(distance), Some(held_out)) = (value("frechet"), &self.held_out) {
            outln!(
                "Fréchet distance in pixels: {distance:.3} between {} samples and {} held-out \
                 images ({:.3} between {} training images and these)\n  It measures how different \
                 the two sets of images are: lower is better. It is larger with fewer samples.",
                self.num_samples,
                self.held_out_images,
                held_out.among_real,
                held_out.train_images,
            );
            if let (Some(precision), Some(recall), Some(density), Some(coverage)) = (
                value("precision"),
                value("recall"),
                value("density"),
                value("coverage"),
            ) {
                outln!(
                    "precision {precision:.3}, recall {recall:.3}, density {density:.3}, coverage \
                     {coverage:.3} in pixels, between {} samples and {} held-out images\n  \
                     Precision and density measure quality, recall and coverage diversity: higher \
                     is better.",
                    self.num_samples.min(MAX_COMPARED),
                    held_out.compared.len(),
                );
            }
        }
        if let (Some(uneven), Some(seen), Some(entropy)) =
            (value("uneven"), value("classes"), value("entropy"))
        {
            outln!(
                "{seen:.0} classes appear; total variation from uniform classes: {:.1} %, entropy: \
                 {:.1} % of the largest",
                100.0 * uneven,
                100.0 * entropy
            );
        }
        if let Some(right) = value("right") {
            outln!(
                "{:.1} % of the samples are classified as the requested class (by the nearest \
                 training image)",
                100.0 * right
            );
        }
        if let (Some(share), Some(copies)) = (value("copies"), &self.copies) {
            copies.print(share, self.num_samples);
        }
    }
}

impl HeldOut {
    fn read(images: &Images, device: &Device) -> Result<Self> {
        let numel = images.shape.numel();
        let flat = |x: Tensor<4>| -> Result<Tensor<2>> { Ok(x.flatten(1, 3)) };
        let pixels = ClosureExtractor::new("pixels", numel, flat);
        let stream = FeatureStream::<4>::new(&pixels, device);
        // A signal stops training before its first step.
        let never = CancelToken::new();
        let train = images.read_training("reading images", &never, |train| {
            stream.statistics(train.iter_once())
        })?;
        let mut statistics = FeatureStatistics::new(numel)?;
        let mut compared = Features::empty(numel)?;
        let stride = images.held_out.num_items().div_ceil(MAX_COMPARED);
        let mut seen = 0usize;
        images.evaluate(&never, |held_out| {
            stream.for_each(held_out.iter_once(), |features| {
                statistics.add_features(&features)?;
                let rows = 0..features.len();
                let rows: Vec<usize> = rows
                    .filter(|row| (seen + row).is_multiple_of(stride))
                    .collect();
                seen += features.len();
                compared.append(&features.select(&rows))
            })
        })?;
        Ok(Self {
            among_real: frechet_distance(&train, &statistics)?,
            train_images: images.train.num_items(),
            statistics,
            compared,
        })
    }

    fn metrics(&self, samples: &Tensor<4>) -> Result<Metrics> {
        let pixels = Features::from_tensor(&samples.clone().flatten::<2>(1, 3))?;
        let mut statistics = FeatureStatistics::new(pixels.width())?;
        statistics.add_features(&pixels)?;
        let distance = frechet_distance(&self.statistics, &statistics)?;
        let mut metrics = vec![("frechet".to_string(), distance)];
        let config = PrdcConfig::default();
        if self.compared.len().min(pixels.len()) > config.nearest_k {
            let rows: Vec<usize> = (0..pixels.len().min(MAX_COMPARED)).collect();
            let found = config.compute(&self.compared, &pixels.select(&rows))?;
            metrics.extend([
                ("precision".to_string(), found.precision),
                ("recall".to_string(), found.recall),
                ("density".to_string(), found.density),
                ("coverage".to_string(), found.coverage),
            ]);
        }
        Ok(metrics)
    }
}
