//! Autoencoders in diffusers' layout: `AutoencoderKL`, `AutoencoderTiny` and `VQModel`, with the
//! fields, the names of weights and the files of diffusers.
//!
//! | file | content |
//! |---|---|
//! | `config`, `tiny_config` | the configurations |
//! | `architecture` | the fields that the larger two configurations have, and their checks |
//! | `blocks` | encoder and decoder, which the larger two models share |
//! | `autoencoder_kl` | Gaussian latents |
//! | `autoencoder_tiny` | latents of a larger model, by a few convolutions |
//! | `codebook` | codes, and the posterior over them |
//! | `vq_model` | latents out of a codebook |
//!
//! Images are in `[0, 1]`, as everywhere in this library. The networks work in `[−1, 1]`: the
//! encoder maps its input with `2·x − 1`, and the decoder's output `y` is the mean `(y + 1) / 2`.
//!
//! The models are used in two ways. As a [`Vae`](crate::Vae) they are trained, and their latents
//! are the encoder's. As an [`Autoencoder`](aigc_core::encoder::Autoencoder) they are the first
//! stage of latent diffusion: latents are shifted and scaled as their configuration says, and
//! decoded images are clamped to `[0, 1]`. Both traits have methods `encode` and `decode`; where
//! both are imported, `Vae::<4, 4>::encode(&model, x)` names one.

/// Defines the methods that open and save a model with the configuration `$config`.
macro_rules! diffusers_methods {
    ($config:ident) => {
        aigc_core::open_methods!("diffusion_pytorch_model");
        #[cfg(feature = "download")]
        aigc_core::hub_methods!(pub config: $config, files: $crate::models::HUB_FILES);

        fn open(dir: &Path, options: &OpenOptions, device: &Device) -> Result<Loaded<Self>> {
            let create = |text: &str| Self::create(text, device);
            open_model(dir, &[super::STEM], options, create, diffusers_key)
        }

        /// A model from the text of its `config.json` and its weights, which may be a part of a
        /// larger file ([`WeightReader::renamed`]).
        ///
        /// # Errors
        /// [`Error::Config`](aigc_core::Error::Config) names the field,
        /// [`Error::Weights`](aigc_core::Error::Weights) the tensors that do not fit.
        pub fn from_weights(
            config: &str,
            files: &WeightReader,
            dtype: WeightDtype,
            device: &Device,
        ) -> Result<Loaded<Self>> {
            files.load(Self::create(config, device)?, dtype, diffusers_key)
        }

        /// A model of the text of a configuration, with initial weights.
        fn create(text: &str, device: &Device) -> Result<Loaded<Self>> {
            let mut config = $config::from_json(text)?;
            let model = config.init(device)?;
            let note = config.force_upcast.then(|| super::UPCAST.to_owned());
            config.notes.extend(note);
            Ok(config.map(|_| model))
        }

        /// Writes a model's directory, as diffusers does: `config.json` and
        /// `diffusion_pytorch_model.safetensors`.
        ///
        /// # Errors
        /// [`Error::Io`](aigc_core::Error::Io) or [`Error::Weights`](aigc_core::Error::Weights) if
        /// a file cannot be written.
        pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
            super::save(self, &self.config.to_json(), dir.as_ref())
        }
    };
}

pub(crate) mod architecture;
mod autoencoder_kl;
mod autoencoder_tiny;
pub(crate) mod blocks;
mod codebook;
mod config;
mod tiny_config;
mod vq_model;

pub use autoencoder_kl::AutoencoderKl;
pub use autoencoder_tiny::AutoencoderTiny;
pub use codebook::QuantizedLatents;
pub use config::{AutoencoderKlConfig, DownEncoderBlockType, UpDecoderBlockType, VqModelConfig};
pub use tiny_config::AutoencoderTinyConfig;
pub use vq_model::VqModel;

use aigc_core::{Error, Result, checkpoint::write_atomic, data::ValueRange, weights::save_weights};
use burn::{module::Module, tensor::Tensor};
use std::path::Path;

/// Names of files in a model's directory.
const CONFIG: &str = "config.json";
const STEM: &str = "diffusion_pytorch_model";

/// A note for files with `force_upcast`.
const UPCAST: &str = "force_upcast has no effect: weights in half precision are computed with in \
                      the type of the input, 32-bit floats by default";

/// Images in `[0, 1]` as the networks receive them, in `[−1, 1]`.
fn to_network(images: Tensor<4>) -> Tensor<4> {
    ValueRange::Unit.normalize(images)
}

/// Outputs of the networks as images in `[0, 1]`. Values outside stay outside.
fn to_images(output: Tensor<4>) -> Tensor<4> {
    (output + 1.0) * 0.5
}

/// Writes a model's directory, which is created if it is missing.
fn save<M: Module>(model: &M, config: &str, dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    save_weights(&model.valid(), &dir.join(format!("{STEM}.safetensors")))?;
    write_atomic(&dir.join(CONFIG), config.as_bytes())
}
