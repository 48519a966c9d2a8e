//! The models, and the choice among them as data.

mod conv;
mod mlp;

pub use conv::{ConvVae, ConvVaeConfig};
pub use mlp::{MlpVae, MlpVaeConfig};

use crate::{DiagonalGaussian, Likelihood, LikelihoodKind, Vae};
use aigc_core::{Error, Result, data::ImageShape, weights::load_weights};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Which variational autoencoder; what `config.json` holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum VaeConfig {
    /// Two layers each way.
    Mlp(MlpVaeConfig),
    /// Strided convolutions down, transposed ones up.
    Conv(ConvVaeConfig),
}

impl VaeConfig {
    /// The model on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<AnyVae> {
        Ok(match self {
            VaeConfig::Mlp(config) => AnyVae::Mlp(config.init(device)?),
            VaeConfig::Conv(config) => AnyVae::Conv(config.init(device)?),
        })
    }
}

/// Any of the models of this crate.
#[derive(Module, Debug)]
pub enum AnyVae {
    /// Two layers each way.
    Mlp(MlpVae),
    /// Strided convolutions down, transposed ones up.
    Conv(ConvVae),
}

impl Vae for AnyVae {
    fn encode(&self, x: Tensor<4>) -> DiagonalGaussian {
        match self {
            AnyVae::Mlp(model) => model.encode(x),
            AnyVae::Conv(model) => model.encode(x),
        }
    }

    fn decode(&self, z: Tensor<2>) -> Likelihood {
        match self {
            AnyVae::Mlp(model) => model.decode(z),
            AnyVae::Conv(model) => model.decode(z),
        }
    }

    fn latent_dim(&self) -> usize {
        match self {
            AnyVae::Mlp(model) => model.latent_dim(),
            AnyVae::Conv(model) => model.latent_dim(),
        }
    }

    fn sample_shape(&self) -> ImageShape {
        match self {
            AnyVae::Mlp(model) => model.sample_shape(),
            AnyVae::Conv(model) => model.sample_shape(),
        }
    }
}

/// Opens a trained model: a folder with `config.json` and `model.safetensors`, such as the `final`
/// of a run.
///
/// # Errors
/// [`Error::Io`], [`Error::Config`] or [`Error::Weights`] naming what is missing or does not fit.
pub fn load(folder: &Path, device: &Device) -> Result<AnyVae> {
    let path = folder.join("config.json");
    let text = std::fs::read(&path).map_err(|source| Error::Io {
        path: path.clone(),
        source,
    })?;
    let config: VaeConfig = serde_json::from_slice(&text).map_err(|error| {
        Error::config(
            path.display().to_string(),
            error,
            "the configuration of a VAE",
        )
    })?;
    load_weights(config.init(device)?, &folder.join("model.safetensors"))
}

/// What every configuration must keep to.
fn check(
    shape: ImageShape,
    latent: usize,
    hidden: usize,
    likelihood: LikelihoodKind,
) -> Result<()> {
    // Sizes from a file decide how much is allocated: nothing beyond these is a small image model.
    const MOST: usize = 1 << 14;
    let fields = [
        ("shape.channels", shape.channels),
        ("shape.height", shape.height),
        ("shape.width", shape.width),
        ("latent", latent),
        ("hidden", hidden),
    ];
    for (field, value) in fields {
        if !(1..=MOST).contains(&value) {
            return Err(Error::config(field, value, format!("1 to {MOST}")));
        }
    }
    // Sides within their bounds can still multiply to more than memory holds.
    let weights = (shape.numel() as u128) * (hidden as u128);
    if weights > 1 << 31 {
        return Err(Error::config(
            "hidden",
            hidden,
            format!(
                "at most {}, for images of {shape}",
                (1u128 << 31) / shape.numel() as u128
            ),
        ));
    }
    match likelihood {
        LikelihoodKind::Gaussian(std) if !(std > 0.0 && std.is_finite()) => Err(Error::config(
            "likelihood",
            std,
            "a standard deviation above 0",
        )),
        _ => Ok(()),
    }
}
