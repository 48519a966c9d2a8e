//! The generative adversarial networks of `digits`.

use crate::{
    Args,
    evaluate::{Evaluator, NEAREST},
    job::{Job, list_with_training},
};
use aigc_core::{
    CancelToken,
    burn::tensor::Device,
    sampling::Samples,
    train::{EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_examples::{Images, Progress, after_training, complete, outln, unless_stopped};
use aigc_gan::{
    AnyGan, Augment, ClassConditioning, DcganConfig, DiffAugment, GanConfig, GanObjective,
    GanObjectiveConfig, GanSampler, Generator, MlpGanConfig,
};
use anyhow::Result;
use std::time::Duration;

pub(crate) fn run(
    args: &Args,
    device: &Device,
    stop: CancelToken,
    conditional: bool,
) -> Result<()> {
    let name = if conditional {
        "digits-cgan"
    } else {
        "digits-gan"
    };
    let job = Job::prepare(args, name, |images, seed| {
        defaults(images, seed, conditional)
    })?;
    let settings = &job.settings;
    let images = &job.images;
    let gallery = job.gallery(if conditional {
        "conditional GAN"
    } else {
        "GAN"
    });
    let seed = settings.trainer.seed;
    let gan = settings.model.init(device)?;
    let objective = GanObjective::new(settings.objective.clone(), &gan)?;
    let evaluator = Evaluator::new(images, args.eval_samples, device)?;
    let run = &job.run_dir(args)?;

    let trained = job
        .trainer(args, &stop)?
        .with_evaluation(|gan: &AnyGan| {
            unless_stopped(&stop, || {
                let n = evaluator.num_samples();
                let progress = Progress::new("samples for the evaluation", n, &stop);
                let samples = GanSampler::new(&gan.generator, device)
                    .with_callback(|at| progress.on_batch(at))
                    .sample(n, seed)?;
                drop(progress);
                let samples = complete(samples)?;
                let requested = samples.labels.unwrap_or_default();
                evaluator.metrics(samples.values, &requested, &stop)
            })
        })
        .with_preview(|gan, at| {
            let sampler = GanSampler::new(&gan.generator, device);
            gallery.save_preview(&show(&sampler, gan, seed)?, at)
        })
        .fit(objective, gan, &images.train, run)?;
    after_training(trained, run, &stop, |trained| {
        let sampler = GanSampler::new(&trained.model.generator, device).with_cancel(stop.clone());
        let at = |name: &str| run.path().join(name);
        let gallery = gallery.clone().with_weights(&[run.final_dir()])?;
        let samples = show(&sampler, &trained.model, seed)?;
        gallery.save_samples(&samples, &at("samples.png"))?;
        gallery.clone().with_seed(seed ^ 1).save_gif(
            sampler.interpolate(20, 30, seed ^ 1)?,
            Duration::from_millis(80),
            &at("walk.gif"),
        )?;
        let samples = complete(sampler.sample(10, seed ^ 2)?)?;
        evaluator.save_nearest(&samples, &gallery, run)?;
        evaluator.print(&trained.metrics);
        outln!();
        let samples = if conditional {
            "one row per class"
        } else {
            "100 generated images"
        };
        list_with_training(
            run,
            &[
                ("samples.png", samples),
                NEAREST,
                ("walk.gif", "interpolation between noise vectors"),
            ],
        );
        Ok(())
    })
}

/// 100 samples, or ten of each class, always from the same noise.
fn show<G: Generator>(
    sampler: &GanSampler<'_, G>,
    gan: &AnyGan,
    seed: u64,
) -> aigc_core::Result<Samples> {
    let samples = if gan.generator.num_classes().is_some() {
        sampler.class_grid(10, seed)?
    } else {
        sampler.sample(100, seed)?
    };
    complete(samples)
}

fn defaults(
    images: &Images,
    seed: u64,
    conditional: bool,
) -> Result<(GanConfig, TrainerConfig, GanObjectiveConfig)> {
    let shape = images.shape;
    let classes = if conditional {
        Some(ClassConditioning::new(images.classes()?))
    } else {
        None
    };
    let convolutional = shape.height == shape.width && shape.height.is_multiple_of(4);
    let model = if convolutional {
        GanConfig::Dcgan(DcganConfig {
            classes,
            ..DcganConfig::new(shape)
        })
    } else {
        GanConfig::Mlp(MlpGanConfig {
            classes,
            ..MlpGanConfig::new(shape)
        })
    };
    // 1,500 images are few: random translation delays overfitting.
    let augment = Augment::DiffAugment(DiffAugment {
        color: false,
        translation: 0.125,
        cutout: 0.0,
    });
    let trainer = TrainerConfig {
        seed,
        max_minutes: Some(2.0),
        learning_rate: 5e-4,
        lr_schedule: LrSchedule::linear(0),
        optimizer: OptimizerConfig::adam(0.5, 0.99),
        ema: Some(EmaConfig::new(0.998)),
        eval_steps: 500,
        preview_steps: 500,
        save_steps: 500,
        ..TrainerConfig::new(4000)
    };
    let objective = GanObjectiveConfig {
        augment,
        ..GanObjectiveConfig::default()
    };
    Ok((model, trainer, objective))
}
