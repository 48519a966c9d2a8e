//! DDPM's network on 28×28 images: blocks of 32, 64 and 64 channels, one layer each, attention at
//! 7×7, 8 groups. A training step (batch 32, noise prediction, Adam at 1e-3) goes through the
//! trainer, as in a user's program; sampling is ten DDIM steps for 16 images.

use crate::{Clock, clock::train, vae::images};
use aigc_core::{
    data::ImageShape,
    rng::{InitWeights, Rng},
    train::TrainerConfig,
};
use aigc_diffusion::{
    DdimScheduler, DiffusionObjective, DiffusionObjectiveConfig, PlanRunner, Scheduler,
    UNet2dConfig, UNet2dModel,
    models::{DownBlockType, UpBlockType},
};
use anyhow::Result;
use burn::tensor::{Device, Tensor};

fn init(device: &Device) -> Result<UNet2dModel> {
    use {DownBlockType::*, UpBlockType::*};
    let config = UNet2dConfig {
        sample_size: Some(28.into()),
        in_channels: 1,
        out_channels: 1,
        layers_per_block: 1,
        block_out_channels: vec![32, 64, 64],
        norm_num_groups: 8,
        down_block_types: vec![DownBlock2D, DownBlock2D, AttnDownBlock2D],
        up_block_types: vec![AttnUpBlock2D, UpBlock2D, UpBlock2D],
        ..UNet2dConfig::default()
    };
    Ok(config.init(device)?)
}

pub(crate) fn training(device: &Device, clock: Clock) -> Result<()> {
    let network = init(device)?;
    let objective = DiffusionObjective::new(DiffusionObjectiveConfig::default(), &network)?;
    train(
        objective,
        network,
        &images(ImageShape::new(1, 28, 28), 32)?,
        TrainerConfig::new(0),
        clock,
    )
}

pub(crate) fn sampling(device: &Device, mut clock: Clock) -> Result<()> {
    let network = init(device)?.init_weights(0);
    let plan = DdimScheduler::default().plan(10)?;
    let mut rng = Rng::new(0);
    loop {
        let mut x = rng.normal([16, 1, 28, 28], device);
        let mut sampling = PlanRunner::new(&plan);
        while let Some(call) = sampling.call() {
            let output = network.forward(
                sampling.input(&x),
                Tensor::full([16], call.time, device),
                None,
            );
            x = sampling
                .step(x, output, || unreachable!("DDIM draws no noise"))
                .prev_sample;
        }
        x.mean().into_scalar::<f32>();
        if !clock.tick() {
            return Ok(());
        }
    }
}
