//! What a file does not say, or not by its shapes: from options, from configurations of a
//! directory, and from the data beside the tensors.

use super::{Family, SingleFileOptions};
use aigc_core::{Error, Result, json, weights::WeightReader};
use aigc_diffusion::PredictionType;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Updates of the network of Stable Diffusion 2 for 512×512 pixels, by which diffusers recognises
/// it.
const STEPS_OF_2_BASE: &str = "875000";

/// The file of a scheduler's configuration in a pipeline's directory.
pub(super) fn scheduler_config(dir: &Path) -> PathBuf {
    dir.join("scheduler").join("scheduler_config.json")
}

/// `num_hidden_layers` of a configuration.
pub(super) fn hidden_layers(dir: &Path) -> Result<Option<usize>> {
    json::read_file(&dir.join("config.json"), |text| {
        let fields = json::parse_object(text)?;
        let layers = fields.get("num_hidden_layers").and_then(|n| n.as_u64());
        Ok(layers.and_then(|n| usize::try_from(n).ok()))
    })
}

/// What the network predicts, and what was assumed.
///
/// # Errors
/// [`Error::Io`] or [`Error::Data`] if the scheduler's configuration of the directory cannot be
/// read.
pub(super) fn prediction(
    family: Family,
    reader: &WeightReader,
    options: &SingleFileOptions,
) -> Result<(PredictionType, Option<String>)> {
    if family.is_flow() {
        return Ok((PredictionType::Flow, None));
    }
    if let Some(given) = options.prediction_type {
        return Ok((given, None));
    }
    let path = options.configs.as_deref().map(scheduler_config);
    if let Some(path) = path.filter(|path| path.is_file()) {
        return Ok((of_config(&path)?, None));
    }
    if let Some(known) = of_metadata(reader) {
        return Ok((known, None));
    }
    if reader.contains("v_pred") {
        return Ok((PredictionType::V, None));
    }
    if family == Family::StableDiffusion2 {
        let assumed = "assumed that the network predicts v, as version 2 for 768×768 does; that \
                       for 512×512 predicts the noise (set the prediction type)";
        return Ok((PredictionType::V, Some(assumed.into())));
    }
    Ok((PredictionType::Epsilon, None))
}

/// `prediction_type` of a scheduler's configuration; the noise without it, as in diffusers.
fn of_config(path: &Path) -> Result<PredictionType> {
    json::read_file(path, |text| {
        let fields = json::parse_object(text)?;
        let Some(value) = fields.get("prediction_type") else {
            return Ok(PredictionType::Epsilon);
        };
        serde_json::from_value(value.clone()).map_err(|_| {
            let expected = "epsilon, sample or v_prediction";
            Error::config("prediction_type", value, expected)
        })
    })
}

/// What the data beside the tensors says.
fn of_metadata(reader: &WeightReader) -> Option<PredictionType> {
    let of = |key: &str| reader.metadata().get(key).map(String::as_str);
    match of("modelspec.prediction_type") {
        Some("epsilon") => return Some(PredictionType::Epsilon),
        Some("v" | "v_prediction") => return Some(PredictionType::V),
        _ => {}
    }
    // A pickle has the number beside the tensors, or has been written anew with it among them.
    let steps = || match of("global_step") {
        Some(steps) => Some(steps.to_owned()),
        None => Some(reader.read_int("global_step").ok()?.first()?.to_string()),
    };
    match of("modelspec.architecture") {
        Some(name) if name.starts_with("stable-diffusion-v2-768") => Some(PredictionType::V),
        Some(name) if name.starts_with("stable-diffusion-v2-512") => Some(PredictionType::Epsilon),
        _ if steps().as_deref() == Some(STEPS_OF_2_BASE) => Some(PredictionType::Epsilon),
        _ => None,
    }
}

/// The text of a scheduler's configuration with another prediction type.
///
/// # Errors
/// [`Error::Json`] if it is no object.
pub(super) fn with_prediction(text: &str, prediction: PredictionType) -> Result<String> {
    let mut fields = json::parse_object(text)?;
    fields.insert("prediction_type".into(), serde_json::json!(prediction));
    Ok(Value::Object(fields).to_string())
}
