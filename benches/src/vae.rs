//! Training steps of the variational autoencoders: batch 128 of 28×28, Adam at 1e-3, the loss read back. They go
//! through the trainer as a user's do.

use aigc_core::{
    checkpoint::RunFolder,
    data::{Image, ImageShape, InMemory, Loader, LoaderConfig, collate_images},
    rng::Rng,
    train::{Event, StopFlag, Trainer, TrainerConfig},
};
use aigc_vae::{Beta, ConvVaeConfig, MlpVaeConfig, VaeConfig, VaeObjective};
use anyhow::Result;
use burn::tensor::Device;
use std::time::{Duration, Instant};

const SHAPE: ImageShape = ImageShape::new(1, 28, 28);

pub(crate) fn mlp() -> VaeConfig {
    VaeConfig::Mlp(MlpVaeConfig::new(SHAPE))
}

pub(crate) fn conv() -> VaeConfig {
    VaeConfig::Conv(ConvVaeConfig::new(SHAPE))
}

pub(crate) fn time(model: VaeConfig, device: &Device, seconds: f64) -> Result<Vec<f64>> {
    let mut rng = Rng::new(0);
    let mut image =
        || Image { shape: SHAPE, pixels: (0..SHAPE.numel()).map(|_| rng.below(256) as u8).collect(), label: None };
    let images = InMemory((0..1024).map(|_| image()).collect());
    let loader = Loader::new(images, collate_images, LoaderConfig { batch_size: 128, ..LoaderConfig::default() })?;
    let folder = tempfile::tempdir()?;
    let run = RunFolder::create(folder.path().join("run"))?;
    let (stop, mut times, mut last, began) = (StopFlag::new(), Vec::new(), Instant::now(), Instant::now());
    let raise = stop.clone();
    Trainer::new(TrainerConfig { checkpoint_every: 0, ..TrainerConfig::new(1_000_000) })
        .stop_flag(stop)
        .observe(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                if report.step > 3 {
                    times.push(last.elapsed().as_secs_f64());
                }
                last = Instant::now();
                if times.len() >= 3 && began.elapsed() > Duration::from_secs_f64(seconds) {
                    raise.raise();
                }
            }
        })
        .fit(VaeObjective::new(Beta::default())?, model.init(device)?, &loader, &run)?;
    Ok(times)
}
