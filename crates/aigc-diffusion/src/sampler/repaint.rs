//! Filling in what is missing by sampling it again and again.

use super::{DiffusionSampler, Samples, Show, Streams, carry::Carried};
use crate::{denoiser::Denoiser, plan::PlanRunner, posterior::covers};
use aigc_core::{Error, Result};
use burn::tensor::Tensor;
use std::ops::{ControlFlow, Range};

impl<D: Denoiser> DiffusionSampler<'_, D> {
    /// Images whose known part is given (RePaint: Lugmayr et al. 2022,
    /// <https://arxiv.org/abs/2201.09865>, algorithm 1): after every step the known part takes its
    /// place, as noisy as the rest; then noise is added again and the step repeated, `resamplings`
    /// times in all, so that the rest comes to fit. The scheduler has to be one whose steps do not
    /// look back (DDPM, DDIM, Euler).
    ///
    /// # Shapes
    /// - images: `[n, channels, height, width]` in `[0, 1]`
    /// - known: `[1 or n, 1 or channels, height, width]`, 1 where the image is known and 0 where it
    ///   is not
    ///
    /// # Errors
    /// [`Error::Config`] for another scheduler, for no resampling, for shapes that do not fit, or
    /// an autoencoder, in whose latent maps no pixel is known.
    pub fn repaint(
        &self,
        images: &Tensor<4>,
        known: &Tensor<4>,
        resamplings: usize,
        seed: u64,
    ) -> Result<Samples> {
        if self.latent.is_some() {
            return Err(Error::config(
                "autoencoder",
                "given",
                "none; no pixel is known in latent maps",
            ));
        }
        if !self.plan.is_single_step() {
            return Err(Error::config(
                "scheduler",
                "one whose steps look back",
                "DDPM, DDIM or Euler",
            ));
        }
        if resamplings == 0 {
            return Err(Error::config("resamplings", resamplings, "at least 1"));
        }
        let n = self.images_fit(images)?;
        if !covers(known, images.dims()) {
            let value = format!("{:?}", known.dims());
            return Err(Error::config(
                "known",
                value,
                format!("{:?}, or 1 for the first two", images.dims()),
            ));
        }
        let known = known.clone().expand(images.dims());
        let classes = self.draw_classes(n, seed)?;
        let (mut made, mut complete) = (Vec::new(), true);
        for part in self.parts(n) {
            let x0 = self.hide(images, part.clone());
            let known = known.clone().narrow(0, part.start, part.len());
            let carried = self.repaint_part(
                x0,
                known,
                resamplings,
                classes.as_deref(),
                part.clone(),
                n,
                seed,
            )?;
            made.push(self.show(carried.x));
            if carried.stopped {
                complete = false;
                break;
            }
        }
        let images = Tensor::cat(made, 0);
        let count = images.dims()[0];
        Ok(Samples {
            images,
            classes: classes.map(|all| all[..count].to_vec()),
            complete,
        })
    }

    #[allow(clippy::too_many_arguments)] // All that a part is.
    fn repaint_part(
        &self,
        known_x0: Tensor<4>,
        known: Tensor<4>,
        resamplings: usize,
        classes: Option<&[u32]>,
        images: Range<usize>,
        of: usize,
        seed: u64,
    ) -> Result<Carried> {
        let plan = &self.plan;
        let asked = self.asked(classes, &images)?;
        let mut streams = Streams::new(seed, "steps", images.clone());
        let mut x = Streams::new(seed, "start", images.clone()).draw(self.shape, &self.device)
            * plan.init_noise_sigma;
        let mut sampling = PlanRunner::new(plan);
        let mut x0 = None;
        for k in 0..plan.len() {
            let next = plan.calls.get(k + 1).map(|call| call.level);
            for again in (0..resamplings).rev() {
                sampling.back_to(k);
                let (unknown, clean) = self.step(&mut sampling, x, x0, &asked, &mut streams)?;
                x0 = Some(clean);
                let noise = |streams: &mut Streams| streams.draw(self.shape, &self.device);
                let certain = match next {
                    Some(level) => {
                        known_x0.clone() * level.alpha + noise(&mut streams) * level.sigma
                    }
                    None => known_x0.clone(),
                };
                x = unknown.clone() + (certain - unknown) * known.clone();
                // After the last step there is nothing to make fit.
                let Some(after) = next.filter(|_| again > 0) else {
                    break;
                };
                let now = plan.calls[k].level;
                let ratio = now.alpha / after.alpha;
                let added = (now.sigma.powi(2) - (ratio * after.sigma).powi(2))
                    .max(0.0)
                    .sqrt();
                x = x * ratio + noise(&mut streams) * added;
            }
            let clean = x0.as_ref().expect("a step was made");
            if let ControlFlow::Break(()) = self.tell(&images, of, &sampling, plan, (&x, clean)) {
                let under_way = next.is_some();
                let x = if under_way { clean.clone() } else { x };
                return Ok(Carried {
                    x,
                    stopped: under_way || images.end < of,
                });
            }
        }
        Ok(Carried { x, stopped: false })
    }
}
