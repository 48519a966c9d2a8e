//! Configuration of FLUX.1's transformer.

use super::super::{fields::Fields, latents::PATCH};
use crate::{denoiser::check_image, json};
use aigc_core::{Result, check, data::SampleShape, weights::Loaded};
use serde::{Deserialize, Serialize};

/// The name of the class in diffusers.
const CLASS: &str = "FluxTransformer2DModel";

/// Numbers of a token for each channel of a latent map.
const PIXELS: usize = PATCH * PATCH;

/// Configuration of a [`FluxTransformerModel`](super::FluxTransformerModel); the fields are those
/// of diffusers' `FluxTransformer2DModel`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FluxTransformerConfig {
    /// Side of a patch of tokens; 1, since tokens are patches already.
    pub patch_size: usize,
    /// Numbers of a token.
    pub in_channels: usize,
    /// Numbers of a token of its output; as many as go in by default.
    pub out_channels: Option<usize>,
    /// Number of blocks with weights for the image and for the prompt.
    pub num_layers: usize,
    /// Number of blocks with the same weights for both.
    pub num_single_layers: usize,
    /// Width of a head.
    pub attention_head_dim: usize,
    /// Heads of each attention.
    pub num_attention_heads: usize,
    /// Width of the encoder hidden states.
    pub joint_attention_dim: usize,
    /// Width of the pooled prompt.
    pub pooled_projection_dim: usize,
    /// Whether it receives the guidance scale, as a distilled network.
    pub guidance_embeds: bool,
    /// Channels of a head that each axis of the positions turns.
    pub axes_dims_rope: [usize; 3],
}

impl Default for FluxTransformerConfig {
    fn default() -> Self {
        Self {
            patch_size: 1,
            in_channels: 64,
            out_channels: None,
            num_layers: 19,
            num_single_layers: 38,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 4096,
            pooled_projection_dim: 768,
            guidance_embeds: false,
            axes_dims_rope: [16, 56, 56],
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[("patch_size", "1")];

impl FluxTransformerConfig {
    /// A configuration from the fields of its file; the others have defaults. The report lists
    /// unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names a field with a value that it cannot
    /// have, or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let fields = json::parse_object(text)?;
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

    /// Channels of the latent maps of its input and of its output.
    fn map_channels(&self) -> Result<[usize; 2]> {
        let expected = "a multiple of 4, for patches of 2×2 pixels";
        let fields = [
            ("in_channels", self.in_channels),
            ("out_channels", self.fields().out_channels),
        ];
        for (field, numbers) in fields {
            check::ensure(numbers.is_multiple_of(PIXELS), field, numbers, expected)?;
        }
        Ok(fields.map(|(_, numbers)| numbers / PIXELS))
    }

    /// Channels of the input after those of an image.
    pub(super) fn extra_input_channels(&self) -> usize {
        self.in_channels.saturating_sub(self.fields().out_channels) / PIXELS
    }

    pub(super) fn check(&self, shape: SampleShape) -> Result<()> {
        let [input, output] = self.map_channels()?;
        let fits = input - self.extra_input_channels() == shape.channels();
        let expected = format!(
            "{}, 4 for each channel of the images",
            PIXELS * shape.channels()
        );
        check::ensure(fits, "in_channels", self.in_channels, &expected)?;
        check_image(shape, [shape.channels(), output], PATCH, false)
    }

    pub(super) fn check_trainable(&self, shape: SampleShape) -> Result<()> {
        self.check(shape)?;
        check::ensure(
            self.extra_input_channels() == 0,
            "in_channels",
            self.in_channels,
            &format!(
                "{}, those of an image: it is all that is trained on",
                self.fields().out_channels
            ),
        )
    }

    pub(super) fn validate(&self) -> Result<()> {
        self.fields().check_ranges(&[
            ("patch_size", self.patch_size, 1),
            ("num_single_layers", self.num_single_layers, 1 << 10),
            ("joint_attention_dim", self.joint_attention_dim, 1 << 16),
            ("pooled_projection_dim", self.pooled_projection_dim, 1 << 16),
        ])?;
        let axes = self.axes_dims_rope;
        let expected = "even numbers whose sum is attention_head_dim";
        let fit = axes
            .iter()
            .all(|axis| axis.is_multiple_of(2) && *axis <= 1 << 10)
            && axes.iter().sum::<usize>() == self.attention_head_dim;
        check::ensure(fit, "axes_dims_rope", format!("{axes:?}"), expected)
    }
}
