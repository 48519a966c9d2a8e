//! A request with all values, checked.

use super::pipeline::WanPipeline;
use crate::video::VideoRequest;
use aigc_core::{
    Error, Result,
    check::{ensure_argument, non_negative, positive},
    text_to_image::ImageSize,
};
use aigc_diffusion::{AnyScheduler, SamplingPlan, Scheduler};
use std::hash::{BuildHasher, Hasher};

/// Frames by default.
const FRAMES: usize = 81;
/// Width and height by default.
const SIZE: [u32; 2] = [832, 480];
/// Frames a second by default, those of the videos that the networks were trained on.
const FPS: f64 = 16.0;
/// Steps by default.
const STEPS: usize = 50;
/// Guidance by default.
const GUIDANCE: f64 = 5.0;

/// A request that is to be fulfilled.
#[derive(Debug)]
pub(super) struct Job {
    /// With all values.
    pub(super) request: VideoRequest,
    pub(super) seed: u64,
    pub(super) guidance: Option<f64>,
    /// `[1, channels, latents, height, width]`
    pub(super) latent_shape: [usize; 5],
    pub(super) plan: SamplingPlan,
}

impl WanPipeline {
    /// # Errors
    /// [`Error::InvalidArgument`] names the field of the request.
    pub(super) fn job(&self, request: &VideoRequest) -> Result<Job> {
        let mut request = request.clone();
        let frames = *request.num_frames.get_or_insert(FRAMES);
        let latents = self.latents(frames)?;
        let [width, height] = SIZE;
        let size = *request.size.get_or_insert(ImageSize::new(width, height));
        let height = self.side("height", size.height, 1)?;
        let width = self.side("width", size.width, 2)?;
        if let Some(overlap) = request.window_overlap {
            let expected = "none: this pipeline denoises all frames together";
            return Err(Error::argument("window_overlap", overlap, expected));
        }
        let fps = *request.fps.get_or_insert(FPS);
        positive("fps", fps).map_err(as_argument)?;
        let scale = *request.guidance_scale.get_or_insert(GUIDANCE);
        non_negative("guidance_scale", scale).map_err(as_argument)?;
        let seed = *request.seed.get_or_insert_with(random_seed);
        let steps = *request.num_inference_steps.get_or_insert(STEPS);
        ensure_argument(steps > 0, "num_inference_steps", steps, "1 or more")?;
        let plan = plan(&self.scheduler, steps)?;
        let channels = self.autoencoder().config().z_dim;
        Ok(Job {
            seed,
            guidance: (scale > 1.0).then_some(scale),
            latent_shape: [1, channels, latents, height, width],
            plan,
            request,
        })
    }

    /// Latents along time.
    fn latents(&self, frames: usize) -> Result<usize> {
        let factor = self.autoencoder().config().temporal_factor();
        let config = self.network().config();
        let (patch, most) = (config.patch_size[0], config.rope_max_seq_len);
        let latents = frames.saturating_sub(1) / factor + 1;
        let whole = frames > 0 && (frames - 1).is_multiple_of(factor);
        let fits = whole && latents.is_multiple_of(patch) && latents / patch <= most;
        let expected = format!(
            "1 more than a multiple of {factor}, with a multiple of {patch} and at most {} latents",
            patch * most
        );
        ensure_argument(fits, "num_frames", frames, &expected)?;
        Ok(latents)
    }

    /// Latents along a side of a frame, `axis` of the patches.
    fn side(&self, field: &str, side: u32, axis: usize) -> Result<usize> {
        let factor = self.autoencoder().config().spatial_factor();
        let config = self.network().config();
        let least = factor * config.patch_size[axis];
        let most = least * config.rope_max_seq_len;
        let side = side as usize;
        let fits = (least..=most).contains(&side) && side.is_multiple_of(least);
        let expected = format!("a multiple of {least} up to {most}");
        ensure_argument(fits, field, side, &expected)?;
        Ok(side / factor)
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
