//! What was found in the files of a pipeline.

use super::{
    families::PipelineFamily, part_models::PartModel, parts::Part, pipeline::TextToImagePipeline,
};
use aigc_core::{json, weights::Loaded};
use aigc_diffusion::{AnyDenoiser, AnyScheduler};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, fmt::Display};

/// A part of a pipeline that has weights.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartReport {
    /// Name of its directory, such as `unet`.
    pub name: String,
    /// Its class in diffusers or transformers.
    pub class: String,
    /// Whether it is opened from files; a part that was given has none.
    pub has_files: bool,
    /// Whether it has been opened: only then is it known what of its files is not used. A part
    /// whose files lack a tensor cannot be opened.
    pub was_opened: bool,
    /// Number of tensors of floats in its files.
    pub tensors: usize,
    /// Number of parameters in its files.
    pub parameters: u64,
    /// Number of tensors of each type, by its name in the files, such as `F16`.
    pub precision: BTreeMap<String, usize>,
}

/// What was found in the files of a pipeline, and what of it is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PipelineReport {
    /// Name of the pipeline.
    pub name: String,
    /// Its class in diffusers.
    pub class: String,
    /// How the pipeline works.
    pub family: PipelineFamily,
    /// The parts with weights.
    pub parts: Vec<PartReport>,
    /// Names and classes of the parts without weights: tokenizers and scheduler.
    pub others: Vec<(String, String)>,
    /// Text encoders and tokenizers that other pipelines of the family have, and this one has not.
    pub missing_parts: Vec<String>,
    /// Fields of configurations that are not used, by part.
    pub unused_fields: Vec<String>,
    /// Tensors that are not used, by part.
    pub unused_tensors: Vec<String>,
    /// Deviations from the usual layout, and values that were replaced.
    pub notes: Vec<String>,
}

impl TextToImagePipeline {
    /// What was found in the files: the parts with their classes and precision, and what is not
    /// used. Also of parts that came after the opening, such as ControlNets, and of those that are
    /// opened when they are needed, once they have been.
    pub fn report(&self) -> PipelineReport {
        let mut loaded = self.opening.clone();
        let mut parts = vec![];
        for encoder in self.parts.encoders.iter().flatten() {
            parts.push(found(
                encoder,
                &encoder_class(encoder.config()),
                &mut loaded,
            ));
        }
        let network = AnyDenoiser::class(&self.network);
        parts.push(found(&self.parts.denoiser, network, &mut loaded));
        let vae = &self.parts.vae;
        parts.push(found(vae, &vae_class(vae.config()), &mut loaded));
        for net in &self.parts.controlnets {
            parts.push(found(net, "ControlNetModel", &mut loaded));
        }
        if let Some(safety) = &self.safety {
            let class = "StableDiffusionSafetyChecker";
            parts.push(found(safety.checker(), class, &mut loaded));
        }

        let tokenizers = PipelineFamily::TOKENIZERS
            .iter()
            .zip(&self.parts.tokenizers);
        let tokenizers = tokenizers.filter_map(|(name, tokenizer)| {
            let class = tokenizer.as_ref()?.class();
            Some(((*name).to_owned(), class.to_owned()))
        });
        let mut others: Vec<(String, String)> = tokenizers.collect();
        let scheduler = AnyScheduler::class(&self.scheduler);
        others.push(("scheduler".into(), scheduler.to_owned()));

        let mut missing_parts = vec![];
        for which in 0..self.family.num_encoders() {
            for (name, is_here) in [
                (
                    PipelineFamily::ENCODERS[which],
                    self.parts.encoders[which].is_some(),
                ),
                (
                    PipelineFamily::TOKENIZERS[which],
                    self.parts.tokenizers[which].is_some(),
                ),
            ] {
                if !is_here {
                    missing_parts.push(name.to_owned());
                }
            }
        }
        PipelineReport {
            name: self.name.clone(),
            class: self.class.clone(),
            family: self.family,
            parts,
            others,
            missing_parts,
            unused_fields: loaded.unused_fields,
            unused_tensors: loaded.unused_tensors,
            notes: loaded.notes,
        }
    }
}

/// What the files of a part have; adds to `loaded` what of it is not used.
fn found<M: PartModel + Clone>(part: &Part<M>, class: &str, loaded: &mut Loaded<()>) -> PartReport {
    loaded.merge(part.report());
    let mut report = PartReport {
        name: part.name().to_owned(),
        class: class.to_owned(),
        has_files: part.source().is_some(),
        was_opened: part.was_opened(),
        tensors: 0,
        parameters: 0,
        precision: BTreeMap::new(),
    };
    let Some(source) = part.source() else {
        return report;
    };
    for name in source.files.names() {
        // Older files have position ids, which are computed.
        if source
            .files
            .dtype(name)
            .is_some_and(|dtype| !dtype.is_float())
        {
            continue;
        }
        report.tensors += 1;
        report.parameters = report.parameters.saturating_add(source.numel(name));
        let dtype = source.files.type_name(name).unwrap_or_default();
        *report.precision.entry(dtype).or_default() += 1;
    }
    report
}

