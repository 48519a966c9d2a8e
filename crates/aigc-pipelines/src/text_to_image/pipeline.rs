//! Pipelines: their parts and options.

use super::{
    families::PipelineFamily,
    fingerprint::fingerprint,
    index,
    latent_colors::LatentColors,
    model_defaults::ModelDefaults,
    open::PipelineOpenOptions,
    options::{PipelineOptions, Residency},
    part_models::{AnyAutoencoder, AnyTokenizer},
    parts::{Part, Parts},
    safety::SafetyCheck,
};
use aigc_core::{Error, Result, json, weights::Loaded};
use aigc_diffusion::{AnyDenoiser, AnyScheduler, ControlNetModel};
use burn::tensor::Device;
use serde_json::Value;
use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

/// What the configuration of an autoencoder says about sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LatentSpace {
    /// Pixels of a latent's side.
    pub(crate) scale: usize,
    pub(crate) channels: usize,
}

impl LatentSpace {
    pub(crate) fn of(config: &str) -> Result<Self> {
        let fields = json::parse_object(config)?;
        let blocks = ["block_out_channels", "decoder_block_out_channels"]
            .iter()
            .find_map(|name| fields.get(*name).and_then(Value::as_array))
            .map_or(1, Vec::len);
        json::check_ranges(&[("block_out_channels", blocks, 12)])?;
        let channels = fields
            .get("latent_channels")
            .and_then(Value::as_u64)
            .unwrap_or(4);
        json::check_ranges(&[("latent_channels", channels as usize, 1 << 10)])?;
        Ok(Self {
            scale: 1 << (blocks - 1),
            channels: channels as usize,
        })
    }
}

/// A pipeline of text encoders, a denoising network and an autoencoder, as diffusers has it.
///
/// ```no_run
/// # use aigc_core::{device::device, text_to_image::{ImageRequest, TextToImage}};
/// # use aigc_pipelines::text_to_image::TextToImagePipeline;
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let pipeline = TextToImagePipeline::from_pretrained("stable-diffusion-v1-5", &device)?;
/// let request = ImageRequest::new("a cat wearing a hat").with_seed(7);
/// let result = pipeline.generate(&request)?;
/// result.images[0].image.save("cat.png").map_err(aigc_core::Error::other)?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct TextToImagePipeline {
    pub(crate) name: String,
    /// The class in diffusers.
    pub(crate) class: String,
    pub(crate) family: PipelineFamily,
    pub(crate) parts: Parts,
    /// The tokenizers without the words of adapters.
    pub(crate) original_tokenizers: [Option<AnyTokenizer>; 3],
    pub(crate) scheduler: AnyScheduler,
    /// The network of the configuration, without weights in memory: for questions about it.
    pub(crate) network: AnyDenoiser,
    pub(crate) latents: LatentSpace,
    /// Guidance scale and steps of the directory, if it has any.
    pub(crate) model_defaults: ModelDefaults,
    pub(crate) force_zeros_for_empty_prompt: bool,
    /// Whether the network is told an aesthetic score in place of the target size.
    pub(crate) requires_aesthetics_score: bool,
    /// What was noticed when the pipeline was opened, without its parts.
    pub(crate) opening: Loaded<()>,
    pub(crate) safety: Option<SafetyCheck>,
    pub(crate) residency: Residency,
    pub(crate) options: PipelineOptions,
    pub(crate) device: Device,
    pub(crate) hash: OnceLock<Option<String>>,
    /// Colours of latents, for previews; found when they are first needed.
    pub(crate) latent_colors: OnceLock<Option<LatentColors>>,
    /// Names and values of what adapters are recorded by.
    pub(crate) adapters: Vec<(String, String)>,
}

impl TextToImagePipeline {
    /// Further input channels of a network for inpainting: the mask, and the latents of the masked
    /// image.
    pub(crate) fn inpainting_channels(&self) -> usize {
        1 + self.latents.channels
    }

    /// With other options for requests that give none.
    pub fn with_options(mut self, options: PipelineOptions) -> Self {
        self.options = options;
        self
    }

    /// The options of requests that give none.
    pub fn options(&self) -> &PipelineOptions {
        &self.options
    }

