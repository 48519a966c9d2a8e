//! Copies of training data: planted ones in real images, and the numbers of
//! `tests/reference/relevance.py`.

use aigc_core::{
    Result,
    data::{
        Dataset, Image, ImageBatch, collate_images,
        idx::{MnistDataset, Split},
        transforms::{horizontal_flip, jpeg, shift},
    },
    device::device,
    eval::{
        Calibration, CalibrationConfig, CopyDetector, CopyDetectorConfig, FeatureNeighbors,
        authenticity, closest_records,
    },
    rng::Rng,
};
use aigc_tests::{
    folder_from,
    reference::{features, read_json},
};
use serde_json::Value;
use std::path::Path;

fn fixture() -> Value {
    read_json("eval/relevance/relevance.json")
}

fn assert_close(got: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (got - expected).abs() <= 1e-4 * expected.abs(),
        "{got}, expected {expected}"
    );
}

#[test]
fn authenticity_and_records_match_scikit_learn() {
    let fixture = fixture();
    let [train, held_out, samples] =
        ["train", "held_out", "samples"].map(|name| features(&fixture[name]));
    let authentic = authenticity(&samples, &train).unwrap();
    assert_eq!(
        authentic.count() as u64,
        fixture["authentic"].as_u64().unwrap()
    );
    let records = closest_records(&samples, &train, &held_out, &mut Rng::new(0)).unwrap();
    assert_eq!(
        (records.nearer_train.count() as u64, records.records),
        (fixture["nearer_train"].as_u64().unwrap(), 120)
    );
    assert_close(records.train_distance, &fixture["train_distance"]);
    assert_close(records.held_out_distance, &fixture["held_out_distance"]);
    let neighbors = FeatureNeighbors::new(train).unwrap();
    let found = neighbors
        .kneighbors(&samples.select(&[0, 1, 2, 3, 4]), 4)
        .unwrap();
    for (i, near) in found.iter().enumerate() {
        for (j, (index, distance)) in near.iter().enumerate() {
            assert_close(*distance, &fixture["nearest"][0][i][j]);
            assert_eq!(*index as u64, fixture["nearest"][1][i][j].as_u64().unwrap());
        }
    }
}

/// The threshold is the `k`-th smallest score, with scipy's `k`.
#[test]
fn calibration_ranks_match_scipy() {
    for case in fixture()["ranks"].as_array().unwrap() {
        let scores: Vec<f64> = (1..=case[0].as_u64().unwrap()).map(|i| i as f64).collect();
        let config = CalibrationConfig {
            false_alarm_rate: case[1].as_f64().unwrap(),
            confidence: case[2].as_f64().unwrap(),
        };
        let threshold = Calibration::new(&scores, config).unwrap().threshold;
        assert_eq!(threshold, case[3].as_f64().unwrap(), "{case}");
    }
}

/// 40 copies of each kind among 4,000 training images; all of MNIST, and CIFAR-10, are in
/// `reproduce_evaluation copies`.
#[test]
fn planted_copies_of_mnist_are_found() {
    let Some(data) = folder_from("AIGC_DATA") else {
        return;
    };
    let (train, test) = mnist(&data);
    check(&train[..4000], &test[..1000], 40, 0.99);
}

fn mnist(data: &Path) -> (Vec<Image>, Vec<Image>) {
    let read = |split| -> Vec<Image> {
        let images = MnistDataset::from_dir(&data.join("mnist"), split).unwrap();
        (0..images.len()).map(|i| images.get(i).unwrap()).collect()
    };
    (read(Split::Train), read(Split::Test))
}

/// Calibrates on one half of the held-out images, in random order, and counts false alarms on the
/// other half; plants `count` copies of each kind. The measured rate varies, too: a high confidence
/// keeps it below the allowed one.
fn check(train: &[Image], held_out: &[Image], count: usize, confidence: f64) {
    let device = device("flex").unwrap();
    let batch = |images: &[Image]| -> Result<ImageBatch> { Ok(collate_images(images.to_vec())) };
    let pick = |n: usize, of: &[Image], seed| -> Vec<(usize, Image)> {
        let order = Rng::new(seed).permutation(of.len());
        order
            .into_iter()
            .take(n)
            .map(|i| (i, of[i].clone()))
            .collect()
    };
    let held_out: Vec<Image> = pick(held_out.len(), held_out, 0)
        .into_iter()
        .map(|(_, image)| image)
        .collect();
    let (calibrate, measure) = held_out.split_at(held_out.len() / 2);
    let config = CopyDetectorConfig {
        calibration: CalibrationConfig {
            confidence,
            ..CalibrationConfig::default()
        },
        ..CopyDetectorConfig::default()
    };
    let detector = CopyDetector::fit(
        train.chunks(500).map(batch),
        calibrate.chunks(500).map(batch),
        config,
        &device,
    )
    .unwrap();
    let threshold = detector.calibration().threshold;
    let mut alarms = 0;
    for images in measure.chunks(500) {
        let found = detector
            .detect(&batch(images).unwrap().to_tensor(&device))
            .unwrap();
        alarms += found.iter().filter(|found| found.is_copy).count();
    }
    let rate = alarms as f64 / measure.len() as f64;
    println!(
        "threshold {threshold}, {alarms} false alarms in {}",
        measure.len()
    );
    assert!(rate <= 0.01, "{rate}");

    let originals = pick(count, train, 1);
    type Change = fn(usize, &Image) -> Result<Image>;
    let kinds: [(&str, Change); 6] = [
        ("unchanged", |_, image| Ok(image.clone())),
        ("shifted by a pixel", shifted),
        ("flipped", |_, image| horizontal_flip(image)),
        ("re-encoded", |_, image| jpeg(image, 75)),
        ("shifted and re-encoded", |i, image| {
            jpeg(&shifted(i, image)?, 75)
        }),
        ("flipped, shifted and re-encoded", |i, image| {
            jpeg(&shifted(i, &horizontal_flip(image)?)?, 75)
        }),
    ];
    for (kind, change) in kinds {
        let (mut missed, mut worst) = (0, 0.0f64);
        for originals in originals.chunks(500) {
            let copies = originals
                .iter()
                .enumerate()
                .map(|(i, (_, image))| change(i, image).unwrap());
            let copies = collate_images(copies.collect()).to_tensor(&device);
            for (found, (index, _)) in detector.detect(&copies).unwrap().iter().zip(originals) {
                missed += usize::from(!found.is_copy || found.index != *index);
                worst = worst.max(found.score);
            }
        }
        println!("{kind}: {missed} of {count} missed, largest score {worst:.3}");
        assert_eq!(
            missed, 0,
            "{kind}, largest score {worst}, threshold {threshold}"
        );
    }
}

/// Shifted by a pixel in one of the eight directions.
fn shifted(i: usize, image: &Image) -> Result<Image> {
    // The places of a square of 3×3, without its middle.
    let place = [0, 1, 2, 3, 5, 6, 7, 8][i % 8];
    shift(image, place / 3 - 1, place % 3 - 1)
}
