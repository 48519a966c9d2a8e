//! The video network: a U-net of images with motion modules, and its directory.

use crate::{ImageModel, ImageModelRecord, Sampling};
use aigc_core::{
    Error, Result,
    burn::tensor::{Device, Tensor},
    data::{ClassLabels, ImageShape, SampleShape},
    eval::Proportion,
};
use aigc_diffusion::{
    AnyDenoiser, AnyScheduler, Denoiser, DiffusionSampler, DpmMultistepScheduler, MotionAdapter,
    MotionAdapterConfig, Pipeline, UNet2dConfig, UNet2dModel, WithMotion, models::HookedUNet,
};
use aigc_examples::{complete, labels_in_turn};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A U-net of images with motion modules.
pub type VideoNetwork = WithMotion<UNet2dModel>;

/// Directory of the motion modules beside the parts of a pipeline.
const MOTION: &str = "motion_adapter";

/// Configuration of a video network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VideoModelConfig {
    /// The U-net that sees frames alone.
    pub unet: UNet2dConfig,
    /// The motion modules, for clips of up to `motion_max_seq_length` frames.
    pub motion: MotionAdapterConfig,
    /// The image model whose weights the U-net has and keeps; without it, all is trained.
    pub image_model: Option<ImageModelRecord>,
}

impl VideoModelConfig {
    /// A small network that is trained as a whole, for frames of a shape. Classes have a null
    /// class after them.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn small(
        frame: ImageShape,
        frames: usize,
        classes: Option<usize>,
        device: &Device,
    ) -> Result<Self> {
        let unet = UNet2dConfig::small(frame, classes);
        let unet = match classes {
            Some(_) => unet.with_null_class(),
            None => unet,
        };
        // Weights have no values yet, so that this costs next to nothing.
        let layout = unet.init(device)?.layout();
        Ok(Self {
            unet,
            motion: MotionAdapterConfig {
                motion_max_seq_length: frames,
                ..MotionAdapterConfig::for_layout(&layout)
            },
            image_model: None,
        })
    }

    /// Motion modules for an image model, for clips of up to `frames` frames.
    pub fn for_image_model(image: &ImageModel, frames: usize) -> Self {
        Self {
            unet: image.network.config().clone(),
            motion: MotionAdapterConfig {
                motion_max_seq_length: frames,
                ..MotionAdapterConfig::for_layout(&image.network.layout())
            },
            image_model: Some(image.record.clone()),
        }
    }

    /// The network, with the frozen one of the image model if there is one.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range, and parts that do not fit each other.
    pub fn init(&self, image: Option<&ImageModel>, device: &Device) -> Result<VideoNetwork> {
        let motion = self.motion.init(device)?;
        match image {
            Some(image) => Ok(WithMotion::new(image.network.clone(), motion)?.freeze_unet()),
            None => WithMotion::new(self.unet.init(device)?, motion),
        }
    }
}

/// A video network with its scheduler.
#[derive(Debug)]
pub struct VideoModel {
    /// The network.
    pub network: VideoNetwork,
    /// The scheduler.
    pub scheduler: DpmMultistepScheduler,
    /// Shape of a clip.
    pub shape: SampleShape,
    /// Number of classes, without the null class.
    pub classes: Option<usize>,
}

impl VideoModel {
    /// Whether a directory has the parts of a video network.
    pub fn is_in(dir: &Path) -> bool {
        dir.join(MOTION).join("config.json").is_file()
    }

