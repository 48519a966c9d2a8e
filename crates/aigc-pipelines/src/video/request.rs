//! Values of a request that all pipelines check alike.

use super::VideoRequest;
use aigc_core::{
    Error, Result,
    check::{ensure_argument, non_negative, positive},
};
use aigc_diffusion::{AnyScheduler, SamplingPlan, Scheduler};
use std::hash::{BuildHasher, Hasher};

/// Values of a pipeline for fields that a request leaves open.
pub(super) struct Defaults {
    pub(super) fps: f64,
    pub(super) guidance_scale: f64,
    pub(super) num_inference_steps: usize,
}

/// How a request is sampled.
#[derive(Debug)]
pub(super) struct Sampling {
    pub(super) seed: u64,
    /// None for a scale that changes nothing.
    pub(super) guidance: Option<f64>,
    pub(super) plan: SamplingPlan,
}

impl Sampling {
    /// Gives every field of a request that does not concern its shape a value.
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
            guidance: (scale > 1.0).then_some(scale),
            plan: plan(scheduler, steps)?,
        })
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
