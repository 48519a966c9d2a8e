//! Training of the diffusion model.

use aigc_core::{
    CancelToken,
    output::ImageGrid,
    train::{EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_diffusion::{
    AnyScheduler, BetaSchedule, DiffusionObjective, DiffusionObjectiveConfig, DiffusionSampler,
    DpmMultistepScheduler, ForwardProcess, LossWeighting, NoiseScheduleConfig, Pipeline,
    PredictionType, SigmaScheduleFlags, UNet2dConfig, UNet2dModel,
};
use aigc_examples::{
    Gallery, ImagesConfig, ObserverOptions, Progress, RunOptions, SampleObserver, after_training,
    complete, held_out, lenet5_from, outln, unless_stopped,
};
use clap::Args;
use std::path::PathBuf;

/// Options of `train`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    data: ImagesConfig,
    /// Batch size.
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Learning rate after warm-up.
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
    /// Predict v instead of ε, with zero terminal signal-to-noise ratio.
    #[arg(long)]
    v: bool,
    /// Limit the loss weight at low noise (min-SNR).
    #[arg(long)]
    min_snr: bool,
    /// Use the cosine schedule instead of the linear one.
    #[arg(long)]
    cosine: bool,
    /// Weights of a LeNet-5 that classifies digits (`mnist-models/lenet5_csinva.safetensors`), in
    /// whose features evaluations during training compare samples.
    #[arg(long, alias = "judge", value_name = "FILE")]
    classifier: Option<PathBuf>,
    #[command(flatten)]
    observer: ObserverOptions,
    #[command(flatten)]
    run: RunOptions,
}

/// Name of the runs.
pub(crate) const NAME: &str = "images-diffusion";
/// Sampling steps of previews.
const STEPS: usize = 20;

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let device = options.run.device()?;
    let images = options
        .data
        .given()?
        .open(options.batch, options.run.seed)?;
    let shape = images.shape;
    // The additional class is the null class.
    let classes = images.classes().ok().map(|classes| classes + 1);
    let model = UNet2dConfig::small(shape, classes);
    let beta_schedule = if options.cosine {
        BetaSchedule::Cosine
    } else {
        BetaSchedule::Linear
    };
    let noise = NoiseScheduleConfig {
        beta_schedule,
        ..NoiseScheduleConfig::default()
    };
    let objective = DiffusionObjectiveConfig {
        process: ForwardProcess::Discrete {
            noise: noise.clone(),
            rescale_betas_zero_snr: options.v,
        },
        prediction: if options.v {
            PredictionType::V
        } else {
            PredictionType::Epsilon
        },
        weighting: if options.min_snr {
            LossWeighting::MinSnr { gamma: 5.0 }
        } else {
            LossWeighting::Uniform
        },
        conditioning_dropout: if classes.is_some() { 0.1 } else { 0.0 },
        ..DiffusionObjectiveConfig::default()
    };
    let config = TrainerConfig {
        seed: options.run.seed,
        learning_rate: options.rate,
        lr_schedule: LrSchedule::cosine(500),
        optimizer: OptimizerConfig::adam(0.9, 0.99),
        max_grad_norm: Some(1.0),
        ema: Some(EmaConfig::new(0.9995)),
        eval_steps: 4000,
        preview_steps: 1000,
        save_steps: 500,
        ..TrainerConfig::new(16_000)
    };
    let config = options.run.config(config)?;
    let has_classifier = options.classifier.is_some();
    let config = options.observer.config(config, &[], has_classifier)?;
    let scheduler = DpmMultistepScheduler {
        noise,
        prediction_type: objective.prediction,
        rescale_betas_zero_snr: options.v,
        sigmas: SigmaScheduleFlags {
            use_karras_sigmas: !options.v,
            ..SigmaScheduleFlags::default()
        },
        ..DpmMultistepScheduler::default()
    };
    // The last class is the null class, which a run's configuration does not record.
    let network = UNet2dConfig {
        null_class: classes.map(|classes| classes as u32 - 1),
        ..model.clone()
    };
    let network = network.init(&device)?;
    let learning = DiffusionObjective::new(objective.clone(), &network)?;
    let lenet = lenet5_from(options.classifier.as_deref(), &device)?;
    let (real, seed) = (held_out(&images, &stop)?, options.run.seed);
    let observer = SampleObserver::new(&options.observer, seed, real, lenet.as_ref(), &device)?;
    let run = options.run.run(NAME)?;
    images.print_summary(&run);
    let gallery = Gallery::new(ImageGrid::new(10, shape.width), "diffusion", NAME)
        .with_setting("scheduler", AnyScheduler::from(scheduler.clone()).class())
        .with_setting("num_inference_steps", STEPS);
    let trainer = options.run.trainer(config, stop.clone(), 50);
    let trained = observer
        .watch(trainer)
        .with_model_config(&model)?
        .with_objective_config(&objective)?
        .with_data_config(&options.data)?
        .with_evaluation(|network: &UNet2dModel| {
            unless_stopped(&stop, || {
                observer.metrics(|n, seed| {
                    let progress = Progress::new("samples for the evaluation", n, &stop);
                    let sampler =
                        DiffusionSampler::new(network, &scheduler, STEPS, shape, &device)?
                            .with_callback(|at| progress.on_step(at));
                    sampler.sample(n, seed)
                })
            })
        })
        .with_preview(|network: &UNet2dModel, at| {
            unless_stopped(&stop, || {
                let sampler = DiffusionSampler::new(network, &scheduler, STEPS, shape, &device)?
                    .with_cancel(stop.clone());
                let samples = match classes {
                    Some(_) => sampler.class_grid(10, 0)?,
                    None => sampler.sample(100, 0)?,
                };
                gallery.save_preview(&complete(samples)?, at)
            })
        })
        .fit(learning, network, &images.train, &run)?;
    after_training(trained, &run, &stop, |trained| {
        let mut pipeline = Pipeline::new(trained.model, scheduler.clone(), shape)?;
        if let Some(classes) = classes {
            pipeline =
                pipeline.with_labels((0..classes - 1).map(|class| class.to_string()).collect())?;
        }
        let dir = run.path().join("pipeline");
        pipeline.save_pretrained(&dir)?;
        let minutes = trained.elapsed.as_secs_f64() / 60.0;
        outln!(
            "{} steps, {} of them in this run, in {minutes:.1} minutes; the pipeline is in {}",
            trained.step,
            trained.steps_run,
            dir.display()
        );
        Ok(())
    })
}
