//! Checks and default values that the requests of all video pipelines share.

use super::VideoRequest;
use crate::{sampling::plan, seed::random_seed};
use aigc_core::{
    Error, Result,
    check::{ensure_argument, non_negative, positive},
};
use aigc_diffusion::{AnyScheduler, SamplingPlan};

/// Limit on the numbers in the latents of a video: 4 GiB.
const MAX_LATENTS: usize = 1 << 30;

/// The default values of a pipeline.
pub(super) struct Defaults {
    pub(super) fps: f64,
    pub(super) guidance_scale: f64,
    pub(super) num_inference_steps: usize,
}

/// How a request is sampled.
#[derive(Debug)]
pub(super) struct Sampling {
    pub(super) seed: u64,
    /// Scale of classifier-free guidance; `None` for a scale up to 1, which has no effect.
    pub(super) guidance: Option<f64>,
    pub(super) plan: SamplingPlan,
}

impl Sampling {
    /// Sets the missing values of a request, except for those of the shape, to the defaults.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the field of the request.
    pub(super) fn of(
        request: &mut VideoRequest,
        scheduler: &AnyScheduler,
        defaults: &Defaults,
    ) -> Result<Self> {
        let fps = *request.fps.get_or_insert(defaults.fps);
        positive("fps", fps).map_err(as_argument)?;
        let scale = *request
            .guidance_scale
            .get_or_insert(defaults.guidance_scale);
        non_negative("guidance_scale", scale).map_err(as_argument)?;
        let seed = *request.seed.get_or_insert_with(random_seed);
        let steps = *request
            .num_inference_steps
            .get_or_insert(defaults.num_inference_steps);
        ensure_argument(steps > 0, "num_inference_steps", steps, "1 or more")?;
        Ok(Self {
            seed,
            guidance: guidance(scale),
            plan: plan(scheduler, steps)?,
        })
    }
}

/// The scale of guidance, unless it has no effect.
pub(super) fn guidance(scale: f64) -> Option<f64> {
    (scale > 1.0).then_some(scale)
}

/// Fails for latents of more numbers than a device can hold.
///
/// # Errors
/// [`Error::InvalidArgument`] names the field `num_frames` of the request.
pub(super) fn check_latents(num_frames: usize, latent_shape: [usize; 5]) -> Result<()> {
    let all = latent_shape.iter();
    let count = all.fold(1usize, |product, n| product.saturating_mul(*n));
    let expected = format!(
        "fewer frames, or smaller ones: latents of shape {latent_shape:?} have more than \
         {MAX_LATENTS} numbers"
    );
    ensure_argument(count <= MAX_LATENTS, "num_frames", num_frames, &expected)
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
