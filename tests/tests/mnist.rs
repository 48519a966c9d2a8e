//! Real MNIST and published weights, where `AIGC_DATA` says they are.

use aigc_core::{
    data::{
        DataLoader, DataLoaderConfig, Dataset, ImageShape, collate_images,
        idx::{MnistDataset, Split},
    },
    device::device,
    weights::load_weights,
};
use aigc_tests::folder_from;
use aigc_vae::{MlpVaeConfig, evaluate};
use std::collections::HashMap;

#[test]
fn mnist_has_known_counts() {
    let Some(data) = folder_from("AIGC_DATA") else {
        return;
    };
    for (part, count, first, ones) in [
        (Split::Train, 60_000, 5, 6742),
        (Split::Test, 10_000, 7, 1135),
    ] {
        let images = MnistDataset::from_dir(&data.join("mnist"), part).unwrap();
        assert_eq!(
            (images.len(), images.shape()),
            (count, ImageShape::new(1, 28, 28))
        );
        assert_eq!(images.get(0).unwrap().label, Some(first));
        let labels: Vec<_> = (0..count)
            .map(|i| images.get(i).unwrap().label.unwrap())
            .collect();
        assert_eq!(labels.iter().filter(|l| **l == 1).count(), ones);
    }
}

/// The published VAE's −ELBO over all 10,000 test images, beside PyTorch's
/// (`tests/reference/published_vae.py`): the divergence has no noise in it, the reconstruction that
/// of one draw per image.
#[test]
fn published_vae_matches_pytorch_elbo() {
    let Some(data) = folder_from("AIGC_DATA") else {
        return;
    };
    let device = device("flex").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let renamed = folder.path().join("model.safetensors");
    rename(
        &data.join("mnist-models/vae_z20_csinva.safetensors"),
        &renamed,
    );
    let model = MlpVaeConfig::new(ImageShape::new(1, 28, 28))
        .init(&device)
        .unwrap();
    let model = load_weights(model, &renamed).unwrap();
    let test = MnistDataset::from_dir(&data.join("mnist"), Split::Test).unwrap();
    let config = DataLoaderConfig {
        batch_size: 500,
        shuffle_seed: None,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(test, collate_images, config).unwrap();
    let metrics = evaluate(&model, &loader, &device, 0).unwrap();
    println!(
        "published MLP VAE on {} test images: {metrics:?}",
        loader.num_items()
    );
    let value = |name| metrics.iter().find(|(n, _)| n == name).unwrap().1;
    assert!((value("kl") - 25.75474).abs() < 2e-4, "{metrics:?}");
    // Five standard deviations of PyTorch's draws.
    assert!(
        (value("reconstruction") - 77.434).abs() < 5.0 * 0.044,
        "{metrics:?}"
    );
    assert!((value("nelbo") - value("kl") - value("reconstruction")).abs() < 1e-9);
}

/// Gives the published tensors our names.
fn rename(from: &std::path::Path, to: &std::path::Path) {
    let bytes = std::fs::read(from).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let names: HashMap<&str, &str> = [
        ("fc1", "encoder"),
        ("fc21", "mean"),
        ("fc22", "log_variance"),
        ("fc3", "decoder"),
        ("fc4", "output"),
    ]
    .into();
    let renamed = file.iter().map(|(name, view)| {
        let (layer, field) = name.split_once('.').unwrap();
        (
            format!("{}.{field}", names.get(layer).copied().unwrap_or(layer)),
            view,
        )
    });
    safetensors::serialize_to_file(renamed, None, to).unwrap();
}
