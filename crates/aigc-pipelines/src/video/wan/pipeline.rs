//! The parts of a pipeline, and prompts.

use super::request::DEFAULTS;
use crate::video::{GeneratedVideo, VideoOptions, VideoPrompts, VideoRequest};
use aigc_core::{
    Result,
    check::{ensure, in_range},
    encoder::TextEncoder,
    json,
};
use aigc_diffusion::{AnyScheduler, WanTransformer3dModel};
use aigc_encoders::t5::T5TextEncoder;
use aigc_vae::AutoencoderKlWan;
use burn::tensor::{Device, Tensor};

/// Text encoder, transformer, autoencoder and scheduler, as diffusers' `WanPipeline`.
///
/// With the same seed, the noise is that of diffusers with
/// `generator=torch.Generator("cpu").manual_seed(seed)`.
///
/// ```no_run
/// # use aigc_core::device::device;
/// # use aigc_pipelines::video::{VideoRequest, WanPipeline};
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let pipeline = WanPipeline::from_pretrained("Wan2.1-T2V-1.3B-Diffusers", &device)?;
/// let request = VideoRequest::new("a cat walks on grass")
///     .with_size(480, 272)
///     .with_num_frames(17);
/// let video = pipeline.generate(&request)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct WanPipeline {
    name: String,
    encoder: T5TextEncoder,
    network: WanTransformer3dModel,
    /// The network for steps with little noise, and the share of all times below which it is used.
    low_noise: Option<(WanTransformer3dModel, f64)>,
    vae: AutoencoderKlWan,
    pub(super) scheduler: AnyScheduler,
    pub(super) device: Device,
}

impl WanPipeline {
    /// A pipeline of parts.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names parts that do not fit each other.
    pub fn new(
        name: impl Into<String>,
        encoder: T5TextEncoder,
        network: WanTransformer3dModel,
        vae: AutoencoderKlWan,
        scheduler: impl Into<AnyScheduler>,
        device: &Device,
    ) -> Result<Self> {
        check_network("transformer", &network, &encoder, &vae)?;
        Ok(Self {
            name: name.into(),
            encoder: encoder.with_attention_mask(true),
            network,
            low_noise: None,
            vae,
            scheduler: scheduler.into(),
            device: device.clone(),
        })
    }

    /// With a second transformer for the steps with little noise, those whose time is below
    /// `boundary_ratio` of all times.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for a ratio out of range, or parts that do not
    /// fit each other.
    pub fn with_transformer_2(
        mut self,
        network: WanTransformer3dModel,
        boundary_ratio: f64,
    ) -> Result<Self> {
        in_range("boundary_ratio", boundary_ratio, 0.0..=1.0)?;
        check_network("transformer_2", &network, &self.encoder, &self.vae)?;
        let (first, second) = (
            &self.network.config().patch_size,
            network.config().patch_size,
        );
        let expected = format!("{first:?}, as that of the transformer");
        let value = format!("{second:?}");
        ensure(
            second == *first,
            "transformer_2: patch_size",
            value,
            &expected,
        )?;
        let (most, found) = (
            self.network.config().rope_max_seq_len,
            network.config().rope_max_seq_len,
        );
        let expected = format!("at least {most}, that of the transformer");
        ensure(
            found >= most,
            "transformer_2: rope_max_seq_len",
            found,
            &expected,
        )?;
        self.low_noise = Some((network, boundary_ratio));
        Ok(self)
    }

    /// With another scheduler.
    pub fn with_scheduler(mut self, scheduler: impl Into<AnyScheduler>) -> Self {
        self.scheduler = scheduler.into();
        self
    }

    /// Sets the number of tokens that prompts are padded or cut to; 512 for an opened directory.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for 0, and for more than
    /// 1048576.
    pub fn with_max_sequence_length(mut self, length: usize) -> Result<Self> {
        self.encoder = self.encoder.with_max_length(length)?;
        Ok(self)
    }

    /// The scheduler.
    pub fn scheduler(&self) -> &AnyScheduler {
        &self.scheduler
    }

    /// The network. Of two networks, it is the one for steps with much noise.
    pub fn network(&self) -> &WanTransformer3dModel {
        &self.network
    }

    /// The autoencoder.
    pub fn autoencoder(&self) -> &AutoencoderKlWan {
        &self.vae
    }

    /// The network for a time, of all times of the scheduler.
    pub(super) fn network_at(&self, time: f64) -> &WanTransformer3dModel {
        match &self.low_noise {
            Some((second, ratio)) if time < ratio * self.train_timesteps() => second,
            _ => &self.network,
        }
    }

