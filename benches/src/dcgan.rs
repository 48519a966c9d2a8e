//! A step of DCGAN (Radford et al. 2016, <https://arxiv.org/abs/1511.06434>) on 28×28 images: one
//! of the discriminator, one of the generator. Batch 64, Adam at 2e-4 with β = (0.5, 0.999), the
//! non-saturating loss. It goes through the trainer as a user's does.

use crate::{Clock, clock::train, vae::images};
use aigc_core::{
    data::ImageShape,
    train::{OptimizerConfig, TrainerConfig},
};
use aigc_gan::{DcganConfig, GanConfig, GanObjective, GanObjectiveConfig};
use anyhow::Result;
use burn::tensor::Device;

pub(crate) fn run(device: &Device, clock: Clock) -> Result<()> {
    let shape = ImageShape::new(1, 28, 28);
    let gan = GanConfig::Dcgan(DcganConfig::new(shape)).init(device)?;
    let config = TrainerConfig {
        learning_rate: 2e-4,
        optimizer: OptimizerConfig::adam(0.5, 0.999),
        ..TrainerConfig::new(0)
    };
    train(
        GanObjective::new(GanObjectiveConfig::default(), &gan)?,
        gan,
        &images(shape, 64)?,
        config,
        clock,
    )
}