fn fields(config: &str) -> Map<String, Value> {
    // It was read before.
    json::parse_object(config).unwrap_or_default()
}

/// The class of a text encoder's configuration.
fn encoder_class(config: &str) -> String {
    let fields = fields(config);
    let named = fields
        .get("architectures")
        .and_then(|names| names.get(0)?.as_str());
    let class = match fields.get("model_type").and_then(Value::as_str) {
        Some("t5" | "umt5") => "T5EncoderModel",
        _ => named
            .filter(|name| name.starts_with("CLIPText"))
            .unwrap_or("CLIPTextModel"),
    };
    class.to_owned()
}

/// The class of an autoencoder's configuration.
fn vae_class(config: &str) -> String {
    let fields = fields(config);
    let class = fields.get("_class_name").and_then(Value::as_str);
    class.unwrap_or("AutoencoderKL").to_owned()
}

impl PipelineReport {
    /// What needs attention, one line for each kind: missing parts, unused fields and tensors,
    /// notes.
    pub fn warnings(&self) -> Vec<String> {
        let loaded = Loaded {
            value: (),
            unused_fields: self.unused_fields.clone(),
            unused_tensors: self.unused_tensors.clone(),
            notes: self.notes.clone(),
        };
        let missing = match self.missing_parts.is_empty() {
            true => None,
            false => Some(format!(
                "parts not there: {}",
                self.missing_parts.join(", ")
            )),
        };
        missing.into_iter().chain(loaded.warnings()).collect()
    }
}

impl Display for PartReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.name, self.class)?;
        if !self.has_files {
            return f.write_str(", given");
        }
        let millions = self.parameters as f64 / 1e6;
        let types: Vec<&str> = self.precision.keys().map(String::as_str).collect();
        let (tensors, types) = (self.tensors, types.join(" and "));
        write!(
            f,
            ", {tensors} tensors, {millions:.1} M parameters, {types}"
        )?;
        match self.was_opened {
            true => Ok(()),
            false => f.write_str(", not opened yet"),
        }
    }
}

impl Display for PipelineReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {}", self.name, self.class)?;
        for part in &self.parts {
            writeln!(f, "  {part}")?;
        }
        for (name, class) in &self.others {
            writeln!(f, "  {name}: {class}")?;
        }
        for line in self.warnings() {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_configurations() {
        for (config, expected) in [
            (r#"{"model_type": "t5"}"#, "T5EncoderModel"),
            (
                r#"{"architectures": ["CLIPTextModelWithProjection"]}"#,
                "CLIPTextModelWithProjection",
            ),
            (r#"{"architectures": ["CLIPModel"]}"#, "CLIPTextModel"),
            ("{}", "CLIPTextModel"),
        ] {
            assert_eq!(encoder_class(config), expected, "{config}");
        }
        assert_eq!(vae_class("{}"), "AutoencoderKL");
        let tiny = r#"{"_class_name": "AutoencoderTiny"}"#;
        assert_eq!(vae_class(tiny), "AutoencoderTiny");
    }

    #[test]
    fn reports_print_parts_and_what_needs_attention() {
        let part = PartReport {
            name: "unet".into(),
            class: "UNet2DConditionModel".into(),
            has_files: true,
            was_opened: true,
            tensors: 3,
            parameters: 1_260_000,
            precision: [("F16".to_owned(), 2), ("F32".to_owned(), 1)].into(),
        };
        let given = PartReport {
            name: "vae".into(),
            class: "AutoencoderTiny".into(),
            has_files: false,
            tensors: 0,
            ..part.clone()
        };
        let report = PipelineReport {
            name: "model".into(),
            class: "StableDiffusionPipeline".into(),
            family: PipelineFamily::StableDiffusion,
            parts: vec![part, given],
            others: vec![("scheduler".into(), "PNDMScheduler".into())],
            missing_parts: vec!["text_encoder".into(), "tokenizer".into()],
            unused_fields: vec![],
            unused_tensors: vec!["unet: extra".into()],
            notes: vec![],
        };
        let expected = "\
model: StableDiffusionPipeline
  unet: UNet2DConditionModel, 3 tensors, 1.3 M parameters, F16 and F32
  vae: AutoencoderTiny, given
  scheduler: PNDMScheduler
  parts not there: text_encoder, tokenizer
  tensors not used: unet: extra
";
        assert_eq!(report.to_string(), expected);
    }
}
