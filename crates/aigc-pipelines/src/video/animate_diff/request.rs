//! A request with all values, checked.

use super::{pipeline::AnimateDiffPipeline, windows::windows};
use crate::video::VideoRequest;
use aigc_core::{
    Error, Result,
    check::{ensure_argument, non_negative, positive},
    text_to_image::ImageSize,
};
use aigc_diffusion::{AnyScheduler, SamplingPlan, Scheduler};
use std::{
    hash::{BuildHasher, Hasher},
    ops::Range,
};

/// Frames by default.
const FRAMES: usize = 16;
/// Frames a second by default, those of the videos that motion modules were trained on.
const FPS: f64 = 8.0;
/// Steps by default.
const STEPS: usize = 50;
/// Guidance by default.
const GUIDANCE: f64 = 7.5;
/// Most frames of a request.
const MAX_FRAMES: usize = 1 << 14;
/// Longest side.
const MAX_SIDE: u32 = 1 << 14;

/// A request that is to be fulfilled.
#[derive(Debug)]
pub(super) struct Job {
    /// With all values.
    pub(super) request: VideoRequest,
    pub(super) seed: u64,
    pub(super) guidance: Option<f64>,
    /// `[1, channels, frames, height, width]`
    pub(super) latent_shape: [usize; 5],
    pub(super) windows: Vec<Range<usize>>,
    pub(super) plan: SamplingPlan,
}

impl AnimateDiffPipeline {
    /// # Errors
    /// [`Error::InvalidArgument`] names the field of the request.
    pub(super) fn job(&self, request: &VideoRequest) -> Result<Job> {
        let mut request = request.clone();
        let frames = *request.num_frames.get_or_insert(FRAMES);
        let windows = self.windows(frames, request.window_overlap)?;
        let size = *request.size.get_or_insert_with(|| self.default_size());
        let factor = self.pixels_of_a_latent() as u32;
        for (field, side) in [("width", size.width), ("height", size.height)] {
            let fits = (1..=MAX_SIDE).contains(&side) && side.is_multiple_of(factor);
            let expected = format!("a multiple of {factor} up to {MAX_SIDE}");
            ensure_argument(fits, field, side, &expected)?;
        }
        let fps = *request.fps.get_or_insert(FPS);
        positive("fps", fps).map_err(as_argument)?;
        let scale = *request.guidance_scale.get_or_insert(GUIDANCE);
        non_negative("guidance_scale", scale).map_err(as_argument)?;
        let seed = *request.seed.get_or_insert_with(random_seed);
        let steps = *request.num_inference_steps.get_or_insert(STEPS);
        ensure_argument(steps > 0, "num_inference_steps", steps, "1 or more")?;
        let plan = plan(self.scheduler(), steps)?;
        let sides = [size.height, size.width].map(|side| (side / factor) as usize);
        Ok(Job {
            seed,
            guidance: (scale > 1.0).then_some(scale),
            latent_shape: [1, self.latent_channels(), frames, sides[0], sides[1]],
            windows,
            plan,
            request,
        })
    }

    /// The windows in which frames are denoised.
    fn windows(&self, frames: usize, overlap: Option<usize>) -> Result<Vec<Range<usize>>> {
        let config = self.network().motion_adapter().config();
        let most = config.motion_max_seq_length;
        let expected = format!("1 to {MAX_FRAMES}");
        ensure_argument(
            (1..=MAX_FRAMES).contains(&frames),
            "num_frames",
            frames,
            &expected,
        )?;
        let Some(overlap) = overlap else {
            let expected = format!(
                "at most {most}, motion_max_seq_length of the motion modules, or a window_overlap"
            );
            ensure_argument(frames <= most, "num_frames", frames, &expected)?;
            return Ok(windows(frames, most, 0));
        };
        let expected = format!("less than {most}, the frames of a window");
        ensure_argument(overlap < most, "window_overlap", overlap, &expected)?;
        Ok(windows(frames, most, overlap))
    }

    /// The size that the network is for, or a small one.
    fn default_size(&self) -> ImageSize {
        let sides = self.network().unet().config().sample_size;
        let [height, width] = sides.map_or([64, 64], |sides| sides.sides());
        let pixels = |side: usize| (side * self.pixels_of_a_latent()) as u32;
        ImageSize::new(pixels(width), pixels(height))
    }
}

/// The calls of the network.
fn plan(scheduler: &AnyScheduler, steps: usize) -> Result<SamplingPlan> {
    scheduler.plan(steps).map_err(|error| match error {
        // The field of the request.
        Error::InvalidArgument {
            argument,
            value,
            expected,
        } if argument == "steps" => Error::argument("num_inference_steps", value, expected),
        other => other,
    })
}

/// An error of a request, not of a configuration.
fn as_argument(error: Error) -> Error {
    match error {
        Error::Config {
            field,
            value,
            expected,
        } => Error::argument(field, value, expected),
        other => other,
    }
}

/// A seed that cannot be predicted, of the 32 bits that PyTorch's generator uses.
fn random_seed() -> u64 {
    let state = std::collections::hash_map::RandomState::new();
    state.build_hasher().finish() & 0xffff_ffff
}
