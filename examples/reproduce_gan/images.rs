//! GANs on images, evaluated with features of a LeNet-5.

use crate::{Method, part_seed, trainer};
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Tensor},
    checkpoint::RunDir,
    data::{DataLoader, ImageBatch},
    eval::{
        ClassHistogram, Classifier, FeatureStatistics, LeNet5, NearestNeighbors, frechet_distance,
    },
    output::{ImageGrid, save_gif, save_image},
    train::{LrSchedule, TrainerConfig},
};
use aigc_examples::{ImagesConfig, Progress, RunOptions, after_training, complete, outln};
use aigc_gan::{
    AnyGan, AnyGenerator, ClassConditioning, DcganConfig, DiscriminatorNorm, GanConfig,
    GanObjective, GanSampler, Generator, GeneratorConditioning, R3ganConfig, ResnetGanConfig,
    standing_statistics,
};
use anyhow::Context;
use clap::{Args, ValueEnum};
use std::{path::PathBuf, time::Duration};

/// Options of `images`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    data: ImagesConfig,
    /// Networks to train.
    #[arg(long, value_enum, default_value = "dcgan")]
    model: Networks,
    /// Loss and penalties.
    #[arg(long, value_enum, default_value = "plain")]
    method: Method,
    /// Weight of the penalties; 1 for `r3gan`, 10 for `wgan-gp` by default.
    #[arg(long)]
    gamma: Option<f64>,
    /// Train class-conditional networks.
    #[arg(long)]
    conditional: bool,
    /// Weights of a LeNet-5 that classifies digits (`mnist-models/lenet5_csinva.safetensors`);
    /// without it, samples are not evaluated.
    #[arg(long, alias = "judge", value_name = "FILE")]
    classifier: Option<PathBuf>,
    /// Number of samples to evaluate.
    #[arg(long, default_value_t = 10_000)]
    samples: usize,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Networks {
    Dcgan,
    Resnet,
    R3gan,
}

const BATCH: usize = 64;

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let seed = options.run.seed;
    let device = options.run.device()?;
    let images = options.data.given()?.open(BATCH, seed)?;
    let classifier = options
        .classifier
        .as_ref()
        .map(|path| LeNet5::from_file(path, &device))
        .transpose()?;
    let shape = images.shape;
    if classifier.is_some() && shape.channels != 1 {
        return Err(Error::config(
            "classifier",
            "a LeNet-5",
            format!("none for images of {shape}; it classifies grey images"),
        )
        .into());
    }
    if options.samples < 2 {
        return Err(Error::config("samples", options.samples, "at least 2").into());
    }
    let norm = if options.method == Method::Plain {
        DiscriminatorNorm::Batch
    } else {
        DiscriminatorNorm::None
    };
    let classes = if options.conditional {
        Some(ClassConditioning::new(images.classes()?))
    } else {
        None
    };
    if let Some(other) =
        classes.filter(|classes| classifier.is_some() && classes.num_classes != LeNet5::CLASSES)
    {
        let expected = format!(
            "{}, the classes of a LeNet-5; or leave --classifier out",
            LeNet5::CLASSES
        );
        return Err(Error::config("classes", other.num_classes, expected).into());
    }
    let by_norm = classes.map(|classes| ClassConditioning {
        generator: GeneratorConditioning::ConditionalBatchNorm,
        ..classes
    });
    let model = match options.model {
        Networks::Dcgan => GanConfig::Dcgan(DcganConfig {
            classes,
            norm,
            ..DcganConfig::new(shape)
        }),
        Networks::Resnet => GanConfig::Resnet(ResnetGanConfig {
            classes: by_norm,
            ..ResnetGanConfig::new(shape)
        }),
        Networks::R3gan => GanConfig::R3gan(R3ganConfig {
            classes,
            ..R3ganConfig::new(shape)
        }),
    };
    let gan = model.init(&device)?;
    let objective = options
        .method
        .objective(options.gamma.unwrap_or(options.method.default_gamma()));
    let config = options.run.config(TrainerConfig {
        preview_steps: 1000,
        ..trainer(seed, 17_000, 2e-4, [0.5, 0.999], LrSchedule::CONSTANT)
    })?;
    let learning = GanObjective::new(objective.clone(), &gan)?;
    let run = options.run.run("images-gan")?;
    images.print_summary(&run);
    let grid = ImageGrid::new(10, shape.width);
    let preview = |gan: &AnyGan, n: usize| -> Result<_> {
        let sampler = GanSampler::new(&gan.generator, &device);
        let samples = if gan.generator.num_classes().is_some() {
            sampler.class_grid(n / 10, seed)?
        } else {
            sampler.sample(n, seed)?
        };
        Ok(samples.values)
    };
    let trained = options
        .run
        .trainer(config, stop.clone(), 100)
        .with_model_config(&model)?
        .with_objective_config(&objective)?
        .with_data_config(&options.data)?
        .with_preview(|gan, at| {
            save_image(
                &preview(gan, 100)?,
                grid,
                &at.run.sample_path(at.step, "png"),
            )
        })
        .fit(learning, gan, &images.train, &run)?;
    after_training(trained, &run, &stop, |trained| {
        let pictures = Pictures {
            run: &run,
            grid,
            seed,
            device: &device,
            stop: &stop,
        };
        pictures.save(&trained.model, &images.train)?;
        let minutes = trained.elapsed.as_secs_f64() / 60.0;
        outln!(
            "{} steps, {} of them in this run, in {minutes:.2} minutes",
            trained.step,
            trained.steps_run
        );
        pictures.list();
        let Some(classifier) = &classifier else {
            return Ok(());
        };
        let evaluation = Evaluation {
            options,
            classifier,
            test: &images.held_out,
            device: &device,
            stop: &stop,
        };
        let generator = &trained.model.generator;
        evaluation.report("averaged", generator)?;
        let standing = standing_statistics(generator, 100, 256, seed, &device)?;
        evaluation.report("averaged, standing statistics", &standing)?;
        // The weights of the last step, without averaging.
        let live = aigc_core::weights::load_weights(
            model.init(&device)?,
            &run.latest_checkpoint()?.path("model.safetensors"),
        )?;
        evaluation.report("last weights", &live.generator)?;
        Ok(())
    })
}

