//! Augmentation of what the critic sees, real and generated alike, so that little data lasts
//! longer.

mod ada;
mod diff_augment;
mod warp;

pub use ada::Ada;
pub use diff_augment::DiffAugment;

use aigc_core::{Result, rng::Rng};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// Which augmentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    /// None.
    #[default]
    None,
    /// Always, in a few ways.
    DiffAugment(DiffAugment),
    /// As often as the critic's overfitting asks for.
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

    /// Augments a batch; gradients flow through. `probability` is ADA's.
    ///
    /// # Shapes
    /// - x and output: `[batch, channels, height, width]` in `[−1, 1]`
    pub fn apply(&self, x: Tensor<4>, probability: f64, rng: &mut Rng) -> Tensor<4> {
        match self {
            Augment::None => x,
            Augment::DiffAugment(augment) => augment.apply(x, rng),
            Augment::Adaptive(augment) => augment.apply(x, probability, rng),
        }
    }
}
