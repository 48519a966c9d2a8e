//! The networks, and the choice among them as data.

/// What a generator says of itself, out of its configuration.
macro_rules! described_by_config {
    () => {
        fn latent_dim(&self) -> usize {
            self.config.latent
        }

        fn sample_shape(&self) -> ImageShape {
            self.config.shape
        }

        fn num_classes(&self) -> Option<usize> {
            self.config
                .classes
                .as_ref()
                .map(|classes| classes.num_classes)
        }
    };
}

mod classes;
mod dcgan;
mod mlp;
mod r3gan;
mod resnet;

pub use classes::{ClassConditioning, DiscriminatorConditioning, GeneratorConditioning};
pub use dcgan::{DcganConfig, DcganDiscriminator, DcganGenerator, DiscriminatorNorm};
pub use mlp::{MlpDiscriminator, MlpGanConfig, MlpGenerator};
pub use r3gan::{R3ganConfig, R3ganDiscriminator, R3ganGenerator};
pub use resnet::{ResnetDiscriminator, ResnetGanConfig, ResnetGenerator, SelfAttention2d};

use crate::{Discriminator, DiscriminatorOutput, Generator};
use aigc_core::{Error, Result, data::ImageShape, weights::load_weights};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// The two players, as one model to train.
#[derive(Module, Debug)]
pub struct Gan<G: Module, C: Module> {
    /// Invents samples.
    pub generator: G,
    /// Tells real from generated.
    pub discriminator: C,
}

/// Any pair of this crate.
pub type AnyGan = Gan<AnyGenerator, AnyDiscriminator>;

/// Which networks; what `config.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum GanConfig {
    /// Fully connected.
    Mlp(MlpGanConfig),
    /// Strided convolutions.
    Dcgan(DcganConfig),
    /// Residual, as in SNGAN.
    Resnet(ResnetGanConfig),
    /// Residual without norms, as in R3GAN.
    R3gan(R3ganConfig),
}

impl GanConfig {
    /// Both networks on `device`.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, device: &Device) -> Result<AnyGan> {
        Ok(match self {
            GanConfig::Mlp(config) => Gan {
                generator: AnyGenerator::Mlp(config.generator(device)?),
                discriminator: AnyDiscriminator::Mlp(config.discriminator(device)?),
            },
            GanConfig::Dcgan(config) => Gan {
                generator: AnyGenerator::Dcgan(config.generator(device)?),
                discriminator: AnyDiscriminator::Dcgan(config.discriminator(device)?),
            },
            GanConfig::Resnet(config) => Gan {
                generator: AnyGenerator::Resnet(config.generator(device)?),
                discriminator: AnyDiscriminator::Resnet(config.discriminator(device)?),
            },
            GanConfig::R3gan(config) => Gan {
                generator: AnyGenerator::R3gan(config.generator(device)?),
                discriminator: AnyDiscriminator::R3gan(config.discriminator(device)?),
            },
        })
    }
}

/// Runs `$then` with whichever network it is.
macro_rules! either {
    ($of:ident, $model:expr, $network:ident => $then:expr) => {
        match $model {
            $of::Mlp($network) => $then,
            $of::Dcgan($network) => $then,
            $of::Resnet($network) => $then,
            $of::R3gan($network) => $then,
        }
    };
}

/// Any of the generators of this crate.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A program has one or two.
pub enum AnyGenerator {
    /// Fully connected.
    Mlp(MlpGenerator),
    /// Transposed convolutions.
    Dcgan(DcganGenerator),
    /// Residual, as in SNGAN.
    Resnet(ResnetGenerator),
    /// Residual without norms, as in R3GAN.
    R3gan(R3ganGenerator),
}

