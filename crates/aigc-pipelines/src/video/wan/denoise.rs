//! Denoising and decoding.

use super::{pipeline::WanPipeline, request::Job};
use crate::video::{
    VideoOptions, VideoPrompts, VideoRequest, VideoStage,
    watch::{check_finite, stop_if},
};
use aigc_core::{Result, check::ensure_argument, rng::TorchRng};
use aigc_diffusion::{ClassifierFreeGuidance, PlanRunner};
use burn::tensor::{Tensor, TensorData};

impl WanPipeline {
    /// Latents without noise, from latents that are standard normal noise.
    ///
    /// # Shapes
    /// - latents and output: `[1, channels, latents, height, width]`
    ///
    /// # Errors
    /// As [`generate`](Self::generate);
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for latents of another shape
    /// than the request says; [`Error::Cancelled`](aigc_core::Error::Cancelled).
    pub fn denoise(
        &self,
        request: &VideoRequest,
        prompts: &VideoPrompts,
        latents: Tensor<5>,
        options: &mut VideoOptions<'_>,
    ) -> Result<Tensor<5>> {
        let job = self.job(request)?;
        let (found, expected) = (latents.dims(), job.latent_shape);
        let (value, expected_text) = (format!("{found:?}"), format!("{expected:?}"));
        ensure_argument(found == expected, "latents", value, &expected_text)?;
        self.denoise_job(&job, prompts, Some(latents), options)
    }

    /// `latents`: to begin with, in place of noise of the seed.
    pub(super) fn denoise_job(
        &self,
        job: &Job,
        prompts: &VideoPrompts,
        latents: Option<Tensor<5>>,
        options: &mut VideoOptions<'_>,
    ) -> Result<Tensor<5>> {
        let mut rng = TorchRng::new(job.sampling.seed);
        let mut noise = || -> Tensor<5> {
            let values = rng.normal_vec(job.latent_shape.iter().product());
            Tensor::from_data(TensorData::new(values, job.latent_shape), &self.device)
        };
        let latents = latents.unwrap_or_else(&mut noise);
        let mut latents = latents * job.sampling.plan.init_noise_sigma;
        let mut runner = PlanRunner::new(&job.sampling.plan);
        let steps = job.sampling.plan.len();
        while let Some(call) = runner.call() {
            stop_if(&options.cancel)?;
            let input = runner.input(&latents);
            let output = self.predict(job, input, call.time, prompts);
            latents = runner.step(latents, output, &mut noise).prev_sample;
            check_finite(&latents, runner.calls_made(), steps)?;
            options.report(VideoStage::Denoising, runner.calls_made(), steps);
        }
        Ok(latents)
    }

    /// The guided prediction for latents. The two calls of guidance follow each other, which takes
    /// half the memory of one call for both.
    fn predict(&self, job: &Job, x: Tensor<5>, time: f64, prompts: &VideoPrompts) -> Tensor<5> {
        let network = self.network_at(time);
        let call = |states: &Tensor<3>| {
            let time = Tensor::<1>::full([1], time, &x.device());
            network.forward(x.clone(), time, states.clone())
        };
        let output = call(&prompts.prompt);
        match job.sampling.guidance {
            Some(scale) => {
                ClassifierFreeGuidance::new(scale).combine(output, call(&prompts.negative))
            }
            None => output,
        }
    }

    /// Frames of latents, in `[0, 1]`.
    ///
    /// # Shapes
    /// - latents: `[1, channels, latents, height, width]`
    /// - output: `[frames, 3, height, width]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for latents of several videos,
    /// or with other channels than the autoencoder's.
    pub fn decode(&self, latents: Tensor<5>) -> Result<Tensor<4>> {
        let mut parts = vec![];
        self.decode_chunks(latents, |frames| {
            parts.push(frames);
            Ok(())
        })?;
        Ok(Tensor::cat(parts, 0))
    }

    /// [`decode`](Self::decode) chunk by chunk: `frames` receives the first frame, then those of
    /// each latent, `[frames, 3, height, width]`. The memory needed does not depend on their
    /// number, so that frames may be written to a file as they come.
    ///
    /// # Errors
    /// As [`decode`](Self::decode), and those of `frames`.
    pub fn decode_chunks(
        &self,
        latents: Tensor<5>,
        frames: impl FnMut(Tensor<4>) -> Result<()>,
    ) -> Result<()> {
        self.decode_with(latents, &mut VideoOptions::default(), frames)
    }

    pub(super) fn decode_with(
        &self,
        latents: Tensor<5>,
        options: &mut VideoOptions<'_>,
        mut frames: impl FnMut(Tensor<4>) -> Result<()>,
    ) -> Result<()> {
        let vae = self.autoencoder();
        let ([videos, found, count, ..], channels) = (latents.dims(), vae.config().z_dim);
        let fits = videos == 1 && found == channels && count > 0;
        let expected = format!("[1, {channels}, latents, height, width]");
        let value = format!("{:?}", latents.dims());
        ensure_argument(fits, "latents", value, &expected)?;
        let all = 1 + (count - 1) * vae.config().temporal_factor();
        let mut done = 0;
        stop_if(&options.cancel)?;
        vae.decode_chunks(vae.unscale_latents(latents), |part| {
            let [_, channels, count, height, width] = part.dims();
            let part = part
                .swap_dims(1, 2)
                .reshape([count, channels, height, width]);
            done += count;
            options.report(VideoStage::Decoding, done, all);
            frames(part)?;
            match done < all {
                true => stop_if(&options.cancel),
                false => Ok(()),
            }
        })
    }
}
