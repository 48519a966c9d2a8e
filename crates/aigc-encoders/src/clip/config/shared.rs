//! What the configurations of both encoders have in common.

use super::{
    HiddenAct,
    fields::{encoder_fields, read, to_text, with_type},
};
use aigc_core::{
    Result,
    check::{self, ensure},
    weights::Loaded,
};
use serde::{Serialize, de::DeserializeOwned};

/// The fields that both encoders have. In the configurations they lie beside the others, as in
/// transformers.
pub(in crate::clip) struct Shared {
    pub(in crate::clip) hidden_size: usize,
    pub(in crate::clip) intermediate_size: usize,
    pub(in crate::clip) projection_dim: usize,
    pub(in crate::clip) num_hidden_layers: usize,
    pub(in crate::clip) num_attention_heads: usize,
    pub(in crate::clip) hidden_act: HiddenAct,
    pub(in crate::clip) layer_norm_eps: f64,
    pub(in crate::clip) attention_dropout: f64,
    pub(in crate::clip) initializer_range: f64,
    pub(in crate::clip) initializer_factor: f64,
    pub(in crate::clip) with_projection: bool,
}

/// The [`Shared`] fields of a configuration.
macro_rules! shared_fields {
    ($config:expr) => {
        $crate::clip::config::Shared {
            hidden_size: $config.hidden_size,
            intermediate_size: $config.intermediate_size,
            projection_dim: $config.projection_dim,
            num_hidden_layers: $config.num_hidden_layers,
            num_attention_heads: $config.num_attention_heads,
            hidden_act: $config.hidden_act,
            layer_norm_eps: $config.layer_norm_eps,
            attention_dropout: $config.attention_dropout,
            initializer_range: $config.initializer_range,
            initializer_factor: $config.initializer_factor,
            with_projection: $config.with_projection,
        }
    };
}
pub(super) use shared_fields;

impl Shared {
    pub(super) fn validate(&self) -> Result<()> {
        check::sizes(&[
            ("hidden_size", self.hidden_size, 1 << 16),
            ("intermediate_size", self.intermediate_size, 1 << 18),
            ("projection_dim", self.projection_dim, 1 << 16),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
        ])?;
        ensure(
            self.hidden_size.is_multiple_of(self.num_attention_heads),
            "num_attention_heads",
            self.num_attention_heads,
            &format!("a divisor of hidden_size, {}", self.hidden_size),
        )?;
        check::positive("layer_norm_eps", self.layer_norm_eps)?;
        check::fraction("attention_dropout", self.attention_dropout)?;
        check::non_negative("initializer_range", self.initializer_range)?;
        check::non_negative("initializer_factor", self.initializer_factor)
    }

    /// A note for configurations with dropout.
    pub(super) fn dropout_note(&self) -> Option<String> {
        (self.attention_dropout > 0.0)
            .then(|| "attention_dropout has no effect: attention has no dropout".into())
    }
}

/// The configuration of one encoder, in files of its own or as a part of those of a pair.
pub(in crate::clip) trait EncoderConfig:
    Serialize + DeserializeOwned + Default
{
    /// `model_type` in files.
    const TYPE: &'static str;
    /// Its field in the configuration of a pair.
    const PART: &'static str;
    /// transformers' class without a projection.
    const CLASS: &'static str;

    /// The fields that both encoders have.
    fn shared(&self) -> Shared;

    /// Sets whether the pooled output is projected.
    fn projected(self, with_projection: bool) -> Self;

    /// Fails unless every value is in its range.
    fn check(&self) -> Result<()>;
}

/// Reads a `config.json` of an encoder or of a pair.
pub(super) fn from_json<C: EncoderConfig>(text: &str) -> Result<Loaded<C>> {
    let (fields, with_projection) = encoder_fields(text, C::TYPE, C::PART)?;
    let mut loaded = read::<C>(&fields)?.map(|config| config.projected(with_projection));
    loaded.value.check()?;
    let note = loaded.value.shared().dropout_note();
    loaded.notes.extend(note);
    Ok(loaded)
}

/// The text of a `config.json` that transformers reads.
pub(super) fn to_json<C: EncoderConfig>(config: &C) -> String {
    let suffix = match config.shared().with_projection {
        true => "WithProjection",
        false => "",
    };
    to_text(with_type(config, C::TYPE), &format!("{}{suffix}", C::CLASS))
}
