//! A pipeline's directory: `model_index.json`, and the directories of its parts.

use super::{
    families::PipelineFamily, model_defaults::ModelDefaults, part_models::AnyTokenizer,
    parts::Source,
};
use aigc_core::{
    DataFault, Error, Result,
    fs::read_text,
    json,
    weights::{Loaded, OpenOptions, WeightReader},
};
use aigc_diffusion::AnyScheduler;
use aigc_encoders::tokenizer::{ClipTokenizer, T5Tokenizer};
use burn::tensor::Device;
use serde_json::{Map, Value, json};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

pub(crate) const INDEX: &str = "model_index.json";

/// Stems of weight files: of diffusers' models, and of transformers'.
pub(crate) const NETWORK_STEM: &str = "diffusion_pytorch_model";
pub(crate) const ENCODER_STEMS: &[&str] = &["model", "pytorch_model"];

/// The contents of `model_index.json`, and where its parts are.
#[derive(Debug)]
pub(crate) struct Index {
    dir: PathBuf,
    /// The name of the pipeline's class in diffusers.
    pub(crate) class: String,
    /// Name, library and class.
    parts: Vec<(String, String, String)>,
    /// Settings of the pipeline.
    pub(crate) settings: Map<String, Value>,
    pub(crate) defaults: ModelDefaults,
    /// Parts that the user leaves out.
    without: Vec<String>,
}

impl Index {
    /// # Errors
    /// [`Error::Io`] for a missing file; [`Error::Data`] names file and field.
    pub(crate) fn open(dir: &Path, without: &[String]) -> Result<Self> {
        json::read_file(&dir.join(INDEX), |text| {
            let fields = json::parse_object(text)?;
            let class = fields.get("_class_name").and_then(Value::as_str);
            let class = class.ok_or_else(|| {
                Error::config(
                    "_class_name",
                    "missing",
                    "the name of a pipeline of diffusers",
                )
            })?;
            PipelineFamily::of_class(class)?;
            let (mut parts, mut settings) = (vec![], Map::new());
            for (name, value) in &fields {
                let text = |i: usize| value.get(i).and_then(Value::as_str).map(str::to_owned);
                match (text(0), text(1)) {
                    _ if name.starts_with('_') => {}
                    (Some(library), Some(class)) => parts.push((name.clone(), library, class)),
                    // A part that the pipeline goes without.
                    _ if *value == json!([null, null]) => {}
                    _ => {
                        settings.insert(name.clone(), value.clone());
                    }
                }
            }
            Ok(Self {
                dir: dir.into(),
                class: class.into(),
                parts,
                settings,
                defaults: ModelDefaults::of_index(&fields)?,
                without: without.to_vec(),
            })
        })
    }

    /// Directory and class of a part, unless the pipeline has none or it is left out.
    pub(crate) fn part(&self, name: &str) -> Option<(PathBuf, &str)> {
        let found = self.parts.iter().find(|(part, ..)| part == name)?;
        let left_out = self.without.iter().any(|other| other == name);
        (!left_out).then(|| (self.dir.join(name), found.2.as_str()))
    }

    /// The same for a part that the pipeline needs.
    ///
    /// # Errors
    /// [`Error::Data`] names the part.
    fn needed(&self, name: &str) -> Result<(PathBuf, &str)> {
        self.part(name).ok_or_else(|| {
            let reason = format!("has no `{name}`, which a {} needs", self.class);
            Error::data(self.dir.join(INDEX), DataFault::Mismatch(reason))
        })
    }

    /// Names and classes of the parts that are opened.
    #[cfg(feature = "download")]
    pub(crate) fn opened(&self) -> impl Iterator<Item = (&str, &str)> {
        let names = self.parts.iter().map(|(name, ..)| name.as_str());
        let is_needed = move |name: &&str| match *name {
            "feature_extractor" => self.part("safety_checker").is_some(),
            name => is_known(name),
        };
        let opened = names.filter(is_needed);
        opened.filter_map(move |name| Some((name, self.part(name)?.1)))
    }

