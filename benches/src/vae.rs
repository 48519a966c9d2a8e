//! Training steps of the variational autoencoders: Adam at 1e-3, the loss read back. They go
//! through the trainer as a user's do.

use crate::{Clock, clock::train};
use aigc_core::{
    data::{DataLoader, DataLoaderConfig, Image, ImageShape, InMemory, collate_images},
    rng::Rng,
    train::TrainerConfig,
};
use aigc_vae::{ConvVaeConfig, KlWeight, MlpVaeConfig, Vae, VaeConfig, VaeObjective};
use anyhow::{Context, Result};
use burn::tensor::Device;

pub(crate) fn mlp() -> VaeConfig {
    VaeConfig::Mlp(MlpVaeConfig::new(ImageShape::new(1, 28, 28)))
}

pub(crate) fn conv(width: usize, side: usize) -> VaeConfig {
    let config = ConvVaeConfig::new(ImageShape::new(1, side, side));
    VaeConfig::Conv(ConvVaeConfig {
        channels: vec![width, 2 * width],
        ..config
    })
}

pub(crate) fn run(model: VaeConfig, batch: usize, device: &Device, clock: Clock) -> Result<()> {
    let model = model.init(device)?;
    let loader = images(model.sample_shape().as_image().context("images")?, batch)?;
    train(
        VaeObjective::new(KlWeight::default())?,
        model,
        &loader,
        TrainerConfig::new(0),
        clock,
    )
}

/// Batches of noise.
pub(crate) fn images(
    shape: ImageShape,
    batch_size: usize,
) -> Result<DataLoader<aigc_core::data::ImageBatch>> {
    let mut rng = Rng::new(0);
    let mut image = || Image {
        shape,
        pixels: (0..shape.numel())
            .map(|_| rng.random_index(256) as u8)
            .collect(),
        label: None,
    };
    let images = InMemory((0..1024).map(|_| image()).collect());
    Ok(DataLoader::new(
        images,
        collate_images,
        DataLoaderConfig {
            batch_size,
            ..DataLoaderConfig::default()
        },
    )?)
}
