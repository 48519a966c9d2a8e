//! On a backend that is enabled in burn, but by no feature of this workspace, operations use burn's
//! primitives.
//!
//!     cargo test -p aigc-backends --features unlisted --test unlisted

use aigc_backends::{assert_close, assert_operations_match_flex, values};
use aigc_core::{
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, ImageShape, collate_images, digits},
    device::available_backends,
    train::{Trainer, TrainerConfig},
};
use aigc_vae::{ConvVaeConfig, KlWeight, VaeObjective, VaeSampler};
use burn::tensor::Device;

#[allow(deprecated)]
fn unlisted() -> Device {
    assert!(
        !available_backends().contains(&"ndarray"),
        "the feature `ndarray` is enabled; this test needs it disabled"
    );
    Device::ndarray()
}

#[test]
fn operations_and_gradients_match_flex() {
    assert_operations_match_flex(&unlisted(), 2e-4);
}

#[test]
fn model_trains_and_samples_as_on_flex() {
    let draw = |device: Device| {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let config = DataLoaderConfig {
            batch_size: 16,
            ..DataLoaderConfig::default()
        };
        let digits = DataLoader::new(digits::load(), collate_images, config).unwrap();
        let shape = ImageShape::new(1, 8, 8);
        let model = ConvVaeConfig {
            channels: vec![4, 8],
            hidden_dim: 16,
            latent_dim: 3,
            ..ConvVaeConfig::new(shape)
        };
        let model = model.init(&device).unwrap();
        let objective = VaeObjective::new(KlWeight::default()).unwrap();
        let trained = Trainer::new(TrainerConfig::new(5))
            .fit(objective, model, &digits, &run)
            .unwrap();
        values(
            VaeSampler::new(&trained.model, &device)
                .sample(4, 5)
                .unwrap()
                .values,
        )
    };
    assert_close(
        &draw(unlisted()),
        &draw(Device::flex()),
        5e-4,
        "images after five steps",
    );
}
