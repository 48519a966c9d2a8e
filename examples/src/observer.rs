//! Metrics of samples of images during training, which the programs of `docs/results.md` share.

use crate::{Images, complete};
use aigc_core::{
    CancelToken, Error, Result,
    burn::{
        module::Module,
        tensor::{Device, Tensor},
    },
    data::ImageBatch,
    eval::{LeNet5, PrdcConfig, SampleMetrics},
    sampling::Samples,
    train::{DiversityWatch, Metrics, Trainer, TrainerConfig},
};
use clap::Args;
use std::path::Path;

/// Number of held-out images that samples are compared with, about.
const REAL: usize = 1000;

/// Options of evaluations during training.
#[derive(Clone, Debug, Args)]
pub struct ObserverOptions {
    /// Steps between evaluations during training; 0 for one at the end alone.
    #[arg(long, value_name = "STEPS")]
    eval_steps: Option<usize>,
    /// Samples that an evaluation during training compares with held-out images.
    #[arg(
        long, value_name = "N", default_value_t = 250,
        value_parser = clap::value_parser!(u32).range(6..=10_000)
    )]
    eval_samples: u32,
    /// Metric that decides which evaluated model becomes the final one, instead of the last model:
    /// with --classifier frechet, kid, precision, recall, density or coverage of samples; nelbo of
    /// an autoencoder; kl or modes of Stacked-MNIST.
    #[arg(long, value_name = "NAME")]
    metric_for_best_model: Option<String>,
}

impl ObserverOptions {
    /// `config` with the interval and the metric of the command line. `own` are the metrics of the
    /// program, and whether a larger value is better; those of samples are metrics if
    /// `has_classifier`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a metric that no evaluation has, or without evaluations.
    pub fn config(
        &self,
        config: TrainerConfig,
        own: &[(&str, bool)],
        has_classifier: bool,
    ) -> Result<TrainerConfig> {
        let config = TrainerConfig {
            eval_steps: self.eval_steps.unwrap_or(config.eval_steps),
            ..config
        };
        let Some(name) = &self.metric_for_best_model else {
            return Ok(config);
        };
        let mut known = own.to_vec();
        if has_classifier {
            known.extend(SampleMetrics::<4>::METRICS);
        }
        let Some((_, greater_is_better)) = known.iter().find(|(metric, _)| metric == name) else {
            let names: Vec<&str> = known.iter().map(|(metric, _)| *metric).collect();
            let expected = match names.is_empty() {
                true => "a metric of samples and --classifier, which they need".into(),
                false => format!(
                    "{} (metrics of samples need --classifier)",
                    names.join(", ")
                ),
            };
            return Err(Error::argument("--metric-for-best-model", name, expected));
        };
        if config.eval_steps == 0 {
            let expected = "at least 1, since --metric-for-best-model compares evaluations";
            return Err(Error::argument("--eval-steps", 0, expected));
        }
        Ok(TrainerConfig {
            metric_for_best_model: Some(name.clone()),
            greater_is_better: *greater_is_better,
            load_best_model_at_end: true,
            ..config
        })
    }
}

/// The classifier in whose features samples are compared; none without a file.
///
/// # Errors
/// [`Error::Weights`] if the file does not contain a LeNet-5.
pub fn lenet5_from(file: Option<&Path>, device: &Device) -> Result<Option<LeNet5>> {
    file.map(|file| LeNet5::from_file(file, device)).transpose()
}

/// Held-out images to compare with, in batches at equal distances.
///
/// # Errors
/// [`Error::Cancelled`] if `stop` is cancelled; errors of reading.
pub fn held_out(images: &Images, stop: &CancelToken) -> Result<Vec<ImageBatch>> {
    let size = images.held_out.config().batch_size;
    let batches = images.held_out.num_items().div_ceil(size);
    let step = batches.div_ceil(REAL.div_ceil(size)).max(1);
    images.evaluate(stop, |held_out| {
        held_out.iter_once().step_by(step).collect()
    })
}

/// Compares samples of a model in training with real images.
#[derive(Debug)]
pub struct SampleObserver<'a> {
    metrics: Option<SampleMetrics<'a>>,
    watch: Option<DiversityWatch>,
    samples: usize,
    seed: u64,
}

impl<'a> SampleObserver<'a> {
    /// Compares in pixels with `real`, and in the features of `lenet`. What too few or equal images
    /// do not allow is left out, with a warning.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the metric that decides is left out, and for images that are
    /// not grey with `lenet`.
    pub fn new(
        options: &ObserverOptions,
        seed: u64,
        real: Vec<ImageBatch>,
        lenet: Option<&'a LeNet5>,
        device: &Device,
    ) -> Result<Self> {
        let count: usize = real.iter().map(ImageBatch::len).sum();
        let samples = options.eval_samples as usize;
        let watch = watch(&real, count.min(samples), device);
        let nearest = PrdcConfig::default().nearest_k;
        let metrics = match lenet {
            Some(lenet) if count > nearest => {
                Some(SampleMetrics::new(lenet, real.into_iter().map(Ok), device)?)
            }
            Some(_) => {
                let expected = format!("at least {}, for metrics of samples", nearest + 1);
                let error = Error::argument("held-out images", count, expected);
                let name = options.metric_for_best_model.as_deref();
                let metrics = SampleMetrics::<4>::METRICS;
                if metrics.iter().any(|(metric, _)| Some(*metric) == name) {
                    return Err(error);
                }
                eprintln!("{error}");
                None
            }
            None => None,
        };
        Ok(Self {
            metrics,
            watch,
            samples,
            seed,
        })
    }

    /// The metrics of samples, always of the same noise; `draw` returns a number of samples of a
    /// seed.
    ///
    /// # Errors
    /// Errors of `draw` and of [`SampleMetrics::compute`]; [`Error::Cancelled`] if sampling was
    /// stopped.
    pub fn metrics(&self, draw: impl FnOnce(usize, u64) -> Result<Samples>) -> Result<Metrics> {
        if self.metrics.is_none() && self.watch.is_none() {
            return Ok(Metrics::new());
        }
        let samples = complete(draw(self.samples, self.seed)?)?.values;
        let mut found = match &self.metrics {
            Some(metrics) => metrics.compute(&samples)?,
            None => Metrics::new(),
        };
        if let Some(watch) = &self.watch {
            found.extend(watch.metrics(&samples.flatten::<2>(1, 3))?);
        }
        Ok(found)
    }

    /// A trainer that warns of a collapse.
    pub fn watch<'t, M: Module + 'static>(&self, trainer: Trainer<'t, M>) -> Trainer<'t, M> {
        match &self.watch {
            Some(watch) => trainer.with_callback(watch.clone()),
            None => trainer,
        }
    }
}

/// A watch on the pixels of samples, beside those of `count` real images.
fn watch(real: &[ImageBatch], count: usize, device: &Device) -> Option<DiversityWatch> {
    if count == 0 {
        return None;
    }
    let images = real.iter().map(|batch| batch.to_tensor(device)).collect();
    let pixels = Tensor::cat(images, 0).flatten::<2>(1, 3);
    match DiversityWatch::new(&pixels.narrow(0, 0, count)) {
        Ok(watch) => Some(watch),
        Err(error) => {
            eprintln!("the diversity of samples is not watched: {error}");
            None
        }
    }
}
