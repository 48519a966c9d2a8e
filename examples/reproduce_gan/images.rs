//! GANs on images, evaluated with features of a LeNet-5.

use crate::{Method, trainer};
use aigc_core::{
    CancelToken, Error, Result,
    burn::tensor::{Device, Tensor},
    checkpoint::RunDir,
    data::{DataLoader, ImageBatch},
    eval::{Features, LeNet5, NearestNeighbors},
    output::ImageGrid,
    sampling::Samples,
    train::{LrSchedule, TrainerConfig},
};
use aigc_examples::{
    DigitClassifier, Gallery, ImagesConfig, ObserverOptions, Progress, RunOptions, SampleObserver,
    after_training, complete, held_out, lenet5_from, outln, unless_stopped,
};
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
    observer: ObserverOptions,
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

/// What `nearest.png` shows.
const NEAREST: &str = "ten samples, and below each the most similar training image";

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let seed = options.run.seed;
    let device = options.run.device()?;
    let images = options.data.given()?.open(BATCH, seed)?;
    let shape = images.shape;
    let classifier = options.classifier.as_ref();
    let classifier = classifier.map(|path| DigitClassifier::from_file(path, shape, &device));
    let classifier = classifier.transpose()?;
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
        eval_steps: 1000,
        preview_steps: 1000,
        ..trainer(seed, 17_000, 2e-4, [0.5, 0.999], LrSchedule::CONSTANT)
    })?;
    let config = options.observer.config(config, &[], classifier.is_some())?;
    let learning = GanObjective::new(objective.clone(), &gan)?;
    let lenet = lenet5_from(options.classifier.as_deref(), &device)?;
    let real = held_out(&images, &stop)?;
    let observer = SampleObserver::new(&options.observer, seed, real, lenet.as_ref(), &device)?;
    let run = options.run.run("images-gan")?;
    images.print_summary(&run);
    let gallery = Gallery::new(ImageGrid::new(10, shape.width), "GAN", "images-gan")
        .with_setting("network", format!("{:?}", options.model))
        .with_setting("method", format!("{:?}", options.method));
    let preview = |gan: &AnyGan, n: usize| -> Result<Samples> {
        let sampler = GanSampler::new(&gan.generator, &device);
        if gan.generator.num_classes().is_some() {
            sampler.class_grid(n / 10, seed)
        } else {
            sampler.sample(n, seed)
        }
    };
    let trainer = options.run.trainer(config, stop.clone(), 100);
    let trained = observer
        .watch(trainer)
        .with_model_config(&model)?
        .with_objective_config(&objective)?
        .with_data_config(&options.data)?
        .with_evaluation(|gan: &AnyGan| {
            unless_stopped(&stop, || {
                observer.metrics(|n, seed| {
                    GanSampler::new(&gan.generator, &device)
                        .with_cancel(stop.clone())
                        .sample(n, seed)
                })
            })
        })
        .with_preview(|gan, at| gallery.save_preview(&preview(gan, 100)?, at))
        .fit(learning, gan, &images.train, &run)?;
    after_training(trained, &run, &stop, |trained| {
        let pictures = Pictures {
            run: &run,
            gallery: gallery.clone().with_weights(&[run.final_dir()])?,
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
            test: classifier.features(&images, &device, &stop)?,
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
    gallery: Gallery,
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
        let (gallery, seed) = (&self.gallery, self.seed);
        let sampler = GanSampler::new(&gan.generator, self.device).with_cancel(self.stop.clone());
        let hundred = complete(sampler.sample(100, seed)?)?;
        gallery.save_samples(&hundred, &self.path("samples.png"))?;
        if gan.generator.num_classes().is_some() {
            let classes = complete(sampler.class_grid(10, seed)?)?;
            gallery.save_samples(&classes, &self.path("classes.png"))?;
        }
        gallery.clone().with_seed(seed ^ 1).save_gif(
            sampler.interpolate(20, 30, seed ^ 1)?,
            Duration::from_millis(80),
            &self.path("walk.gif"),
        )?;
        let samples = complete(sampler.sample(10, seed ^ 2)?)?;
        // Batch by batch: the nearest image of each batch is compared with the nearest so far.
        let progress = Progress::new("nearest images", train.num_items(), self.stop);
        let mut best: Vec<Option<(f64, Tensor<4>)>> = vec![None; 10];
        for batch in train.iter_once() {
            let batch = batch?;
            progress.add(batch.len())?;
            let known = NearestNeighbors::from_batch(&batch, self.device)?;
            for (i, near) in known
                .kneighbors(&samples.values, 1)?
                .into_iter()
                .enumerate()
            {
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
        let both = Tensor::cat([vec![samples.values.clone()], nearest].concat(), 0);
        let gallery = gallery.clone().with_samples(&samples);
        let gallery = gallery.with_setting("content", NEAREST);
        gallery.save(&both, &self.path("nearest.png"))?;
        Ok(())
    }

    fn list(&self) {
        for (file, what) in [
            ("samples.png", "100 generated images"),
            ("nearest.png", NEAREST),
            ("walk.gif", "interpolation in latent space"),
        ] {
            outln!("  {:<60} {what}", self.path(file).display());
        }
    }
}

/// Evaluation with a classifier.
struct Evaluation<'a> {
    options: &'a Options,
    classifier: &'a DigitClassifier,
    /// Features of the test images.
    test: Features,
    device: &'a Device,
    stop: &'a CancelToken,
}

impl Evaluation<'_> {
    /// Prints distances to the test set, quality and diversity beside it, the class histogram, and
    /// the fraction of samples classified as requested.
    fn report(&self, what: &str, generator: &AnyGenerator) -> Result<()> {
        let (n, seed) = (self.options.samples, self.options.run.seed);
        let sampler = GanSampler::new(generator, self.device);
        let draw = |n, seed| sampler.sample(n, seed);
        let found = self
            .classifier
            .evaluate(&self.test, n, seed, self.stop, draw)?;
        outln!(
            "{what}: Fréchet distance {:.2} ({} samples, {} test images); classes {:?}, total \
             variation {:.3} from uniform, KL {:.4}, entropy {:.1} % of the largest",
            found.frechet,
            found.samples,
            found.test_images,
            found.histogram.counts(),
            found.histogram.total_variation(),
            found.histogram.kl_to_uniform(),
            100.0 * found.entropy,
        );
        if let Some(prdc) = found.prdc {
            outln!(
                "{what}: precision {:.3}, recall {:.3}, density {:.3}, coverage {:.3}",
                prdc.precision,
                prdc.recall,
                prdc.density,
                prdc.coverage
            );
        }
        if let Some(kid) = found.kid {
            outln!("{what}: kernel distance of KID {kid:.4}, over subsets of 1,000 samples");
        }
        if let Some(right) = found.right {
            outln!(
                "{what}: {:.2} % classified as the requested class",
                100.0 * right.value()
            );
        }
        Ok(())
    }
}
