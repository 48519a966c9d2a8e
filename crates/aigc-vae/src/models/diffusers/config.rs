//! Configurations of the models, with the fields of diffusers.

use super::architecture::{Architecture, MAX_CHANNELS, small_channels};
use crate::{CodeShape, LikelihoodKind, models::check_weights};
use aigc_core::{
    Error, Result,
    check::{self, ensure},
    data::{ImageShape, SampleShape},
    json,
    nn::{Activation, diffusers::SampleSize},
    weights::Loaded,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Blocks of an encoder at one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DownEncoderBlockType {
    /// Residual blocks of convolutions.
    DownEncoderBlock2D,
}

/// Blocks of a decoder at one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum UpDecoderBlockType {
    /// Residual blocks of convolutions.
    UpDecoderBlock2D,
}

/// Configuration to create an [`AutoencoderKl`](super::AutoencoderKl); the fields are those of
/// diffusers' `AutoencoderKL`, and [`likelihood`](Self::likelihood). The default is that of
/// diffusers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AutoencoderKlConfig {
    /// Size of the images; the sides must be divisible by 2 for each block but the last. Images of
    /// other sizes can be encoded and decoded, but not trained on.
    pub sample_size: SampleSize,
    /// Channels of an image.
    pub in_channels: usize,
    /// Channels of a decoded image, the same.
    pub out_channels: usize,
    /// Blocks of the encoder, from the largest size on.
    pub down_block_types: Vec<DownEncoderBlockType>,
    /// Blocks of the decoder, from the smallest size on.
    pub up_block_types: Vec<UpDecoderBlockType>,
    /// Channels at each size, from the largest on.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks at each size of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Activation in the blocks: `silu`, `gelu`, `relu` or `mish`. The one before the last
    /// convolutions is always SiLU.
    pub act_fn: String,
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Groups of the group norms; they must divide all `block_out_channels`.
    pub norm_num_groups: usize,
    /// Factor of the latents in latent diffusion, one over their standard deviation.
    pub scaling_factor: f64,
    /// Subtracted from the latents before they are scaled, in latent diffusion; `None` for 0.
    pub shift_factor: Option<f64>,
    /// Mean of each channel of the latents, in place of `shift_factor`; with `latents_std`.
    pub latents_mean: Option<Vec<f64>>,
    /// Standard deviation of each channel of the latents, which are divided by it before
    /// `scaling_factor` is applied.
    pub latents_std: Option<Vec<f64>>,
    /// Whether diffusers computes in 32-bit floats if the weights have 16 bits. Has no effect here:
    /// the network computes in the type of its input, whatever that of the weights is.
    pub force_upcast: bool,
    /// Whether a convolution of one pixel follows the encoder.
    pub use_quant_conv: bool,
    /// Whether a convolution of one pixel precedes the decoder.
    pub use_post_quant_conv: bool,
    /// Whether there is attention at the smallest size.
    pub mid_block_add_attention: bool,
    /// Type of the distribution that the decoder outputs, for training: a Gaussian, in the units of
    /// images in `[0, 1]`. A field of this library; the default, a standard deviation of 0.1, is
    /// not written to files.
    pub likelihood: LikelihoodKind,
}

/// Configuration to create a [`VqModel`](super::VqModel); the fields are those of diffusers'
/// `VQModel`, and [`likelihood`](Self::likelihood). The default is that of diffusers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VqModelConfig {
    /// Size of the images; the sides must be divisible by 2 for each block but the last. Images of
    /// other sizes can be encoded and decoded, but not trained on.
    pub sample_size: SampleSize,
    /// Channels of an image.
    pub in_channels: usize,
    /// Channels of a decoded image, the same.
    pub out_channels: usize,
    /// Blocks of the encoder, from the largest size on.
    pub down_block_types: Vec<DownEncoderBlockType>,
    /// Blocks of the decoder, from the smallest size on.
    pub up_block_types: Vec<UpDecoderBlockType>,
    /// Channels at each size, from the largest on.
    pub block_out_channels: Vec<usize>,
    /// Residual blocks at each size of the encoder; the decoder has one more.
    pub layers_per_block: usize,
    /// Activation in the blocks: `silu`, `gelu`, `relu` or `mish`. The one before the last
    /// convolutions is always SiLU.
    pub act_fn: String,
    /// Channels of the encoder's output and of the decoder's input.
    pub latent_channels: usize,
    /// Groups of the group norms; they must divide all `block_out_channels`.
    pub norm_num_groups: usize,
    /// Number of codes.
    pub num_vq_embeddings: usize,
    /// Width of a code; `latent_channels` by default.
    pub vq_embed_dim: Option<usize>,
    /// Factor of the latents in latent diffusion.
    pub scaling_factor: f64,
    /// Whether diffusers' `decode` can take indices of codes. Has no effect here:
    /// [`decode_indices`](super::VqModel::decode_indices) always can.
    pub lookup_from_codebook: bool,
    /// Whether diffusers computes in 32-bit floats if the weights have 16 bits. Has no effect here:
    /// the network computes in the type of its input, whatever that of the weights is.
    pub force_upcast: bool,
    /// Whether there is attention at the smallest size.
    pub mid_block_add_attention: bool,
    /// Type of the distribution that the decoder outputs, for training: a Gaussian, in the units of
    /// images in `[0, 1]`. A field of this library; the default, a standard deviation of 0.1, is
    /// not written to files.
    pub likelihood: LikelihoodKind,
}

