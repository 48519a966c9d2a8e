//! Configuration of the autoencoder of Stable Video Diffusion.

use crate::{
    LikelihoodKind,
    models::diffusers::{DownEncoderBlockType, architecture::Architecture},
};
use aigc_core::{
    Error, Result,
    check::ensure,
    json,
    nn::{Activation, diffusers::SampleSize},
    weights::Loaded,
};
use serde::{Deserialize, Serialize};

/// The name of the class in diffusers.
const CLASS: &str = "AutoencoderKLTemporalDecoder";
/// Groups of all group norms.
pub(super) const GROUPS: usize = 32;

/// Configuration to create an
/// [`AutoencoderKlTemporalDecoder`](super::AutoencoderKlTemporalDecoder); the fields are those of
/// diffusers' `AutoencoderKLTemporalDecoder`, and so is the default.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlTemporalDecoderConfig {
    /// Channels of a frame.
    pub in_channels: usize,
    /// Channels of a decoded frame, the same.
    pub out_channels: usize,
    /// Blocks of the encoder, from the largest size on.
    pub down_block_types: Vec<DownEncoderBlockType>,
    /// Channels at each size, from the largest on; multiples of 32.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks at each size of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Size of the frames that it was made for. Others can be encoded and decoded too.
    pub sample_size: SampleSize,
    /// Factor of the latents in latent diffusion, one over their standard deviation.
    pub scaling_factor: f64,
    /// Whether diffusers computes in 32-bit floats if the weights have 16 bits. Has no effect here:
    /// the network computes in the type of its input, whatever that of the weights is.
    pub force_upcast: bool,
}

impl Default for AutoencoderKlTemporalDecoderConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![DownEncoderBlockType::DownEncoderBlock2D],
            block_out_channels: vec![64],
            layers_per_block: 1,
            latent_channels: 4,
            sample_size: SampleSize::Side(32),
            scaling_factor: 0.18215,
            force_upcast: true,
        }
    }
}

impl AutoencoderKlTemporalDecoderConfig {
    /// A configuration from the text of diffusers' `config.json`. Missing fields have the defaults
    /// of diffusers. The report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`] if the text is not JSON; [`Error::Config`] names a field with a value that
    /// it cannot have.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let fields = json::parse_object(text)?;
        if let Some(other) = fields.get("_class_name").filter(|name| *name != CLASS) {
            return Err(Error::config("_class_name", other, CLASS));
        }
        let config: Loaded<Self> = json::from_map_with_defaults(&fields)?;
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.json` as diffusers writes it.
    pub fn to_json(&self) -> String {
        let mut fields = json::to_map(self);
        fields.insert("_class_name".into(), CLASS.into());
        serde_json::to_string_pretty(&fields).expect("plain values")
    }

    /// Fails for a value out of range.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn validate(&self) -> Result<()> {
        for channels in &self.block_out_channels {
            let expected = format!("multiples of {GROUPS}, the groups of the norms");
            let fits = channels.is_multiple_of(GROUPS);
            ensure(fits, "block_out_channels", channels, &expected)?;
        }
        self.activation().map(drop)
    }

    /// The activation of the encoder.
    pub(super) fn activation(&self) -> Result<Activation> {
        self.architecture().validate()
    }

    /// That of the encoder.
    pub(super) fn architecture(&self) -> Architecture<'_> {
        Architecture {
            sample_size: self.sample_size,
            in_channels: self.in_channels,
            out_channels: self.out_channels,
            latent_channels: self.latent_channels,
            down_blocks: self.down_block_types.len(),
            up_blocks: self.block_out_channels.len(),
            block_out_channels: &self.block_out_channels,
            layers_per_block: self.layers_per_block,
            norm_num_groups: GROUPS,
            act_fn: "silu",
            mid_block_add_attention: true,
            scaling_factor: self.scaling_factor,
            likelihood: LikelihoodKind::Gaussian(1.0),
        }
    }

    /// Pixels in height and width that a latent stands for.
    pub(super) fn factor(&self) -> usize {
        1 << self.block_out_channels.len().saturating_sub(1)
    }
}
