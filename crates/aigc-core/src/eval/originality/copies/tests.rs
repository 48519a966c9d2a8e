use super::*;
use crate::data::{Image, collate_images, digits};

fn batch(images: &[Image]) -> Result<ImageBatch> {
    Ok(collate_images(images.to_vec()))
}

fn config() -> CopyDetectorConfig {
    CopyDetectorConfig {
        max_shift: 1,
        ..CopyDetectorConfig::default()
    }
}

fn fitted() -> (Vec<Image>, CopyDetector) {
    let (train, held_out) = digits::train_test_split();
    let detector = CopyDetector::fit(
        [batch(&train.0[..700]), batch(&train.0[700..])],
        held_out.0.chunks(100).map(batch),
        config(),
        &Device::flex(),
    );
    (train.0, detector.unwrap())
}

/// `image`, flipped and then shifted; pixels from outside are 0.
fn moved(image: &Image, alignment: Alignment) -> Image {
    let pixel = |i: isize| {
        let (y, x) = (i / 8 - alignment.down, i % 8 - alignment.right);
        let x = if alignment.flipped { 7 - x } else { x };
        match (0..8).contains(&y) && (0..8).contains(&x) {
            true => image.pixels[(y * 8 + x) as usize],
            false => 0,
        }
    };
    Image {
        pixels: (0..64).map(pixel).collect(),
        ..image.clone()
    }
}

#[test]
fn moved_copies_are_found_with_their_alignment() {
    let (train, detector) = fitted();
    assert_eq!(
        (detector.num_train(), detector.shape()),
        (1500, digits::SHAPE)
    );
    assert!(detector.calibration().false_alarms.value() <= 0.01);
    for (i, (flipped, down, right)) in [
        (false, 0, 0),
        (false, 1, -1),
        (false, 0, 1),
        (true, 0, 0),
        (true, -1, 1),
    ]
    .into_iter()
    .enumerate()
    {
        let alignment = Alignment {
            flipped,
            down,
            right,
        };
        let originals = &train[690 + 20 * i..][..20];
        let copies: Vec<Image> = originals
            .iter()
            .map(|image| moved(image, alignment))
            .collect();
        let copies = collate_images(copies).to_tensor(&Device::flex());
        let found = detector.detect(&copies).unwrap();
        for (offset, found) in found.iter().enumerate() {
            assert_eq!(
                (found.index, found.alignment),
                (690 + 20 * i + offset, alignment)
            );
            assert!(found.is_copy && found.score < 1e-3, "{found:?}");
        }
    }
}

#[test]
fn other_brightness_and_contrast_are_found() {
    let (train, detector) = fitted();
    let copies = collate_images(train[..40].to_vec()).to_tensor(&Device::flex());
    let found = detector.detect(&(copies * 0.6 + 0.2)).unwrap();
    let is_found = |(i, found): (usize, &CopyMatch)| found.is_copy && found.index == i;
    assert!(found.iter().enumerate().all(is_found));
}

#[test]
fn inverted_images_are_no_copies() {
    let (train, detector) = fitted();
    let inverted = collate_images(train[..40].to_vec()).to_tensor(&Device::flex());
    let found = detector.detect(&(inverted * -1.0 + 1.0)).unwrap();
    assert!(found.iter().filter(|found| found.is_copy).count() <= 2);
}

#[test]
fn bad_input_is_an_error() {
    let device = Device::flex();
    let (train, held_out) = digits::train_test_split();
    let fit = |train: &[Image], held_out: &[Image], config| {
        let held_out = held_out.chunks(100).map(batch);
        let train = train.chunks(100).map(batch);
        let error = CopyDetector::fit(train, held_out, config, &device).unwrap_err();
        error.to_string()
    };
    let few = fit(&train.0, &held_out.0[..100], config());
    assert!(
        few.contains("`held_out` is 100 samples, expected at least 161"),
        "{few}"
    );
    let none = fit(&[], &held_out.0, config());
    assert!(
        none.contains("`train` is 0 images, expected at least 10"),
        "{none}"
    );
    let copies = fit(&train.0, &train.0[..297], config());
    assert!(
        copies.contains("that are not in the training set"),
        "{copies}"
    );
    let small = CopyDetectorConfig {
        max_shift: 3,
        ..config()
    };
    assert!(fit(&train.0, &held_out.0, small).contains("at least 10×10 pixels"));
    let narrow = CopyDetectorConfig {
        candidates: 5,
        ..config()
    };
    assert!(fit(&train.0, &held_out.0, narrow).contains("`candidates` is 5"));
    let (_, detector) = fitted();
    let other = detector.detect(&Tensor::zeros([1, 1, 9, 8], &device));
    assert!(
        other
            .unwrap_err()
            .to_string()
            .contains("`images` is images of 1×9×8")
    );
    let none = detector.detect(&Tensor::zeros([0, 1, 8, 8], &device));
    assert!(none.unwrap_err().to_string().contains("`images` is 0"));
    let broken = Tensor::<4>::zeros([1, 1, 8, 8], &device) + f32::NAN;
    assert!(
        detector
            .detect(&broken)
            .unwrap_err()
            .to_string()
            .contains("`images` is NaN")
    );
}
