//! Generative adversarial networks (Goodfellow et al. 2014, <https://arxiv.org/abs/1406.2661>).
//!
//! Two networks are trained against each other:
//!
//! ```text
//! generator: (z, class) → x        discriminator: (x, class) → logit, the higher the more real
//! ```
//!
//! The networks solve `min_G max_D E[log σ(D(x))] + E[log(1 − σ(D(G(z))))]`, or minimise another of
//! the losses of [`GanLoss`]. Training initialises them ([`GanConfig::init`]), then repeats:
//!
//! 1. draw a batch of real samples ([`DataLoader`](aigc_core::data::DataLoader));
//! 2. generate a batch of samples ([`Generator::generate`]);
//! 3. compute the discriminator's loss ([`GanLoss::discriminator_loss`]) and its penalties
//!    ([`GradientPenalty`]);
//! 4. update the discriminator;
//! 5. compute the generator's loss from the discriminator's logits ([`GanLoss::generator_loss`]);
//! 6. update the generator.
//!
//! [`GanObjective`] computes steps 2, 3 and 5 for the [`Trainer`](aigc_core::train::Trainer);
//! [`GanSampler`] samples from a trained generator, and
//! [`AnyGan::from_pretrained`](Gan::from_pretrained) opens one; `AnyGan::from_hub` (feature
//! `download`) opens one of the Hugging Face hub by its name. The literature on Wasserstein GANs
//! calls the discriminator *critic*.
//!
//! [`vocoder`] turns log-mel spectrograms into sound: HiFi-GAN with and without a harmonic source,
//! UnivNet, and the discriminators that train them.
#![forbid(unsafe_code)]

mod adversarial;
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
pub mod vocoder;
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
    /// Generates samples from noise.
    ///
    /// # Shapes
    /// - z: `[batch, latent_dim]`, standard normal
    /// - class: `[batch]`, each below [`num_classes`](Self::num_classes); ignored by a generator
    ///   without classes
    /// - output: `[batch, …]` of [`sample_shape`](Self::sample_shape),
    ///   [normalised](ValueRange::normalize): images in `[−1, 1]`
    ///
    /// # Panics
    /// If the shapes do not fit, or a class-conditional generator gets no classes.
    fn generate(&self, z: Tensor<2>, class: Option<Tensor<1, Int>>) -> Tensor<D>;

    /// Number of latent dimensions.
    fn latent_dim(&self) -> usize;

    /// Shape of a sample, without the batch axis.
    fn sample_shape(&self) -> SampleShape;

    /// Number of classes; `None` for an unconditional generator.
    fn num_classes(&self) -> Option<usize> {
        None
    }

    /// Range of the data, by default that of the [shape](ValueRange::for_shape): `[0, 1]` for
    /// images, unbounded for other samples.
    fn value_range(&self) -> ValueRange {
        ValueRange::for_shape(self.sample_shape())
    }
}

/// A network that distinguishes real samples from generated ones. `D` is the rank of a batch of
/// samples: 4 for images, 2 for points.
pub trait Discriminator<const D: usize = 4>: Module + ModuleDisplay {
    /// One logit per sample; a higher logit means that the sample looks more real.
    ///
    /// # Shapes
    /// - x: `[batch, …]`, [normalised](ValueRange::normalize): images in `[−1, 1]`
    /// - class: `[batch]`; ignored by a discriminator without classes
    /// - output: `[batch]`
    ///
    /// # Panics
    /// If the shapes do not fit, or a class-conditional discriminator gets no classes.
    fn forward(&self, x: Tensor<D>, class: Option<Tensor<1, Int>>) -> Tensor<1>;

    /// Number of classes; `None` for an unconditional discriminator.
    fn num_classes(&self) -> Option<usize> {
        None
    }

    /// [`forward`](Self::forward), with the logits of the classes if the discriminator is an
    /// auxiliary classifier.
    ///
    /// # Shapes
    /// - x and class: as for `forward`
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
    /// One logit per sample, `[batch]`; a higher logit means that the sample looks more real.
    pub logits: Tensor<1>,
    /// Logits of the classes, `[batch, num_classes]`; only of an auxiliary classifier (Odena et al.
    /// 2017, <https://arxiv.org/abs/1610.09585>).
    pub class_logits: Option<Tensor<2>>,
}