    /// A boolean setting.
    pub(crate) fn flag(&self, name: &str, default: bool) -> bool {
        self.settings
            .get(name)
            .and_then(Value::as_bool)
            .unwrap_or(default)
    }

    /// Parts of names that pipelines here do not have, and settings that are not used.
    pub(crate) fn report(&self) -> Loaded<()> {
        let mut report = Loaded::new(());
        for (name, _, class) in &self.parts {
            if !is_known(name) {
                report
                    .notes
                    .push(format!("{name} ({class}) was not opened"));
            }
        }
        report.notes.extend(
            self.without
                .iter()
                .map(|name| format!("{name} was left out")),
        );
        let used = [
            "force_zeros_for_empty_prompt",
            "requires_aesthetics_score",
            "requires_safety_checker",
            "add_watermarker",
        ];
        let unused = self
            .settings
            .keys()
            .filter(|name| !used.contains(&name.as_str()));
        report.unused_fields = unused.map(|name| format!("{INDEX}: {name}")).collect();
        report
    }

    /// The denoising network, a `unet` or a `transformer`.
    pub(crate) fn denoiser(&self, options: &OpenOptions, device: &Device) -> Result<Source> {
        let name = match self.part("transformer") {
            Some(_) => "transformer",
            None => "unet",
        };
        let (dir, class) = self.needed(name)?;
        let variant = options.variant.as_deref();
        let files = WeightReader::from_dir_with_variant(&dir, &[NETWORK_STEM], variant)?;
        let mut source = source_of(&dir, files, options, device)?;
        // A configuration need not name its class.
        let mut fields = json::parse_object(&source.config)?;
        if !fields.contains_key("_class_name") {
            fields.insert("_class_name".into(), class.into());
            source.config = Value::Object(fields).to_string();
        }
        Ok(source)
    }

    /// The autoencoder.
    pub(crate) fn vae(&self, options: &OpenOptions, device: &Device) -> Result<Source> {
        let (dir, class) = self.needed("vae")?;
        if !["AutoencoderKL", "AutoencoderTiny"].contains(&class) {
            let expected = "AutoencoderKL or AutoencoderTiny";
            let reason = Error::config("vae", class, expected).to_string();
            return Err(Error::data(
                self.dir.join(INDEX),
                DataFault::Mismatch(reason),
            ));
        }
        source(&dir, &[NETWORK_STEM], options, device)
    }

    /// Text encoder `which`, if the pipeline has it.
    pub(crate) fn encoder(
        &self,
        which: usize,
        options: &OpenOptions,
        device: &Device,
    ) -> Result<Option<Source>> {
        let Some((dir, class)) = self.part(PipelineFamily::ENCODERS[which]) else {
            return Ok(None);
        };
        let known = [
            "CLIPTextModel",
            "CLIPTextModelWithProjection",
            "T5EncoderModel",
        ];
        if !known.contains(&class) {
            let field = PipelineFamily::ENCODERS[which];
            let expected = format!("one of {}", known.join(", "));
            let reason = Error::config(field, class, expected).to_string();
            return Err(Error::data(
                self.dir.join(INDEX),
                DataFault::Mismatch(reason),
            ));
        }
        let mut source = source(&dir, ENCODER_STEMS, options, device)?;
        let mut fields = json::parse_object(&source.config)?;
        if class == "T5EncoderModel" && !fields.contains_key("model_type") {
            fields.insert("model_type".into(), "t5".into());
            source.config = Value::Object(fields).to_string();
        }
        Ok(Some(source))
    }

