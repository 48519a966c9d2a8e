//! Judging, against other implementations' numbers and known facts.

use aigc_core::{
    data::{
        DataLoader, DataLoaderConfig, collate_images,
        idx::{MnistDataset, Split},
    },
    device::device,
    eval::{Classifier, FeatureStatistics, LeNet5, frechet_distance},
};
use aigc_tests::{folder_from, own_fixtures};
use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;

/// `tests/reference/frechet.py`: the matrix square root of the product, as the public
/// implementations have it; also where covariances are singular.
#[test]
fn frechet_distance_matches_matrix_square_root() {
    let folder = own_fixtures().join("eval");
    let bytes = std::fs::read(folder.join("features.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let device = device("flex").unwrap();
    let moments = |name: &str| {
        let view = file.tensor(name).unwrap();
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let [n, d] = [view.shape()[0], view.shape()[1]];
        let features = Tensor::<2>::from_data(TensorData::new(values, [n, d]), &device);
        let mut moments = FeatureStatistics::new(d).unwrap();
        for start in (0..n).step_by(37) {
            moments
                .add(&features.clone().narrow(0, start, 37.min(n - start)))
                .unwrap();
        }
        assert_eq!(moments.count(), n);
        moments
    };
    let expected: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(folder.join("frechet.json")).unwrap())
            .unwrap();
    for pair in ["ab", "ac", "cd"] {
        let got = frechet_distance(&moments(&pair[..1]), &moments(&pair[1..])).unwrap();
        let expected = expected[pair].as_f64().unwrap();
        assert!(
            (got - expected).abs() < 1e-4 * expected,
            "{pair}: {got}, expected {expected}"
        );
    }
}

/// The published LeNet-5 reads MNIST's test images as well as in PyTorch, and finds the same
/// distance between training and test images (both printed by `tests/reference/frechet.py`).
#[test]
fn lenet_matches_pytorch_on_mnist() {
    let Some(data) = folder_from("AIGC_DATA") else {
        return;
    };
    let device: Device = device("flex").unwrap();
    let judge = LeNet5::from_file(
        &data.join("mnist-models/lenet5_csinva.safetensors"),
        &device,
    )
    .unwrap();
    let mut moments = Vec::new();
    for part in [Split::Train, Split::Test] {
        let images = MnistDataset::from_dir(&data.join("mnist"), part).unwrap();
        let loader = DataLoaderConfig {
            batch_size: 500,
            shuffle_seed: None,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(images, collate_images, loader).unwrap();
        let (mut right, mut features) = (0, FeatureStatistics::new(LeNet5::FEATURES).unwrap());
        for batch in loader.iter_once() {
            let batch = batch.unwrap();
            let verdict = judge.classify(batch.to_tensor(&device));
            right += verdict
                .predictions()
                .iter()
                .zip(batch.labels().unwrap())
                .filter(|(a, b)| a == b)
                .count();
            features.add(&verdict.features).unwrap();
        }
        if part == Split::Test {
            assert!(
                (9_907..=9_909).contains(&right),
                "{right} of 10,000 right, PyTorch reads 9,908"
            );
        }
        moments.push(features);
    }
    let distance = frechet_distance(&moments[0], &moments[1]).unwrap();
    println!("training against test images: {distance}");
    assert!((distance - 0.70047).abs() < 1e-3, "{distance}");
}
