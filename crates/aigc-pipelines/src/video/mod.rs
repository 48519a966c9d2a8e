//! Videos from a prompt: [`AnimateDiffPipeline`] adds motion modules to an image model,
//! [`WanPipeline`] denoises all frames together.
//!
//! ```no_run
//! # use aigc_core::device::device;
//! # use aigc_pipelines::video::{AnimateDiffPipeline, VideoRequest};
//! # fn main() -> aigc_core::Result<()> {
//! let device = device("flex")?;
//! let pipeline = AnimateDiffPipeline::from_pretrained("animatediff", &device)?;
//! let request = VideoRequest::new("a ball rolls down a hill").with_seed(7);
//! let video = pipeline.generate(&request)?;
//! println!("{:?} at {:?} frames a second", video.frames.dims(), video.request.fps);
//! # Ok(()) }
//! ```

mod animate_diff;
mod prompts;
mod request;
mod wan;

pub use animate_diff::{AnimateDiffOpenOptions, AnimateDiffPipeline};
pub use prompts::VideoPrompts;
pub use wan::WanPipeline;

use aigc_core::{CancelToken, Error, Result, text_to_image::ImageSize};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// A request for a video. Fields that are not set have the defaults of the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct VideoRequest {
    /// Description of the video.
    pub prompt: String,
    /// Description of what the video should not show.
    pub negative_prompt: Option<String>,
    /// Number of frames.
    pub num_frames: Option<usize>,
    /// Width and height in pixels.
    pub size: Option<ImageSize>,
    /// Frames a second: how the video is to be played. The frames do not depend on it.
    pub fps: Option<f64>,
    /// Seed; a random one by default.
    pub seed: Option<u64>,
    /// Steps of the scheduler.
    pub num_inference_steps: Option<usize>,
    /// Scale of classifier-free guidance; up to 1 for none.
    pub guidance_scale: Option<f64>,
    /// For more frames than a network has positions: they are denoised in windows of as many frames
    /// as there are positions, and neighbouring windows share this many. Predictions are averaged
    /// where windows overlap. Without it, such a request is an error.
    pub window_overlap: Option<usize>,
}

impl VideoRequest {
    /// A request with a prompt.
    pub fn new(prompt: impl Into<String>) -> Self {
        Self {
            prompt: prompt.into(),
            ..Self::default()
        }
    }

    /// Sets what the video should not show.
    pub fn with_negative_prompt(mut self, negative_prompt: impl Into<String>) -> Self {
        self.negative_prompt = Some(negative_prompt.into());
        self
    }

    /// Sets the number of frames.
    pub fn with_num_frames(mut self, num_frames: usize) -> Self {
        self.num_frames = Some(num_frames);
        self
    }

    /// Sets width and height in pixels.
    pub fn with_size(mut self, width: u32, height: u32) -> Self {
        self.size = Some(ImageSize::new(width, height));
        self
    }

    /// Sets the frames a second.
    pub fn with_fps(mut self, fps: f64) -> Self {
        self.fps = Some(fps);
        self
    }

    /// Sets the seed.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Sets the steps of the scheduler.
    pub fn with_num_inference_steps(mut self, steps: usize) -> Self {
        self.num_inference_steps = Some(steps);
        self
    }

    /// Sets the scale of classifier-free guidance.
    pub fn with_guidance_scale(mut self, scale: f64) -> Self {
        self.guidance_scale = Some(scale);
        self
    }

    /// Allows more frames than positions, in windows that share this many frames.
    pub fn with_window_overlap(mut self, frames: usize) -> Self {
        self.window_overlap = Some(frames);
        self
    }
}

/// A video, with the values by which it can be made again.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GeneratedVideo<F = Tensor<4>> {
    /// The frames in `[0, 1]`, `[frames, 3, height, width]`; `()` if they were not kept.
    pub frames: F,
    /// The request with all values that were used.
    pub request: VideoRequest,
    /// Name of the model.
    pub model: String,
    /// The configuration of the scheduler, as diffusers writes it.
    pub scheduler: String,
    /// Warnings, such as the end of a prompt that was cut off.
    pub warnings: Vec<String>,
}

/// A stage of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VideoStage {
    /// The latents are denoised; steps are those of the scheduler.
    Denoising,
    /// The latents are decoded; steps are frames.
    Decoding,
}

/// Progress of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct VideoProgress {
    /// The stage.
    pub stage: VideoStage,
    /// Finished steps of this stage.
    pub step: usize,
    /// All steps of this stage.
    pub num_steps: usize,
}

/// Called after each step.
pub type VideoProgressFn<'a> = dyn FnMut(VideoProgress) + 'a;

/// Progress and cancellation of a request.
#[derive(Default)]
pub struct VideoOptions<'a> {
    /// Stops the request with [`Error::Cancelled`].
    pub cancel: CancelToken,
    /// Called after each step.
    pub progress: Option<Box<VideoProgressFn<'a>>>,
}

impl std::fmt::Debug for VideoOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VideoOptions")
            .field("cancel", &self.cancel)
            .field("progress", &self.progress.is_some())
            .finish()
    }
}

impl VideoOptions<'_> {
    /// Fails if the request is cancelled.
    fn check_cancelled(&self) -> Result<()> {
        match self.cancel.is_cancelled() {
            true => Err(Error::cancelled("making a video")),
            false => Ok(()),
        }
    }

    fn report(&mut self, stage: VideoStage, step: usize, num_steps: usize) {
        if let Some(progress) = &mut self.progress {
            progress(VideoProgress {
                stage,
                step,
                num_steps,
            });
        }
    }
}
