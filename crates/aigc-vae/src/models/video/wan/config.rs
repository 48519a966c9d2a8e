//! Configuration of Wan's autoencoder.

use crate::models::check_weights;
use aigc_core::{
    Error, Result,
    check::{self, ensure},
    json,
    weights::Loaded,
};
use serde::{Deserialize, Serialize};

/// The name of the class in diffusers.
const CLASS: &str = "AutoencoderKLWan";
/// Most layers that halve the number of frames: four frames are encoded at a time.
const MOST_TEMPORAL: usize = 2;

/// Configuration to create an [`AutoencoderKlWan`](super::AutoencoderKlWan); the fields are those
/// of diffusers' `AutoencoderKLWan`, and so is the default, the autoencoder of Wan 2.1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AutoencoderKlWanConfig {
    /// Channels of the encoder at the largest size.
    pub base_dim: usize,
    /// Channels of the decoder at the largest size. `None`: those of the encoder.
    pub decoder_base_dim: Option<usize>,
    /// Channels of the latents.
    pub z_dim: usize,
    /// Channels at each size, from the largest on, as multiples of the base.
    pub dim_mult: Vec<usize>,
    /// Residual blocks at each size of the encoder; the decoder has one more.
    pub num_res_blocks: usize,
    /// Whether the number of frames is halved too, for each size but the smallest.
    pub temperal_downsample: Vec<bool>,
    /// Mean of each channel of the latents.
    pub latents_mean: Vec<f64>,
    /// Standard deviation of each channel of the latents.
    pub latents_std: Vec<f64>,
    /// Whether the blocks of a size have a skip around them, as in Wan 2.2 with five billion
    /// parameters.
    pub is_residual: bool,
    /// Channels of a frame, after pixels were moved to channels.
    pub in_channels: usize,
    /// Channels of a decoded frame, before channels are moved to pixels; the same.
    pub out_channels: usize,
    /// Side of the squares whose pixels are moved to channels. `None`: they are not.
    pub patch_size: Option<usize>,
    /// Frames that a latent stands for, after the first one. `None`: as the layers have it.
    pub scale_factor_temporal: Option<usize>,
    /// Pixels in height and width that a latent stands for. `None`: as the layers have it.
    pub scale_factor_spatial: Option<usize>,
}