    /// Opens a directory that [`save`](Self::save) wrote, for clips of as many frames as there are
    /// positions.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for parts of other classes; errors of the files.
    pub fn open(dir: &Path, device: &Device) -> Result<Self> {
        let opened = Pipeline::from_pretrained(dir, device)?;
        for warning in opened.warnings() {
            eprintln!("{warning}");
        }
        let opened = opened.into_inner();
        let (frame, classes) = (opened.shape, opened.num_classes());
        let class = opened.network.class();
        let AnyDenoiser::UNet2d(unet) = opened.network else {
            return Err(Error::argument("unet", class, "a UNet2DModel"));
        };
        let scheduler = match opened.scheduler {
            AnyScheduler::DpmMultistep(scheduler) => scheduler,
            other => {
                let expected = "a DPMSolverMultistepScheduler";
                return Err(Error::argument("scheduler", other.class(), expected));
            }
        };
        let motion = MotionAdapter::from_pretrained(dir.join(MOTION), device)?.into_inner();
        let frames = motion.config().motion_max_seq_length;
        Ok(Self {
            network: WithMotion::new(unet, motion)?,
            scheduler,
            shape: SampleShape::new(&[frame.channels, frames, frame.height, frame.width]),
            classes,
        })
    }

    /// Writes the directory: the U-net and its scheduler as a pipeline of images, and the motion
    /// modules in `motion_adapter`, each as diffusers opens it.
    ///
    /// # Errors
    /// Errors of the files.
    pub fn save(self, dir: &Path) -> Result<()> {
        let (unet, motion) = self.network.into_parts();
        let [channels, _, height, width] = *self.shape.dims() else {
            return Err(Error::argument("shape", self.shape, "that of a clip"));
        };
        motion.save_pretrained(dir.join(MOTION))?;
        let pipeline = Pipeline::new(
            unet,
            self.scheduler,
            ImageShape::new(channels, height, width),
        )?;
        let classes = self.classes.unwrap_or(0);
        let pipeline = match classes {
            0 => pipeline,
            _ => pipeline.with_labels((0..classes).map(|class| class.to_string()).collect())?,
        };
        pipeline.save_pretrained(dir)
    }
}

/// How many of `n` images are the same bit for bit from the image network, and as clips of one
/// frame from the video network without its motion modules.
///
/// # Errors
/// Errors of sampling.
pub fn equal_frames(
    network: &VideoNetwork,
    image: &UNet2dModel,
    sampling: &Sampling<'_>,
    n: usize,
    seed: u64,
) -> Result<Proportion> {
    let still = network.clone().with_motion_enabled(false);
    let [channels, _, height, width] = *sampling.shape.dims() else {
        return Err(Error::argument("shape", sampling.shape, "that of a clip"));
    };
    let classes = match sampling.classes {
        Some(classes) => ClassLabels::PerSample(labels_in_turn(classes, n)),
        None => ClassLabels::Random,
    };
    let one = Sampling {
        shape: SampleShape::new(&[channels, 1, height, width]),
        ..*sampling
    };
    let frames = one.sampler(&still)?.with_classes(classes.clone());
    let mut images: DiffusionSampler<'_, UNet2dModel> = DiffusionSampler::new(
        image,
        sampling.scheduler,
        sampling.steps,
        ImageShape::new(channels, height, width),
        sampling.device,
    )?
    .with_batch_size(one.batch_size())
    .with_cancel(sampling.stop.clone())
    .with_classes(classes);
    if let Some(guidance) = sampling.guidance(image.null_class()) {
        images = images.with_guidance(guidance);
    }
    let noise = images.noise(n, seed);
    let images = complete(images.sample_from_noise(&noise, seed)?)?.values;
    let noise: Tensor<5> = noise.unsqueeze_dim(2);
    let frames = complete(frames.sample_from_noise(&noise, seed)?)?.values;
    let bits = |data: aigc_core::burn::tensor::TensorData| -> Vec<u32> {
        data.iter::<f32>().map(f32::to_bits).collect()
    };
    let (images, frames) = (bits(images.into_data()), bits(frames.into_data()));
    let numel = channels * height * width;
    let pairs = images.chunks_exact(numel).zip(frames.chunks_exact(numel));
    Proportion::new(pairs.filter(|(a, b)| a == b).count(), n)
}
