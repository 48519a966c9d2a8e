//! Evaluation of images: features, their statistics, and comparisons of all pairs.

use crate::Clock;
use aigc_core::{
    data::{Image, ImageShape, collate_images},
    eval::{FeatureStatistics, FeatureStream, Features, InceptionV3Config, PrdcConfig},
    rng::Rng,
};
use anyhow::Result;
use burn::tensor::Device;

/// Number of features.
const WIDTH: usize = 2048;
/// Number of images in a step, torch-fidelity's batch.
const IMAGES: usize = 64;
/// Number of real and of generated samples of [`prdc`].
const SAMPLES: usize = 10_000;

/// Mean and covariance of the features of 64 images of 32×32 pixels, by InceptionV3 of random
/// weights.
pub(crate) fn inception_statistics(device: &Device, mut clock: Clock) -> Result<()> {
    let inception = InceptionV3Config::default().init(device);
    let shape = ImageShape::new(3, 32, 32);
    let mut rng = Rng::new(0);
    let image = |_| Image {
        shape,
        pixels: rng
            .uniform_vec(shape.numel(), 0.0, 255.0)
            .into_iter()
            .map(|value| value as u8)
            .collect(),
        label: None,
    };
    let batch = collate_images((0..IMAGES).map(image).collect());
    let stream = FeatureStream::new(&inception, device);
    let mut statistics = FeatureStatistics::new(WIDTH)?;
    loop {
        stream.for_each([Ok(batch.clone())], |features| {
            statistics.add_features(&features)
        })?;
        if !clock.tick() {
            return Ok(());
        }
    }
}

/// Precision, recall, density and coverage of 10,000 samples against 10,000 others.
pub(crate) fn prdc(_: &Device, mut clock: Clock) -> Result<()> {
    let mut rng = Rng::new(0);
    let mut features = || Features::new(rng.normal_vec(SAMPLES * WIDTH), WIDTH);
    let (real, fake) = (features()?, features()?);
    loop {
        PrdcConfig::default().compute(&real, &fake)?;
        if !clock.tick() {
            return Ok(());
        }
    }
}
