//! Any pair of networks of this crate, by its configuration.

use super::{
    DISCRIMINATOR, DcganConfig, DcganDiscriminator, DcganGenerator, Gan, MlpDiscriminator,
    MlpGanConfig, MlpGenerator, R3ganConfig, R3ganDiscriminator, R3ganGenerator,
    ResnetDiscriminator, ResnetGanConfig, ResnetGenerator,
};
use crate::{Discriminator, DiscriminatorOutput, Generator};
use aigc_core::{
    Result,
    data::{SampleShape, ValueRange},
};
#[cfg(feature = "download")]
use aigc_core::{data::download::ProgressFn, hub::Hub, weights::download_pretrained};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor},
};
use serde::{Deserialize, Serialize};
#[cfg(feature = "download")]
use std::path::PathBuf;

/// Defines [`GanConfig`], [`AnyGenerator`] and [`AnyDiscriminator`] from a table of pairs.
macro_rules! gans {
    ($($(#[$doc:meta])* $kind:ident: $config:ident => $generator:ident, $discriminator:ident,)+) => {
        /// Configuration of any pair of networks of this crate, as in `config.json`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum GanConfig {
            $($(#[$doc])* $kind($config),)+
        }

        impl GanConfig {
            /// Creates both networks on `device`.
            ///
            /// # Errors
            /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
            pub fn init(&self, device: &Device) -> Result<AnyGan> {
                Ok(match self {
                    $(GanConfig::$kind(config) => Gan {
                        generator: AnyGenerator::$kind(config.generator(device)?),
                        discriminator: AnyDiscriminator::$kind(config.discriminator(device)?),
                    },)+
                })
            }

            #[cfg(feature = "download")]
            fn validate(&self) -> Result<()> {
                match self {
                    $(GanConfig::$kind(config) => config.validate().map(drop),)+
                }
            }
        }

        /// Any image generator of this crate.
        #[derive(Module, Debug)]
        #[non_exhaustive]
        #[allow(clippy::large_enum_variant)] // Programs have few instances.
        pub enum AnyGenerator {
            $($(#[$doc])* $kind($generator),)+
        }

        impl AnyGenerator {
            /// Configuration of the pair that the generator belongs to.
            pub fn config(&self) -> GanConfig {
                match self {
                    $(AnyGenerator::$kind(network) => GanConfig::$kind(network.config().clone()),)+
                }
            }
        }

        impl Generator for AnyGenerator {
            fn generate(&self, z: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<4> {
                match self {
                    $(AnyGenerator::$kind(network) => network.generate(z, class),)+
                }
            }

            fn latent_dim(&self) -> usize {
                match self {
                    $(AnyGenerator::$kind(network) => network.latent_dim(),)+
                }
            }

            fn sample_shape(&self) -> SampleShape {
                match self {
                    $(AnyGenerator::$kind(network) => network.sample_shape(),)+
                }
            }

            fn num_classes(&self) -> Option<usize> {
                match self {
                    $(AnyGenerator::$kind(network) => network.num_classes(),)+
                }
            }

            fn value_range(&self) -> ValueRange {
                match self {
                    $(AnyGenerator::$kind(network) => network.value_range(),)+
                }
            }
        }

        /// Any image discriminator of this crate.
        #[derive(Module, Debug)]
        #[non_exhaustive]
        #[allow(clippy::large_enum_variant)] // Programs have few instances.
        pub enum AnyDiscriminator {
            $($(#[$doc])* $kind($discriminator),)+
        }

        impl Discriminator for AnyDiscriminator {
            fn num_classes(&self) -> Option<usize> {
                match self {
                    $(AnyDiscriminator::$kind(network) => network.num_classes(),)+
                }
            }

            fn forward(&self, x: Tensor<4>, class: Option<Tensor<1, Int>>) -> Tensor<1> {
                match self {
                    $(AnyDiscriminator::$kind(network) => network.forward(x, class),)+
                }
            }

            fn forward_with_classes(
                &self,
                x: Tensor<4>,
                class: Option<Tensor<1, Int>>,
            ) -> DiscriminatorOutput {
                match self {
                    $(AnyDiscriminator::$kind(network) => network.forward_with_classes(x, class),)+
                }
            }
        }
    };
}

gans! {
    /// Fully connected networks.
    Mlp: MlpGanConfig => MlpGenerator, MlpDiscriminator,
    /// Strided and transposed convolutions.
    Dcgan: DcganConfig => DcganGenerator, DcganDiscriminator,
    /// Residual networks as in SNGAN.
    Resnet: ResnetGanConfig => ResnetGenerator, ResnetDiscriminator,
    /// Residual networks without normalisation, as in R3GAN.
    R3gan: R3ganConfig => R3ganGenerator, R3ganDiscriminator,
}

/// Any pair of image networks of this crate.
pub type AnyGan = Gan<AnyGenerator, AnyDiscriminator>;

impl AnyGan {
    aigc_core::pretrained_methods!(
        GanConfig,
        init: GanConfig::init,
        config: |gan: &Self| gan.generator.config(),
        renamed: [DISCRIMINATOR]
    );

    #[cfg(feature = "download")]
    aigc_core::hub_methods!(pub download);
}

/// Downloads the files of a pair of image networks of the hub, and returns their directory.
#[cfg(feature = "download")]
fn download(
    hub: &Hub,
    repo: &str,
    revision: &str,
    variant: Option<&str>,
    progress: &mut ProgressFn<'_>,
) -> Result<PathBuf> {
    let check = |config: &GanConfig| config.validate();
    download_pretrained(hub, repo, revision, variant, check, progress)
}

/// Downloads the files of a pair of fully connected networks of the hub, for batches of rank `D`.
#[cfg(feature = "download")]
fn download_mlp<const D: usize>(
    hub: &Hub,
    repo: &str,
    revision: &str,
    variant: Option<&str>,
    progress: &mut ProgressFn<'_>,
) -> Result<PathBuf> {
    let check = |config: &GanConfig| config.fully_connected()?.for_rank(D).map(drop);
    download_pretrained(hub, repo, revision, variant, check, progress)
}

impl GanConfig {
    /// The configuration of fully connected networks.
    fn fully_connected(&self) -> Result<&MlpGanConfig> {
        match self {
            GanConfig::Mlp(config) => Ok(config),
            _ => Err(aigc_core::Error::unsupported(
                "a convolutional network",
                "a GAN of fully connected networks",
                "open it as `AnyGan`",
            )),
        }
    }
}

/// Pairs of fully connected networks for batches of rank `D`: 2 for points, 3 for sound. Opening
/// other networks is [`Error::Unsupported`](aigc_core::Error::Unsupported), and samples of another
/// rank are [`Error::Config`](aigc_core::Error::Config).
impl<const D: usize> Gan<MlpGenerator<D>, MlpDiscriminator<D>> {
    aigc_core::pretrained_methods!(
        GanConfig,
        init: |config: &GanConfig, device| config.fully_connected()?.init(device),
        config: |gan: &Self| GanConfig::Mlp(gan.generator.config().clone()),
        renamed: [DISCRIMINATOR]
    );

    #[cfg(feature = "download")]
    aigc_core::hub_methods!(pub download_mlp::<D>);
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    /// Fields and values of files of earlier versions.
    #[test]
    fn configurations_with_former_names_are_read() {
        let shape = json!({"channels": 1, "height": 8, "width": 8});
        let former_classes = json!({"count": 3, "generator": "norm", "critic": "auxiliary"});
        let classes = json!({
            "num_classes": 3, "generator": "conditional_batch_norm", "discriminator": "auxiliary",
        });
        for (former, current) in [
            (
                json!({
                    "kind": "mlp", "shape": shape, "latent": 4, "hidden": [16],
                    "critic_hidden": [8], "activation": {"leaky_relu": 0.25}, "output": "identity",
                    "norm": true, "octaves": 2, "classes": former_classes,
                }),
                json!({
                    "kind": "mlp", "shape": shape, "latent_dim": 4, "hidden": [16],
                    "discriminator_hidden": [8], "activation": {"leaky_relu": 0.25},
                    "output_activation": "identity", "norm": true, "num_fourier_frequencies": 2,
                    "classes": classes,
                }),
            ),
            (
                json!({
                    "kind": "dcgan", "shape": shape, "latent": 4, "channels": [4, 8],
                    "norm": "batch", "init_std": 0.25, "classes": former_classes,
                }),
                json!({
                    "kind": "dcgan", "shape": shape, "latent_dim": 4, "channels": [4, 8],
                    "norm": "batch", "init_std": 0.25, "classes": classes,
                }),
            ),
            (
                json!({
                    "kind": "resnet", "shape": shape, "latent": 4, "channels": 8, "levels": 1,
                    "norm": "spectral", "attention": 4, "classes": null,
                }),
                json!({
                    "kind": "resnet", "shape": shape, "latent_dim": 4, "channels": 8, "levels": 1,
                    "norm": "spectral", "attention_resolution": 4, "classes": null,
                }),
            ),
            (
                json!({
                    "kind": "r3gan", "shape": shape, "latent": 4, "channels": [8, 8], "blocks": 1,
                    "expansion": 2, "group_width": 4, "classes": former_classes,
                }),
                json!({
                    "kind": "r3gan", "shape": shape, "latent_dim": 4, "channels": [8, 8],
                    "blocks": 1, "expansion": 2, "group_width": 4, "classes": classes,
                }),
            ),
        ] {
            let config: GanConfig = from_value(former).unwrap();
            assert_eq!(to_value(&config).unwrap(), current);
            assert_eq!(from_value::<GanConfig>(current).unwrap(), config);
        }
    }
}
