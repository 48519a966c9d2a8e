//! Augmentation of real and generated samples before the discriminator, for small data sets.

mod ada;
mod diff_augment;
mod warp;

pub use ada::Ada;
pub use diff_augment::DiffAugment;

use aigc_core::{Result, rng::Rng};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Augmentation of images before they reach the discriminator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Augment {
    /// No augmentation.
    #[default]
    None,
    /// Differentiable augmentation of every image.
    #[serde(alias = "diff")]
    DiffAugment(DiffAugment),
    /// Augmentation with a probability that adapts to the discriminator's overfitting.
    Adaptive(Ada),
}

impl Augment {
    /// Fails unless every value is in its range.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) naming the field.
    pub fn validate(&self) -> Result<()> {
        match self {
            Augment::None => Ok(()),
            Augment::DiffAugment(augment) => augment.validate(),
            Augment::Adaptive(augment) => augment.validate(),
        }
    }

    /// Augments a batch; gradients flow through the augmentation. `probability` is used by
    /// [`Augment::Adaptive`] only.
    ///
    /// # Shapes
    /// - x and output: `[batch, channels, height, width]` in `[−1, 1]`; with [`Augment::None`] a
    ///   batch of any rank
    ///
    /// # Panics
    /// If the samples are not images, unless the augmentation is [`Augment::None`].
    pub fn apply<const D: usize>(
        &self,
        x: Tensor<D>,
        probability: f64,
        rng: &mut Rng,
    ) -> Tensor<D> {
        if *self == Augment::None {
            return x;
        }
        let dims = x.dims();
        assert_eq!(D, 4, "augmentation of samples of shape {:?}", &dims[1..]);
        let images = x.reshape([dims[0], dims[1], dims[2], dims[3]]);
        let augmented = match self {
            Augment::None => images,
            Augment::DiffAugment(augment) => augment.apply(images, rng),
            Augment::Adaptive(augment) => augment.apply(images, probability, rng),
        };
        augmented.reshape(dims)
    }
}
