//! Opening pipelines.

use super::{
    families::PipelineFamily,
    index::{self, Index},
    model_defaults::ModelDefaults,
    options::{PipelineOptions, Residency},
    part_models::{AnyTextEncoder, AnyTokenizer},
    parts::{Part, Parts, Source, in_part},
    pipeline::{LatentSpace, TextToImagePipeline},
    safety::SafetyCheck,
};
use aigc_core::{
    DataFault, Error, Result,
    data::SampleShape,
    json,
    weights::{Loaded, OpenOptions, WeightDtype},
};
use aigc_diffusion::{AnyDenoiser, AnyScheduler, Denoiser};
use aigc_encoders::{clip::ClipTextConfig, t5::T5Config};
use burn::tensor::Device;
use serde_json::Value;
use std::{path::Path, sync::OnceLock};

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
    pub(crate) defaults: ModelDefaults,
    /// What was noticed so far.
    pub(crate) report: Loaded<()>,
    pub(crate) force_zeros_for_empty_prompt: bool,
    pub(crate) requires_aesthetics_score: bool,
}

impl TextToImagePipeline {
    /// Opens a pipeline's directory, as diffusers and [`save_pretrained`](Self::save_pretrained)
    /// write it: `model_index.json` and a directory for each part. What is returned says what was
    /// not used; [`report`](Self::report) what was found.
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
            defaults: index.defaults,
            report,
            force_zeros_for_empty_prompt: index.flag("force_zeros_for_empty_prompt", true),
            requires_aesthetics_score: index.flag("requires_aesthetics_score", false),
        };
        Self::new(sources, options.residency, device)
            .map_err(|error| in_file(&dir.join(index::INDEX), error))
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
        let mut report = sources.report;
        let family = PipelineFamily::of_class(&sources.class)?;
        let network = AnyDenoiser::from_json(&sources.denoiser.config, device)?.into_inner();
        let latents = LatentSpace::of(&sources.vae.config)?;
        let scheduler = match family {
            // Those with ControlNets leave it as it is.
            PipelineFamily::StableDiffusion if !sources.class.contains("ControlNet") => {
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
            model_defaults: sources.defaults,
            opening: report.clone(),
            safety: sources.safety,
            residency,
            options: PipelineOptions::default(),
            device: device.clone(),
            hash: OnceLock::new(),
            latent_colors: OnceLock::new(),
            adapters: vec![],
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
        let channels = self.latents.channels;
        let takes = |channels| {
            let shape = SampleShape::new(&[channels, 64, 64]);
            self.network.check_shape(shape).is_ok()
        };
        // Sides may not fit: those are checked with a request.
        let known = (1..=64).find(|channels| takes(*channels));
        if let Some(expected) = known.filter(|known| *known != channels && !takes(channels)) {
            let expected = format!("{expected}, the channels of the network");
            return Err(Error::config("vae: latent_channels", channels, expected));
        }
        self.check_conditions()?;
        for (which, name) in PipelineFamily::TOKENIZERS.into_iter().enumerate() {
            let (tokenizer, encoder) = (&self.parts.tokenizers[which], &self.parts.encoders[which]);
            if let (Some(tokenizer), Some(encoder)) = (tokenizer, encoder) {
                check_tokenizer(name, tokenizer, encoder)?;
            }
        }
        Ok(())
    }

    /// Fails for networks that need conditions that the pipeline does not give.
    fn check_conditions(&self) -> Result<()> {
        let network = &self.network;
        let has_classes =
            network.num_classes().is_some() || network.class_embedding_dim().is_some();
        let needs = match has_classes {
            true => Some("classes"),
            false => network.needs_from_pipeline(),
        };
        let gives = self.family.gives();
        let Some(needs) = needs.filter(|needs| gives != Some(*needs)) else {
            return Ok(());
        };
        let value = format!("a {} that needs {needs}", AnyDenoiser::class(network));
        let besides = gives.map_or_else(String::new, |gives| format!(" and {gives}"));
        let expected = format!(
            "one that is conditioned on prompts{besides} alone, for {}",
            self.class
        );
        Err(Error::config(network.component(), value, expected))
    }
}

/// Fails for a tokenizer of another kind than its encoder, or that makes tokens or prompts that
/// the encoder does not take.
fn check_tokenizer(
    name: &str,
    tokenizer: &AnyTokenizer,
    encoder: &Part<AnyTextEncoder>,
) -> Result<()> {
    let (config, part) = (encoder.config(), encoder.name());
    let fields = json::parse_object(config)?;
    let kind = fields.get("model_type").and_then(Value::as_str);
    let (tokens, rows) = match (tokenizer, matches!(kind, Some("t5" | "umt5"))) {
        (AnyTokenizer::Clip(tokenizer), false) => {
            let config = ClipTextConfig::from_json(config).map_err(|error| in_part(part, error))?;
            let (length, positions) = (tokenizer.max_length(), config.max_position_embeddings);
            if length > positions {
                let expected = format!("at most {positions}, max_position_embeddings of {part}");
                let field = format!("{name}: model_max_length");
                return Err(Error::config(field, length, expected));
            }
            (tokenizer.last_token_id() as usize + 1, config.vocab_size)
        }
        (AnyTokenizer::T5(tokenizer), true) => {
            let config = T5Config::from_json(config).map_err(|error| in_part(part, error))?;
            (tokenizer.vocab_size(), config.vocab_size)
        }
        (_, is_t5) => {
            let class = if is_t5 {
                "T5Tokenizer"
            } else {
                "CLIPTokenizer"
            };
            let expected = format!("{class}, for {part}");
            return Err(Error::config(name, tokenizer.class(), expected));
        }
    };
    if tokens > rows {
        let value = format!("one of {tokens} tokens");
        let expected = format!("at most {rows}, the vocab_size of {part}");
        return Err(Error::config(name, value, expected));
    }
    Ok(())
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