/// The default of `likelihood`.
const LIKELIHOOD: LikelihoodKind = LikelihoodKind::Gaussian(0.1);

impl Default for AutoencoderKlConfig {
    fn default() -> Self {
        Self {
            sample_size: SampleSize::Side(32),
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![DownEncoderBlockType::DownEncoderBlock2D],
            up_block_types: vec![UpDecoderBlockType::UpDecoderBlock2D],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".into(),
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_quant_conv: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            likelihood: LIKELIHOOD,
        }
    }
}

impl Default for VqModelConfig {
    fn default() -> Self {
        Self {
            sample_size: SampleSize::Side(32),
            in_channels: 3,
            out_channels: 3,
            down_block_types: vec![DownEncoderBlockType::DownEncoderBlock2D],
            up_block_types: vec![UpDecoderBlockType::UpDecoderBlock2D],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".into(),
            latent_channels: 3,
            norm_num_groups: 32,
            num_vq_embeddings: 256,
            vq_embed_dim: None,
            scaling_factor: 0.18215,
            lookup_from_codebook: false,
            force_upcast: false,
            mid_block_add_attention: true,
            likelihood: LIKELIHOOD,
        }
    }
}

/// Defines the methods that both configurations have. `$small` completes the description of the
/// small model.
macro_rules! shared_methods {
    ($class:literal, $unsupported:expr, $small:literal) => {
        /// The name of the class in diffusers.
        pub const CLASS: &str = $class;

        /// A small model for images of `shape`: up to three sizes of 32, 64 and 64 channels, as
        /// often as both sides can be halved and leave 4 pixels;
        #[doc = concat!($small, ", a scaling factor of 1.")]
        pub fn new(shape: ImageShape) -> Self {
            let channels = small_channels(shape);
            Self {
                sample_size: shape.into(),
                in_channels: shape.channels,
                out_channels: shape.channels,
                down_block_types: vec![DownEncoderBlockType::DownEncoderBlock2D; channels.len()],
                up_block_types: vec![UpDecoderBlockType::UpDecoderBlock2D; channels.len()],
                block_out_channels: channels,
                norm_num_groups: 8,
                scaling_factor: 1.0,
                ..Self::default()
            }
        }

        /// A configuration from the text of diffusers' `config.json`. Missing fields have the
        /// defaults of diffusers. The report lists unknown fields, which were ignored.
        ///
        /// # Errors
        /// [`Error::Json`] if the text is not JSON; [`Error::Config`] names a field with a value
        /// that it cannot have, or that is not supported.
        pub fn from_json(text: &str) -> Result<Loaded<Self>> {
            let config: Loaded<Self> = read(text, Self::CLASS, $unsupported)?;
            config.validate()?;
            Ok(config)
        }

        /// The text of `config.json` as diffusers writes it.
        pub fn to_json(&self) -> String {
            write(self, Self::CLASS)
        }

        /// Shape of an image.
        pub(crate) fn sample_shape(&self) -> SampleShape {
            self.architecture().sample_shape()
        }

        pub(crate) fn architecture(&self) -> Architecture<'_> {
            Architecture {
                sample_size: self.sample_size,
                in_channels: self.in_channels,
                out_channels: self.out_channels,
                latent_channels: self.latent_channels,
                down_blocks: self.down_block_types.len(),
                up_blocks: self.up_block_types.len(),
                block_out_channels: &self.block_out_channels,
                layers_per_block: self.layers_per_block,
                norm_num_groups: self.norm_num_groups,
                act_fn: &self.act_fn,
                mid_block_add_attention: self.mid_block_add_attention,
                scaling_factor: self.scaling_factor,
                likelihood: self.likelihood,
            }
        }
    };
}