    /// Changes the options of requests that give none.
    pub fn options_mut(&mut self) -> &mut PipelineOptions {
        &mut self.options
    }

    /// With another name; that of the directory by default.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How the pipeline works.
    pub fn family(&self) -> PipelineFamily {
        self.family
    }

    /// The scheduler of the pipeline.
    pub fn scheduler(&self) -> &AnyScheduler {
        &self.scheduler
    }

    /// With another scheduler.
    pub fn with_scheduler(mut self, scheduler: impl Into<AnyScheduler>) -> Self {
        self.scheduler = scheduler.into();
        self
    }

    /// The configuration of the network as a network without weights.
    pub fn network(&self) -> &AnyDenoiser {
        &self.network
    }

    /// With a further ControlNet. Requests fail if it is for another network.
    pub fn with_controlnet(mut self, controlnet: ControlNetModel) -> Self {
        let config = controlnet.config().to_json();
        let part = Part::given("controlnet", config, controlnet);
        self.parts.controlnets.push(part);
        self
    }

    /// With a further ControlNet from a directory, which is opened as the other parts are. What of
    /// its files is not used, is in the [`report`](Self::report).
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn with_controlnet_from(
        mut self,
        dir: impl AsRef<Path>,
        options: &PipelineOpenOptions,
    ) -> Result<Self> {
        let source = index::controlnet(dir.as_ref(), &options.model_options(), &self.device)?;
        let part = Part::unopened("controlnet", source);
        part.open_if(self.residency)?;
        self.parts.controlnets.push(part);
        Ok(self)
    }

    /// With another autoencoder, such as an [`AutoencoderTiny`](aigc_vae::AutoencoderTiny).
    ///
    /// # Errors
    /// [`Error::Config`] if its latents have other channels or another size.
    pub fn with_autoencoder(mut self, vae: impl Into<PipelineAutoencoder>) -> Result<Self> {
        let PipelineAutoencoder(vae, config) = vae.into();
        let latents = LatentSpace::of(&config)?;
        if latents != self.latents {
            let of = |space: LatentSpace| {
                format!("{} channels for {} pixels", space.channels, space.scale)
            };
            return Err(Error::config("vae", of(latents), of(self.latents)));
        }
        self.parts.vae = Part::given("vae", config, vae);
        self.latent_colors = OnceLock::new();
        Ok(self)
    }

    /// Releases all parts that can be opened again.
    pub fn release(&self) {
        self.parts.encoders.iter().flatten().for_each(Part::release);
        self.parts.denoiser.release();
        self.parts.vae.release();
        self.parts.controlnets.iter().for_each(Part::release);
        if let Some(safety) = &self.safety {
            safety.checker().release();
        }
    }

    /// Releases a part after its use, if the pipeline is opened so.
    pub(crate) fn used<M>(&self, part: &Part<M>) {
        if self.residency == Residency::WhileNeeded {
            part.release();
        }
    }

    /// Hash of the network's files, without changes by adapters, in hexadecimal; `None` if they
    /// cannot be read. Up to 16 MiB it is the SHA-256 of a file, as `sha256sum` prints it. Of
    /// larger files, 4 KiB of every 128 are read, together with the length: enough to know weights
    /// again, and quick. It is computed at the first call, or at the end of the first request.
    pub fn model_hash(&self) -> Option<&str> {
        let hash = || fingerprint(self.parts.denoiser.source()?.files.files()).ok();
        self.hash.get_or_init(hash).as_deref()
    }
}

/// An autoencoder for [`TextToImagePipeline::with_autoencoder`].
#[derive(Debug)]
pub struct PipelineAutoencoder(AnyAutoencoder, String);

impl From<aigc_vae::AutoencoderKl> for PipelineAutoencoder {
    fn from(vae: aigc_vae::AutoencoderKl) -> Self {
        let config = vae.config().to_json();
        Self(AnyAutoencoder::Kl(Arc::new(vae)), config)
    }
}

impl From<aigc_vae::AutoencoderTiny> for PipelineAutoencoder {
    fn from(vae: aigc_vae::AutoencoderTiny) -> Self {
        let config = vae.config().to_json();
        Self(AnyAutoencoder::Tiny(Arc::new(vae)), config)
    }
}
