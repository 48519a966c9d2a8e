//! An image model of single frames of moving digits: what motion modules are added to, and the
//! floor of video networks.

use aigc_core::{
    CancelToken, Error,
    output::ImageGrid,
    train::{EmaConfig, LrSchedule, OptimizerConfig, StartFrom, TrainerConfig},
};
use aigc_diffusion::{
    ClassifierFreeGuidance, DiffusionObjective, DiffusionObjectiveConfig, DiffusionSampler,
    Pipeline, PredictionType, UNet2dConfig, UNet2dModel,
};
use aigc_examples::{
    Gallery, ImagesConfig, RunOptions, after_training, complete, outln, unless_stopped,
};
use aigc_examples_video::{Clips, ClipsConfig, Place, default_scheduler};
use anyhow::Result;
use clap::Args;

/// Name of the runs.
const NAME: &str = "video-frames";
/// Sampling steps of pictures, and their guidance scale.
const SAMPLING: (usize, f64) = (20, 2.0);

/// Options of `image`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    data: ImagesConfig,
    /// Side of a frame in pixels.
    #[arg(long, value_name = "PIXELS", default_value_t = 32)]
    size: usize,
    /// Side that the moving images are resized to, in pixels.
    #[arg(long, value_name = "PIXELS")]
    digit_size: Option<usize>,
    /// Batch size.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    #[command(flatten)]
    run: RunOptions,
}

pub(crate) fn run(options: &Options, stop: CancelToken) -> Result<()> {
    let device = options.run.device()?;
    let seed = options.run.seed;
    if options.batch == 0 {
        return Err(Error::argument("--batch", 0, "at least 1").into());
    }
    let place = Place {
        canvas: Some(options.size),
        digit_size: options.digit_size,
        ..Place::default()
    };
    let data = ClipsConfig::new(options.data.given()?, place, options.batch, seed)?;
    let clips = Clips::open(&data, &device)?;
    let Some(classes) = clips.classes else {
        let expected = "images with classes";
        return Err(Error::argument("--data", "images without classes", expected).into());
    };
    let (frame, loader) = (clips.frame, clips.frame_loader()?);
    let model = UNet2dConfig::small(frame, Some(classes)).with_null_class();
    let objective = DiffusionObjectiveConfig {
        prediction: PredictionType::V,
        conditioning_dropout: 0.1,
        ..DiffusionObjectiveConfig::default()
    };
    let config = options.run.config(TrainerConfig {
        seed,
        learning_rate: 1e-3,
        lr_schedule: LrSchedule::cosine(100),
        optimizer: OptimizerConfig::adam(0.9, 0.99),
        max_grad_norm: Some(1.0),
        ema: Some(EmaConfig::new(0.998)),
        preview_steps: 500,
        save_steps: 500,
        ..TrainerConfig::new(2400)
    })?;
    let network = model.init(&device)?;
    let learning = DiffusionObjective::new(objective.clone(), &network)?;
    let scheduler = default_scheduler(&objective);
    let (steps, scale) = SAMPLING;
    let draw = |network: &UNet2dModel| {
        let sampler = DiffusionSampler::new(network, &scheduler, steps, frame, &device)?
            .with_guidance(ClassifierFreeGuidance::new(scale))
            .with_cancel(stop.clone());
        complete(sampler.class_grid(10, seed)?)
    };
    let gallery = Gallery::new(ImageGrid::new(10, frame.width), "diffusion", NAME)
        .with_setting("num_inference_steps", steps)
        .with_setting("guidance_scale", scale);
    let run = options.run.run(NAME)?;
    let start = match options.run.start() {
        StartFrom::Fresh => "trained",
        _ => "resumed",
    };
    outln!(
        "{start} on frames of {frame} of {} images; run directory: {}",
        clips.num_images(),
        run.path().display()
    );
    let trained = options
        .run
        .trainer(config, stop.clone(), 10)
        .with_model_config(&model)?
        .with_objective_config(&objective)?
        .with_data_config(&data)?
        .with_preview(|network: &UNet2dModel, at| {
            unless_stopped(&stop, || gallery.save_preview(&draw(network)?, at))
        })
        .fit(learning, network, &loader, &run)?;
    after_training(trained, &run, &stop, |trained| {
        let minutes = trained.elapsed.as_secs_f64() / 60.0;
        let samples = draw(&trained.model)?;
        let labels = (0..classes).map(|class| class.to_string()).collect();
        let pipeline =
            Pipeline::new(trained.model, scheduler.clone(), frame)?.with_labels(labels)?;
        let dir = run.path().join("pipeline");
        pipeline.save_pretrained(&dir)?;
        let gallery = gallery.clone().with_weights(std::slice::from_ref(&dir))?;
        gallery.save_samples(&samples, &run.path().join("samples.png"))?;
        outln!(
            "{} steps, {} of them in this run, in {minutes:.1} minutes; the pipeline is in {}",
            trained.step,
            trained.steps_run,
            dir.display()
        );
        Ok(())
    })
}
