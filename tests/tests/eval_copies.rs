//! Copies of training data: planted ones in real images, and the numbers of
//! `tests/reference/relevance.py`.

use aigc_core::{
    Result,
    data::{
        Dataset, Image, ImageBatch, ImageShape, collate_images,
        idx::{MnistDataset, Split},
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
use image::{ExtendedColorType, codecs::jpeg::JpegEncoder};
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
    type Change = fn(usize, &Image) -> Image;
    let kinds: [(&str, Change); 6] = [
        ("unchanged", |_, image| image.clone()),
        ("shifted by a pixel", shifted),
        ("flipped", |_, image| flipped(image)),
        ("re-encoded", |_, image| reencoded(image)),
        ("shifted and re-encoded", |i, image| {
            reencoded(&shifted(i, image))
        }),
        ("flipped, shifted and re-encoded", |i, image| {
            reencoded(&shifted(i, &flipped(image)))
        }),
    ];
    for (kind, change) in kinds {
        let (mut missed, mut worst) = (0, 0.0f64);
        for originals in originals.chunks(500) {
            let copies = originals
                .iter()
                .enumerate()
                .map(|(i, (_, image))| change(i, image));
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

/// Shifted by a pixel in one of eight directions; pixels at the border are repeated.
fn shifted(i: usize, image: &Image) -> Image {
    let directions = [
        (-1, -1),
        (-1, 0),
        (-1, 1),
        (0, -1),
        (0, 1),
        (1, -1),
        (1, 0),
        (1, 1),
    ];
    let (down, right): (isize, isize) = directions[i % 8];
    let ImageShape { height, width, .. } = image.shape;
    mapped(image, |y, x| {
        let inside = |at: usize, by: isize, size: usize| {
            (at as isize - by).clamp(0, size as isize - 1) as usize
        };
        (inside(y, down, height), inside(x, right, width))
    })
}

fn flipped(image: &Image) -> Image {
    mapped(image, |y, x| (y, image.shape.width - 1 - x))
}

/// An image whose pixel (y, x) is that at `source(y, x)`.
fn mapped(image: &Image, source: impl Fn(usize, usize) -> (usize, usize)) -> Image {
    let ImageShape { height, width, .. } = image.shape;
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for plane in image.pixels.chunks_exact(height * width) {
        for i in 0..height * width {
            let (y, x) = source(i / width, i % width);
            pixels.push(plane[y * width + x]);
        }
    }
    Image {
        pixels,
        ..image.clone()
    }
}

/// Encoded as JPEG of quality 75 and decoded.
fn reencoded(image: &Image) -> Image {
    let ImageShape {
        channels,
        height,
        width,
    } = image.shape;
    let area = height * width;
    let interleaved: Vec<u8> = (0..area * channels)
        .map(|i| image.pixels[i % channels * area + i / channels])
        .collect();
    let color = match channels {
        1 => ExtendedColorType::L8,
        _ => ExtendedColorType::Rgb8,
    };
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, 75)
        .encode(&interleaved, width as u32, height as u32, color)
        .unwrap();
    let decoded = image::load_from_memory(&bytes).unwrap();
    let decoded = match channels {
        1 => decoded.to_luma8().into_raw(),
        _ => decoded.to_rgb8().into_raw(),
    };
    Image {
        pixels: (0..area * channels)
            .map(|i| decoded[i % area * channels + i / area])
            .collect(),
        ..image.clone()
    }
}