impl AutoencoderKlConfig {
    shared_methods!("AutoencoderKL", &[], "4 latent channels");

    /// Shape of the latents of an image.
    pub(crate) fn latent_shape(&self) -> SampleShape {
        self.architecture().latent_shape(self.latent_channels)
    }

    /// What is subtracted from each channel of the latents in latent diffusion, and what the
    /// channel is then multiplied by.
    pub(crate) fn latent_scaling(&self) -> (Vec<f64>, Vec<f64>) {
        match (&self.latents_mean, &self.latents_std) {
            (Some(mean), Some(std)) => {
                let factor = std.iter().map(|std| self.scaling_factor / std);
                (mean.clone(), factor.collect())
            }
            _ => (
                vec![self.shift_factor.unwrap_or(0.0); self.latent_channels],
                vec![self.scaling_factor; self.latent_channels],
            ),
        }
    }

    /// The activation in the blocks.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub(crate) fn validate(&self) -> Result<Activation> {
        let activation = self.architecture().validate()?;
        let finite = |field, value: f64| ensure(value.is_finite(), field, value, "a finite number");
        finite("shift_factor", self.shift_factor.unwrap_or(0.0))?;
        let statistics = [
            ("latents_mean", &self.latents_mean),
            ("latents_std", &self.latents_std),
        ];
        for (field, values) in statistics {
            let Some(values) = values else { continue };
            if values.len() != self.latent_channels {
                let expected = format!("{} numbers, as latent_channels", self.latent_channels);
                let found = format!("{} numbers", values.len());
                return Err(Error::config(field, found, expected));
            }
            for value in values {
                match field {
                    "latents_std" => check::positive(field, *value)?,
                    _ => finite(field, *value)?,
                }
            }
        }
        match (&self.latents_mean, &self.latents_std, self.shift_factor) {
            (Some(_), None, _) => {
                let expected = "given, because latents_mean is";
                Err(Error::config("latents_std", "null", expected))
            }
            (None, Some(_), _) => {
                let expected = "given, because latents_std is";
                Err(Error::config("latents_mean", "null", expected))
            }
            (Some(_), Some(_), Some(shift)) => {
                let expected = "null, because latents_mean is given";
                Err(Error::config("shift_factor", shift, expected))
            }
            _ => Ok(activation),
        }
    }
}

/// Fields of options of `VQModel` that are not implemented, and the value that they have to have.
const UNSUPPORTED: &[(&str, &str)] = &[("norm_type", "\"group\"")];

impl VqModelConfig {
    shared_methods!("VQModel", UNSUPPORTED, "256 codes of width 3");

    /// Width of a code.
    pub fn embed_dim(&self) -> usize {
        self.vq_embed_dim.unwrap_or(self.latent_channels)
    }

    /// Shape of the latents of an image.
    pub(crate) fn latent_shape(&self) -> SampleShape {
        self.architecture().latent_shape(self.embed_dim())
    }

    /// The codes of an image.
    pub(crate) fn code_shape(&self) -> CodeShape {
        let latents = self.latent_shape();
        CodeShape {
            height: latents.dims()[1],
            width: latents.dims()[2],
            codebooks: 1,
            num_codes: self.num_vq_embeddings,
        }
    }

    /// The activation in the blocks.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub(crate) fn validate(&self) -> Result<Activation> {
        let activation = self.architecture().validate()?;
        check::sizes(&[
            ("num_vq_embeddings", self.num_vq_embeddings, 1 << 20),
            ("vq_embed_dim", self.embed_dim(), MAX_CHANNELS),
        ])?;
        let of = format!("codes of width {}", self.embed_dim());
        check_weights(
            "num_vq_embeddings",
            self.num_vq_embeddings,
            self.embed_dim(),
            &of,
        )?;
        Ok(activation)
    }
}

/// A configuration from the text of a file; the report lists unknown fields.
pub(super) fn read<C: Serialize + DeserializeOwned + Default>(
    text: &str,
    class: &str,
    unsupported: &[(&str, &str)],
) -> Result<Loaded<C>> {
    let mut given = json::parse_object(text)?;
    if let Some(other) = given.get("_class_name").filter(|name| *name != class) {
        return Err(Error::config("_class_name", other, class));
    }
    json::reject_unsupported(&mut given, unsupported)?;
    json::from_map_with_defaults(&given)
}

