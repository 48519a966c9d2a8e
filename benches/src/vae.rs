//! Training steps of the variational autoencoders: Adam at 1e-3, the loss read back. They go
//! through the trainer as a user's do.

use crate::{Clock, clock::train};
use aigc_core::{
    data::{DataLoader, DataLoaderConfig, Image, ImageBatch, ImageShape, InMemory, collate_images},
    rng::Rng,
    train::TrainerConfig,
};
use aigc_vae::{
    ConvVaeConfig, HierarchicalVaeConfig, KlWeight, MlpVaeConfig, ResidualQuantizerConfig, Vae,
    VaeConfig, VaeObjective, VectorQuantizerConfig, VqVaeConfig,
};
use anyhow::{Context, Result};
use burn::{module::Module, tensor::Device};

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
    steps::<_, 2>(model.init(device)?, batch, clock)
}

/// A VQ-VAE with four stages of 256 codes, which follow moving averages. Codes that are not used
/// are replaced, as by default. The codes start as noise, not by k-means: that would be a part of
/// the first step only.
pub(crate) fn residual_vq(device: &Device, clock: Clock) -> Result<()> {
    let (stages, num_codes, dim) = (4, 256, 64);
    let stage = VectorQuantizerConfig {
        kmeans_start: false,
        ..VectorQuantizerConfig::new(num_codes, dim)
    };
    let config = VqVaeConfig {
        quantizer: ResidualQuantizerConfig::new(stages, stage).into(),
        ..VqVaeConfig::new(ImageShape::new(1, 28, 28))
    };
    let model = config.init(device)?;
    // Codes, sums, counts and a flag are state of each stage, and not trained.
    let state = stages * (2 * num_codes * dim + num_codes + 1);
    assert_eq!(model.num_params() - state, 658_625);
    steps::<_, 4>(model, 64, clock)
}

/// A hierarchical VAE of the default sizes: nine groups of latent maps of three sizes.
pub(crate) fn hierarchical(device: &Device, clock: Clock) -> Result<()> {
    let model = HierarchicalVaeConfig::new(ImageShape::new(1, 28, 28)).init(device)?;
    assert_eq!(model.num_params(), 1_439_377);
    steps::<_, 2>(model, 64, clock)
}

/// Training steps of `model` on batches of noise.
fn steps<V: Vae<4, Z> + 'static, const Z: usize>(
    model: V,
    batch: usize,
    clock: Clock,
) -> Result<()> {
    let loader = images(model.sample_shape().as_image().context("images")?, batch)?;
    train(
        VaeObjective::<V, ImageBatch, 4, Z>::new(KlWeight::default())?,
        model,
        &loader,
        TrainerConfig::new(0),
        clock,
    )
}

/// Batches of noise.
pub(crate) fn images(shape: ImageShape, batch_size: usize) -> Result<DataLoader<ImageBatch>> {
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
