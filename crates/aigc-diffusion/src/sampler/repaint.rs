//! Inpainting by resampling the unknown part.

use super::{DiffusionSampler, Job, Streams, carry::Carried};
use crate::{denoiser::Denoiser, plan::PlanRunner, posterior::covers};
use aigc_core::{Error, Result, sampling::Samples};
use burn::tensor::Tensor;
use std::ops::Range;

/// The known part of some images, and how often each step is repeated.
struct Known {
    x0: Tensor<4>,
    mask: Tensor<4>,
    num_resamples: usize,
}

impl<N: Denoiser> DiffusionSampler<'_, N> {
    /// Images whose known part is given (RePaint: Lugmayr et al. 2022,
    /// <https://arxiv.org/abs/2201.09865>, algorithm 1): after every step the known part is put in
    /// its place, as noisy as the rest; then noise is added again and the step repeated,
    /// `num_resamples` times in all, so that the rest comes to fit. The scheduler has to be one of
    /// single steps (DDPM, DDIM, Euler).
    ///
    /// # Shapes
    /// - images: `[n, channels, height, width]` in `[0, 1]`
    /// - mask: `[1 or n, 1 or channels, height, width]`, 1 where the image is known and 0 where it
    ///   is not
    ///
    /// # Errors
    /// As [`sample`](Self::sample); [`Error::InvalidArgument`] for another scheduler, for no
    /// resampling, for shapes that do not fit, or an autoencoder, in whose latent maps no pixel is
    /// known.
    pub fn repaint(
        &self,
        images: &Tensor<4>,
        mask: &Tensor<4>,
        num_resamples: usize,
        seed: u64,
    ) -> Result<Samples> {
        self.without_autoencoder("no pixel is known in latent maps")?;
        if !self.plan.is_single_step() {
            return Err(Error::argument(
                "scheduler",
                "a multistep one",
                "a single-step scheduler: DDPM, DDIM or Euler",
            ));
        }
        if num_resamples == 0 {
            return Err(Error::argument(
                "num_resamples",
                num_resamples,
                "at least 1",
            ));
        }
        let n = self.check_images(images)?;
        if !covers(mask, images.dims()) {
            let value = format!("{:?}", mask.dims());
            let expected = format!("{:?}, or 1 for the first two", images.dims());
            return Err(Error::argument("mask", value, expected));
        }
        let mask = mask.clone().expand(images.dims());
        let job = self.job(n, &self.plan, seed)?;
        self.in_batches(job, |job, part| {
            let known = Known {
                x0: self.encode(images, part.clone()),
                mask: mask.clone().narrow(0, part.start, part.len()),
                num_resamples,
            };
            self.repaint_batch(&known, job, part)
        })
    }

    fn repaint_batch(
        &self,
        known: &Known,
        job: &Job<'_>,
        images: Range<usize>,
    ) -> Result<Carried<4>> {
        let plan = job.plan;
        let inputs = self.inputs(job, &images)?;
        let mut streams = Streams::new(job.seed, "steps", images.clone());
        let mut x = self.start(job.seed, images.clone()) * plan.init_noise_sigma;
        let mut runner = PlanRunner::new(plan);
        let mut x0 = None;
        for k in 0..plan.len() {
            let next = plan.calls.get(k + 1).map(|call| call.level);
            for again in (0..known.num_resamples).rev() {
                runner.back_to(k);
                let (unknown, clean) = self.step(&mut runner, x, x0, &inputs, &mut streams)?;
                x0 = Some(clean);
                let noise =
                    |streams: &mut Streams| -> Tensor<4> { streams.draw(self.shape, &self.device) };
                let certain = match next {
                    Some(level) => {
                        known.x0.clone() * level.alpha + noise(&mut streams) * level.sigma
                    }
                    None => known.x0.clone(),
                };
                x = unknown.clone() + (certain - unknown) * known.mask.clone();
                // After the last step there is no noise to add again.
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
            let clean = x0.as_ref().expect("a step was taken");
            if self.report(job, &images, &runner, &x, clean).is_break() {
                let under_way = next.is_some();
                return Ok(Carried {
                    x: if under_way { clean.clone() } else { x },
                    stopped: under_way || images.end < job.total,
                });
            }
        }
        Ok(Carried { x, stopped: false })
    }
}
