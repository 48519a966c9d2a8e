//! Prompts, denoising and decoding.

use super::{
    request::{DEFAULTS, Job},
    windows::averaged,
};
use crate::{
    sampling::check_finite,
    video::{GeneratedVideo, VideoOptions, VideoPrompts, VideoRequest, VideoStage},
};
use aigc_core::{
    Error, Result,
    check::{ensure, ensure_argument},
    encoder::TextEncoder,
    rng::TorchRng,
};
use aigc_diffusion::{
    AnyScheduler, ClassifierFreeGuidance, Conditioning, Denoiser, PlanRunner, UNetMotionModel,
};
use aigc_encoders::clip::ClipTextEncoder;
use aigc_vae::{AutoencoderKl, Vae};
use burn::tensor::{Device, Tensor, TensorData};

/// Frames that are decoded together.
const DECODED_TOGETHER: usize = 16;

/// Text encoder, network with motion modules, autoencoder and scheduler, as diffusers'
/// `AnimateDiffPipeline`.
///
/// With the same seed, the noise is that of diffusers with
/// `generator=torch.Generator("cpu").manual_seed(seed)`.
#[derive(Debug)]
pub struct AnimateDiffPipeline {
    name: String,
    encoder: ClipTextEncoder,
    network: UNetMotionModel,
    vae: AutoencoderKl,
    scheduler: AnyScheduler,
    device: Device,
}

impl AnimateDiffPipeline {
    /// A pipeline of parts.
    ///
    /// # Errors
    /// [`Error::Config`] names parts that do not fit each other.
    pub fn new(
        name: impl Into<String>,
        encoder: ClipTextEncoder,
        network: UNetMotionModel,
        vae: AutoencoderKl,
        scheduler: impl Into<AnyScheduler>,
        device: &Device,
    ) -> Result<Self> {
        let (width, tokens) = (network.cross_attention_dim(), encoder.embed_dim());
        let expected = format!("{tokens}, the width of the text encoder's states");
        let found = width.unwrap_or(0);
        ensure(
            found == tokens,
            "unet: cross_attention_dim",
            found,
            &expected,
        )?;
        if let Some(needs) = network.needs_from_pipeline() {
            let expected = "null: a network that is conditioned on prompts alone";
            return Err(Error::config("unet: addition_embed_type", needs, expected));
        }
        let (channels, latents) = (
            network.unet().config().in_channels,
            vae.config().latent_channels,
        );
        let expected = format!("{latents}, the channels of the autoencoder's latents");
        ensure(
            channels == latents,
            "unet: in_channels",
            channels,
            &expected,
        )?;
        let channels = network.unet().config().out_channels;
        ensure(
            channels == latents,
            "unet: out_channels",
            channels,
            &expected,
        )?;
        Ok(Self {
            name: name.into(),
            encoder,
            network,
            vae,
            scheduler: scheduler.into(),
            device: device.clone(),
        })
    }

    /// With another scheduler.
    pub fn with_scheduler(mut self, scheduler: impl Into<AnyScheduler>) -> Self {
        self.scheduler = scheduler.into();
        self
    }

    /// The scheduler.
    pub fn scheduler(&self) -> &AnyScheduler {
        &self.scheduler
    }

    /// The network.
    pub fn network(&self) -> &UNetMotionModel {
        &self.network
    }

    /// The autoencoder.
    pub fn autoencoder(&self) -> &AutoencoderKl {
        &self.vae
    }

    /// Pixels in height and width that a latent stands for.
    pub(super) fn pixels_of_a_latent(&self) -> usize {
        let levels = self.vae.config().block_out_channels.len();
        1 << levels.saturating_sub(1)
    }

    pub(super) fn latent_channels(&self) -> usize {
        self.vae.config().latent_channels
    }

    /// Makes a video.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names a field of the request that cannot be fulfilled, such as
    /// more frames than the motion modules have positions; [`Error::NotFiniteSamples`] with the
    /// step after which numbers overflowed.
    pub fn generate(&self, request: &VideoRequest) -> Result<GeneratedVideo> {
        self.generate_with(request, &mut VideoOptions::default())
    }

    /// [`generate`](Self::generate) with progress and cancellation.
    ///
    /// # Errors
    /// As [`generate`](Self::generate); [`Error::Cancelled`].
    pub fn generate_with(
        &self,
        request: &VideoRequest,
        options: &mut VideoOptions<'_>,
    ) -> Result<GeneratedVideo> {
        let job = self.job(request)?;
        let prompts = self.encode_prompts(request)?;
        let mut noise = TorchRng::new(job.sampling.seed);
        let latents = self.noise(&mut noise, job.latent_shape);
        let latents = self.denoise_job(&job, &prompts, latents, &mut noise, options)?;
        let frames = self.decode_with(latents, options)?;
        Ok(GeneratedVideo {
            frames,
            warnings: prompts.warnings,
            request: job.request,
            model: self.name.clone(),
            scheduler: self.scheduler.to_json(),
        })
    }

    /// Encodes the prompts of a request; the negative one only with classifier-free guidance.
    ///
    /// # Errors
    /// Of texts that cannot be encoded.
    pub fn encode_prompts(&self, request: &VideoRequest) -> Result<VideoPrompts> {
        VideoPrompts::encoded(request, &DEFAULTS, |text| {
            let tokens = self.encoder.tokenizer().encode_padded(&[text])?;
            let states = self.encoder.encode(&[text], &self.device)?.hidden_states;
            Ok((states, tokens.cut.into_iter().flatten().next()))
        })
    }

