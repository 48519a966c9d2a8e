//! Configuration of PixArt's transformer.

use super::super::fields::Fields;
use crate::{
    json,
    models::{
        dit::{OLD_CLASS, fill_old_defaults},
        transformer::feed_forward_activation,
    },
};
use aigc_core::{Result, check, nn::Activation, weights::Loaded};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The name of the class in diffusers.
pub(crate) const CLASS: &str = "PixArtTransformer2DModel";

/// Configuration of a [`PixArtTransformerModel`](super::PixArtTransformerModel); the fields are
/// those of diffusers' `PixArtTransformer2DModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PixArtTransformerConfig {
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Width of a head.
    pub attention_head_dim: usize,
    /// Channels of a latent map.
    pub in_channels: usize,
    /// Channels of its output: twice as many with a variance. `None`: those of a latent map.
    pub out_channels: Option<usize>,
    /// Number of blocks.
    pub num_layers: usize,
    /// Dropout probability.
    pub dropout: f64,
    /// Width of the tokens that cross-attention attends to.
    pub cross_attention_dim: usize,
    /// Whether queries, keys and values have biases.
    pub attention_bias: bool,
    /// Side of the latent maps that it is for.
    pub sample_size: usize,
    /// Side of a patch.
    pub patch_size: usize,
    /// Activation function of the feed-forward layers.
    pub activation_fn: String,
    /// Epsilon of the norms.
    pub norm_eps: f64,
    /// Divisor of the positions. `None`: a 64th of the sample size, 1 at least.
    pub interpolation_scale: Option<f64>,
    /// Whether it receives the size and the aspect ratio of the image. `None`: with a sample size
    /// of 128.
    pub use_additional_conditions: Option<bool>,
    /// Width of the encoder hidden states. `None`: they are not projected.
    pub caption_channels: Option<usize>,
}

impl Default for PixArtTransformerConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: Some(8),
            num_layers: 28,
            dropout: 0.0,
            cross_attention_dim: 1152,
            attention_bias: true,
            sample_size: 128,
            patch_size: 2,
            activation_fn: "gelu-approximate".into(),
            norm_eps: 1e-6,
            interpolation_scale: None,
            use_additional_conditions: None,
            caption_channels: None,
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[
    ("attention_type", "\"default\""),
    ("double_self_attention", "false"),
    ("norm_elementwise_affine", "false"),
    ("norm_type", "\"ada_norm_single\""),
    ("num_vector_embeds", "null"),
    ("only_cross_attention", "false"),
    ("use_linear_projection", "false"),
];

/// Fields of diffusers' that do not change this network.
const WITHOUT_EFFECT: &[&str] = &["norm_num_groups", "num_embeds_ada_norm", "upcast_attention"];

/// Whether the fields are of a PixArt transformer under the name that its class had in older
/// versions of diffusers, which DiT's class had too.
pub(crate) fn is_old(fields: &Map<String, Value>) -> bool {
    fields.get("norm_type").and_then(Value::as_str) == Some("ada_norm_single")
}

impl PixArtTransformerConfig {
    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names a field with a value that it cannot
    /// have, or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        if fields
            .get("_class_name")
            .is_some_and(|class| class == OLD_CLASS)
        {
            fill_old_defaults(&mut fields);
        }
        for field in WITHOUT_EFFECT {
            fields.remove(*field);
        }
        let config: Loaded<Self> = json::network(fields, CLASS, UNSUPPORTED)?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as diffusers writes it.
    pub fn to_json(&self) -> String {
        json::to_text(self, CLASS)
    }

    pub(super) fn fields(&self) -> Fields {
        Fields {
            patch_size: self.patch_size,
            in_channels: self.in_channels,
            out_channels: self.out_channels.unwrap_or(self.in_channels),
            num_layers: self.num_layers,
            attention_head_dim: self.attention_head_dim,
            num_attention_heads: self.num_attention_heads,
        }
    }

    /// Whether the network receives the size and the aspect ratio of the image.
    pub fn takes_sizes(&self) -> bool {
        self.use_additional_conditions
            .unwrap_or(self.sample_size == 128)
    }

    pub(super) fn validate(&self) -> Result<Activation> {
        let fields = self.fields();
        let captions = self.caption_channels.unwrap_or(1);
        fields.check_ranges(&[
            ("cross_attention_dim", self.cross_attention_dim, 1 << 16),
            ("sample_size", self.sample_size, 1 << 14),
            ("caption_channels", captions, 1 << 16),
        ])?;
        // Sines and cosines of rows and columns; height, width and aspect ratio.
        let parts = if self.takes_sizes() { 12 } else { 4 };
        fields.check_maps(self.sample_size, parts)?;
        let width = fields.width();
        check::ensure(
            self.caption_channels.is_none() || self.cross_attention_dim == width,
            "cross_attention_dim",
            self.cross_attention_dim,
            &format!("{width}, the width of the projected captions"),
        )?;
        check::positive("norm_eps", self.norm_eps)?;
        check::positive(
            "interpolation_scale",
            self.interpolation_scale.unwrap_or(1.0),
        )?;
        feed_forward_activation(&self.activation_fn, self.dropout)
    }
}
