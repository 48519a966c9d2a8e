//! Configuration of `AutoencoderTiny`.

use super::{architecture::MAX_CHANNELS, config::read};
use crate::models::check_weights;
use aigc_core::{
    Result,
    check::{self, ensure},
    json,
    nn::{
        Activation,
        diffusers::{SampleSize, activation},
    },
    weights::Loaded,
};
use serde::{Deserialize, Serialize};

/// Configuration to create an [`AutoencoderTiny`](super::AutoencoderTiny); the fields are those of
/// diffusers' `AutoencoderTiny`, and [`sample_size`](Self::sample_size). The default is that of
/// diffusers, which is TAESD.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AutoencoderTinyConfig {
    /// Channels of an image.
    pub in_channels: usize,
    /// Channels of a decoded image, the same.
    pub out_channels: usize,
    /// Channels at each size of the encoder, from the largest on; all the same.
    pub encoder_block_out_channels: Vec<usize>,
    /// Channels at each size of the decoder, from the smallest on; all the same.
    pub decoder_block_out_channels: Vec<usize>,
    /// Activation within the blocks: `relu`, `silu`, `gelu` or `mish`. The one behind a block is
    /// always ReLU.
    pub act_fn: String,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Factor between the sizes of the decoder; those of the encoder have the factor 2.
    pub upsampling_scaling_factor: usize,
    /// Residual blocks at each size of the encoder.
    pub num_encoder_blocks: Vec<usize>,
    /// Residual blocks at each size of the decoder.
    pub num_decoder_blocks: Vec<usize>,
    /// Largest size of a latent that [`scale_latents`](super::AutoencoderTiny::scale_latents)
    /// represents.
    pub latent_magnitude: f64,
    /// What [`scale_latents`](super::AutoencoderTiny::scale_latents) makes of 0.
    pub latent_shift: f64,
    /// Has no effect: the network computes in the type of its input.
    pub force_upcast: bool,
    /// Factor of the latents in latent diffusion.
    pub scaling_factor: f64,
    /// Subtracted from the latents before they are scaled, in latent diffusion.
    pub shift_factor: f64,
    /// Size of the images; the sides must be divisible by the factor of the latents. Images of
    /// other sizes can be encoded and decoded. A field of this library; the default, 512, is not
    /// written to files.
    pub sample_size: SampleSize,
}

/// The default of `sample_size`.
const SAMPLE_SIZE: SampleSize = SampleSize::Side(512);

impl Default for AutoencoderTinyConfig {
    fn default() -> Self {
        Self {
            in_channels: 3,
            out_channels: 3,
            encoder_block_out_channels: vec![64; 4],
            decoder_block_out_channels: vec![64; 4],
            act_fn: "relu".into(),
            latent_channels: 4,
            upsampling_scaling_factor: 2,
            num_encoder_blocks: vec![1, 3, 3, 3],
            num_decoder_blocks: vec![3, 3, 3, 1],
            latent_magnitude: 3.0,
            latent_shift: 0.5,
            force_upcast: false,
            scaling_factor: 1.0,
            shift_factor: 0.0,
            sample_size: SAMPLE_SIZE,
        }
    }
}

/// Fields of options that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[("upsample_fn", "\"nearest\"")];

impl AutoencoderTinyConfig {
    /// The name of the class in diffusers.
    pub const CLASS: &str = "AutoencoderTiny";

