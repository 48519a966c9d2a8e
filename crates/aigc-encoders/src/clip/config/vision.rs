//! Configuration of the vision encoder.

use super::{
    HiddenAct,
    fields::PROJECTION_DIM,
    shared::{self, EncoderConfig, Shared, shared_fields},
};
#[cfg(doc)]
use aigc_core::Error;
use aigc_core::{Result, check, weights::Loaded};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`ClipVisionModel`](crate::clip::ClipVisionModel): the fields of
/// transformers' `CLIPVisionConfig`, and [`with_projection`](Self::with_projection). The default is
/// that of transformers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClipVisionConfig {
    /// Width of the hidden states.
    pub hidden_size: usize,
    /// Inner width of the MLPs.
    pub intermediate_size: usize,
    /// Width of the projected embeddings.
    pub projection_dim: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Number of heads; it must divide the width.
    pub num_attention_heads: usize,
    /// Channels of an image.
    pub num_channels: usize,
    /// Side of the images, in pixels.
    pub image_size: usize,
    /// Side of a patch, in pixels.
    pub patch_size: usize,
    /// Activation of the MLPs.
    pub hidden_act: HiddenAct,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f64,
    /// Dropout of the attention weights in transformers. Has no effect here.
    pub attention_dropout: f64,
    /// Standard deviation of the initial positions and patches.
    pub initializer_range: f64,
    /// Factor of the standard deviations of all initial weights.
    pub initializer_factor: f64,
    /// Whether the pooled output is projected (`CLIPVisionModelWithProjection`). Files have it as
    /// `architectures`.
    #[serde(skip)]
    pub with_projection: bool,
}

impl Default for ClipVisionConfig {
    fn default() -> Self {
        Self {
            hidden_size: 768,
            intermediate_size: 3072,
            projection_dim: PROJECTION_DIM,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            num_channels: 3,
            image_size: 224,
            patch_size: 32,
            hidden_act: HiddenAct::QuickGelu,
            layer_norm_eps: 1e-5,
            attention_dropout: 0.0,
            initializer_range: 0.02,
            initializer_factor: 1.0,
            with_projection: false,
        }
    }
}

impl EncoderConfig for ClipVisionConfig {
    const TYPE: &'static str = "clip_vision_model";
    const PART: &'static str = "vision_config";
    const CLASS: &'static str = "CLIPVisionModel";

    fn shared(&self) -> Shared {
        shared_fields!(self)
    }

    fn projected(self, with_projection: bool) -> Self {
        Self {
            with_projection,
            ..self
        }
    }

    fn check(&self) -> Result<()> {
        self.validate()
    }
}

impl ClipVisionConfig {
    /// Reads the fields of a `config.json`, of a vision encoder or of a pair; missing ones have
    /// defaults. The report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field whose value is invalid or not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        shared::from_json(text)
    }

    /// The text of a `config.json` that transformers reads.
    pub fn to_json(&self) -> String {
        shared::to_json(self)
    }

    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        check::sizes(&[
            ("num_channels", self.num_channels, 1 << 10),
            ("image_size", self.image_size, 1 << 14),
            ("patch_size", self.patch_size, self.image_size),
        ])?;
        self.shared().validate()
    }

    /// Patches of an image, and one token for the class.
    pub(in crate::clip) fn num_positions(&self) -> usize {
        (self.image_size / self.patch_size).pow(2) + 1
    }
}
