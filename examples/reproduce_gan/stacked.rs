//! Stacked-MNIST (Metz et al. 2017, <https://arxiv.org/abs/1611.02163>): three random digits as
//! colour channels. A classifier reads the digit of each channel; the 1,000 numbers are the modes.

use crate::{Method, part_seed, trainer};
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::Device,
    data::{
        DataLoader, DataLoaderConfig, Dataset, Image, ImageShape, collate_images,
        idx::{MnistDataset, Split},
    },
    eval::{ClassHistogram, Classifier, LeNet5},
    output::ImageGrid,
    rng::Rng,
    train::{Event, LrSchedule, Metrics, TrainerConfig},
};
use aigc_examples::{
    Gallery, ObserverOptions, Progress, RunOptions, SampleObserver, after_training, outln,
    unless_stopped,
};
use aigc_gan::{
    AnyGan, AnyGenerator, DcganConfig, DiscriminatorNorm, GanConfig, GanObjective, GanSampler,
    standing_statistics,
};
use clap::Args;
use std::path::PathBuf;

/// Options of `stacked`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Directory with the four MNIST files.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Weights of a LeNet-5 that classifies digits (`mnist-models/lenet5_csinva.safetensors`).
    #[arg(long, alias = "judge", value_name = "FILE")]
    classifier: PathBuf,
    /// Loss and penalties.
    #[arg(long, value_enum, default_value = "r3gan")]
    method: Method,
    /// Weight of the penalties; 1 for `r3gan`, 10 for `wgan-gp` by default.
    #[arg(long)]
    gamma: Option<f64>,
    /// Learning rate.
    #[arg(long, default_value_t = 2e-4)]
    rate: f64,
    /// Number of samples to evaluate.
    #[arg(long, default_value_t = 25_600)]
    samples: usize,
    #[command(flatten)]
    observer: ObserverOptions,
    #[command(flatten)]
    run: RunOptions,
}

/// A data set of `count` random stacks, the same for the same seed.
struct Stacked {
    digits: MnistDataset,
    count: usize,
    seed: u64,
}

impl Dataset for Stacked {
    type Item = Image;

    fn len(&self) -> usize {
        self.count
    }

    fn get(&self, index: usize) -> Result<Image> {
        let mut rng = Rng::stream(self.seed, "stacked", index as u64);
        let digits = (0..3)
            .map(|_| self.digits.get(rng.random_index(self.digits.len())))
            .collect::<Result<Vec<_>>>()?;
        let label = digits.iter().try_fold(0, |number, digit| {
            digit.label.map(|label| 10 * number + label)
        });
        let ImageShape { height, width, .. } = self.digits.shape();
        let pixels = digits.into_iter().flat_map(|digit| digit.pixels).collect();
        Ok(Image {
            shape: ImageShape::new(3, height, width),
            pixels,
            label,
        })
    }
}

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let seed = options.run.seed;
    let device = options.run.device()?;
    if options.samples == 0 {
        return Err(Error::config("samples", 0, "at least 1").into());
    }
    let digits = MnistDataset::from_dir(&options.data, Split::Train)?;
    let classifier = LeNet5::from_file(&options.classifier, &device)?;
    let ImageShape { height, width, .. } = digits.shape();
    let stacked = Stacked {
        digits,
        count: 128_000,
        seed,
    };
    let loader = DataLoaderConfig {
        batch_size: 64,
        shuffle_seed: Some(seed),
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(stacked, collate_images, loader)?;
    let norm = if options.method == Method::Plain {
        DiscriminatorNorm::Batch
    } else {
        DiscriminatorNorm::None
    };
    let model = GanConfig::Dcgan(DcganConfig {
        norm,
        ..DcganConfig::new(ImageShape::new(3, height, width))
    });
    let gan = model.init(&device)?;
    let objective = options
        .method
        .objective(options.gamma.unwrap_or(options.method.default_gamma()));
    let config = options.run.config(TrainerConfig {
        eval_steps: 2000,
        preview_steps: 2000,
        ..trainer(
            seed,
            20_000,
            options.rate,
            [0.5, 0.99],
            LrSchedule::CONSTANT,
        )
    })?;
    let own = [("kl", false), ("modes", true)];
    let config = options.observer.config(config, &own, false)?;
    let learning = GanObjective::new(objective.clone(), &gan)?;
    let real = loader.iter_once().take(4).collect::<Result<Vec<_>>>()?;
    let observer = SampleObserver::new(&options.observer, seed, real, None, &device)?;
    let run = options.run.run("stacked")?;
    let gallery = Gallery::new(ImageGrid::new(10, width), "GAN", "stacked")
        .with_setting("method", format!("{:?}", options.method));
    let counted = |generator: &AnyGenerator| {
        let progress = Progress::new("evaluation", options.samples, &stop);
        modes(generator, &classifier, &progress, options, &device)
    };
    let trainer = options.run.trainer(config, stop.clone(), 100);
    let trained = observer
        .watch(trainer)
        .with_model_config(&model)?
        .with_objective_config(&objective)?
        .with_callback(|event: &Event<'_>| {
            if let Event::Evaluated { step, metrics, .. } = event
                && !metrics.is_empty()
            {
                eprintln!("step {step}: {metrics:?}");
            }
        })
        .with_evaluation(|gan: &AnyGan| {
            unless_stopped(&stop, || {
                let histogram = counted(&gan.generator)?;
                let mut metrics: Metrics = vec![
                    ("kl".into(), histogram.kl_to_uniform()),
                    ("modes".into(), histogram.num_seen() as f64),
                ];
                let sampler = GanSampler::new(&gan.generator, &device).with_cancel(stop.clone());
                metrics.extend(observer.metrics(|n, seed| sampler.sample(n, seed))?);
                Ok(metrics)
            })
        })
        .with_preview(|gan: &AnyGan, at| {
            let sampler = GanSampler::new(&gan.generator, &device);
            gallery.save_preview(&sampler.sample(100, seed)?, at)
        })
        .fit(learning, gan, &loader, &run)?;
    after_training(trained, &run, &stop, |trained| {
        let generator = standing_statistics(&trained.model.generator, 50, 256, seed, &device)?;
        let histogram = counted(&generator)?;
        outln!(
            "{:?} seed {}: {} of 1000 modes in {} samples, KL to uniform {:.4}; {} steps, {} of them in this run, in {:.1} minutes",
            options.method,
            seed,
            histogram.num_seen(),
            histogram.total(),
            histogram.kl_to_uniform(),
            trained.step,
            trained.steps_run,
            trained.elapsed.as_secs_f64() / 60.0
        );
        Ok(())
    })
}

/// Counts the numbers that the classifier reads in the three channels of samples.
fn modes(
    generator: &AnyGenerator,
    classifier: &LeNet5,
    progress: &Progress,
    options: &Options,
    device: &Device,
) -> Result<ClassHistogram> {
    let (samples, seed) = (options.samples, options.run.seed);
    let sampler = GanSampler::new(generator, device);
    let mut histogram = ClassHistogram::new(1000)?;
    for part in 0..samples.div_ceil(500) {
        let n = (samples - 500 * part).min(500);
        let images = sampler.sample(n, part_seed(seed, part))?.values;
        let [_, channels, height, width] = images.dims();
        let read = classifier
            .classify(images.reshape([n * channels, 1, height, width]))
            .predictions();
        histogram.add(
            read.chunks_exact(3)
                .map(|digits| 100 * digits[0] + 10 * digits[1] + digits[2]),
        )?;
        progress.add(n)?;
    }
    Ok(histogram)
}