    /// A configuration from the text of diffusers' `config.json`. Missing fields have the defaults
    /// of diffusers. The report lists unknown fields, which were ignored.
    ///
    /// # Errors
    /// [`Error::Json`](aigc_core::Error::Json) if the text is not JSON;
    /// [`Error::Config`](aigc_core::Error::Config) names a field with a value that it cannot have,
    /// or that is not supported.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut config: Loaded<Self> = read(text, Self::CLASS, UNSUPPORTED)?;
        // A copy of `decoder_block_out_channels`.
        config
            .unused_fields
            .retain(|field| field != "block_out_channels");
        config.validate()?;
        Ok(config)
    }

    /// The text of `config.json` as diffusers writes it.
    pub fn to_json(&self) -> String {
        let mut fields = json::to_map(self);
        if self.sample_size == SAMPLE_SIZE {
            fields.remove("sample_size");
        }
        let copy = self.decoder_block_out_channels.clone();
        fields.insert("block_out_channels".into(), copy.into());
        fields.insert("upsample_fn".into(), "nearest".into());
        fields.insert("_class_name".into(), Self::CLASS.into());
        serde_json::to_string_pretty(&fields).expect("plain values")
    }

    /// Pixels in height and width that a latent stands for.
    pub fn factor(&self) -> usize {
        1 << (self.num_encoder_blocks.len() - 1)
    }

    /// The activation within the blocks.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub(super) fn validate(&self) -> Result<Activation> {
        check::sizes(&[
            ("in_channels", self.in_channels, MAX_CHANNELS),
            ("out_channels", self.out_channels, MAX_CHANNELS),
            ("latent_channels", self.latent_channels, MAX_CHANNELS),
            (
                "upsampling_scaling_factor",
                self.upsampling_scaling_factor,
                1 << 4,
            ),
        ])?;
        ensure(
            self.in_channels == self.out_channels,
            "out_channels",
            self.out_channels,
            &format!("{}, as in_channels", self.in_channels),
        )?;
        let halves = [
            (
                "encoder_block_out_channels",
                &self.encoder_block_out_channels,
                "num_encoder_blocks",
                &self.num_encoder_blocks,
            ),
            (
                "decoder_block_out_channels",
                &self.decoder_block_out_channels,
                "num_decoder_blocks",
                &self.num_decoder_blocks,
            ),
        ];
        for (channels_field, channels, blocks_field, blocks) in halves {
            let levels = channels.len();
            let count = format!("{levels} sizes");
            ensure(
                (1..=14).contains(&levels),
                channels_field,
                count,
                "1 to 14 sizes",
            )?;
            let expected = format!("{levels} numbers, as {channels_field}");
            let count = format!("{} numbers", blocks.len());
            ensure(blocks.len() == levels, blocks_field, count, &expected)?;
            let first = channels[0];
            for width in channels {
                check::in_range(channels_field, *width, 1..=1 << 14)?;
                let expected = format!("{first} at all sizes");
                ensure(*width == first, channels_field, width, &expected)?;
            }
            for count in blocks {
                check::in_range(blocks_field, *count, 0..=64)?;
            }
            // Convolutions of 3×3: three in each block, and one at each size.
            let convolutions = 3 * blocks.iter().sum::<usize>() + levels;
            let weights = 9 * first * first;
            let of = format!("layers of {first} channels");
            check_weights(blocks_field, convolutions, weights, &of)?;
        }
        let factor = self.factor();
        let levels = self.num_decoder_blocks.len() as u32;
        let upsampling = self.upsampling_scaling_factor.checked_pow(levels - 1);
        ensure(
            upsampling == Some(factor),
            "upsampling_scaling_factor",
            self.upsampling_scaling_factor,
            &format!("one that leads back to the size of the image in {levels} sizes"),
        )?;
        for side in self.sample_size.sides() {
            check::in_range("sample_size", side, 1..=1 << 14)?;
            let expected = format!("a multiple of {factor}, the pixels of a latent");
            ensure(side.is_multiple_of(factor), "sample_size", side, &expected)?;
        }
        check::positive("latent_magnitude", self.latent_magnitude)?;
        check::positive("scaling_factor", self.scaling_factor)?;
        let numbers = [
            ("latent_shift", self.latent_shift),
            ("shift_factor", self.shift_factor),
        ];
        for (field, value) in numbers {
            ensure(value.is_finite(), field, value, "a finite number")?;
        }
        // No autoencoder of diffusers has it.
        let expected = "relu, silu, swish, gelu or mish";
        ensure(
            self.act_fn != "quick_gelu",
            "act_fn",
            &self.act_fn,
            expected,
        )?;
        activation(&self.act_fn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_are_written_as_they_are_read() {
        let config = AutoencoderTinyConfig {
            latent_channels: 16,
            num_decoder_blocks: vec![2, 1, 1, 1],
            latent_magnitude: 2.5,
            sample_size: SampleSize::Sides([64, 96]),
            ..AutoencoderTinyConfig::default()
        };
        let text = config.to_json();
        assert_eq!(
            AutoencoderTinyConfig::from_json(&text).unwrap(),
            Loaded::new(config)
        );
        let text = AutoencoderTinyConfig::default().to_json();
        assert!(!text.contains("sample_size"), "{text}");
        assert!(text.contains("\"block_out_channels\""), "{text}");
        let text = r#"{"_class_name": "AutoencoderTiny", "latent_magnitude": 3, "colour": 1}"#;
        assert_eq!(
            AutoencoderTinyConfig::from_json(text).unwrap(),
            Loaded::new(AutoencoderTinyConfig::default()).with_unused_fields(vec!["colour".into()])
        );
    }

    #[test]
    fn faults_name_field_and_value() {
        for (json, expected) in [
            (
                r#"{"_class_name": "AutoencoderKL"}"#,
                "`_class_name` is \"AutoencoderKL\"",
            ),
            (
                r#"{"upsample_fn": "bilinear"}"#,
                "`upsample_fn` is \"bilinear\"",
            ),
            (
                r#"{"encoder_block_out_channels": [64, 64, 64, 32]}"#,
                "`encoder_block_out_channels` is 32, expected 64 at all sizes",
            ),
            (
                r#"{"num_decoder_blocks": [3, 3, 1]}"#,
                "`num_decoder_blocks` is 3 numbers, expected 4 numbers",
            ),
            (
                r#"{"num_encoder_blocks": [1, 3, 3, 65]}"#,
                "`num_encoder_blocks` is 65",
            ),
            (
                r#"{"upsampling_scaling_factor": 3}"#,
                "`upsampling_scaling_factor` is 3",
            ),
            (
                r#"{"sample_size": 100}"#,
                "`sample_size` is 100, expected a multiple of 8",
            ),
            (r#"{"latent_magnitude": 0}"#, "`latent_magnitude` is 0"),
            (r#"{"act_fn": "cubic"}"#, "`act_fn` is cubic"),
            (r#"{"out_channels": 4}"#, "`out_channels` is 4, expected 3"),
        ] {
            let message = AutoencoderTinyConfig::from_json(json)
                .unwrap_err()
                .to_string();
            assert!(message.contains(expected), "{json}: {message}");
        }
    }
}