    /// Denoises latents that are standard normal noise.
    ///
    /// # Shapes
    /// - latents and output: `[1, channels, frames, height, width]`
    ///
    /// # Errors
    /// As [`generate`](Self::generate); [`Error::InvalidArgument`] for latents of another shape
    /// than the request says, or prompts of a request without guidance; [`Error::Cancelled`].
    pub fn denoise(
        &self,
        request: &VideoRequest,
        prompts: &VideoPrompts,
        latents: Tensor<5>,
        options: &mut VideoOptions<'_>,
    ) -> Result<Tensor<5>> {
        let job = self.job(request)?;
        let (found, expected) = (latents.dims(), job.latent_shape);
        ensure_argument(
            found == expected,
            "latents",
            format!("{found:?}"),
            &format!("{expected:?}"),
        )?;
        let mut noise = TorchRng::new(job.sampling.seed);
        self.denoise_job(&job, prompts, latents, &mut noise, options)
    }

    fn noise(&self, rng: &mut TorchRng, shape: [usize; 5]) -> Tensor<5> {
        let values = rng.normal_vec(shape.iter().product());
        Tensor::from_data(TensorData::new(values, shape), &self.device)
    }

    fn denoise_job(
        &self,
        job: &Job,
        prompts: &VideoPrompts,
        latents: Tensor<5>,
        rng: &mut TorchRng,
        options: &mut VideoOptions<'_>,
    ) -> Result<Tensor<5>> {
        let mut latents = latents * job.sampling.plan.init_noise_sigma;
        let states = match prompts.guided(job.sampling.guidance)? {
            Some((_, negative)) => Tensor::cat(vec![negative.clone(), prompts.prompt.clone()], 0),
            None => prompts.prompt.clone(),
        };
        let mut runner = PlanRunner::new(&job.sampling.plan);
        let steps = job.sampling.plan.len();
        while let Some(call) = runner.call() {
            let input = runner.input(&latents);
            let output = self.predict(job, input, call.time, &states, options)?;
            let next = runner.step(latents, output, || self.noise(rng, job.latent_shape));
            latents = next.prev_sample;
            check_finite(&latents, "the latents", runner.calls_made(), steps)?;
            options.report(VideoStage::Denoising, runner.calls_made(), steps);
        }
        Ok(latents)
    }

    /// The prediction for latents, with classifier-free guidance.
    ///
    /// # Errors
    /// [`Error::Cancelled`] before a window of frames.
    fn predict(
        &self,
        job: &Job,
        x: Tensor<5>,
        time: f64,
        states: &Tensor<3>,
        options: &VideoOptions<'_>,
    ) -> Result<Tensor<5>> {
        let rows = states.dims()[0];
        let condition = Conditioning {
            encoder_hidden_states: Some(states.clone()),
            ..Conditioning::default()
        };
        let times = Tensor::<1>::full([rows], time, &x.device());
        let x = match rows {
            1 => x,
            _ => Tensor::cat(vec![x.clone(), x], 0),
        };
        let frames = job.latent_shape[2];
        let output = averaged(frames, &job.windows, |window| {
            options.check_cancelled()?;
            let part = x.clone().narrow(2, window.start, window.len());
            Ok(self.network.predict(part, times.clone(), &condition))
        })?;
        Ok(match job.sampling.guidance {
            Some(scale) => {
                let [none, prompt] = [0, 1].map(|row| output.clone().narrow(0, row, 1));
                ClassifierFreeGuidance::new(scale).combine(prompt, none)
            }
            None => output,
        })
    }

    /// Frames of latents, in `[0, 1]`.
    ///
    /// # Shapes
    /// - latents: `[1, channels, frames, height, width]`
    /// - output: `[frames, 3, height, width]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for latents of several videos, or with other channels than the
    /// autoencoder's.
    pub fn decode(&self, latents: Tensor<5>) -> Result<Tensor<4>> {
        self.decode_with(latents, &mut VideoOptions::default())
    }

    fn decode_with(&self, latents: Tensor<5>, options: &mut VideoOptions<'_>) -> Result<Tensor<4>> {
        let [videos, channels, frames, height, width] = latents.dims();
        let fits = videos == 1 && channels == self.latent_channels() && frames > 0;
        let expected = format!("[1, {}, frames, height, width]", self.latent_channels());
        let found = format!("{:?}", latents.dims());
        ensure_argument(fits, "latents", found, &expected)?;
        let latents: Tensor<4> = latents
            .swap_dims(1, 2)
            .reshape([frames, channels, height, width]);
        let mut decoded = vec![];
        for start in (0..frames).step_by(DECODED_TOGETHER) {
            options.check_cancelled()?;
            let count = DECODED_TOGETHER.min(frames - start);
            let z = self
                .vae
                .unscale_latents(latents.clone().narrow(0, start, count));
            let images = Vae::<4, 4>::decode(&self.vae, z).mean();
            decoded.push(images.clamp(0.0, 1.0));
            options.report(VideoStage::Decoding, start + count, frames);
        }
        Ok(Tensor::cat(decoded, 0))
    }
}
