//! A request with all values, checked.

use super::{pipeline::AnimateDiffPipeline, windows::windows};
use crate::video::{
    VideoRequest,
    request::{Defaults, Sampling, check_latents},
};
use aigc_core::{
    Error, Result, check::ensure_argument, data::SampleShape, text_to_image::ImageSize,
};
use aigc_diffusion::Denoiser;
use std::ops::Range;

/// Frames by default.
const FRAMES: usize = 16;
/// The number of frames a second is that of the videos of the motion modules' training.
pub(super) const DEFAULTS: Defaults = Defaults {
    fps: 8.0,
    guidance_scale: 7.5,
    num_inference_steps: 50,
};
/// Most frames of a request.
const MAX_FRAMES: usize = 1 << 14;
/// Longest side.
const MAX_SIDE: u32 = 1 << 14;

/// A request that is to be fulfilled.
#[derive(Debug)]
pub(super) struct Job {
    /// The request with all values.
    pub(super) request: VideoRequest,
    /// `[1, channels, frames, height, width]`
    pub(super) latent_shape: [usize; 5],
    pub(super) windows: Vec<Range<usize>>,
    pub(super) sampling: Sampling,
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
        let sampling = Sampling::of(&mut request, self.scheduler(), &DEFAULTS)?;
        let [height, width] = [size.height, size.width].map(|side| (side / factor) as usize);
        let channels = self.latent_channels();
        let latent_shape = [1, channels, frames, height, width];
        check_latents(frames, latent_shape)?;
        // The network has a least size. The number of frames in a window is checked above.
        let shape = SampleShape::new(&[channels, 1, height, width]);
        if let Err(error) = self.network().check_shape(shape) {
            let expected = format!("a size that the network makes ({error})");
            return Err(Error::argument("size", size, expected));
        }
        Ok(Job {
            latent_shape,
            windows,
            sampling,
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
