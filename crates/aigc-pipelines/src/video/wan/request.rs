//! A request with all values, checked.

use super::pipeline::WanPipeline;
use crate::video::{
    VideoRequest,
    request::{Defaults, Sampling, check_latents},
};
use aigc_core::{Error, Result, check::ensure_argument, text_to_image::ImageSize};

/// Frames by default.
const FRAMES: usize = 81;
/// Width and height by default.
const SIZE: [u32; 2] = [832, 480];
/// The number of frames a second is that of the videos of the networks' training.
pub(super) const DEFAULTS: Defaults = Defaults {
    fps: 16.0,
    guidance_scale: 5.0,
    num_inference_steps: 50,
};

/// A request that is to be fulfilled.
#[derive(Debug)]
pub(super) struct Job {
    /// The request with all values.
    pub(super) request: VideoRequest,
    /// `[1, channels, latents, height, width]`
    pub(super) latent_shape: [usize; 5],
    pub(super) sampling: Sampling,
}

impl WanPipeline {
    /// The request with all values: those that are missing have their defaults, and the seed is
    /// random without one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names a field of the request that cannot be fulfilled.
    pub fn prepare_request(&self, request: &VideoRequest) -> Result<VideoRequest> {
        Ok(self.job(request)?.request)
    }

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
        let sampling = Sampling::of(&mut request, &self.scheduler, &DEFAULTS)?;
        let channels = self.autoencoder().config().z_dim;
        let latent_shape = [1, channels, latents, height, width];
        check_latents(frames, latent_shape)?;
        Ok(Job {
            latent_shape,
            sampling,
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
