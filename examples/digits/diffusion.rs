//! The diffusion model of `digits`.

use crate::{
    Args,
    job::{BATCH, Job, Settings, list},
    judge::Judge,
};
use aigc_core::{
    CancelToken,
    burn::tensor::{Device, Tensor},
    checkpoint::RunDir,
    data::{ClassLabels, ImageShape},
    output::{Animation, ImageGrid, save_gif, save_image},
    sampling::Samples,
    train::{EmaConfig, LrSchedule, OptimizerConfig, StopReason, TrainerConfig},
};
use aigc_diffusion::{
    ClassifierFreeGuidance, Denoiser, DiffusionObjective, DiffusionObjectiveConfig,
    DiffusionSampler, DpmMultistepScheduler, ForwardProcess, NoiseScheduleConfig, Pipeline,
    SigmaScheduleFlags, Thresholding, UNet2dConfig, UNet2dModel,
};
use aigc_examples::{Images, say_how_to_go_on};
use anyhow::Result;
use indicatif::ProgressBar;
use std::{
    ops::{ControlFlow, Range},
    time::Duration,
};

/// Steps of sampling.
const STEPS: usize = 20;
/// Scale of guidance, where there are classes.
const GUIDANCE: f64 = 2.0;

pub(crate) fn run(args: &Args, device: &Device, stop: CancelToken) -> Result<()> {
    let job = Job::prepare(args, "digits-diffusion", || defaults(args))?;
    let Settings {
        model,
        trainer,
        objective,
        data,
    } = &job.settings;
    let (images, grid) = (&job.images, job.grid());
    let (seed, shape) = (trainer.seed, images.shape);
    let network = with_null_class(model).init(device)?;
    let learning = DiffusionObjective::new(objective.clone(), &network)?;
    let judge = Judge::new(images, device)?;
    let scheduler = scheduler(objective);
    let run = &job.folder(args)?;
    let cancel = stop.clone();

    let trained = args
        .run
        .trainer(trainer.clone(), stop, 10)
        .with_model_config(model)?
        .with_objective_config(objective)?
        .with_data_config(data)?
        .with_evaluation(|network| {
            let n = judge.num_samples();
            let bar = ProgressBar::new(n as u64).with_message("samples for the evaluation");
            let samples = sampler(network, &scheduler, shape, device)?
                .with_cancel(&cancel)
                .with_callback(|progress| {
                    let Range { start, end } = progress.images;
                    let share = progress.step as f64 / progress.num_steps as f64;
                    bar.set_position(start as u64 + ((end - start) as f64 * share) as u64);
                    ControlFlow::Continue(())
                })
                .sample(n, seed)?;
            bar.finish_and_clear();
            judge.metrics(samples.values, &samples.labels.unwrap_or_default())
        })
        .with_preview(|network, at| {
            let samples = show(network, &sampler(network, &scheduler, shape, device)?, seed)?;
            save_image(&samples.values, grid, &at.run.sample_path(at.step, "png"))
        })
        .fit(learning, network, &images.train, run)?;
    if trained.stop_reason == StopReason::Interrupted {
        say_how_to_go_on(trained.step, run);
        return Ok(());
    }

    pictures(&trained.model, &scheduler, &judge, run, grid, seed, device)?;
    let mut pipeline = Pipeline::new(trained.model, scheduler, shape)?;
    if let Some(classes) = model.num_class_embeds {
        pipeline =
            pipeline.with_labels((0..classes - 1).map(|class| class.to_string()).collect())?;
    }
    pipeline.save_pretrained(run.path().join("pipeline"))?;
    judge.say(&trained.metrics);
    println!();
    let samples = if model.num_class_embeds.is_some() {
        "a row for each class"
    } else {
        "100 generated images"
    };
    let files = [
        ("samples.png", samples),
        ("denoising.gif", "the denoising of ten of them"),
        ("between.gif", "interpolation from noise to noise"),
        (
            "nearest.png",
            "ten samples, each with the most similar training image below",
        ),
        ("loss.svg", "the training loss"),
        ("metrics.jsonl", "the same, as numbers"),
        (
            "pipeline/",
            "the model, for `Pipeline::from_pretrained` and for diffusers in Python",
        ),
    ];
    list(run, &files);
    Ok(())
}

/// The last class is the null class. The configuration of a run leaves that to this program.
fn with_null_class(model: &UNet2dConfig) -> UNet2dConfig {
    UNet2dConfig {
        null_class: model.num_class_embeds.map(|count| count as u32 - 1),
        ..model.clone()
    }
}

