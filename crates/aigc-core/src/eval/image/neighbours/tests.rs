use super::*;
use crate::data::{Dataset, digits};

#[test]
fn neighbours_match_plain_search() {
    let device = Device::flex();
    let (train, held_out) = digits::train_test_split();
    let neighbours = NearestNeighbors::new(&train.0, &device).unwrap();
    let batch = collate_images(held_out.0[..20].to_vec());
    let got = neighbours.kneighbors(&batch.to_tensor(&device), 3).unwrap();
    for (image, near) in held_out.0.iter().zip(&got) {
        let distance = |other: &Image| {
            let pairs = image.pixels.iter().zip(&other.pixels);
            pairs
                .map(|(a, b)| ((f64::from(*a) - f64::from(*b)) / 255.0).powi(2))
                .sum::<f64>()
                .sqrt()
        };
        let mut all: Vec<f64> = train.0.iter().map(distance).collect();
        for (index, found) in near {
            assert!((distance(&train.0[*index]) - found).abs() < 1e-3);
        }
        all.sort_by(f64::total_cmp);
        assert!(
            near.iter()
                .zip(&all)
                .all(|((_, found), known)| (found - known).abs() < 1e-3)
        );
    }
}

#[test]
fn copies_have_zero_distance() {
    let device = Device::flex();
    let images = digits::train_test_split().0.0;
    let neighbours = NearestNeighbors::new(&images, &device).unwrap();
    let copies = collate_images(images[30..40].to_vec()).to_tensor(&device);
    for (offset, near) in neighbours
        .kneighbors(&copies, 2)
        .unwrap()
        .into_iter()
        .enumerate()
    {
        assert_eq!(near[0], (30 + offset, 0.0));
        assert!(near[1].1 > 0.1);
    }
}

/// The last batch is cut to the number of images wanted.
#[test]
fn batches_give_no_more_than_wanted() {
    let device = Device::flex();
    let images = digits::train_test_split().0.0;
    let of = |most| {
        let batches = images[..90].chunks(40);
        let batches = batches.map(|images| Ok(collate_images(images.to_vec())));
        NearestNeighbors::from_batches(batches, most, &device)
    };
    let x = collate_images(images[..90].to_vec()).to_tensor(&device);
    let found = of(50).unwrap().kneighbors(&x, 1).unwrap();
    assert!(found.iter().all(|near| near[0].0 < 50));
    assert!((0..50).all(|i| found[i][0] == (i, 0.0)));
    let all = of(1000).unwrap();
    assert!(all.kneighbors(&x, 90).is_ok() && all.kneighbors(&x, 91).is_err());
    assert!(of(0).is_err());
}

/// Nearest-neighbour classification of these digits is 98 to 99 % accurate in the literature.
#[test]
fn nearest_neighbour_classifies_digits() {
    let device = Device::flex();
    let (train, held_out) = digits::train_test_split();
    let neighbours = NearestNeighbors::new(&train.0, &device).unwrap();
    let batch = collate_images(held_out.0.clone());
    let classes = neighbours.classify(batch.to_tensor(&device)).predictions();
    let right = classes
        .iter()
        .zip(batch.labels().unwrap())
        .filter(|(a, b)| a == b)
        .count();
    assert!(right as f64 >= 0.97 * held_out.len() as f64, "{right}");
}

#[test]
fn shape_and_k_mismatch_are_errors() {
    let device = Device::flex();
    assert!(NearestNeighbors::new(&[], &device).is_err());
    let neighbours = NearestNeighbors::new(&digits::train_test_split().0.0[..5], &device).unwrap();
    assert!(
        neighbours
            .kneighbors(&Tensor::zeros([1, 1, 7, 8], &device), 1)
            .is_err()
    );
    let broken = Tensor::<4>::zeros([1, 1, 8, 8], &device) + f32::NAN;
    let error = neighbours.kneighbors(&broken, 1).unwrap_err().to_string();
    assert!(
        error.contains("`images` is values with a product of NaN"),
        "{error}"
    );
    let error = neighbours
        .kneighbors(&Tensor::zeros([1, 1, 8, 8], &device), 6)
        .unwrap_err()
        .to_string();
    assert!(error.contains("`k` is 6, expected 1 to 5"), "{error}");
}
