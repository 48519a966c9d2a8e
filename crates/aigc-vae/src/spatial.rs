//! Latent vectors of a VAE as latent maps.

use crate::{DiagonalGaussian, Vae};
use aigc_core::{
    Error, Result,
    data::{ImageShape, SampleShape},
    encoder::{Autoencoder, Posterior},
};
use burn::tensor::Tensor;

/// A trained VAE as an [`Autoencoder`] with latent maps, for models that work on maps. Latent
/// vectors are reshaped to maps, channel by channel.
///
/// ```
/// # use aigc_core::{data::ImageShape, device::device, encoder::Autoencoder};
/// # use aigc_vae::{SpatialLatents, MlpVaeConfig, VaeConfig};
/// # fn main() -> aigc_core::Result<()> {
/// let vae = VaeConfig::Mlp(MlpVaeConfig::new(ImageShape::new(1, 8, 8))).init(&device("flex")?)?;
/// // The model has 20 latent dimensions.
/// let spatial = SpatialLatents::new(vae, ImageShape::new(5, 2, 2))?;
/// assert_eq!(spatial.latent_shape(), ImageShape::new(5, 2, 2));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SpatialLatents<V> {
    vae: V,
    shape: ImageShape,
}

impl<V: Vae<Posterior = DiagonalGaussian>> SpatialLatents<V> {
    /// Reshapes the latent vectors of `vae` to maps of `shape`.
    ///
    /// # Errors
    /// [`Error::Config`] if the model takes conditions, which an [`Autoencoder`] does not receive;
    /// [`Error::InvalidArgument`] unless the number of values of `shape` is the number of latent
    /// dimensions.
    pub fn new(vae: V, shape: ImageShape) -> Result<Self> {
        let condition = vae.condition_kind();
        condition.ensure_none("an autoencoder works without a condition")?;
        if shape.numel() != vae.latent_dim() {
            return Err(Error::argument(
                "shape",
                shape,
                format!(
                    "{} values, the number of latent dimensions",
                    vae.latent_dim()
                ),
            ));
        }
        Ok(Self {
            vae: vae.valid(),
            shape,
        })
    }
}

impl<V: Vae<Posterior = DiagonalGaussian>> Autoencoder for SpatialLatents<V> {
    fn encode(&self, x: Tensor<4>) -> Box<dyn Posterior> {
        let DiagonalGaussian { mean, logvar } = self.vae.encode(x);
        let dims = self.latent_shape().batched(mean.dims()[0]);
        Box::new(DiagonalGaussian {
            mean: mean.reshape(dims),
            logvar: logvar.reshape(dims),
        })
    }

    fn decode(&self, z: Tensor<4>) -> Tensor<4> {
        self.vae.decode(z.flatten(1, 3)).mean()
    }

    fn sample_shape(&self) -> SampleShape {
        self.vae.sample_shape()
    }

    fn latent_shape(&self) -> SampleShape {
        self.shape.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConditionKind, MlpVaeConfig, VaeConfig, VaeSampler};
    use aigc_core::{
        device::device,
        rng::{InitWeights, Rng},
    };

    #[test]
    fn spatial_latents_decode_like_vectors() {
        let flex = device("flex").unwrap();
        let vae = VaeConfig::Mlp(MlpVaeConfig::new(ImageShape::new(1, 8, 8)))
            .init(&flex)
            .unwrap()
            .init_weights(0);
        let x = Rng::new(0).uniform([3, 1, 8, 8], 0.0, 1.0, &flex);
        let spatial = SpatialLatents::new(vae.clone(), ImageShape::new(5, 2, 2)).unwrap();
        let z = spatial.encode(x.clone()).mode();
        assert_eq!(z.dims(), [3, 5, 2, 2]);
        let difference = (spatial.decode(z) - VaeSampler::new(&vae, &flex).reconstruct(x).unwrap())
            .abs()
            .max()
            .into_scalar::<f32>();
        assert_eq!(difference, 0.0);
        let message = SpatialLatents::new(vae, ImageShape::new(4, 2, 2))
            .unwrap_err()
            .to_string();
        assert!(message.contains("expected 20 values"), "{message}");
    }

    /// They would encode and decode under the null condition.
    #[test]
    fn conditional_models_are_refused() {
        let condition = |field: &str| serde_json::json!({ field: 3 });
        for field in ["num_classes", "vector_dim", "cross_attention_dim"] {
            let condition: ConditionKind = serde_json::from_value(condition(field)).unwrap();
            let config = MlpVaeConfig {
                condition,
                ..MlpVaeConfig::new(ImageShape::new(1, 8, 8))
            };
            let vae = config.init(&device("flex").unwrap()).unwrap();
            let refused = SpatialLatents::new(vae, ImageShape::new(5, 2, 2));
            let message = refused.unwrap_err().to_string();
            assert!(
                message.contains("`condition` is ConditionKind")
                    && message.contains("expected none"),
                "{field}: {message}"
            );
        }
    }
}
