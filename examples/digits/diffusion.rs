//! The diffusion model of `digits`.

use crate::{
    Args,
    evaluate::{Evaluator, NEAREST},
    job::{Job, list},
};
use aigc_core::{
    CancelToken,
    burn::tensor::Device,
    checkpoint::RunDir,
    data::{ClassLabels, ImageShape},
    output::Animation,
    rng::InitWeights,
    sampling::Samples,
    train::{EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_diffusion::{
    AnyScheduler, ClassifierFreeGuidance, Denoiser, DiffusionObjective, DiffusionObjectiveConfig,
    DiffusionSampler, DpmMultistepScheduler, ForwardProcess, NoiseScheduleConfig, Pipeline,
    SigmaScheduleFlags, Thresholding, UNet2dConfig, UNet2dModel,
};
use aigc_examples::{
    EvaluationCost, Gallery, Images, Progress, after_training, complete, outln, unless_stopped,
};
use anyhow::Result;
use std::{
    ops::ControlFlow,
    time::{Duration, Instant},
};

/// Number of sampling steps, by default.
const STEPS: u32 = 20;
/// Guidance scale for class-conditional models.
const GUIDANCE: f64 = 2.0;
/// Number of samples, and of their sampling steps, that measure the time of an evaluation.
const TIMED: (usize, usize) = (10, 5);

pub(crate) fn run(args: &Args, device: &Device, stop: CancelToken) -> Result<()> {
    let mut job = Job::prepare(args, "digits-diffusion", defaults)?;
    let (model, objective) = (&job.settings.model, &job.settings.objective);
    let images = &job.images;
    let (seed, shape) = (job.settings.trainer.seed, images.shape);
    let network = with_null_class(model).init(device)?;
    let learning = DiffusionObjective::new(objective.clone(), &network)?;
    let mut evaluator = Evaluator::new(images, args.eval_samples, device)?;
    let scheduler = scheduler(objective);
    let sampling = Sampling {
        scheduler: &scheduler,
        shape,
        device,
        steps: args.sampling_steps.unwrap_or(STEPS) as usize,
        stop: &stop,
    };
    let gallery = sampling.gallery(job.gallery("diffusion"), model.num_class_embeds.is_some());
    if let Some(limit) = job.settings.trainer.max_minutes {
        // Another network: the weights of the trained one are drawn by the trainer.
        let timed = with_null_class(model).init(device)?.init_weights(seed);
        let cost = sampling.evaluation_cost(&timed, &evaluator)?;
        let minutes = if job.new_limit {
            cost.training_minutes(limit, evaluator.num_samples())
        } else {
            limit
        };
        job.settings.trainer.max_minutes = Some(minutes);
        evaluator.limit(cost, minutes);
    }
    let evaluator = &evaluator;
    let run = &job.run_dir(args)?;

    let trained = job
        .trainer(args, &stop)?
        .with_evaluation(|network| {
            unless_stopped(&stop, || {
                let n = evaluator.num_samples();
                let progress = Progress::new("samples for the evaluation", n, &stop);
                let samples = sampling
                    .sampler(network, sampling.steps)?
                    .with_callback(|at| progress.on_step(at))
                    .sample(n, seed)?;
                drop(progress);
                let samples = complete(samples)?;
                let requested = samples.labels.unwrap_or_default();
                evaluator.metrics(samples.values, &requested, &stop)
            })
        })
        .with_preview(|network, at| {
            unless_stopped(&stop, || {
                let samples = show(network, &sampling.sampler(network, sampling.steps)?, seed)?;
                gallery.save_preview(&samples, at)
            })
        })
        .fit(learning, network, &images.train, run)?;

    after_training(trained, run, &stop, |trained| {
        let gallery = gallery.clone().with_weights(&[run.final_dir()])?;
        pictures(&trained.model, &sampling, evaluator, run, &gallery, seed)?;
        let mut pipeline = Pipeline::new(trained.model, scheduler.clone(), shape)?;
        if let Some(classes) = model.num_class_embeds {
            pipeline =
                pipeline.with_labels((0..classes - 1).map(|class| class.to_string()).collect())?;
        }
        pipeline.save_pretrained(run.path().join("pipeline"))?;
        evaluator.print(&trained.metrics);
        outln!();
        let samples = if model.num_class_embeds.is_some() {
            "one row per class"
        } else {
            "100 generated images"
        };
        let files = [
            ("samples.png", samples),
            ("denoising.gif", "denoising of ten samples"),
            ("between.gif", "interpolation from noise to noise"),
            NEAREST,
            ("loss.svg", "the training loss"),
            ("metrics.jsonl", "the logged metrics"),
            (
                "pipeline/",
                "the model, for `Pipeline::from_pretrained` and for diffusers in Python",
            ),
        ];
        list(run, &files);
        Ok(())
    })
}

/// Sets the last class as the null class, which a run's configuration does not record.
fn with_null_class(model: &UNet2dConfig) -> UNet2dConfig {
    UNet2dConfig {
        null_class: model.num_class_embeds.map(|count| count as u32 - 1),
        ..model.clone()
    }
}

/// DPM-Solver++ with the noise levels of Karras et al. Predictions are thresholded, so that samples
/// of a barely trained network are still images.
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

/// What all samplers have in common.
struct Sampling<'a> {
    scheduler: &'a DpmMultistepScheduler,
    shape: ImageShape,
    device: &'a Device,
    steps: usize,
    stop: &'a CancelToken,
}

impl Sampling<'_> {
    /// Pictures that record the settings of the samplers.
    fn gallery(&self, gallery: Gallery, guided: bool) -> Gallery {
        let scheduler = AnyScheduler::from(self.scheduler.clone());
        let gallery = gallery
            .with_setting("scheduler", scheduler.class())
            .with_setting("num_inference_steps", self.steps);
        match guided {
            true => gallery.with_setting("guidance_scale", GUIDANCE),
            false => gallery,
        }
    }

    fn sampler<'n>(
        &self,
        network: &'n UNet2dModel,
        steps: usize,
    ) -> aigc_core::Result<DiffusionSampler<'n, UNet2dModel>> {
        let sampler =
            DiffusionSampler::new(network, self.scheduler, steps, self.shape, self.device)?
                .with_batch_size(250)
                .with_cancel(self.stop.clone());
        Ok(match network.null_class() {
            Some(_) => sampler.with_guidance(ClassifierFreeGuidance::new(GUIDANCE)),
            None => sampler,
        })
    }

    /// Measures the time of an evaluation with a few samples of `network`.
    fn evaluation_cost(
        &self,
        network: &UNet2dModel,
        evaluator: &Evaluator,
    ) -> aigc_core::Result<EvaluationCost> {
        let (n, steps) = TIMED;
        let sampler = self.sampler(network, steps)?;
        let timed = || {
            let began = Instant::now();
            let samples = sampler.sample(n, 0)?;
            // A GPU has finished once a value was read.
            samples.values.clone().sum().into_scalar::<f32>();
            aigc_core::Result::Ok((samples, began.elapsed().as_secs_f64()))
        };
        // The first call compiles kernels on a GPU.
        timed()?;
        let (samples, seconds) = timed()?;
        let drawn = samples.values.dims()[0];
        if drawn == 0 {
            // Stopped: training reports the signal.
            return Ok(EvaluationCost {
                sample: 0.0,
                metrics: 0.0,
            });
        }
        // As many images as will be evaluated, so that the metrics take as long.
        let all = evaluator.num_samples();
        let times = all.div_ceil(drawn);
        let images = samples.values.repeat_dim(0, times).narrow(0, 0, all);
        let mut requested = samples.labels.unwrap_or_default().repeat(times);
        requested.truncate(all);
        let began = Instant::now();
        // Without the token: training reports the signal.
        evaluator.metrics(images, &requested, &CancelToken::new())?;
        Ok(EvaluationCost {
            sample: seconds / n as f64 * self.steps as f64 / steps as f64,
            metrics: began.elapsed().as_secs_f64(),
        })
    }
}

