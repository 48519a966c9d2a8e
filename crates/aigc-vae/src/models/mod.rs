//! The models of this crate, and their configurations.

mod condition_embedding;
mod conv;
mod diffusers;
mod hierarchical;
mod mlp;
mod video;
mod vq;
mod with_flow;
mod with_prior;

pub use conv::{ConvVae, ConvVaeConfig};
pub use diffusers::{
    AutoencoderKl, AutoencoderKlConfig, AutoencoderTiny, AutoencoderTinyConfig,
    DownEncoderBlockType, QuantizedLatents, UpDecoderBlockType, VqModel, VqModelConfig,
};
pub use hierarchical::{
    HierarchicalLevel, HierarchicalPosterior, HierarchicalVae, HierarchicalVaeConfig,
};
pub use mlp::{MlpVae, MlpVaeConfig};
pub use video::{
    AutoencoderKlTemporalDecoder, AutoencoderKlTemporalDecoderConfig, AutoencoderKlWan,
    AutoencoderKlWanConfig,
};
pub use vq::{DiscreteVae, VqVae, VqVae2, VqVae2Config, VqVaeConfig};
pub use with_flow::FlowPosteriorVae;
pub use with_prior::WithPrior;

use crate::{
    Condition, ConditionKind, DiagonalGaussian, Likelihood, LikelihoodKind, Vae, VaeOutput,
};
use aigc_core::{
    Error, Result, check,
    data::{ImageShape, SampleShape},
    rng::Rng,
};
#[cfg(feature = "download")]
use aigc_core::{
    data::download::ProgressFn, hub::Hub, hub_model::ModelFiles, weights::download_pretrained,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};
#[cfg(feature = "download")]
use std::path::PathBuf;

/// Files of an autoencoder of diffusers on the hub: alone, or as a part of a pipeline.
#[cfg(feature = "download")]
pub(crate) const HUB_FILES: ModelFiles<'static> = ModelFiles {
    directories: &["", "vae", "vqvae"],
    ..ModelFiles::DIFFUSERS
};

