//! Pipelines: opening, parts, options.

use super::{
    families::PipelineFamily,
    index::{self, Index},
    options::{PipelineOptions, Residency},
    parts::{AnyAutoencoder, AnyTokenizer, Part, Parts, Source},
    safety::SafetyCheck,
};
use aigc_core::{
    DataFault, Error, Result, json,
    weights::{Loaded, OpenOptions, WeightDtype},
};
use aigc_diffusion::{AnyDenoiser, AnyScheduler, ControlNetModel, Denoiser};
use burn::tensor::Device;
use serde_json::Value;
use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

/// How a pipeline is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PipelineOpenOptions {
    /// Variant of the weights, such as `fp16`. Parts that have no such files, other than the
    /// network, are opened without it.
    pub variant: Option<String>,
    /// Type of the weights in memory. Half precision halves their memory; computations are in 32
    /// bits.
    pub dtype: WeightDtype,
    /// When parts are in memory.
    pub residency: Residency,
    /// Parts that are left out, by the names of their directories: `text_encoder_3` and
    /// `tokenizer_3` of Stable Diffusion 3, `safety_checker`.
    pub without: Vec<String>,
}

impl PipelineOpenOptions {
    /// With a variant of the weights.
    pub fn with_variant(mut self, variant: impl Into<String>) -> Self {
        self.variant = Some(variant.into());
        self
    }

    /// With a type for the weights in memory.
    pub fn with_dtype(mut self, dtype: WeightDtype) -> Self {
        self.dtype = dtype;
        self
    }

    /// With parts in memory at these times.
    pub fn with_residency(mut self, residency: Residency) -> Self {
        self.residency = residency;
        self
    }

    /// Without a part, by the name of its directory.
    pub fn without(mut self, part: impl Into<String>) -> Self {
        self.without.push(part.into());
        self
    }

    pub(crate) fn model_options(&self) -> OpenOptions {
        OpenOptions {
            variant: self.variant.clone(),
            dtype: self.dtype,
        }
    }
}

/// What the configuration of an autoencoder says about sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LatentSpace {
    /// Pixels of a latent's side.
    pub(crate) scale: usize,
    pub(crate) channels: usize,
}

