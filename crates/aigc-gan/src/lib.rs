//! Generative adversarial networks (Goodfellow et al. 2014, <https://arxiv.org/abs/1406.2661>).
//!
//! Two networks are trained against each other:
//!
//! ```text
//! generator: (z, class) → x        discriminator: (x, class) → logit, the higher the more real
//! ```
//!
//! Training solves `min_G max_D E[log σ(D(x))] + E[log(1 − σ(D(G(z))))]`, or minimises another of
//! the losses of [`GanLoss`]:
//!
//! 1. initialise generator and discriminator ([`GanConfig::init`]);
//! 2. draw real data ([`DataLoader`](aigc_core::data::DataLoader));
//! 3. generate ([`Generator::generate`]);
//! 4. compute the discriminator's loss ([`GanLoss::discriminator_loss`]) and its penalties
//!    ([`GradientPenalty`]);
//! 5. update the discriminator;
//! 6. update the generator by the discriminator's logits ([`GanLoss::generator_loss`]);
//! 7. repeat.
//!
//! [`GanObjective`] is steps 3 to 6 for the [`Trainer`](aigc_core::train::Trainer); [`GanSampler`]
//! samples from a trained generator, and [`AnyGan::from_pretrained`](Gan::from_pretrained) opens
//! one. Wasserstein's discriminator is called critic in the literature.
#![forbid(unsafe_code)]

mod augment;
mod batch_dependence;
mod lecam;
mod loss;
pub mod models;
mod monitor;
mod objective;
mod penalty;
mod sample;
pub mod toy;
mod weight_clip;

pub use aigc_core::data::ClassLabels;
pub use augment::{Ada, Augment, DiffAugment};
pub use lecam::LeCam;
pub use loss::GanLoss;
pub use models::{
    AnyDiscriminator, AnyGan, AnyGenerator, ClassConditioning, DcganConfig,
    DiscriminatorConditioning, DiscriminatorNorm, Gan, GanConfig, GeneratorConditioning,
    MlpGanConfig, R3ganConfig, ResnetGanConfig, SelfAttention2d,
};
pub use monitor::CollapseMonitor;
pub use objective::{GanObjective, GanObjectiveConfig};
pub use penalty::{GradientPenalty, GradientPenaltyKind, gradient_norm};
pub use sample::{GanSampler, standing_statistics};

use aigc_core::data::{SampleShape, ValueRange};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Int, Tensor},
};

/// A network that generates samples from noise. `D` is the rank of a batch of samples: 4 for
/// images, 2 for points.
pub trait Generator<const D: usize = 4>: Module + ModuleDisplay {
    /// Samples of noise.
    ///
    /// # Shapes
    /// - z: `[batch, latent_dim]`, standard normal
    /// - class: `[batch]`, below [`num_classes`](Self::num_classes); ignored by a generator without
    ///   classes
    /// - output: `[batch, …]` of [`sample_shape`](Self::sample_shape), normalised as
    ///   [`value_range`](Self::value_range) does: images in `[−1, 1]`
    ///
    /// # Panics
    /// If the shapes do not fit, or a class is missing.
    fn generate(&self, z: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<D>;

    /// Number of latent dimensions.
    fn latent_dim(&self) -> usize;

    /// Shape of a sample.
    fn sample_shape(&self) -> SampleShape;

    /// Number of classes of a class-conditional generator.
    fn num_classes(&self) -> Option<usize> {
        None
    }

    /// Range of the data: `[0, 1]` for images, unbounded for everything else.
    fn value_range(&self) -> ValueRange {
        match self.sample_shape().as_image() {
            Some(_) => ValueRange::Unit,
            None => ValueRange::Unbounded,
        }
    }
}

/// A network that tells real samples from generated ones. `D` is the rank of a batch of samples.
pub trait Discriminator<const D: usize = 4>: Module + ModuleDisplay {
    /// How real each sample looks, as a logit.
    ///
    /// # Shapes
    /// - x: `[batch, …]`, normalised: images in `[−1, 1]`
    /// - class: `[batch]`; ignored by a discriminator without classes
    /// - output: `[batch]`
    ///
    /// # Panics
    /// If the shapes do not fit, or a class is missing.
    fn forward(&self, x: Tensor<D>, class: Option<Tensor<1, Int>>) -> Tensor<1>;

    /// Number of classes of a class-conditional discriminator.
    fn num_classes(&self) -> Option<usize> {
        None
    }

    /// [`forward`](Self::forward), and logits of the classes if the discriminator is an auxiliary
    /// classifier.
    ///
    /// # Panics
    /// As `forward`.
    fn forward_with_classes(
        &self,
        x: Tensor<D>,
        class: Option<Tensor<1, Int>>,
    ) -> DiscriminatorOutput {
        DiscriminatorOutput {
            logits: self.forward(x, class),
            class_logits: None,
        }
    }
}

/// Output of a discriminator.
#[derive(Clone, Debug)]
pub struct DiscriminatorOutput {
    /// How real each sample looks, `[batch]`.
    pub logits: Tensor<1>,
    /// Logits of the classes, `[batch, num_classes]`, of an auxiliary classifier (Odena et al.
    /// 2017, <https://arxiv.org/abs/1610.09585>).
    pub class_logits: Option<Tensor<2>>,
}
