//! The denoising loop, one step at a time.

use super::{
    conditions::Conditions,
    control::Controls,
    job::Job,
    noise::NoiseStream,
    start::{Start, UnmaskedPart},
};
use crate::sampling::check_finite;
use aigc_core::{Error, Result};
use aigc_diffusion::{AnyDenoiser, Denoiser, PlanRunner};
use burn::tensor::Tensor;
use std::sync::Arc;

/// Images that are being denoised.
///
/// ```text
/// while let Some(step) = denoising.step(noise)? { … }
/// let latents = denoising.into_latents();
/// ```
pub struct Denoising<'a> {
    pub(crate) job: &'a Job,
    pub(crate) network: Arc<AnyDenoiser>,
    pub(crate) conditions: Conditions,
    pub(crate) controls: Controls,
    /// Mask and masked image, for networks that receive them.
    pub(crate) inpainting: Option<Tensor<4>>,
    /// The part of the image that is kept, for networks that do not.
    pub(crate) unmasked: Option<UnmaskedPart>,
    pub(crate) latents: Tensor<4>,
    pub(crate) runner: PlanRunner<'a, 4>,
}

impl std::fmt::Debug for Denoising<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Denoising")
            .field("step", &self.runner.calls_made())
            .field("latents", &self.latents.dims())
            .finish_non_exhaustive()
    }
}

/// What a step computed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DenoisingStep {
    /// Number of the step, from 0 on.
    pub index: usize,
    /// The time that the network received.
    pub time: f64,
    /// The network's input: the latents, scaled, of unconditional predictions first.
    pub network_input: Tensor<4>,
    /// The network's output, of unconditional predictions first.
    pub network_output: Tensor<4>,
    /// The guided prediction that the scheduler received.
    pub guided: Tensor<4>,
    /// The latents after the step.
    pub latents: Tensor<4>,
    /// The clean latents that the network predicts.
    pub pred_original_sample: Tensor<4>,
}

impl<'a> Denoising<'a> {
    pub(crate) fn new(
        job: &'a Job,
        network: Arc<AnyDenoiser>,
        conditions: Conditions,
        controls: Controls,
        start: Start,
    ) -> Self {
        Self {
            job,
            network,
            conditions,
            controls,
            inpainting: start.inpainting,
            unmasked: start.unmasked,
            latents: start.latents,
            runner: PlanRunner::new(&job.plan),
        }
    }

    /// Calls the network once and makes the step after it; `None` if there are no more calls.
    ///
    /// # Errors
    /// [`Error::NotFiniteSamples`] if the latents became infinite or not a number.
    pub fn step(&mut self, noise: &mut dyn NoiseStream) -> Result<Option<DenoisingStep>> {
        let Some(call) = self.runner.call() else {
            return Ok(None);
        };
        let (index, time) = (self.runner.calls_made(), call.time);
        let network_input = self.network_input();
        let network_output = self.predict(network_input.clone(), time);
        let guided = self.guided(network_output.clone());

        let (shape, device) = (self.latents.dims(), self.latents.device());
        let output = self.runner.step(self.latents.clone(), guided.clone(), || {
            noise.normal(shape, &device)
        });
        let next = match self.takes_prediction() {
            true => output.pred_original_sample.clone(),
            false => output.prev_sample,
        };
        let next = match &self.unmasked {
            Some(part) => part.put_back(next, self.runner.call()),
            None => next,
        };
        check_finite(&next, "the latents", index + 1, self.job.plan.len())?;
        self.latents = next;
        Ok(Some(DenoisingStep {
            index,
            time,
            network_input,
            network_output,
            guided,
            latents: self.latents.clone(),
            pred_original_sample: output.pred_original_sample,
        }))
    }

    /// The latents.
    pub fn latents(&self) -> Tensor<4> {
        self.latents.clone()
    }

    /// Replaces the latents, for example to start the next step from others.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for latents of another shape.
    pub fn set_latents(&mut self, latents: Tensor<4>) -> Result<()> {
        let (found, expected) = (latents.dims(), self.latents.dims());
        if found != expected {
            let expected = format!("{expected:?}");
            return Err(Error::argument("latents", format!("{found:?}"), expected));
        }
        self.latents = latents;
        Ok(())
    }

    /// The latents, without the rest.
    pub fn into_latents(self) -> Tensor<4> {
        self.latents
    }

    /// The scaled latents, once or twice, with mask and masked image.
    fn network_input(&self) -> Tensor<4> {
        let scaled = self.runner.input(&self.latents);
        let batch = match self.conditions.guidance {
            Some(_) => Tensor::cat(vec![scaled.clone(), scaled], 0),
            None => scaled,
        };
        match &self.inpainting {
            Some(inpainting) => {
                let [rows, _, height, width] = batch.dims();
                let [_, channels, ..] = inpainting.dims();
                let inpainting = match inpainting.dims()[0] {
                    1 => inpainting.clone().expand([rows, channels, height, width]),
                    images => inpainting.clone().repeat_dim(0, rows / images),
                };
                Tensor::cat(vec![batch, inpainting], 1)
            }
            None => batch,
        }
    }

    fn predict(&self, input: Tensor<4>, time: f64) -> Tensor<4> {
        let rows = input.dims()[0];
        let time = Tensor::<1>::full([rows], time, &input.device());
        let mut condition = self.conditions.all.clone();
        condition.residuals = self.controls.residuals(
            self.job,
            &self.runner,
            &self.latents,
            &time,
            &self.conditions,
        );
        let output = self.network.predict(input, time, &condition);
        // A variance beside the prediction is not used.
        let channels = self.latents.dims()[1];
        match output.dims()[1] == 2 * channels {
            true => output.narrow(1, 0, channels),
            false => output,
        }
    }

    fn guided(&self, output: Tensor<4>) -> Tensor<4> {
        let Some(guidance) = self.conditions.guidance else {
            return output;
        };
        let images = output.dims()[0] / 2;
        let none = output.clone().narrow(0, 0, images);
        let prompt = output.narrow(0, images, images);
        guidance.combine(prompt, none)
    }

    /// Whether the prediction of a single step is the result: PixArt's distilled networks.
    fn takes_prediction(&self) -> bool {
        self.conditions.takes_prediction && self.job.plan.len() == 1
    }
}
