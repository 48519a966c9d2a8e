//! ControlNets of a pipeline, while images are denoised.

use super::{
    conditions::Conditions, image::to_tensor, job::Job, options::ControlSettings,
    pipeline::TextToImagePipeline,
};
use aigc_core::Result;
use aigc_diffusion::{ControlNetModel, ControlResiduals, PlanRunner};
use burn::tensor::Tensor;
use std::sync::Arc;

/// The ControlNets with their images and settings.
pub(crate) struct Controls(Vec<Control>);

struct Control {
    network: Arc<ControlNetModel>,
    /// `[1, 3, height, width]` in `[0, 1]`.
    image: Tensor<4>,
    settings: ControlSettings,
    scale: f64,
    guess_mode: bool,
}

impl TextToImagePipeline {
    /// Opens the ControlNets of a job.
    ///
    /// # Errors
    /// Of the files.
    pub(crate) fn controls_of(&self, job: &Job) -> Result<Controls> {
        let nets = self.parts.controlnets.iter().zip(&job.controls);
        let controls = nets.map(|(part, (image, settings))| {
            let network = part.get()?;
            Ok(Control {
                guess_mode: job.options.guess_mode || network.config().global_pool_conditions,
                image: to_tensor(image, &self.device),
                scale: settings
                    .conditioning_scale
                    .unwrap_or(job.default_conditioning_scale),
                settings: settings.clone(),
                network,
            })
        });
        Ok(Controls(controls.collect::<Result<_>>()?))
    }
}

impl Controls {
    /// What the ControlNets add to the maps of the U-net at the next call; `None` if there is none
    /// that acts.
    pub(crate) fn residuals(
        &self,
        job: &Job,
        runner: &PlanRunner<'_, 4>,
        latents: &Tensor<4>,
        time: &Tensor<1>,
        conditions: &Conditions,
    ) -> Option<ControlResiduals> {
        // The first one decides for all, as in diffusers.
        let guess_mode = self.0.first()?.guess_mode;
        let [images, ..] = latents.dims();
        let scaled = runner.input(latents);
        let (input, condition) = match (guess_mode, conditions.guidance) {
            (false, Some(_)) => (
                Tensor::cat(vec![scaled.clone(), scaled], 0),
                &conditions.all,
            ),
            _ => (scaled, &conditions.prompt),
        };
        let rows = input.dims()[0];
        let (step, steps) = (runner.calls_made(), job.plan.len());
        let acting = self.0.iter().filter_map(|control| {
            if control.scale == 0.0 || !control.settings.acts_at(step, steps) {
                return None;
            }
            let image = control.image.clone();
            let [_, channels, height, width] = image.dims();
            Some(control.network.forward(
                input.clone(),
                time.clone().narrow(0, 0, rows),
                image.expand([rows, channels, height, width]),
                condition,
                control.scale,
                guess_mode,
            ))
        });
        let residuals = ControlResiduals::sum(acting)?;
        Some(match (guess_mode, conditions.guidance) {
            (true, Some(_)) => residuals.after_zeros(images),
            _ => residuals,
        })
    }
}