/// The text of a configuration's file.
fn write<C: Serialize + Default>(config: &C, class: &str) -> String {
    let mut fields = json::to_map(config);
    // A field of this library, which other readers need not see.
    if fields.get("likelihood") == json::to_map(&C::default()).get("likelihood") {
        fields.remove("likelihood");
    }
    fields.insert("_class_name".into(), class.into());
    serde_json::to_string_pretty(&fields).expect("plain values")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_models_fit_their_images() {
        for (shape, channels, latent) in [
            (ImageShape::new(1, 8, 8), vec![32, 64], [4, 4, 4]),
            (ImageShape::new(3, 32, 48), vec![32, 64, 64], [4, 8, 12]),
            (ImageShape::new(1, 7, 7), vec![32], [4, 7, 7]),
        ] {
            let config = AutoencoderKlConfig::new(shape);
            config.validate().unwrap();
            assert_eq!(config.block_out_channels, channels);
            assert_eq!(config.sample_shape(), shape);
            assert_eq!(config.latent_shape(), SampleShape::new(&latent));
            let config = VqModelConfig::new(shape);
            config.validate().unwrap();
            assert_eq!(config.latent_shape().dims()[1..], latent[1..]);
        }
    }

    #[test]
    fn configurations_are_written_as_they_are_read() {
        let config = AutoencoderKlConfig {
            latents_mean: Some(vec![0.1, -0.2, 0.3, 0.0]),
            latents_std: Some(vec![1.5, 1.0, 2.0, 0.5]),
            sample_size: SampleSize::Sides([32, 48]),
            norm_num_groups: 16,
            ..AutoencoderKlConfig::default()
        };
        let text = config.to_json();
        assert!(
            text.contains("\"_class_name\": \"AutoencoderKL\""),
            "{text}"
        );
        // A field of this library is written where it says something only.
        assert!(!text.contains("likelihood"), "{text}");
        assert_eq!(
            AutoencoderKlConfig::from_json(&text).unwrap(),
            Loaded::new(config)
        );
        let config = VqModelConfig {
            vq_embed_dim: Some(5),
            likelihood: LikelihoodKind::Gaussian(0.25),
            ..VqModelConfig::default()
        };
        let text = config.to_json();
        assert!(text.contains("likelihood"), "{text}");
        assert_eq!(
            VqModelConfig::from_json(&text).unwrap(),
            Loaded::new(config)
        );
        let text = r#"{"_class_name": "VQModel", "norm_type": "group", "colour": "red"}"#;
        assert_eq!(
            VqModelConfig::from_json(text).unwrap(),
            Loaded::new(VqModelConfig::default()).with_unused_fields(vec!["colour".into()])
        );
    }

    #[test]
    fn latent_scaling_is_per_channel_with_statistics() {
        let config = AutoencoderKlConfig {
            latent_channels: 2,
            scaling_factor: 0.5,
            shift_factor: Some(0.25),
            ..AutoencoderKlConfig::default()
        };
        assert_eq!(config.latent_scaling(), (vec![0.25, 0.25], vec![0.5, 0.5]));
        let config = AutoencoderKlConfig {
            shift_factor: None,
            latents_mean: Some(vec![1.0, -1.0]),
            latents_std: Some(vec![2.0, 4.0]),
            ..config
        };
        assert_eq!(
            config.latent_scaling(),
            (vec![1.0, -1.0], vec![0.25, 0.125])
        );
    }

    #[test]
    fn faults_name_field_and_value() {
        let message = |text: &str| {
            AutoencoderKlConfig::from_json(text)
                .unwrap_err()
                .to_string()
        };
        for (json, field, value) in [
            (
                "{\"block_out_channels\": []}",
                "block_out_channels",
                "0 blocks",
            ),
            ("{\"latents_mean\": [0, 0, 0, 0]}", "latents_std", "null"),
            ("{\"latents_std\": [1, 1, 1, 1]}", "latents_mean", "null"),
            ("{\"latents_std\": [1, 1]}", "latents_std", "2 numbers"),
            (
                "{\"latents_mean\": [0,0,0,0], \"latents_std\": [1,0,1,1]}",
                "latents_std",
                "0",
            ),
            (
                "{\"latents_mean\": [0,0,0,0], \"latents_std\": [1,1,1,1], \"shift_factor\": 0.5}",
                "shift_factor",
                "0.5",
            ),
            ("{\"likelihood\": \"bernoulli\"}", "likelihood", "Bernoulli"),
            (
                "{\"likelihood\": {\"gaussian\": 0}}",
                "likelihood.gaussian",
                "0",
            ),
        ] {
            let message = message(json);
            let expected = format!("`{field}` is {value}, expected ");
            assert!(message.contains(&expected), "{json}: {message}");
        }
    }
}
