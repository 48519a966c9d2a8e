//! Denoising and decoding.

use super::{pipeline::WanPipeline, request::Job};
use crate::{
    sampling::check_finite,
    video::{VideoOptions, VideoPrompts, VideoRequest, VideoStage},
};
use aigc_core::{Result, check::ensure_argument, rng::TorchRng};
use aigc_diffusion::{ClassifierFreeGuidance, PlanRunner};
use burn::tensor::{Tensor, TensorData};

impl WanPipeline {
    /// The noise that [`generate`](Self::generate) makes the video of a request from.
    ///
    /// # Shapes
    /// - output: `[1, channels, latents, height, width]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) names a field of the request
    /// that cannot be fulfilled. Without a seed, there is no such noise.
    pub fn prepare_latents(&self, request: &VideoRequest) -> Result<Tensor<5>> {
        let expected = "one, as prepare_request returns";
        ensure_argument(request.seed.is_some(), "seed", "missing", expected)?;
        let job = self.job(request)?;
        Ok(self.noise(&job, &mut TorchRng::new(job.sampling.seed)))
    }

    /// Denoises latents that are standard normal noise. Noise that a scheduler adds between steps
    /// is what the generator of the seed has after [`prepare_latents`](Self::prepare_latents).
    ///
    /// # Shapes
    /// - latents and output: `[1, channels, latents, height, width]`
    ///
    /// # Errors
    /// As [`generate`](Self::generate);
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for latents of another shape
    /// than the request says, or prompts of a request without guidance;
    /// [`Error::Cancelled`](aigc_core::Error::Cancelled).
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

    /// Denoises `latents`, or noise of the seed if there are none.
    pub(super) fn denoise_job(
        &self,
        job: &Job,
        prompts: &VideoPrompts,
        latents: Option<Tensor<5>>,
        options: &mut VideoOptions<'_>,
    ) -> Result<Tensor<5>> {
        let mut rng = TorchRng::new(job.sampling.seed);
        // Drawn for given latents too: noise between steps must not be that of the start again.
        let start = self.noise(job, &mut rng);
        let mut latents = latents.unwrap_or(start) * job.sampling.plan.init_noise_sigma;
        let guided = prompts.guided(job.sampling.guidance)?;
        let mut runner = PlanRunner::new(&job.sampling.plan);
        let steps = job.sampling.plan.len();
        while let Some(call) = runner.call() {
            options.check_cancelled()?;
            let input = runner.input(&latents);
            let output = self.predict(input, call.time, &prompts.prompt, guided);
            latents = runner
                .step(latents, output, || self.noise(job, &mut rng))
                .prev_sample;
            check_finite(&latents, "the latents", runner.calls_made(), steps)?;
            options.report(VideoStage::Denoising, runner.calls_made(), steps);
        }
        Ok(latents)
    }

    /// The prediction for latents, with classifier-free guidance. The network is called twice,
    /// since one call for both predictions needs twice the memory.
    fn predict(
        &self,
        x: Tensor<5>,
        time: f64,
        prompt: &Tensor<3>,
        guided: Option<(f64, &Tensor<3>)>,
    ) -> Tensor<5> {
        let network = self.network_at(time);
        let call = |states: &Tensor<3>| {
            let time = Tensor::<1>::full([1], time, &x.device());
            network.forward(x.clone(), time, states.clone())
        };
        let output = call(prompt);
        match guided {
            Some((scale, negative)) => {
                ClassifierFreeGuidance::new(scale).combine(output, call(negative))
            }
            None => output,
        }
    }

    fn noise(&self, job: &Job, rng: &mut TorchRng) -> Tensor<5> {
        let values = rng.normal_vec(job.latent_shape.iter().product());
        Tensor::from_data(TensorData::new(values, job.latent_shape), &self.device)
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
        options.check_cancelled()?;
        vae.decode_chunks(vae.unscale_latents(latents), |part| {
            let [_, channels, count, height, width] = part.dims();
            let part = part
                .swap_dims(1, 2)
                .reshape([count, channels, height, width]);
            done += count;
            options.report(VideoStage::Decoding, done, all);
            frames(part)?;
            match done < all {
                true => options.check_cancelled(),
                false => Ok(()),
            }
        })
    }
}
