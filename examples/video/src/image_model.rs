//! Trained image models that are set in motion.

use crate::{Clips, hash_weights};
use aigc_core::{
    Error, Result,
    burn::tensor::Device,
    checkpoint::RunDir,
    data::{ImageShape, moving_digits::MovingDigitsConfig},
};
use aigc_diffusion::{
    AnyDenoiser, AnyScheduler, Denoiser, DpmMultistepScheduler, ForwardProcess, Pipeline,
    UNet2dModel,
};
use aigc_examples::ImagesConfig;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Which image model a run began with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageModelRecord {
    /// Its directory.
    pub path: PathBuf,
    /// Hash of its weights.
    pub hash: String,
}

/// A U-net of images with the scheduler that samples from it.
#[derive(Debug)]
pub struct ImageModel {
    /// The network.
    pub network: UNet2dModel,
    /// The scheduler.
    pub scheduler: DpmMultistepScheduler,
    /// Shape of the images.
    pub shape: ImageShape,
    /// Where it was opened.
    pub record: ImageModelRecord,
    /// The images that it learned, if it is a run.
    pub images: Option<ImagesConfig>,
    /// How the images moved whose frames it learned, if it did.
    pub moving: Option<MovingDigitsConfig>,
}

/// What is read of the `config.json` of a run.
#[derive(Deserialize)]
struct Saved {
    data: SavedData,
}

#[derive(Deserialize)]
struct SavedData {
    #[serde(flatten)]
    images: ImagesConfig,
    #[serde(default)]
    moving: Option<MovingDigitsConfig>,
}

/// What the image model of a run learned; nothing of a directory without settings of a run.
/// Settings that cannot be read are reported.
fn learned(dir: &Path) -> Option<SavedData> {
    let run = RunDir::open(dir).ok()?;
    if !run.config_path().is_file() {
        return None;
    }
    match run.config::<Saved>() {
        Ok(saved) => Some(saved.data),
        Err(error) => {
            eprintln!("--image-model: which images it learned is not known: {error}");
            None
        }
    }
}

impl ImageModel {
    /// Opens the directory of a run with a pipeline in it, or of a pipeline.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a network that is no `UNet2DModel` of square images, or a
    /// scheduler that is no `DPMSolverMultistepScheduler`; errors of the files.
    pub fn open(dir: &Path, device: &Device) -> Result<Self> {
        let inner = dir.join("pipeline");
        let (pipeline, is_run) = match inner.is_dir() {
            true => (inner, true),
            false => (dir.to_path_buf(), false),
        };
        let opened = Pipeline::from_pretrained(&pipeline, device)?;
        for warning in opened.warnings() {
            eprintln!("--image-model: {warning}");
        }
        let opened = opened.into_inner();
        let shape = opened.shape;
        if shape.height != shape.width {
            let expected = "a model of square images";
            return Err(Error::argument("--image-model", shape, expected));
        }
        let class = opened.network.class();
        let AnyDenoiser::UNet2d(network) = opened.network else {
            return Err(Error::argument("--image-model", class, "a UNet2DModel"));
        };
        let scheduler = match opened.scheduler {
            AnyScheduler::DpmMultistep(scheduler) => scheduler,
            other => {
                let expected = "a DPMSolverMultistepScheduler, as `digits` writes it";
                return Err(Error::argument("--image-model", other.class(), expected));
            }
        };
        let data = if is_run { learned(dir) } else { None };
        let (images, moving) = data.map(|data| (data.images, data.moving)).unzip();
        let path = dir.canonicalize().map_err(Error::io(dir))?;
        Ok(Self {
            network,
            scheduler,
            shape,
            record: ImageModelRecord {
                path,
                hash: hash_weights(&pipeline)?,
            },
            images,
            moving: moving.flatten(),
        })
    }

    /// Number of classes, without the null class.
    pub fn classes(&self) -> Option<usize> {
        let null = usize::from(self.network.null_class().is_some());
        self.network.num_classes().map(|count| count - null)
    }

    /// Fails unless the model makes frames like those of clips, of each of their classes. `option`
    /// is the name of the option that the model was given with.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] with the shape, or the number of classes.
    pub fn check_frames(&self, clips: &Clips, option: &str) -> Result<()> {
        if self.shape != clips.frame {
            let frame = clips.frame;
            let expected = format!("a model of images of {frame}, the frames of the data");
            return Err(Error::argument(option, self.shape, expected));
        }
        match (self.classes(), clips.classes) {
            (Some(known), Some(classes)) if classes > known => {
                let expected = format!("a model of {classes} classes, those of the data");
                Err(Error::argument(option, known, expected))
            }
            (Some(_), None) => {
                let expected = "images with classes, which the image model has";
                Err(Error::argument(
                    "--data",
                    "images without classes",
                    expected,
                ))
            }
            _ => Ok(()),
        }
    }

    /// The process that the network was trained with, as its scheduler describes it.
    pub fn process(&self) -> ForwardProcess {
        ForwardProcess::Discrete {
            noise: self.scheduler.noise.clone(),
            rescale_betas_zero_snr: self.scheduler.rescale_betas_zero_snr,
        }
    }
}