impl Default for AutoencoderKlWanConfig {
    fn default() -> Self {
        Self {
            base_dim: 96,
            decoder_base_dim: None,
            z_dim: 16,
            dim_mult: vec![1, 2, 4, 4],
            num_res_blocks: 2,
            temperal_downsample: vec![false, true, true],
            latents_mean: vec![
                -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134,
                -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921,
            ],
            latents_std: vec![
                2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526,
                2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160,
            ],
            is_residual: false,
            in_channels: 3,
            out_channels: 3,
            patch_size: None,
            scale_factor_temporal: Some(4),
            scale_factor_spatial: Some(8),
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[("attn_scales", "[]")];
/// Fields of diffusers that do not change what is encoded or decoded.
const WITHOUT_EFFECT: &[&str] = &["dropout"];

impl AutoencoderKlWanConfig {
    /// A configuration from the text of diffusers' `config.json`. Missing fields have the defaults
    /// of diffusers. The report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`] if the text is not JSON; [`Error::Config`] names a field with a value that
    /// it cannot have, or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = json::parse_object(text)?;
        if let Some(other) = fields.get("_class_name").filter(|name| *name != CLASS) {
            return Err(Error::config("_class_name", other, CLASS));
        }
        json::reject_unsupported(&mut fields, UNSUPPORTED)?;
        for field in WITHOUT_EFFECT {
            fields.remove(*field);
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

    /// Frames that a latent stands for, after the first one, which has a latent of its own.
    pub fn temporal_factor(&self) -> usize {
        1 << self
            .temperal_downsample
            .iter()
            .filter(|down| **down)
            .count()
    }

    /// Pixels in height and width that a latent stands for.
    pub fn spatial_factor(&self) -> usize {
        self.patch() << self.temperal_downsample.len()
    }

    /// Channels of a frame.
    pub fn frame_channels(&self) -> usize {
        self.in_channels / self.patch().pow(2)
    }

    pub(super) fn patch(&self) -> usize {
        self.patch_size.unwrap_or(1)
    }

    /// Channels of the encoder at each size.
    pub(super) fn encoder_channels(&self) -> Vec<usize> {
        let multiples = self.dim_mult.iter();
        multiples.map(|multiple| multiple * self.base_dim).collect()
    }

    /// Channels of the decoder at each size, from the smallest on.
    pub(super) fn decoder_channels(&self) -> Vec<usize> {
        let base = self.decoder_base_dim.unwrap_or(self.base_dim);
        let multiples = self.dim_mult.iter().rev();
        multiples.map(|multiple| multiple * base).collect()
    }

    /// Fails for a value out of range.
    ///
    /// # Errors
    /// [`Error::Config`] names the field.
    pub fn validate(&self) -> Result<()> {
        let levels = self.dim_mult.len();
        check::sizes(&[
            ("base_dim", self.base_dim, 1 << 12),
            (
                "decoder_base_dim",
                self.decoder_base_dim.unwrap_or(1),
                1 << 12,
            ),
            ("z_dim", self.z_dim, 1 << 12),
            ("dim_mult", levels, 8),
            ("num_res_blocks", self.num_res_blocks, 64),
            ("in_channels", self.in_channels, 1 << 12),
            ("patch_size", self.patch(), 1 << 5),
        ])?;
        for multiple in &self.dim_mult {
            check::in_range("dim_mult", *multiple, 1..=1 << 6)?;
        }
        let (found, expected) = (self.temperal_downsample.len(), levels - 1);
        let expected = format!("{expected} values, one less than dim_mult has");
        let value = format!("{found} values");
        ensure(found + 1 == levels, "temperal_downsample", value, &expected)?;
        let value = format!("{:?}", self.temperal_downsample);
        let expected = format!("true {MOST_TEMPORAL} times at most");
        let fits = self.temporal_factor() <= 1 << MOST_TEMPORAL;
        ensure(fits, "temperal_downsample", value, &expected)?;
        let expected = format!("{}, as in_channels", self.in_channels);
        let same = self.out_channels == self.in_channels;
        ensure(same, "out_channels", self.out_channels, &expected)?;
        let area = self.patch().pow(2);
        let expected = format!("a multiple of {area}, the pixels of a patch");
        let fits = self.in_channels.is_multiple_of(area);
        ensure(fits, "in_channels", self.in_channels, &expected)?;
        self.check_latents()?;
        self.check_factors()?;
        self.check_channels()
    }

    fn check_latents(&self) -> Result<()> {
        for (field, values) in [
            ("latents_mean", &self.latents_mean),
            ("latents_std", &self.latents_std),
        ] {
            let (found, expected) = (values.len(), format!("{} numbers, as z_dim", self.z_dim));
            let value = format!("{found} numbers");
            ensure(found == self.z_dim, field, value, &expected)?;
            for value in values {
                match field {
                    "latents_std" => check::positive(field, *value)?,
                    _ => ensure(value.is_finite(), field, value, "a finite number")?,
                }
            }
        }
        Ok(())
    }

    fn check_factors(&self) -> Result<()> {
        for (field, given, layers) in [
            (
                "scale_factor_temporal",
                self.scale_factor_temporal,
                self.temporal_factor(),
            ),
            (
                "scale_factor_spatial",
                self.scale_factor_spatial,
                self.spatial_factor(),
            ),
        ] {
            let found = given.unwrap_or(layers);
            let expected = format!("{layers}, as the layers have it");
            ensure(found == layers, field, found, &expected)?;
        }
        Ok(())
    }

    fn check_channels(&self) -> Result<()> {
        let (encoder, decoder) = (self.encoder_channels(), self.decoder_channels());
        let widest = encoder.iter().chain(&decoder).max().copied().unwrap_or(0);
        // A residual block has two convolutions of 3×3×3, and there are less than two blocks of
        // each size in both halves for each of `num_res_blocks`, plus four.
        let blocks = self.dim_mult.len() * (2 * self.num_res_blocks + 4);
        let each = 54 * widest * widest;
        check_weights("num_res_blocks", blocks, each, "blocks of all sizes")?;
        if !self.is_residual {
            // Its upsampling halves the channels.
            for channels in &decoder[..decoder.len() - 1] {
                let expected = "multiples of the base that give even numbers of channels";
                ensure(channels.is_multiple_of(2), "dim_mult", channels, expected)?;
            }
            return Ok(());
        }
        // Skips that average or repeat channels.
        let last = encoder.len() - 1;
        let field = "dim_mult";
        for (level, to) in encoder.iter().enumerate() {
            let from = match level {
                0 => self.base_dim,
                _ => encoder[level - 1],
            };
            let factor = match level < last {
                true if self.temperal_downsample[level] => 8,
                true => 4,
                false => 1,
            };
            let expected = format!(
                "channels that divide {}, those before a skip",
                from * factor
            );
            ensure((from * factor).is_multiple_of(*to), field, to, &expected)?;
        }
        for (i, to) in decoder[..last].iter().enumerate() {
            let from = decoder[i.saturating_sub(1)];
            let factor = match self.temperal_downsample[last - 1 - i] {
                true => 8,
                false => 4,
            };
            let expected = format!("channels that {from}, those before a skip, divide");
            ensure((to * factor).is_multiple_of(from), field, to, &expected)?;
        }
        Ok(())
    }
}
