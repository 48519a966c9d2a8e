//! Pipelines of checkpoints in a single file.

use super::{
    families::PipelineFamily,
    index::{self, ENCODER_STEMS, INDEX, Index, NETWORK_STEM},
    model_defaults::ModelDefaults,
    open::{PipelineOpenOptions, PipelineSources, file_name},
    part_models::AnyTokenizer,
    parts::{Source, in_part},
    pipeline::TextToImagePipeline,
};
use crate::single_file::SingleFile;
use aigc_core::{Error, Result, json, weights::Loaded};
use aigc_diffusion::AnyScheduler;
use aigc_encoders::tokenizer::{ClipTokenizer, T5Tokenizer};
use burn::tensor::Device;
use serde_json::Value;
use std::{path::Path, sync::Arc};

impl TextToImagePipeline {
    /// A pipeline of a checkpoint in a single file. What such files do not have comes from `base`,
    /// a pipeline's directory in diffusers' layout of the same family, which need not be complete
    /// or have a `model_index.json`: the tokenizers, and parts that are missing in the file, such
    /// as text encoders of FLUX.1.
    ///
    /// # Errors
    /// [`Error::Unsupported`] names a part that neither has; otherwise as
    /// [`from_pretrained`](Self::from_pretrained).
    pub fn from_single_file(
        file: &SingleFile,
        base: impl AsRef<Path>,
        options: &PipelineOpenOptions,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let base = base.as_ref();
        let settings = json::parse_object(&file.config("model_index")?)?;
        let flag = |name: &str, default| {
            settings
                .get(name)
                .and_then(Value::as_bool)
                .unwrap_or(default)
        };
        let class = file.family().pipeline_class();
        let index = match base.join(INDEX).is_file() {
            true => Some(Index::open(base, &options.without)?),
            false => None,
        };
        let model = options.model_options();
        let left_out = |name: &str| options.without.iter().any(|other| other == name);
        let in_file = |name: &str| -> Result<Option<Source>> {
            if left_out(name) || !file.parts().contains(&name) {
                return Ok(None);
            }
            Ok(Some(Source {
                config: file.config(name)?,
                files: file.component_reader(name)?,
                dtype: options.dtype,
                device: device.clone(),
            }))
        };
        // Without an index, the directories say what there is.
        let in_base = |name: &str, stems: &[&str]| -> Result<Option<Source>> {
            let dir = base.join(name);
            if left_out(name) || !file.family().parts().contains(&name) || !dir.is_dir() {
                return Ok(None);
            }
            index::source(&dir, stems, &model, device).map(Some)
        };
        let missing = |name: &str| {
            let found = file.parts().join(", ");
            let mut hint =
                format!("the file has {found}; give a pipeline's directory that has `{name}`");
            if !["vae", file.family().network()].contains(&name) {
                hint.push_str(
                    ", or leave it out with `PipelineOpenOptions::without` and give embeddings in \
                     place of prompts",
                );
            }
            Error::unsupported(
                format!("a {class} without `{name}`"),
                "from_single_file",
                hint,
            )
        };

        let mut encoders = [None, None, None];
        let mut tokenizers = [None, None, None];
        for which in 0..3 {
            let part = PipelineFamily::ENCODERS[which];
            encoders[which] = match (in_file(part)?, &index) {
                (None, Some(index)) => index.encoder(which, &model, device)?,
                (None, None) => in_base(part, ENCODER_STEMS)?,
                (found, _) => found,
            };
            if encoders[which].is_none() && file.family().needs(part) && !left_out(part) {
                return Err(missing(part));
            }
            let name = PipelineFamily::TOKENIZERS[which];
            if let (Some(encoder), false) = (&encoders[which], left_out(name)) {
                let dir = base.join(name);
                if !dir.is_dir() {
                    return Err(missing(name));
                }
                tokenizers[which] = Some(tokenizer(encoder, &dir)?);
            }
        }
        let network = file.family().network();
        let denoiser = in_file(network)?.ok_or_else(|| missing(network))?;
        let vae = match (in_file("vae")?, &index) {
            (Some(vae), _) => vae,
            (None, Some(index)) => index.vae(&model, device)?,
            (None, None) => in_base("vae", &[NETWORK_STEM])?.ok_or_else(|| missing("vae"))?,
        };
        let defaults = ModelDefaults::of_index(&settings);
        let mut report = Loaded::new(());
        report.notes = file.report().warnings();
        let sources = PipelineSources {
            name: file_name(file.report().path.as_path()),
            class: class.into(),
            tokenizers,
            encoders,
            denoiser,
            vae,
            scheduler: report.merge(AnyScheduler::from_json(&file.config("scheduler")?)?),
            controlnets: vec![],
            safety: None,
            defaults: defaults.map_err(|error| in_part(INDEX, error))?,
            report,
            force_zeros_for_empty_prompt: flag("force_zeros_for_empty_prompt", true),
            requires_aesthetics_score: flag("requires_aesthetics_score", false),
        };
        Self::new(sources, options.residency, device)
    }
}

/// The tokenizer of an encoder.
fn tokenizer(encoder: &Source, dir: &Path) -> Result<AnyTokenizer> {
    let fields = json::parse_object(&encoder.config)?;
    Ok(match fields.get("model_type").and_then(Value::as_str) {
        Some("t5" | "umt5") => AnyTokenizer::T5(Arc::new(T5Tokenizer::from_pretrained(dir)?)),
        _ => AnyTokenizer::Clip(ClipTokenizer::from_pretrained(dir)?),
    })
}
