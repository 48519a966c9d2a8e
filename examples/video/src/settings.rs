//! Settings of a run: those of the command line, or of the run to resume.

use crate::{
    Clips, ClipsConfig, ImageModel, Place, TrainingOptions, VideoModelConfig, clips::READ,
};
use aigc_core::{
    Error,
    burn::tensor::Device,
    train::{EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_diffusion::{
    DiffusionObjectiveConfig, DpmMultistepScheduler, ForwardProcess, NoiseScheduleConfig,
    PredictionType, SigmaScheduleFlags, Thresholding,
};
use aigc_examples::ImagesConfig;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Clips in a batch by default.
const BATCH: usize = 8;

/// Settings in the `config.json` of a run, which a resumed run uses.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The network.
    pub model: VideoModelConfig,
    /// The training.
    pub trainer: TrainerConfig,
    /// The loss.
    pub objective: DiffusionObjectiveConfig,
    /// The clips.
    pub data: ClipsConfig,
}

/// What a run begins with.
pub(crate) struct Begun {
    pub(crate) settings: Settings,
    pub(crate) image_model: Option<ImageModel>,
    pub(crate) clips: Clips,
}

/// DPM-Solver++ with the noise levels of Karras et al. for an objective with a discrete process.
/// Predictions are thresholded, so that samples of a barely trained network are still images.
pub fn default_scheduler(objective: &DiffusionObjectiveConfig) -> DpmMultistepScheduler {
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

/// Settings of a new run.
pub(crate) fn new(options: &TrainingOptions, device: &Device) -> Result<Begun> {
    let image = options
        .image_model
        .as_deref()
        .map(|dir| ImageModel::open(dir, device))
        .transpose()?;
    let data = data(options, image.as_ref())?;
    let seed = options.run.seed;
    let clips = Clips::open(&data, device)?;
    let frames = data.moving.num_frames;
    let (model, process, prediction) = match &image {
        Some(image) => (
            VideoModelConfig::for_image_model(image, frames),
            image.process(),
            image.scheduler.prediction_type,
        ),
        // The clip is predicted at high noise, too, where predictions of ε have large errors.
        None => (
            VideoModelConfig::small(clips.frame, frames, clips.classes, device)?,
            ForwardProcess::default(),
            PredictionType::V,
        ),
    };
    if let Some(image) = &image {
        image.check_frames(&clips, "--image-model")?;
    }
    let dropped = model.unet.null_class.is_some();
    let (steps, minutes) = match (&image, &data.images.path) {
        (_, None) => (1200, Some(12.0)),
        (Some(_), Some(_)) => (1000, None),
        (None, Some(_)) => (1500, None),
    };
    let trainer = TrainerConfig {
        seed,
        max_minutes: minutes,
        learning_rate: 1e-3,
        lr_schedule: LrSchedule::cosine(100),
        optimizer: OptimizerConfig::adam(0.9, 0.99),
        max_grad_norm: Some(1.0),
        ema: Some(EmaConfig::new(0.998)),
        preview_steps: 250,
        save_steps: 250,
        ..TrainerConfig::new(steps)
    };
    let objective = DiffusionObjectiveConfig {
        process,
        prediction,
        conditioning_dropout: if dropped { 0.1 } else { 0.0 },
        ..DiffusionObjectiveConfig::default()
    };
    let settings = Settings {
        model,
        trainer,
        objective,
        data,
    };
    Ok(Begun {
        settings,
        image_model: image,
        clips,
    })
}

/// The clips of a new run: of the images that the image model learned, unless others are given.
fn data(options: &TrainingOptions, image: Option<&ImageModel>) -> Result<ClipsConfig> {
    let given = options.data.path.is_some();
    let learned = image.and_then(|image| image.images.clone());
    let images = match learned {
        Some(learned) if !given => learned,
        _ => options.data.clone(),
    };
    let images = ImagesConfig {
        rgb: images.rgb || image.is_some_and(|image| image.shape.channels == 3),
        ..images
    };
    let side = options.side()?;
    let moving = image.and_then(|image| image.moving);
    if let (Some(image), Some(side)) = (image, side)
        && side != image.shape.width
    {
        let expected = format!(
            "{}, the side of the image model's images",
            image.shape.width
        );
        return Err(Error::argument("--size", side, expected).into());
    }
    let place = Place {
        frames: options.frames,
        canvas: image.map(|image| image.shape.width).or(side),
        digit_size: options
            .digit_size
            .or(moving.and_then(|moving| moving.digit_size)),
        fills: image.is_some() && moving.is_none(),
    };
    let batch = options.batch.unwrap_or(BATCH);
    if batch == 0 {
        return Err(Error::argument("--batch", 0, "at least 1").into());
    }
    Ok(ClipsConfig::new(&images, place, batch, options.run.seed)?)
}

/// Settings of a run to resume.
pub(crate) fn resumed(
    options: &TrainingOptions,
    saved: Settings,
    device: &Device,
) -> Result<Begun> {
    options.run.check_seed(saved.trainer.seed)?;
    let moving = saved.data.moving;
    let given = [
        ("--frames", options.frames, Some(moving.num_frames)),
        ("--size", options.side()?, Some(moving.canvas)),
        ("--digit-size", options.digit_size, moving.digit_size),
        ("--batch", options.batch, Some(saved.data.batch_size)),
    ];
    for (option, given, saved) in given {
        if let (Some(given), Some(saved)) = (given, saved)
            && given != saved
        {
            let expected = format!("{saved}, with which the run began");
            return Err(Error::argument(option, given, expected).into());
        }
    }
    let image = match (&saved.model.image_model, &options.image_model) {
        (None, None) => None,
        (None, Some(given)) => {
            let expected = "none, with which the run began";
            return Err(Error::argument("--image-model", given.display(), expected).into());
        }
        (Some(record), given) => {
            let dir = given.as_deref().unwrap_or(&record.path);
            let mut image = ImageModel::open(dir, device)?;
            if image.record.hash != record.hash {
                let expected = "the weights with which the run began";
                return Err(Error::argument("--image-model", dir.display(), expected).into());
            }
            // The run keeps the path that it began with.
            image.record = record.clone();
            Some(image)
        }
    };
    let images = options.data.resumed(&saved.data.images)?;
    // A directory elsewhere must have the same images.
    let opened = images.open(READ, saved.trainer.seed)?;
    let data = ClipsConfig {
        images: images.recorded(&opened),
        ..saved.data.clone()
    };
    drop(opened);
    Ok(Begun {
        clips: Clips::open(&data, device)?,
        settings: Settings { data, ..saved },
        image_model: image,
    })
}