/// 100 samples, or ten of each class, always from the same noise.
fn show(
    network: &UNet2dModel,
    sampler: &DiffusionSampler<'_, UNet2dModel>,
    seed: u64,
) -> aigc_core::Result<Samples> {
    let samples = if network.config().num_class_embeds.is_some() {
        sampler.class_grid(10, seed)?
    } else {
        sampler.sample(100, seed)?
    };
    complete(samples)
}

fn pictures(
    network: &UNet2dModel,
    sampling: &Sampling<'_>,
    evaluator: &Evaluator,
    run: &RunDir,
    gallery: &Gallery,
    seed: u64,
) -> Result<()> {
    let at = |name: &str| run.path().join(name);
    let mut animation = Animation::new(gallery.grid());
    let mut failed = aigc_core::Result::Ok(());
    let recorded = sampling
        .sampler(network, sampling.steps)?
        .with_callback(|progress| {
            failed = animation.push(&progress.noisy_images());
            if failed.is_ok() {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
    // One sample of each class.
    let recorded = match network.config().num_class_embeds {
        Some(classes) => recorded.with_classes(ClassLabels::PerSample(
            (0..10).map(|i| i % (classes as u32 - 1)).collect(),
        )),
        None => recorded,
    };
    let ten = recorded.sample(10, seed)?;
    drop(recorded);
    failed?;
    let ten = complete(ten)?;
    // The last frame is shown longer.
    for _ in 0..10 {
        animation.push(&ten.values)?;
    }
    gallery.clone().with_samples(&ten).save_animation(
        &animation,
        Duration::from_millis(100),
        &at("denoising.gif"),
    )?;
    let sampler = sampling.sampler(network, sampling.steps)?;
    let samples = show(network, &sampler, seed)?;
    gallery.save_samples(&samples, &at("samples.png"))?;
    let (from, to) = (sampler.noise(20, seed ^ 1), sampler.noise(20, seed ^ 2));
    let between = gallery.clone().with_seed(seed ^ 1);
    between.with_setting("seed_of_end", seed ^ 2).save_gif(
        sampler.interpolate(&from, &to, 20, seed)?,
        Duration::from_millis(80),
        &at("between.gif"),
    )?;
    let ten = complete(sampler.sample(10, seed ^ 3)?)?;
    evaluator.save_nearest(&ten, gallery, run)?;
    Ok(())
}

fn defaults(
    images: &Images,
    seed: u64,
) -> Result<(UNet2dConfig, TrainerConfig, DiffusionObjectiveConfig)> {
    // The additional class is the null class; images without classes have none.
    let classes = images.classes().ok().map(|classes| classes + 1);
    let model = UNet2dConfig::small(images.shape, classes);
    let trainer = TrainerConfig {
        seed,
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
    Ok((model, trainer, objective))
}
