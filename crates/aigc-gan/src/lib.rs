//! Generative adversarial networks (Goodfellow et al. 2014, <https://arxiv.org/abs/1406.2661>).
//!
//! Two networks play against each other, and everything meets at what they answer:
//!
//! ```text
//! generate(z, class) → x        score(x, class) → logit, the higher the more real
//! ```
//!
//! Training plays `min_G max_D E[log σ(D(x))] + E[log(1 − σ(D(G(z))))]`, or another of the games of
//! [`GanLoss`]:
//!
//! 1. initialise generator and critic ([`GanConfig::init`]);
//! 2. draw real data ([`DataLoader`](aigc_core::data::DataLoader));
//! 3. generate ([`Generator::generate`]);
//! 4. compute the critic's loss ([`GanLoss::discriminator_loss`]) and what keeps it smooth
//!    ([`GradientPenalty`]);
//! 5. update the critic;
//! 6. update the generator by the critic's judgement ([`GanLoss::generator_loss`]);
//! 7. repeat until the critic is fooled.
//!
//! [`GanObjective`] is steps 3 to 6 for the one [`Trainer`](aigc_core::train::Trainer);
//! [`GanSampler`] uses what was learned, and [`load`] opens it again.
#![forbid(unsafe_code)]

mod augment;
mod loss;
mod mixture;
pub mod models;
mod monitor;
mod objective;
mod penalty;
mod real;
mod sample;

pub use aigc_core::data::ClassLabels;
pub use augment::{Ada, Augment, DiffAugment};
pub use loss::GanLoss;
pub use mixture::{GaussianMixture, ModeCoverage, PointBatch, collate_points};
pub use models::{
    AnyDiscriminator, AnyGan, AnyGenerator, ClassConditioning, DcganConfig,
    DiscriminatorConditioning, DiscriminatorNorm, Gan, GanConfig, GeneratorConditioning,
    MlpGanConfig, R3ganConfig, ResnetGanConfig, SelfAttention2d, load,
};
pub use monitor::CollapseMonitor;
pub use objective::{GanObjective, GanObjectiveConfig};
pub use penalty::{GradientPenalty, GradientPenaltyKind, LeCam, gradient_norm};
pub use real::SampleBatch;
pub use sample::{GanSampler, standing_statistics};

use aigc_core::data::ImageShape;
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Int, Tensor},
};

/// Invents samples.
pub trait Generator: Module + ModuleDisplay {
    /// # Shapes
    /// - z: `[batch, latent]`, standard normal
    /// - class: `[batch]`, below [`num_classes`](Self::num_classes); ignored by a generator without
    ///   classes
    /// - output: `[batch, channels, height, width]`, images in `[−1, 1]`
    ///
    /// # Panics
    /// If the shapes do not fit, or a class is missing.
    fn generate(&self, z: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<4>;

    /// Number of latent dimensions.
    fn latent_dim(&self) -> usize;

    /// Shape of a sample.
    fn sample_shape(&self) -> ImageShape;

    /// Number of classes, if it is told which to make.
    fn num_classes(&self) -> Option<usize> {
        None
    }
}

/// Tells real from generated; the discriminator.
pub trait Discriminator: Module + ModuleDisplay {
    /// How real each sample looks, as a logit.
    ///
    /// # Shapes
    /// - x: `[batch, channels, height, width]`, images in `[−1, 1]`
    /// - class: `[batch]`; ignored by a critic without classes
    /// - output: `[batch]`
    ///
    /// # Panics
    /// If the shapes do not fit, or a class is missing.
    fn score(&self, x: Tensor<4>, class: Option<Tensor<1, Int>>) -> Tensor<1>;

    /// Number of classes, if it is told one.
    fn num_classes(&self) -> Option<usize> {
        None
    }

    /// [`score`](Self::score), with scores of the classes too if the critic also tells them apart.
    ///
    /// # Panics
    /// As `score`.
    fn forward_with_classes(
        &self,
        x: Tensor<4>,
        class: Option<Tensor<1, Int>>,
    ) -> DiscriminatorOutput {
        DiscriminatorOutput {
            logits: self.score(x, class),
            class_logits: None,
        }
    }
}

/// What a critic says.
#[derive(Clone, Debug)]
pub struct DiscriminatorOutput {
    /// How real each sample looks, `[batch]`.
    pub logits: Tensor<1>,
    /// Logits of the classes, `[batch, classes]`, of an auxiliary classifier (Odena et al. 2017,
    /// <https://arxiv.org/abs/1610.09585>).
    pub class_logits: Option<Tensor<2>>,
}
