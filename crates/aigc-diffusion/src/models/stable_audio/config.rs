//! Configurations of Stable Audio's networks.

use crate::{json, models::config_methods::json_methods};
use aigc_core::{Error, Result, check, data::SampleShape};
use serde::{Deserialize, Serialize};

/// Configuration of a [`StableAudioDitModel`](super::StableAudioDitModel); the fields are those of
/// diffusers' `StableAudioDiTModel`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StableAudioDitConfig {
    /// Frames of the latents that it is for.
    pub sample_size: usize,
    /// Channels of a latent.
    pub in_channels: usize,
    /// Number of blocks.
    pub num_layers: usize,
    /// Width of a head.
    pub attention_head_dim: usize,
    /// Heads of queries.
    pub num_attention_heads: usize,
    /// Heads of keys and values in cross-attention.
    pub num_key_value_attention_heads: usize,
    /// Channels of the output: those of a latent.
    pub out_channels: usize,
    /// Width of the tokens that cross-attention attends to.
    pub cross_attention_dim: usize,
    /// Sines and cosines of the time.
    pub time_proj_dim: usize,
    /// Width of the global condition.
    pub global_states_input_dim: usize,
    /// Width of the encoder hidden states.
    pub cross_attention_input_dim: usize,
}

impl Default for StableAudioDitConfig {
    /// Stable Audio Open 1.0.
    fn default() -> Self {
        Self {
            sample_size: 1024,
            in_channels: 64,
            num_layers: 24,
            attention_head_dim: 64,
            num_attention_heads: 24,
            num_key_value_attention_heads: 12,
            out_channels: 64,
            cross_attention_dim: 768,
            time_proj_dim: 256,
            global_states_input_dim: 1536,
            cross_attention_input_dim: 768,
        }
    }
}

impl StableAudioDitConfig {
    json_methods!("StableAudioDiTModel", &[]);

    /// Width of the tokens: of all heads of queries.
    pub fn width(&self) -> usize {
        self.num_attention_heads
            .saturating_mul(self.attention_head_dim)
    }

    /// Channels of a head that turn with the position.
    pub fn rotary_width(&self) -> usize {
        self.attention_head_dim / 2
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        json::check_ranges(&[
            ("sample_size", self.sample_size, 1 << 20),
            ("in_channels", self.in_channels, 1 << 12),
            ("num_layers", self.num_layers, 1 << 10),
            ("attention_head_dim", self.attention_head_dim, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("cross_attention_dim", self.cross_attention_dim, 1 << 16),
            ("time_proj_dim", self.time_proj_dim, 1 << 14),
        ])?;
        json::check_ranges(&[
            (
                "global_states_input_dim",
                self.global_states_input_dim,
                1 << 16,
            ),
            (
                "cross_attention_input_dim",
                self.cross_attention_input_dim,
                1 << 16,
            ),
        ])?;
        let (heads, shared) = (self.num_attention_heads, self.num_key_value_attention_heads);
        check::ensure(
            shared > 0 && heads.is_multiple_of(shared),
            "num_key_value_attention_heads",
            shared,
            &format!("a divisor of the {heads} num_attention_heads"),
        )?;
        check::ensure(
            self.attention_head_dim.is_multiple_of(4),
            "attention_head_dim",
            self.attention_head_dim,
            "a multiple of 4: half of it turns with the position, in pairs",
        )?;
        let even = self.time_proj_dim.is_multiple_of(2);
        let expected = "an even number, for sines and cosines";
        check::ensure(even, "time_proj_dim", self.time_proj_dim, expected)?;
        check::ensure(
            self.out_channels == self.in_channels,
            "out_channels",
            self.out_channels,
            &format!("{}, as in_channels", self.in_channels),
        )
    }

    /// Fails unless the network processes latents of this shape.
    pub(super) fn check_shape(&self, shape: SampleShape) -> Result<()> {
        let [channels, frames] = *shape.dims() else {
            return Err(Error::argument(
                "shape",
                shape,
                "latents: channels and frames",
            ));
        };
        check::ensure(
            self.in_channels == channels,
            "in_channels",
            self.in_channels,
            &format!("{channels}, the channels of the latents"),
        )?;
        check::ensure_argument(frames > 0, "shape", shape, "at least one frame")
    }
}

/// Configuration of a [`StableAudioProjectionModel`](super::StableAudioProjectionModel); the fields
/// are those of diffusers' `StableAudioProjectionModel`. The default is that of Stable Audio Open
/// 1.0.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StableAudioProjectionConfig {
    /// Width of the text encoder's vectors.
    pub text_encoder_dim: usize,
    /// Width of the conditions.
    pub conditioning_dim: usize,
    /// The smallest time, in seconds.
    pub min_value: f64,
    /// The greatest time, in seconds.
    pub max_value: f64,
}

impl Default for StableAudioProjectionConfig {
    fn default() -> Self {
        Self {
            text_encoder_dim: 768,
            conditioning_dim: 768,
            min_value: 0.0,
            max_value: 512.0,
        }
    }
}

impl StableAudioProjectionConfig {
    json_methods!("StableAudioProjectionModel", &[]);

    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field.
    pub fn validate(&self) -> Result<()> {
        json::check_ranges(&[
            ("text_encoder_dim", self.text_encoder_dim, 1 << 16),
            ("conditioning_dim", self.conditioning_dim, 1 << 16),
        ])?;
        check::ensure(
            self.min_value.is_finite(),
            "min_value",
            self.min_value,
            "a finite number",
        )?;
        check::ensure(
            self.max_value.is_finite() && self.max_value > self.min_value,
            "max_value",
            self.max_value,
            "a finite number above min_value",
        )
    }
}
