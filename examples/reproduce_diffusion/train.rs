//! Training.

use aigc_core::{
    Error,
    checkpoint::RunFolder,
    device::device,
    output::{Grid, save_png},
    train::{
        EmaConfig, LossPlot, MetricsLog, OptimizerConfig, ProgressBar, Schedule, Start, StopFlag, StopReason, Trainer,
        TrainerConfig,
    },
};
use aigc_diffusion::{
    BetaSchedule, DiffusionObjective, DiffusionObjectiveConfig, DpmMultistepScheduler, NoiseConfig, Pipeline,
    Prediction, Process, Sampler, SigmaFlags, UNet2dConfig, UNet2dModel, Weighting,
};
use aigc_examples::{ImagesConfig, say_how_to_go_on};
use clap::Args;
use std::path::PathBuf;

/// Options of `train`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// A folder with the four MNIST-format files, or with images.
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Side that a folder's images are brought to.
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,
    /// Keep the colours of a folder's images.
    #[arg(long)]
    rgb: bool,
    /// Updates to make.
    #[arg(long, default_value_t = 15_000)]
    steps: usize,
    /// Images of a step.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Minutes after which to stop even so.
    #[arg(long)]
    minutes: Option<f64>,
    /// Learning rate after warm-up.
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
    /// Predict v and end in pure noise, instead of ε.
    #[arg(long)]
    v: bool,
    /// Limit the weight of errors at little noise.
    #[arg(long)]
    min_snr: bool,
    /// The cosine schedule instead of the linear one.
    #[arg(long)]
    cosine: bool,
    /// Seed of weights, order and noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    device: String,
    /// Where to leave everything; `runs/images-diffusion-1` or the next number by default.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on with the run in --out, or with the newest one; the other options must be the same.
    #[arg(long)]
    resume: bool,
}

/// Where runs are left.
pub(crate) const RUNS: &str = "runs/images-diffusion";

pub(crate) fn run(options: &Options, stop: StopFlag) -> anyhow::Result<()> {
    let device = device(&options.device)?;
    let data = ImagesConfig { path: Some(options.data.clone()), side: options.side, rgb: options.rgb };
    let images = data.open(options.batch, options.seed)?;
    let shape = images.shape;
    if shape.height != shape.width {
        return Err(Error::config("data", shape, "square images, as diffusers has them; --side makes them so").into());
    }
    // One more class, which stands for none.
    let classes = images.classes().ok().map(|classes| classes + 1);
    let model = UNet2dConfig::small(shape, classes);
    let beta_schedule = if options.cosine { BetaSchedule::Cosine } else { BetaSchedule::Linear };
    let noise = NoiseConfig { beta_schedule, ..NoiseConfig::default() };
    let objective = DiffusionObjectiveConfig {
        process: Process::Steps { noise: noise.clone(), rescale_betas_zero_snr: options.v },
        prediction: if options.v { Prediction::V } else { Prediction::Epsilon },
        weighting: if options.min_snr { Weighting::MinSnr { gamma: 5.0 } } else { Weighting::Uniform },
        class_dropout: if classes.is_some() { 0.1 } else { 0.0 },
        ..DiffusionObjectiveConfig::default()
    };
    let config = TrainerConfig {
        seed: options.seed,
        minutes: options.minutes,
        learning_rate: options.rate,
        schedule: Schedule::cosine(500),
        optimizer: OptimizerConfig::adam(0.9, 0.99),
        clip_norm: Some(1.0),
        ema: Some(EmaConfig::new(0.9995)),
        preview_every: 1000,
        checkpoint_every: 500,
        ..TrainerConfig::new(options.steps)
    };
    config.validate()?;
    let scheduler = DpmMultistepScheduler {
        noise,
        prediction_type: objective.prediction,
        rescale_betas_zero_snr: options.v,
        sigmas: SigmaFlags { use_karras_sigmas: !options.v, ..SigmaFlags::default() },
        ..DpmMultistepScheduler::default()
    };
    let network = model.init(&device)?;
    let learning = DiffusionObjective::new(objective.clone(), &network)?;
    let run = match (&options.out, options.resume) {
        (Some(out), false) => RunFolder::create(out)?,
        (Some(out), true) => RunFolder::open(out)?,
        (None, false) => RunFolder::create_next(RUNS)?,
        (None, true) => RunFolder::open_newest(RUNS)?,
    };
    let trained = Trainer::new(config)
        .start(if options.resume { Start::Resume } else { Start::Fresh })
        .stop_flag(stop)
        .model_config(&model)?
        .objective_config(&objective)?
        .data_config(&data)?
        .observe(ProgressBar::new())
        .observe(MetricsLog::every(50))
        .observe(LossPlot::new())
        .preview(|network: &UNet2dModel, at| {
            let sampler = Sampler::new(network, &scheduler, 20, shape, &device)?;
            let samples = match classes {
                Some(classes) => sampler.knowing(classes - 1)?.class_grid(10, 0)?,
                None => sampler.sample(100, 0)?,
            };
            save_png(&samples.images, Grid::new(10, shape.width), &at.run.sample_path(at.step, "png"))
        })
        .fit(learning, network, &images.train, &run)?;
    if trained.reason == StopReason::Interrupted {
        say_how_to_go_on(trained.step, &run);
        return Ok(());
    }
    let mut pipeline = Pipeline::new(trained.model, scheduler, shape)?;
    if let Some(classes) = classes {
        pipeline = pipeline.with_labels((0..classes - 1).map(|class| class.to_string()).collect())?;
    }
    let folder = run.path().join("pipeline");
    pipeline.save(&folder)?;
    println!("{} steps; the pipeline is in {}", trained.step, folder.display());
    Ok(())
}