/// Pictures at the end of training.
struct Pictures<'a> {
    run: &'a RunDir,
    grid: ImageGrid,
    seed: u64,
    device: &'a Device,
    stop: &'a CancelToken,
}

impl Pictures<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.run.path().join(name)
    }

    /// Saves samples, an interpolation, and samples with their nearest training images.
    fn save(&self, gan: &AnyGan, train: &DataLoader<ImageBatch>) -> anyhow::Result<()> {
        let (grid, seed) = (self.grid, self.seed);
        let sampler = GanSampler::new(&gan.generator, self.device).with_cancel(self.stop.clone());
        let hundred = complete(sampler.sample(100, seed)?)?.values;
        save_image(&hundred, grid, &self.path("samples.png"))?;
        if gan.generator.num_classes().is_some() {
            let classes = complete(sampler.class_grid(10, seed)?)?.values;
            save_image(&classes, grid, &self.path("classes.png"))?;
        }
        save_gif(
            sampler.interpolate(20, 30, seed ^ 1)?,
            grid,
            Duration::from_millis(80),
            &self.path("walk.gif"),
        )?;
        let samples = complete(sampler.sample(10, seed ^ 2)?)?.values;
        // Batch by batch: the nearest image of each batch is compared with the nearest so far.
        let progress = Progress::new("nearest images", train.num_items(), self.stop);
        let mut best: Vec<Option<(f64, Tensor<4>)>> = vec![None; 10];
        for batch in train.iter_once() {
            let batch = batch?;
            progress.add(batch.len())?;
            let known = NearestNeighbors::from_batch(&batch, self.device)?;
            for (i, near) in known.kneighbors(&samples, 1)?.into_iter().enumerate() {
                let (index, distance) = near[0];
                if best[i]
                    .as_ref()
                    .is_none_or(|(nearest, _)| distance < *nearest)
                {
                    let image = batch.to_tensor(self.device).narrow(0, index, 1);
                    best[i] = Some((distance, image));
                }
            }
        }
        let nearest: Option<Vec<_>> = best
            .into_iter()
            .map(|found| found.map(|(_, image)| image))
            .collect();
        let nearest = nearest.context("training images")?;
        let both = Tensor::cat([vec![samples], nearest].concat(), 0);
        save_image(&both, grid, &self.path("nearest.png"))?;
        Ok(())
    }

    fn list(&self) {
        for (file, what) in [
            ("samples.png", "100 generated images"),
            (
                "nearest.png",
                "ten samples, and below each the most similar training image",
            ),
            ("walk.gif", "interpolation in latent space"),
        ] {
            outln!("  {:<60} {what}", self.path(file).display());
        }
    }
}

/// Evaluation with a classifier.
struct Evaluation<'a> {
    options: &'a Options,
    classifier: &'a LeNet5,
    test: &'a DataLoader<ImageBatch>,
    device: &'a Device,
    stop: &'a CancelToken,
}

impl Evaluation<'_> {
    /// Prints the Fréchet distance to the test set, the class histogram, and the fraction of
    /// samples classified as requested.
    fn report(&self, what: &str, generator: &AnyGenerator) -> Result<()> {
        let (options, classifier) = (self.options, self.classifier);
        let (mut real, mut fake) = (
            FeatureStatistics::new(LeNet5::FEATURES)?,
            FeatureStatistics::new(LeNet5::FEATURES)?,
        );
        let total = self.test.num_items() + options.samples;
        let progress = Progress::new("evaluation", total, self.stop);
        for batch in self.test.iter_once() {
            let batch = batch?;
            real.add(&classifier.classify(batch.to_tensor(self.device)).features)?;
            progress.add(batch.len())?;
        }
        let sampler = GanSampler::new(generator, self.device);
        let mut histogram = ClassHistogram::new(LeNet5::CLASSES)?;
        let mut right = 0;
        for part in 0..options.samples.div_ceil(500) {
            let n = (options.samples - 500 * part).min(500);
            let samples = sampler.sample(n, part_seed(options.run.seed, part))?;
            let output = classifier.classify(samples.values);
            fake.add(&output.features)?;
            let read = output.predictions();
            let requested = samples.labels.unwrap_or_default();
            let pairs = read.iter().zip(&requested);
            right += pairs.filter(|(a, b)| a == b).count();
            histogram.add(read)?;
            progress.add(n)?;
        }
        drop(progress);
        outln!(
            "{what}: Fréchet distance {:.2} ({} samples, {} test images); classes {:?}, total variation {:.3} from uniform, KL {:.4}",
            frechet_distance(&real, &fake)?,
            fake.count(),
            real.count(),
            histogram.counts(),
            histogram.total_variation(),
            histogram.kl_to_uniform()
        );
        if generator.num_classes().is_some() {
            outln!(
                "{what}: {:.2} % classified as the requested class",
                100.0 * right as f64 / options.samples as f64
            );
        }
        Ok(())
    }
}
