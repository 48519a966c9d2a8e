//! GANs on images, evaluated with features of a LeNet-5.

use crate::{Method, part_seed, trainer};
use aigc_core::{
    CancelToken, Error,
    burn::tensor::Device,
    checkpoint::RunDir,
    data::{DataLoader, ImageBatch},
    eval::{
        ClassHistogram, Classifier, FeatureStatistics, LeNet5, NearestNeighbors, frechet_distance,
    },
    output::{ImageGrid, save_gif, save_image},
    train::{LrSchedule, StopReason, TrainerConfig},
};
use aigc_examples::{ImagesConfig, RunOptions, print_resume_hint};
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
    let preview = |gan: &AnyGan, n: usize| -> aigc_core::Result<_> {
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
        .trainer(config, stop, 100)
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
    if trained.stop_reason == StopReason::Interrupted {
        print_resume_hint(trained.step, &run);
        return Ok(());
    }
    let minutes = trained.elapsed.as_secs_f64() / 60.0;
    println!(
        "{} steps, {} of them in this run, in {minutes:.2} minutes",
        trained.step, trained.steps_run
    );
    pictures(&trained.model, &images.train, &run, grid, seed, &device)?;
    if let Some(classifier) = &classifier {
        let generator = &trained.model.generator;
        report(
            "averaged",
            generator,
            options,
            classifier,
            &images.held_out,
            &device,
        )?;
        let standing = standing_statistics(generator, 100, 256, seed, &device)?;
        report(
            "averaged, standing statistics",
            &standing,
            options,
            classifier,
            &images.held_out,
            &device,
        )?;
        // The weights of the last step, without averaging.
        let live = aigc_core::weights::load_weights(
            model.init(&device)?,
            &run.latest_checkpoint()?.path("model.safetensors"),
        )?;
        report(
            "last weights",
            &live.generator,
            options,
            classifier,
            &images.held_out,
            &device,
        )?;
    }
    Ok(())
}

/// Saves samples, an interpolation, and samples with their nearest training images.
fn pictures(
    gan: &AnyGan,
    train: &DataLoader<ImageBatch>,
    run: &RunDir,
    grid: ImageGrid,
    seed: u64,
    device: &Device,
) -> anyhow::Result<()> {
    let sampler = GanSampler::new(&gan.generator, device);
    let at = |name: &str| run.path().join(name);
    let hundred = sampler.sample(100, seed)?.values;
    save_image(&hundred, grid, &at("samples.png"))?;
    if gan.generator.num_classes().is_some() {
        let classes = sampler.class_grid(10, seed)?.values;
        save_image(&classes, grid, &at("classes.png"))?;
    }
    save_gif(
        sampler.interpolate(20, 30, seed ^ 1)?,
        grid,
        Duration::from_millis(80),
        &at("walk.gif"),
    )?;
    let samples = sampler.sample(10, seed ^ 2)?.values;
    // Batch by batch: the nearest image of each batch is compared with the nearest so far.
    let mut best: Vec<Option<(f64, aigc_core::burn::tensor::Tensor<4>)>> = vec![None; 10];
    for batch in train.iter_once() {
        let batch = batch?;
        let known = NearestNeighbors::from_batch(&batch, device)?;
        for (i, near) in known.kneighbors(&samples, 1)?.into_iter().enumerate() {
            let (index, distance) = near[0];
            if best[i]
                .as_ref()
                .is_none_or(|(nearest, _)| distance < *nearest)
            {
                best[i] = Some((distance, batch.to_tensor(device).narrow(0, index, 1)));
            }
        }
    }
    let nearest: Option<Vec<_>> = best
        .into_iter()
        .map(|found| found.map(|(_, image)| image))
        .collect();
    let nearest = nearest.context("training images")?;
    let both = aigc_core::burn::tensor::Tensor::cat([vec![samples], nearest].concat(), 0);
    save_image(&both, grid, &at("nearest.png"))?;
    for (file, what) in [
        ("samples.png", "100 generated images"),
        (
            "nearest.png",
            "ten samples, and below each the most similar training image",
        ),
        ("walk.gif", "interpolation in latent space"),
    ] {
        println!("  {:<60} {what}", at(file).display());
    }
    Ok(())
}

/// Prints the Fréchet distance to the test set, the class histogram, and the fraction of samples
/// classified as requested.
fn report(
    what: &str,
    generator: &AnyGenerator,
    options: &Options,
    classifier: &LeNet5,
    test: &DataLoader<ImageBatch>,
    device: &Device,
) -> anyhow::Result<()> {
    let (mut real, mut fake) = (
        FeatureStatistics::new(LeNet5::FEATURES)?,
        FeatureStatistics::new(LeNet5::FEATURES)?,
    );
    for batch in test.iter_once() {
        real.add(&classifier.classify(batch?.to_tensor(device)).features)?;
    }
    let sampler = GanSampler::new(generator, device);
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
    }
    println!(
        "{what}: Fréchet distance {:.2} ({} samples, {} test images); classes {:?}, total variation {:.3} from uniform, KL {:.4}",
        frechet_distance(&real, &fake)?,
        fake.count(),
        real.count(),
        histogram.counts(),
        histogram.total_variation(),
        histogram.kl_to_uniform()
    );
    if generator.num_classes().is_some() {
        println!(
            "{what}: {:.2} % classified as the requested class",
            100.0 * right as f64 / options.samples as f64
        );
    }
    Ok(())
}