impl Generator for AnyGenerator {
    fn generate(&self, z: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<4> {
        either!(AnyGenerator, self, network => network.generate(z, class))
    }

    fn latent_dim(&self) -> usize {
        either!(AnyGenerator, self, network => network.latent_dim())
    }

    fn sample_shape(&self) -> ImageShape {
        either!(AnyGenerator, self, network => network.sample_shape())
    }

    fn num_classes(&self) -> Option<usize> {
        either!(AnyGenerator, self, network => network.num_classes())
    }
}

/// Any of the critics of this crate.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A program has one or two.
pub enum AnyDiscriminator {
    /// Fully connected.
    Mlp(MlpDiscriminator),
    /// Strided convolutions.
    Dcgan(DcganDiscriminator),
    /// Residual, as in SNGAN.
    Resnet(ResnetDiscriminator),
    /// Residual without norms, as in R3GAN.
    R3gan(R3ganDiscriminator),
}

impl Discriminator for AnyDiscriminator {
    fn num_classes(&self) -> Option<usize> {
        either!(AnyDiscriminator, self, network => network.num_classes())
    }

    fn score(&self, x: Tensor<4>, class: Option<Tensor<1, Int>>) -> Tensor<1> {
        either!(AnyDiscriminator, self, network => network.score(x, class))
    }

    fn forward_with_classes(
        &self,
        x: Tensor<4>,
        labels: Option<Tensor<1, Int>>,
    ) -> DiscriminatorOutput {
        either!(AnyDiscriminator, self, network => network.forward_with_classes(x, labels))
    }
}

/// Opens a trained pair: a folder with `config.json` and `model.safetensors`, such as the `final`
/// of a run.
///
/// # Errors
/// [`Error::Io`], [`Error::Config`] or [`Error::Weights`] naming what is missing or does not fit.
pub fn load(folder: &Path, device: &Device) -> Result<AnyGan> {
    let path = folder.join("config.json");
    let text = std::fs::read(&path).map_err(|source| Error::Io {
        path: path.clone(),
        source,
    })?;
    let config: GanConfig = serde_json::from_slice(&text).map_err(|error| {
        Error::config(
            path.display().to_string(),
            error,
            "the configuration of a GAN",
        )
    })?;
    load_weights(config.init(device)?, &folder.join("model.safetensors"))
}

/// Sizes from a file decide how much is allocated: nothing beyond this is a small model.
const MOST: usize = 1 << 14;

fn check_shape(shape: ImageShape, latent: usize) -> Result<()> {
    let fields = [
        ("shape.channels", shape.channels),
        ("shape.height", shape.height),
        ("shape.width", shape.width),
        ("latent", latent),
    ];
    for (field, value) in fields {
        if !(1..=MOST).contains(&value) {
            return Err(Error::config(field, value, format!("1 to {MOST}")));
        }
    }
    // Sides within their bounds can still multiply to more than memory holds.
    if shape.numel() > 1 << 24 {
        return Err(Error::config(
            "shape",
            shape,
            format!("at most {} values", 1 << 24),
        ));
    }
    Ok(())
}

/// Numbers that multiply to the size of a layer: within their own bounds, together they can be more
/// than memory holds.
fn check_size(field: &str, factors: &[usize]) -> Result<()> {
    const MOST_VALUES: usize = 1 << 28;
    let values = factors
        .iter()
        .fold(1usize, |product, factor| product.saturating_mul(*factor));
    if values > MOST_VALUES {
        let product = factors
            .iter()
            .map(usize::to_string)
            .collect::<Vec<_>>()
            .join("·");
        return Err(Error::config(
            field,
            product,
            format!("a layer of at most {MOST_VALUES} weights"),
        ));
    }
    Ok(())
}

fn check_widths(field: &str, widths: &[usize]) -> Result<()> {
    match widths.iter().find(|width| !(1..=4096).contains(*width)) {
        Some(width) => Err(Error::config(field, width, "1 to 4096 each")),
        None => Ok(()),
    }
}

/// For networks that have no place for batch normalisation in the critic.
fn critic_norm_is_not_batch(norm: DiscriminatorNorm) -> Result<()> {
    if norm != DiscriminatorNorm::Batch {
        return Ok(());
    }
    Err(Error::config(
        "norm",
        "batch",
        "none or spectral: batch normalisation does not fit this critic",
    ))
}
