//! On a backend that a program switched on in burn, past this workspace's features, operations are
//! made of primitives.
//!
//!     cargo test -p aigc-backends --features unlisted --test unlisted

use aigc_backends::{assert_close, assert_operations_equal_flex, values};
use aigc_core::{
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, ImageShape, collate_images, digits},
    device::available,
    rng::Rng,
    train::{Trainer, TrainerConfig},
};
use aigc_vae::{ConvVaeConfig, KlWeight, VaeObjective, VaeSampler};
use burn::tensor::Device;

#[allow(deprecated)]
fn unlisted() -> Device {
    assert!(
        !available().contains(&"ndarray"),
        "nothing to see: the feature `ndarray` is on"
    );
    Device::ndarray()
}

#[test]
fn operations_and_their_gradients_equal_flex() {
    assert_operations_equal_flex(&unlisted(), 2e-4);
}

#[test]
fn a_model_trains_and_samples() {
    let draw = |device: Device| {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let config = DataLoaderConfig {
            batch_size: 16,
            ..DataLoaderConfig::default()
        };
        let digits = DataLoader::new(digits::all(), collate_images, config).unwrap();
        let shape = ImageShape::new(1, 8, 8);
        let model = ConvVaeConfig {
            channels: vec![4, 8],
            hidden: 16,
            latent: 3,
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
        "pictures after five steps",
    );
}