impl LatentSpace {
    fn of(config: &str) -> Result<Self> {
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
    pub(crate) force_zeros_for_empty_prompt: bool,
    /// Whether the network is told an aesthetic score in place of the target size.
    pub(crate) requires_aesthetics_score: bool,
    pub(crate) safety: Option<SafetyCheck>,
    pub(crate) residency: Residency,
    pub(crate) options: PipelineOptions,
    pub(crate) device: Device,
    pub(crate) hash: OnceLock<Option<String>>,
}

/// The parts that a pipeline is made of, wherever they come from.
pub(crate) struct PipelineSources {
    pub(crate) name: String,
    pub(crate) class: String,
    pub(crate) tokenizers: [Option<AnyTokenizer>; 3],
    pub(crate) encoders: [Option<Source>; 3],
    pub(crate) denoiser: Source,
    pub(crate) vae: Source,
    pub(crate) scheduler: AnyScheduler,
    pub(crate) controlnets: Vec<Source>,
    pub(crate) safety: Option<SafetyCheck>,
    pub(crate) force_zeros_for_empty_prompt: bool,
    pub(crate) requires_aesthetics_score: bool,
}

impl TextToImagePipeline {
    /// Opens a pipeline's directory, as diffusers and [`save_pretrained`](Self::save_pretrained)
    /// write it: `model_index.json` and a directory for each part. The report says what was not
    /// used.
    ///
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Data`] names file and field,
    /// [`Error::Weights`] the tensors that do not fit.
    pub fn from_pretrained(dir: impl AsRef<Path>, device: &Device) -> Result<Loaded<Self>> {
        Self::from_pretrained_with(dir, &PipelineOpenOptions::default(), device)
    }

    /// [`from_pretrained`](Self::from_pretrained) for a variant of the weights, with weights in
    /// half precision, with parts that are opened when they are needed, or without some.
    ///
    /// # Errors
    /// As [`from_pretrained`](Self::from_pretrained).
    pub fn from_pretrained_with(
        dir: impl AsRef<Path>,
        options: &PipelineOpenOptions,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let dir = dir.as_ref();
        let index = Index::open(dir, &options.without)?;
        let mut report = index.report();
        let model = options.model_options();
        let mut encoders = [None, None, None];
        let mut tokenizers = [None, None, None];
        for which in 0..3 {
            encoders[which] = index.encoder(which, &model, device)?;
            tokenizers[which] = index.tokenizer(which)?;
        }
        let sources = PipelineSources {
            name: file_name(dir),
            class: index.class.clone(),
            tokenizers,
            encoders,
            denoiser: index.denoiser(&model, device)?,
            vae: index.vae(&model, device)?,
            scheduler: report.merge(index.scheduler()?),
            controlnets: index.controlnets(&model, device)?,
            safety: SafetyCheck::open(&index, &model, device)?,
            force_zeros_for_empty_prompt: index.flag("force_zeros_for_empty_prompt", true),
            requires_aesthetics_score: index.flag("requires_aesthetics_score", false),
        };
        let loaded = Self::new(sources, options.residency, device)
            .map_err(|error| in_file(&dir.join(index::INDEX), error))?;
        let pipeline = report.merge(loaded);
        Ok(report.map(|()| pipeline))
    }

    /// A pipeline of parts.
    ///
    /// # Errors
    /// [`Error::Config`] for parts that do not fit each other; errors of the files.
    pub(crate) fn new(
        sources: PipelineSources,
        residency: Residency,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let mut report = Loaded::new(());
        let family = PipelineFamily::of_class(&sources.class)?;
        let network = AnyDenoiser::from_json(&sources.denoiser.config, device)?.into_inner();
        let latents = LatentSpace::of(&sources.vae.config)?;
        let scheduler = match family {
            PipelineFamily::StableDiffusion => {
                report.merge(current(sources.scheduler, &sources.class)?)
            }
            _ => sources.scheduler,
        };
        let encoders = std::array::from_fn(|which| {
            let name = PipelineFamily::ENCODERS[which];
            sources.encoders[which]
                .clone()
                .map(|source| Part::unopened(name, source))
        });
        let controlnets = sources.controlnets.into_iter();
        let parts = Parts {
            tokenizers: sources.tokenizers,
            encoders,
            denoiser: Part::unopened(network.component(), sources.denoiser),
            vae: Part::unopened("vae", sources.vae),
            controlnets: controlnets
                .map(|net| Part::unopened("controlnet", net))
                .collect(),
        };
        let pipeline = Self {
            name: sources.name,
            class: sources.class,
            family,
            original_tokenizers: parts.tokenizers.clone(),
            parts,
            scheduler,
            network,
            latents,
            force_zeros_for_empty_prompt: sources.force_zeros_for_empty_prompt,
            requires_aesthetics_score: sources.requires_aesthetics_score,
            safety: sources.safety,
            residency,
            options: PipelineOptions::default(),
            device: device.clone(),
            hash: OnceLock::new(),
        };
        pipeline.check_parts()?;
        pipeline.parts.open(residency, &mut report)?;
        if let Some(safety) = &pipeline.safety {
            report.merge(safety.open_if(residency)?);
        }
        Ok(report.map(|()| pipeline))
    }

    /// Fails for parts that do not fit each other.
    fn check_parts(&self) -> Result<()> {
        let extra = self.network.extra_input_channels();
        if extra != 0 && extra != self.inpainting_channels() {
            return Err(Error::unsupported(
                format!("a network with {extra} further input channels"),
                "TextToImagePipeline",
                format!(
                    "those for inpainting have {}, mask and masked image",
                    self.inpainting_channels()
                ),
            ));
        }
        Ok(())
    }

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

    /// With a further ControlNet.
    pub fn with_controlnet(mut self, controlnet: ControlNetModel) -> Self {
        self.parts
            .controlnets
            .push(Part::given("controlnet", controlnet));
        self
    }

    /// With a further ControlNet from a directory, which is opened as the other parts are.
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
        self.parts.vae = Part::given("vae", vae);
        Ok(self)
    }

    /// Releases all parts that can be opened again.
    pub fn release(&self) {
        self.parts.encoders.iter().flatten().for_each(Part::release);
        self.parts.denoiser.release();
        self.parts.vae.release();
        self.parts.controlnets.iter().for_each(Part::release);
        if let Some(safety) = &self.safety {
            safety.release();
        }
    }

    /// Releases a part after its use, if the pipeline is opened so.
    pub(crate) fn used<M>(&self, part: &Part<M>) {
        if self.residency == Residency::WhileNeeded {
            part.release();
        }
    }

    /// Hash of the network's weights, those of the files without changes by adapters; `None` if
    /// they cannot be read.
    pub fn model_hash(&self) -> Option<&str> {
        let hash = || self.parts.denoiser.source()?.files.hash().ok();
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

/// Stable Diffusion's schedulers as its pipelines use them: old folders have other values.
fn current(scheduler: AnyScheduler, class: &str) -> Result<Loaded<AnyScheduler>> {
    let text = scheduler.to_json();
    let mut fields = json::parse_object(&text)?;
    let mut notes = vec![];
    let second = match class.contains("Inpaint") {
        true => ("skip_prk_steps", Value::from(true)),
        false => ("clip_sample", Value::from(false)),
    };
    for (field, value) in [("steps_offset", Value::from(1)), second] {
        if let Some(old) = fields.get_mut(field).filter(|old| **old != value) {
            notes.push(format!(
                "scheduler: {field} is {value}, not {old}, as in diffusers"
            ));
            *old = value;
        }
    }
    if notes.is_empty() {
        return Ok(Loaded::new(scheduler));
    }
    let mut loaded = AnyScheduler::from_json(&Value::Object(fields).to_string())?;
    loaded.notes.extend(notes);
    Ok(loaded)
}

pub(crate) fn file_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.into());
    let name = whole.file_name().unwrap_or(whole.as_os_str());
    name.to_string_lossy().into_owned()
}

/// Names the file in an error of a configuration.
fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Config { .. } => Error::data(path, DataFault::Mismatch(error.to_string())),
        other => other,
    }
}