    fn train_timesteps(&self) -> f64 {
        const DEFAULT: f64 = 1000.0;
        let fields = json::parse_object(&self.scheduler.to_json());
        let count = fields
            .ok()
            .and_then(|fields| fields.get("num_train_timesteps")?.as_f64());
        count.unwrap_or(DEFAULT)
    }

    /// Makes a video.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) names a field of the request
    /// that cannot be fulfilled, such as a number of frames that the autoencoder does not have;
    /// [`Error::NotFiniteSamples`](aigc_core::Error::NotFiniteSamples) with the step after which
    /// numbers overflowed.
    pub fn generate(&self, request: &VideoRequest) -> Result<GeneratedVideo> {
        self.generate_with(request, &mut VideoOptions::default())
    }

    /// [`generate`](Self::generate) with progress and cancellation.
    ///
    /// # Errors
    /// As [`generate`](Self::generate); [`Error::Cancelled`](aigc_core::Error::Cancelled).
    pub fn generate_with(
        &self,
        request: &VideoRequest,
        options: &mut VideoOptions<'_>,
    ) -> Result<GeneratedVideo> {
        let mut frames = vec![];
        let video = self.generate_chunks(request, options, |part| {
            frames.push(part);
            Ok(())
        })?;
        Ok(GeneratedVideo {
            frames: Tensor::cat(frames, 0),
            request: video.request,
            model: video.model,
            scheduler: video.scheduler,
            warnings: video.warnings,
        })
    }

    /// [`generate_with`](Self::generate_with) without keeping the frames: `frames` receives them as
    /// from [`decode_chunks`](Self::decode_chunks). The memory needed for them does not depend on
    /// their number. [`prepare_request`](Self::prepare_request) tells their number and size before.
    ///
    /// # Errors
    /// As [`generate_with`](Self::generate_with), and those of `frames`.
    pub fn generate_chunks(
        &self,
        request: &VideoRequest,
        options: &mut VideoOptions<'_>,
        frames: impl FnMut(Tensor<4>) -> Result<()>,
    ) -> Result<GeneratedVideo<()>> {
        let job = self.job(request)?;
        let prompts = self.encode_prompts(request)?;
        let latents = self.denoise_job(&job, &prompts, None, options)?;
        self.decode_with(latents, options, frames)?;
        Ok(GeneratedVideo {
            frames: (),
            warnings: prompts.warnings,
            request: job.request,
            model: self.name.clone(),
            scheduler: self.scheduler.to_json(),
        })
    }

    /// Encodes the prompts of a request; the negative one only with classifier-free guidance. The
    /// states of padding are zeros. Texts are encoded as they are: diffusers replaces HTML entities
    /// such as `&amp;` first, and repairs wrongly decoded characters.
    ///
    /// # Errors
    /// Of texts that cannot be encoded.
    pub fn encode_prompts(&self, request: &VideoRequest) -> Result<VideoPrompts> {
        let (tokenizer, length) = (self.encoder.tokenizer(), self.encoder.max_length());
        VideoPrompts::encoded(request, &DEFAULTS, |text| {
            let tokens = tokenizer.encode_padded(&[text], length)?;
            let cut = tokens.cut.into_iter().flatten().next();
            let encoded = self.encoder.encode(&[text], &self.device)?;
            let states = encoded.hidden_states;
            let Some(mask) = encoded.attention_mask else {
                return Ok((states, cut));
            };
            let [prompts, tokens] = mask.dims();
            Ok((states * mask.float().reshape([prompts, tokens, 1]), cut))
        })
    }
}

/// Fails unless a network takes the states of the text encoder and the latents of the autoencoder.
fn check_network(
    name: &str,
    network: &WanTransformer3dModel,
    encoder: &T5TextEncoder,
    vae: &AutoencoderKlWan,
) -> Result<()> {
    let (found, states) = (network.config().text_dim, encoder.embed_dim());
    let expected = format!("{states}, the width of the text encoder's states");
    ensure(
        found == states,
        &format!("{name}: text_dim"),
        found,
        &expected,
    )?;
    let latents = vae.config().z_dim;
    let expected = format!("{latents}, the channels of the autoencoder's latents");
    let inputs = network.config().in_channels;
    ensure(
        inputs == latents,
        &format!("{name}: in_channels"),
        inputs,
        &expected,
    )?;
    let outputs = network.config().out_channels.unwrap_or(inputs);
    ensure(
        outputs == latents,
        &format!("{name}: out_channels"),
        outputs,
        &expected,
    )
}