/// DPM-Solver++ over Karras et al.'s noise levels. Predictions are thresholded, so that samples of
/// a network that has hardly been trained stay images.
fn scheduler(objective: &DiffusionObjectiveConfig) -> DpmMultistepScheduler {
    let noise = match &objective.process {
        ForwardProcess::Discrete { noise, .. } => noise.clone(),
        _ => NoiseScheduleConfig::default(),
    };
    DpmMultistepScheduler {
        noise,
        prediction_type: objective.prediction,
        threshold: Thresholding {
            thresholding: true,
            ..Thresholding::default()
        },
        sigmas: SigmaScheduleFlags {
            use_karras_sigmas: true,
            ..SigmaScheduleFlags::default()
        },
        ..DpmMultistepScheduler::default()
    }
}

fn sampler<'a>(
    network: &'a UNet2dModel,
    scheduler: &DpmMultistepScheduler,
    shape: ImageShape,
    device: &Device,
) -> aigc_core::Result<DiffusionSampler<'a, UNet2dModel>> {
    let sampler =
        DiffusionSampler::new(network, scheduler, STEPS, shape, device)?.with_batch_size(250);
    Ok(match network.null_class() {
        Some(_) => sampler.with_guidance(ClassifierFreeGuidance::new(GUIDANCE)),
        None => sampler,
    })
}

/// 100 samples, or ten of each class; always of the same noise.
fn show(
    network: &UNet2dModel,
    sampler: &DiffusionSampler<'_, UNet2dModel>,
    seed: u64,
) -> aigc_core::Result<Samples> {
    if network.config().num_class_embeds.is_some() {
        sampler.class_grid(10, seed)
    } else {
        sampler.sample(100, seed)
    }
}

fn pictures(
    network: &UNet2dModel,
    scheduler: &DpmMultistepScheduler,
    judge: &Judge,
    run: &RunDir,
    grid: ImageGrid,
    seed: u64,
    device: &Device,
) -> Result<()> {
    let shape = judge.known.shape();
    let at = |name: &str| run.path().join(name);
    let mut film = Animation::new(grid);
    let mut failed = aigc_core::Result::Ok(());
    let watched = sampler(network, scheduler, shape, device)?.with_callback(|progress| {
        failed = film.push(&progress.noisy_images());
        if failed.is_ok() {
            ControlFlow::Continue(())
        } else {
            ControlFlow::Break(())
        }
    });
    // One of each class.
    let watched = match network.config().num_class_embeds {
        Some(classes) => watched.with_classes(ClassLabels::PerSample(
            (0..10).map(|i| i % (classes as u32 - 1)).collect(),
        )),
        None => watched,
    };
    let ten = watched.sample(10, seed)?;
    drop(watched);
    failed?;
    // The end stays for a while.
    for _ in 0..10 {
        film.push(&ten.values)?;
    }
    film.save(Duration::from_millis(100), &at("denoising.gif"))?;
    let sampler = sampler(network, scheduler, shape, device)?;
    save_image(
        &show(network, &sampler, seed)?.values,
        grid,
        &at("samples.png"),
    )?;
    let (from, to) = (sampler.noise(20, seed ^ 1), sampler.noise(20, seed ^ 2));
    save_gif(
        sampler.interpolate(&from, &to, 20, seed)?,
        grid,
        Duration::from_millis(80),
        &at("between.gif"),
    )?;
    let ten = sampler.sample(10, seed ^ 3)?.values;
    save_image(
        &Tensor::cat(vec![ten.clone(), judge.known.nearest_images(&ten)?], 0),
        grid,
        &at("nearest.png"),
    )?;
    Ok(())
}

fn defaults(args: &Args) -> Result<(Settings<UNet2dConfig, DiffusionObjectiveConfig>, Images)> {
    let data = args.data.clone();
    let images = data.open(BATCH, args.run.seed)?;
    // One more is the null class; images without classes have none.
    let classes = images.classes().ok().map(|classes| classes + 1);
    let model = UNet2dConfig::small(images.shape, classes);
    let trainer = TrainerConfig {
        seed: args.run.seed,
        max_minutes: Some(3.0),
        learning_rate: 1e-3,
        lr_schedule: LrSchedule::cosine(100),
        optimizer: OptimizerConfig::adam(0.9, 0.99),
        max_grad_norm: Some(1.0),
        ema: Some(EmaConfig::new(0.998)),
        eval_steps: 1000,
        preview_steps: 500,
        save_steps: 500,
        ..TrainerConfig::new(2400)
    };
    let conditioning_dropout = if classes.is_some() { 0.1 } else { 0.0 };
    let objective = DiffusionObjectiveConfig {
        conditioning_dropout,
        ..DiffusionObjectiveConfig::default()
    };
    Ok((
        Settings {
            model,
            trainer,
            objective,
            data,
        },
        images,
    ))
}
