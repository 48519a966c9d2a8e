//! The models of a pipeline by their kinds: tokenizers, text encoders, autoencoders.

use aigc_core::{
    Error, Result,
    params::num_bytes,
    weights::{Loaded, WeightDtype, WeightReader},
};
use aigc_diffusion::{AnyDenoiser, ControlNetModel};
use aigc_encoders::{
    clip::{ClipTextModel, StableDiffusionSafetyChecker},
    t5::T5EncoderModel,
    tokenizer::{ClipTokenizer, T5Tokenizer},
};
use aigc_vae::{AutoencoderKl, AutoencoderTiny};
use burn::tensor::Device;
use serde_json::Value;
use std::{path::Path, sync::Arc};

/// A model that is made of a configuration and weights.
pub(crate) trait PartModel: Sized {
    fn from_weights(
        config: &str,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>>;

    /// Bytes of the weights in memory.
    fn num_bytes(&self) -> u64;
}

/// A tokenizer.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // A pipeline has three.
pub(crate) enum AnyTokenizer {
    Clip(ClipTokenizer),
    T5(Arc<T5Tokenizer>),
}

impl AnyTokenizer {
    pub(crate) fn as_clip(&self) -> Option<&ClipTokenizer> {
        match self {
            Self::Clip(tokenizer) => Some(tokenizer),
            Self::T5(_) => None,
        }
    }

    pub(crate) fn as_t5(&self) -> Option<&T5Tokenizer> {
        match self {
            Self::T5(tokenizer) => Some(tokenizer),
            Self::Clip(_) => None,
        }
    }

    pub(crate) fn save_pretrained(&self, dir: &Path) -> Result<()> {
        match self {
            Self::Clip(tokenizer) => tokenizer.save_pretrained(dir),
            Self::T5(tokenizer) => tokenizer.save_pretrained(dir),
        }
    }

    /// The class in transformers.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Clip(_) => "CLIPTokenizer",
            Self::T5(_) => "T5Tokenizer",
        }
    }
}

/// A text encoder.
#[derive(Clone, Debug)]
pub(crate) enum AnyTextEncoder {
    Clip(Arc<ClipTextModel>),
    T5(Arc<T5EncoderModel>),
}

impl AnyTextEncoder {
    /// CLIP's encoder.
    ///
    /// # Errors
    /// [`Error::Config`] if it is another one.
    pub(crate) fn clip(&self) -> Result<Arc<ClipTextModel>> {
        match self {
            Self::Clip(model) => Ok(model.clone()),
            Self::T5(_) => Err(Error::config(
                "text_encoder",
                "T5EncoderModel",
                "CLIPTextModel",
            )),
        }
    }

    /// T5's encoder.
    ///
    /// # Errors
    /// [`Error::Config`] if it is another one.
    pub(crate) fn t5(&self) -> Result<Arc<T5EncoderModel>> {
        match self {
            Self::T5(model) => Ok(model.clone()),
            Self::Clip(_) => Err(Error::config(
                "text_encoder",
                "CLIPTextModel",
                "T5EncoderModel",
            )),
        }
    }

    /// The class in transformers.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Clip(model) if model.config().with_projection => "CLIPTextModelWithProjection",
            Self::Clip(_) => "CLIPTextModel",
            Self::T5(_) => "T5EncoderModel",
        }
    }

    pub(crate) fn save_pretrained(&self, dir: &Path) -> Result<()> {
        match self {
            Self::Clip(model) => model.save_pretrained(dir),
            Self::T5(model) => model.save_pretrained(dir),
        }
    }
}

impl PartModel for AnyTextEncoder {
    fn from_weights(
        config: &str,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let fields = aigc_core::json::parse_object(config)?;
        match fields.get("model_type").and_then(Value::as_str) {
            Some("t5" | "umt5") => Ok(T5EncoderModel::from_weights(config, files, dtype, device)?
                .map(|model| Self::T5(Arc::new(model)))),
            _ => Ok(ClipTextModel::from_weights(config, files, dtype, device)?
                .map(|model| Self::Clip(Arc::new(model)))),
        }
    }

    fn num_bytes(&self) -> u64 {
        match self {
            Self::Clip(model) => num_bytes(model.as_ref()) as u64,
            Self::T5(model) => num_bytes(model.as_ref()) as u64,
        }
    }
}

/// An autoencoder of images.
#[derive(Clone, Debug)]
pub(crate) enum AnyAutoencoder {
    Kl(Arc<AutoencoderKl>),
    Tiny(Arc<AutoencoderTiny>),
}

impl AnyAutoencoder {
    /// The class in diffusers.
    pub(crate) fn class(&self) -> &'static str {
        match self {
            Self::Kl(_) => "AutoencoderKL",
            Self::Tiny(_) => "AutoencoderTiny",
        }
    }

    pub(crate) fn save_pretrained(&self, dir: &Path) -> Result<()> {
        match self {
            Self::Kl(model) => model.save_pretrained(dir),
            Self::Tiny(model) => model.save_pretrained(dir),
        }
    }
}

impl PartModel for AnyAutoencoder {
    fn from_weights(
        config: &str,
        files: &WeightReader,
        dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let fields = aigc_core::json::parse_object(config)?;
        match fields.get("_class_name").and_then(Value::as_str) {
            Some("AutoencoderTiny") => {
                Ok(AutoencoderTiny::from_weights(config, files, dtype, device)?
                    .map(|model| Self::Tiny(Arc::new(model))))
            }
            _ => Ok(AutoencoderKl::from_weights(config, files, dtype, device)?
                .map(|model| Self::Kl(Arc::new(model)))),
        }
    }

    fn num_bytes(&self) -> u64 {
        match self {
            Self::Kl(model) => num_bytes(model.as_ref()) as u64,
            Self::Tiny(model) => num_bytes(model.as_ref()) as u64,
        }
    }
}

macro_rules! part_models {
    ($($model:ty),*) => {
        $(impl PartModel for $model {
            fn from_weights(
                config: &str,
                files: &WeightReader,
                dtype: WeightDtype,
                device: &Device,
            ) -> Result<Loaded<Self>> {
                <$model>::from_weights(config, files, dtype, device)
            }

            fn num_bytes(&self) -> u64 {
                num_bytes(self) as u64
            }
        })*
    };
}

part_models!(AnyDenoiser, ControlNetModel);

impl PartModel for StableDiffusionSafetyChecker {
    fn from_weights(
        config: &str,
        files: &WeightReader,
        _dtype: WeightDtype,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        // Its limits are compared to thousandths, so its weights stay in 32 bits.
        StableDiffusionSafetyChecker::from_weights(config, files, WeightDtype::F32, device)
    }

    fn num_bytes(&self) -> u64 {
        num_bytes(self) as u64
    }
}
