//! The denoising loop.

use super::request::{AudioStage, GenerationSettings};
use crate::{sampling::check_finite, text_to_image::NoiseStream};
use aigc_core::Result;
use aigc_diffusion::{PlanRunner, SamplingPlan};
use burn::tensor::{Device, Tensor};
use std::ops::Range;

/// The sounds that are made together, and the settings that receive their progress.
pub(super) struct Watch<'s, 'a> {
    pub(super) settings: &'s GenerationSettings<'a>,
    pub(super) sounds: Range<usize>,
    pub(super) total: usize,
}

impl Watch<'_, '_> {
    /// Reports the progress. Returns whether the request continues.
    pub(super) fn report(&self, stage: AudioStage, steps: [usize; 2]) -> bool {
        let flow = self.settings.report(stage, &self.sounds, self.total, steps);
        flow.is_continue()
    }
}

/// Noise for sounds or latents of sounds, `[batch, channels, time]`.
pub(super) fn normal(noise: &mut dyn NoiseStream, shape: [usize; 3], device: &Device) -> Tensor<3> {
    let [batch, channels, time] = shape;
    let drawn = noise.normal([batch, channels, 1, time], device);
    drawn.reshape(shape)
}

/// Denoises `x` by the steps of a plan; `None` if the request was stopped. `predict` receives the
/// scaled sample and the time.
///
/// # Errors
/// [`Error::NotFiniteSamples`](aigc_core::Error::NotFiniteSamples) if a sample became infinite or
/// not a number.
pub(super) fn denoise(
    plan: &SamplingPlan,
    mut x: Tensor<3>,
    noise: &mut dyn NoiseStream,
    watch: &Watch<'_, '_>,
    predict: impl Fn(Tensor<3>, f64) -> Tensor<3>,
) -> Result<Option<Tensor<3>>> {
    let steps = plan.len();
    if !watch.report(AudioStage::Denoising, [0, steps]) {
        return Ok(None);
    }
    let mut runner = PlanRunner::new(plan);
    while let Some(call) = runner.call() {
        let output = predict(runner.input(&x), call.time);
        let (shape, device) = (x.dims(), x.device());
        let step = runner.step(x, output, || normal(noise, shape, &device));
        x = step.prev_sample;
        let done = runner.calls_made();
        check_finite(&x, "the sounds", done, steps)?;
        if !watch.report(AudioStage::Denoising, [done, steps]) {
            return Ok(None);
        }
    }
    Ok(Some(x))
}
