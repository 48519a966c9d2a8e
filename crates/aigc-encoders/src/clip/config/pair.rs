//! Configuration of a pair of encoders.

use super::{
    ClipTextConfig, ClipVisionConfig,
    fields::{PAIR_TYPE, PROJECTION_DIM, part, read, to_text, with_type},
    shared::EncoderConfig,
};
use aigc_core::{
    Error, Result,
    check::{self, ensure},
    json,
    weights::Loaded,
};
use serde::{Deserialize, Serialize};
use serde_json::Map;

/// Configuration to create a [`ClipModel`](crate::clip::ClipModel): the fields of transformers'
/// `CLIPConfig`. The default is that of transformers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipConfig {
    /// The text encoder; its `projection_dim` has no effect.
    pub text_config: ClipTextConfig,
    /// The vision encoder; its `projection_dim` has no effect.
    pub vision_config: ClipVisionConfig,
    /// Width of the embeddings of both encoders.
    pub projection_dim: usize,
    /// Initial value of the logarithm of the scale of the logits.
    pub logit_scale_init_value: f64,
    /// Factor of the standard deviations of the initial projections.
    pub initializer_factor: f64,
}

/// A pair of OpenAI's size ViT-B/32.
impl Default for ClipConfig {
    fn default() -> Self {
        Self {
            text_config: ClipTextConfig::default(),
            vision_config: ClipVisionConfig::default(),
            projection_dim: PROJECTION_DIM,
            logit_scale_init_value: 2.6592,
            initializer_factor: 1.0,
        }
    }
}

impl ClipConfig {
    /// Reads the fields of a `config.json`; missing ones have defaults. The report lists unknown
    /// fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field whose value is invalid or not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        if let Some(other) = fields.get("model_type").filter(|kind| *kind != PAIR_TYPE) {
            return Err(Error::config("model_type", other, PAIR_TYPE));
        }
        let parts = [ClipTextConfig::PART, ClipVisionConfig::PART];
        let none = Map::new();
        let [text, vision] = parts.map(|name| part(&fields, name).unwrap_or(&none));
        let (text, vision) = (read(text)?, read(vision)?);
        for name in parts {
            fields.remove(name);
            fields.remove(&format!("{name}_dict"));
        }
        let mut loaded: Loaded<Self> = read(&fields)?;
        loaded.value.text_config = loaded.merge(text);
        loaded.value.vision_config = loaded.merge(vision);
        loaded.validate()?;
        let parts = [loaded.text_config.shared(), loaded.vision_config.shared()];
        let note = parts.iter().find_map(|part| part.dropout_note());
        loaded.notes.extend(note);
        Ok(loaded)
    }

    /// The text of a `config.json` that transformers reads, for a model of this class.
    pub(in crate::clip) fn to_json_of(&self, architecture: &str) -> String {
        let mut fields = with_type(self, PAIR_TYPE);
        let text = with_type(&self.text_config, ClipTextConfig::TYPE);
        let vision = with_type(&self.vision_config, ClipVisionConfig::TYPE);
        fields.insert(ClipTextConfig::PART.into(), text.into());
        fields.insert(ClipVisionConfig::PART.into(), vision.into());
        to_text(fields, architecture)
    }

    /// The text of a `config.json` that transformers reads.
    pub fn to_json(&self) -> String {
        self.to_json_of("CLIPModel")
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::sizes(&[("projection_dim", self.projection_dim, 1 << 16)])?;
        ensure(
            self.logit_scale_init_value.is_finite(),
            "logit_scale_init_value",
            self.logit_scale_init_value,
            "a finite number",
        )?;
        check::non_negative("initializer_factor", self.initializer_factor)?;
        self.text_config.validate()?;
        self.vision_config.validate()
    }
}