/// Defines [`VaeConfig`] and [`AnyVae`] from a table of models of images with latent vectors and a
/// diagonal Gaussian posterior.
macro_rules! vaes {
    ($($(#[$doc:meta])* $kind:ident: $config:ident => $model:ident,)+) => {
        /// Configuration of an MLP or a convolutional model, as in `config.json`.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum VaeConfig {
            $($(#[$doc])* $kind($config),)+
        }

        impl VaeConfig {
            /// Creates the model on `device`.
            ///
            /// # Errors
            /// [`Error::Config`] for values out of range.
            pub fn init(&self, device: &Device) -> Result<AnyVae> {
                Ok(match self {
                    $(VaeConfig::$kind(config) => AnyVae::$kind(config.init(device)?),)+
                })
            }

            #[cfg(feature = "download")]
            fn validate(&self) -> Result<()> {
                match self {
                    $(VaeConfig::$kind(config) => config.validate(),)+
                }
            }
        }

        /// An MLP or a convolutional model: images, latent vectors, a Gaussian posterior.
        #[derive(Module, Debug)]
        #[non_exhaustive]
        pub enum AnyVae {
            $($(#[$doc])* $kind($model),)+
        }

        impl AnyVae {
            /// Configuration of the model.
            pub fn config(&self) -> VaeConfig {
                match self {
                    $(AnyVae::$kind(model) => VaeConfig::$kind(model.config().clone()),)+
                }
            }
        }

        impl Vae for AnyVae {
            type Posterior = DiagonalGaussian;

            fn encode(&self, x: Tensor<4>) -> DiagonalGaussian {
                match self {
                    $(AnyVae::$kind(model) => model.encode(x),)+
                }
            }

            fn decode(&self, z: Tensor<2>) -> Likelihood {
                match self {
                    $(AnyVae::$kind(model) => model.decode(z),)+
                }
            }

            fn latent_shape(&self) -> SampleShape {
                match self {
                    $(AnyVae::$kind(model) => model.latent_shape(),)+
                }
            }

            fn sample_shape(&self) -> SampleShape {
                match self {
                    $(AnyVae::$kind(model) => model.sample_shape(),)+
                }
            }

            fn latent_dim(&self) -> usize {
                match self {
                    $(AnyVae::$kind(model) => model.latent_dim(),)+
                }
            }

            fn condition_kind(&self) -> ConditionKind {
                match self {
                    $(AnyVae::$kind(model) => model.condition_kind(),)+
                }
            }

            fn encode_with(&self, x: Tensor<4>, condition: &Condition) -> DiagonalGaussian {
                match self {
                    $(AnyVae::$kind(model) => model.encode_with(x, condition),)+
                }
            }

            fn decode_with(&self, z: Tensor<2>, condition: &Condition) -> Likelihood {
                match self {
                    $(AnyVae::$kind(model) => model.decode_with(z, condition),)+
                }
            }

            fn forward(
                &self,
                x: Tensor<4>,
                condition: &Condition,
                rng: &mut Rng,
            ) -> VaeOutput<DiagonalGaussian> {
                match self {
                    $(AnyVae::$kind(model) => model.forward(x, condition, rng),)+
                }
            }

            fn kl(
                &self,
                posterior: &DiagonalGaussian,
                z: Tensor<2>,
                condition: &Condition,
            ) -> Vec<Tensor<1>> {
                match self {
                    $(AnyVae::$kind(model) => model.kl(posterior, z, condition),)+
                }
            }

            fn prior_log_prob(&self, z: Tensor<2>, condition: &Condition) -> Tensor<1> {
                match self {
                    $(AnyVae::$kind(model) => model.prior_log_prob(z, condition),)+
                }
            }

            fn log_weights(
                &self,
                posterior: &DiagonalGaussian,
                x: Tensor<4>,
                condition: &Condition,
                k: usize,
                rng: &mut Rng,
            ) -> Tensor<2> {
                match self {
                    $(AnyVae::$kind(model) => {
                        model.log_weights(posterior, x, condition, k, rng)
                    })+
                }
            }

            fn auxiliary_losses(
                &self,
                posterior: &DiagonalGaussian,
            ) -> Vec<(&'static str, Tensor<1>)> {
                match self {
                    $(AnyVae::$kind(model) => model.auxiliary_losses(posterior),)+
                }
            }

            fn codebook_posterior(
                &self,
                posterior: DiagonalGaussian,
            ) -> Option<DiagonalGaussian> {
                match self {
                    $(AnyVae::$kind(model) => model.codebook_posterior(posterior),)+
                }
            }

            fn update_codebook(self, posteriors: &[DiagonalGaussian]) -> Self {
                match self {
                    $(AnyVae::$kind(model) => {
                        AnyVae::$kind(model.update_codebook(posteriors))
                    })+
                }
            }

            fn sample_prior(
                &self,
                n: usize,
                condition: &Condition,
                temperature: f64,
                rng: &mut Rng,
                device: &Device,
            ) -> Tensor<2> {
                match self {
                    $(AnyVae::$kind(model) => {
                        model.sample_prior(n, condition, temperature, rng, device)
                    })+
                }
            }
        }

        $(
            impl From<$model> for AnyVae {
                fn from(model: $model) -> Self {
                    AnyVae::$kind(model)
                }
            }
        )+
    };
}

vaes! {
    /// Hidden linear layers in the encoder and in the decoder.
    Mlp: MlpVaeConfig => MlpVae,
    /// Strided convolutions in the encoder and transposed ones in the decoder.
    Conv: ConvVaeConfig => ConvVae,
}

impl AnyVae {
    aigc_core::pretrained_methods!(VaeConfig, config: Self::config);

    #[cfg(feature = "download")]
    aigc_core::hub_methods!(pub download);
}

/// Downloads the files of a model of the hub, and returns their directory.
#[cfg(feature = "download")]
fn download(
    hub: &Hub,
    repo: &str,
    revision: &str,
    variant: Option<&str>,
    progress: &mut ProgressFn<'_>,
) -> Result<PathBuf> {
    let check = |config: &VaeConfig| config.validate();
    download_pretrained(hub, repo, revision, variant, check, progress)
}

/// The checks that all configurations share.
fn validate_common(
    shape: ImageShape,
    latent_dim: usize,
    hidden_dim: usize,
    likelihood: LikelihoodKind,
    condition: ConditionKind,
) -> Result<()> {
    // Sizes from a file decide how much memory is allocated; these limits suffice for small image
    // models.
    const MAX_SIZE: usize = 1 << 14;
    check::sizes(&[
        ("shape.channels", shape.channels, MAX_SIZE),
        ("shape.height", shape.height, MAX_SIZE),
        ("shape.width", shape.width, MAX_SIZE),
        ("latent_dim", latent_dim, MAX_SIZE),
        ("hidden_dim", hidden_dim, MAX_SIZE),
    ])?;
    condition.validate()?;
    likelihood.validate()?;
    let of = format!("images of {shape}");
    check_weights("hidden_dim", hidden_dim, shape.numel(), &of)?;
    let width = hidden_dim.max(latent_dim);
    let classes = condition.num_classes.unwrap_or(0);
    let of = format!("layers of {width} units");
    check_weights("condition.num_classes", classes, width, &of)
}

/// Fails if the value `count` of `field`, times the weights that each of them adds, is more than
/// 2³¹ weights: sizes within their limits can still have a product beyond the memory.
fn check_weights(field: &str, count: usize, each: usize, of: &str) -> Result<()> {
    const MAX_WEIGHTS: u128 = 1 << 31;
    let (weights, each) = ((count as u128) * (each as u128), each as u128);
    if weights <= MAX_WEIGHTS {
        return Ok(());
    }
    let expected = format!("at most {}, for {of}", MAX_WEIGHTS / each);
    Err(Error::config(field, count, expected))
}

/// Whether a field of a configuration has its default, and is not written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(all(test, feature = "flex"))]
mod testing {
    use aigc_core::params::{ParamVisitor, visit_params};
    use burn::{
        module::{Module, Param},
        tensor::Tensor,
    };

    /// The paths of all parameters of a model.
    pub(super) fn parameters<M: Module>(model: &M) -> Vec<String> {
        struct Paths(Vec<String>);
        impl ParamVisitor for Paths {
            fn visit<const D: usize>(&mut self, path: &str, _: &Param<Tensor<D>>) {
                self.0.push(path.to_string());
            }
        }
        let mut paths = Paths(Vec::new());
        visit_params(model, &mut paths);
        paths.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KlWeight;
    use serde_json::{from_value, json, to_value};

    /// Fields of files of earlier versions.
    #[test]
    fn configurations_with_former_names_are_read() {
        let shape = json!({"channels": 1, "height": 8, "width": 8});
        for (former, current) in [
            (
                json!({
                    "kind": "mlp", "shape": shape, "hidden": 16, "latent": 4,
                    "likelihood": "bernoulli", "activation": "relu",
                }),
                json!({
                    "kind": "mlp", "shape": shape, "hidden_dim": 16, "latent_dim": 4,
                    "likelihood": "bernoulli", "activation": "relu",
                }),
            ),
            (
                json!({
                    "kind": "conv", "shape": shape, "channels": [4, 8], "hidden": 16, "latent": 4,
                    "likelihood": {"gaussian": 0.5}, "activation": "silu",
                }),
                json!({
                    "kind": "conv", "shape": shape, "channels": [4, 8], "hidden_dim": 16,
                    "latent_dim": 4, "likelihood": {"gaussian": 0.5}, "activation": "silu",
                }),
            ),
        ] {
            let config: VaeConfig = from_value(former).unwrap();
            assert_eq!(to_value(&config).unwrap(), current);
            assert_eq!(from_value::<VaeConfig>(current).unwrap(), config);
        }
        let weight: KlWeight = from_value(json!({"value": 2.0, "anneal": 5})).unwrap();
        assert_eq!(
            to_value(weight).unwrap(),
            json!({"value": 2.0, "warmup_steps": 5})
        );
    }
}