    /// Tokenizer `which`, if the pipeline has it.
    pub(crate) fn tokenizer(&self, which: usize) -> Result<Option<AnyTokenizer>> {
        let Some((dir, class)) = self.part(PipelineFamily::TOKENIZERS[which]) else {
            return Ok(None);
        };
        Ok(Some(match class {
            "T5Tokenizer" | "T5TokenizerFast" => {
                AnyTokenizer::T5(Arc::new(T5Tokenizer::from_pretrained(dir)?))
            }
            "CLIPTokenizer" | "CLIPTokenizerFast" => {
                AnyTokenizer::Clip(ClipTokenizer::from_pretrained(dir)?)
            }
            other => {
                let field = PipelineFamily::TOKENIZERS[which];
                let reason = Error::config(field, other, "CLIPTokenizer or T5Tokenizer");
                let fault = DataFault::Mismatch(reason.to_string());
                return Err(Error::data(self.dir.join(INDEX), fault));
            }
        }))
    }

    /// The scheduler.
    pub(crate) fn scheduler(&self) -> Result<Loaded<AnyScheduler>> {
        let (dir, class) = self.needed("scheduler")?;
        let path = dir.join("scheduler_config.json");
        let mut loaded = json::read_file(&path, |text| {
            let mut fields = json::parse_object(text)?;
            // The index decides, as in diffusers.
            fields.insert("_class_name".into(), class.into());
            AnyScheduler::from_json(&Value::Object(fields).to_string())
        })?;
        for field in &mut loaded.unused_fields {
            *field = format!("scheduler: {field}");
        }
        Ok(loaded)
    }

    /// Configuration and weights of the safety checker.
    pub(crate) fn safety_checker(
        &self,
        dir: &Path,
        options: &OpenOptions,
        device: &Device,
    ) -> Result<Source> {
        source(dir, ENCODER_STEMS, options, device)
    }

    /// Directories of the pipeline's ControlNets, if it has any.
    pub(crate) fn controlnets(
        &self,
        options: &OpenOptions,
        device: &Device,
    ) -> Result<Vec<Source>> {
        let Some((dir, class)) = self.part("controlnet") else {
            return Ok(vec![]);
        };
        match class {
            "ControlNetModel" => Ok(vec![controlnet(&dir, options, device)?]),
            // Directories `controlnet`, `controlnet_1`, …
            "MultiControlNetModel" => {
                let more = |i: usize| match i {
                    0 => dir.clone(),
                    i => dir.with_file_name(format!("controlnet_{i}")),
                };
                let dirs = (0..).map(more).take_while(|dir| dir.is_dir());
                dirs.map(|dir| controlnet(&dir, options, device)).collect()
            }
            other => {
                let reason = Error::config("controlnet", other, "ControlNetModel").to_string();
                Err(Error::data(
                    self.dir.join(INDEX),
                    DataFault::Mismatch(reason),
                ))
            }
        }
    }
}

/// Whether pipelines here have a part of this name.
fn is_known(name: &str) -> bool {
    let others = [
        "unet",
        "transformer",
        "vae",
        "scheduler",
        "controlnet",
        "safety_checker",
        "feature_extractor",
    ];
    PipelineFamily::ENCODERS.contains(&name)
        || PipelineFamily::TOKENIZERS.contains(&name)
        || others.contains(&name)
}

/// A ControlNet's directory.
pub(crate) fn controlnet(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Source> {
    source(dir, &[NETWORK_STEM], options, device)
}

/// Configuration and weights of a directory. A part without the variant is opened as it is, as in
/// diffusers.
pub(crate) fn source(
    dir: &Path,
    stems: &[&str],
    options: &OpenOptions,
    device: &Device,
) -> Result<Source> {
    let files = WeightReader::from_dir_with_variant(dir, stems, options.variant.as_deref());
    let files = match (files, &options.variant) {
        (Err(Error::Weights { .. }), Some(_)) => WeightReader::from_dir(dir, stems)?,
        (files, _) => files?,
    };
    source_of(dir, files, options, device)
}

fn source_of(
    dir: &Path,
    files: WeightReader,
    options: &OpenOptions,
    device: &Device,
) -> Result<Source> {
    let config = read_text(dir.join("config.json"))?;
    Ok(Source {
        config,
        files,
        dtype: options.dtype,
        device: device.clone(),
    })
}
