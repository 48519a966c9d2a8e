//! 1,797 real handwritten digits, 8×8, embedded in the crate.
//!
//! The test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI
//! Machine Learning Repository, 1998), CC BY 4.0; see NOTICES.md.

use super::{Image, ImageShape, InMemory};
use crate::rng::Rng;
use flate2::read::GzDecoder;
use std::io::Read;

/// Shape of a digit.
pub const SHAPE: ImageShape = ImageShape::new(1, 8, 8);
/// Number of digits that [`train_test_split`] holds out.
pub const TEST_LEN: usize = 297;

/// All 1,797 digits in the order of the source. The 17 grey levels 0 to 16 become 0 to 255.
pub fn load() -> InMemory<Image> {
    let mut text = String::new();
    GzDecoder::new(&include_bytes!("../../assets/digits.csv.gz")[..])
        .read_to_string(&mut text)
        .expect("the embedded file is complete");
    InMemory(text.lines().map(digit).collect())
}

/// The digits in two parts: 1,500 to train on and [`TEST_LEN`] to evaluate on, always the
/// same ones.
pub fn train_test_split() -> (InMemory<Image>, InMemory<Image>) {
    let digits = load().0;
    let order = Rng::stream(0, "digits/split", 0).permutation(digits.len());
    let mut train: Vec<Image> = order.into_iter().map(|i| digits[i].clone()).collect();
    let held_out = train.split_off(train.len() - TEST_LEN);
    (InMemory(train), InMemory(held_out))
}

fn digit(line: &str) -> Image {
    let mut values: Vec<u8> = line
        .split(',')
        .map(|v| v.parse().expect("the embedded file holds numbers"))
        .collect();
    let label = values.pop().map(u32::from);
    let pixels = values
        .into_iter()
        .map(|v| (f32::from(v) * 255.0 / 16.0).round() as u8)
        .collect();
    Image {
        shape: SHAPE,
        pixels,
        label,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn load_returns_all_digits() {
        let digits = load().0;
        assert_eq!(digits.len(), 1797);
        assert!(
            digits
                .iter()
                .all(|d| d.pixels.len() == 64 && d.label.unwrap() < 10)
        );
        // Counts per class as published with the data set.
        let counts: Vec<usize> = (0..10)
            .map(|c| digits.iter().filter(|d| d.label == Some(c)).count())
            .collect();
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    }

    #[test]
    fn train_test_split_covers_all_digits() {
        let (train, held_out) = train_test_split();
        assert_eq!((train.0.len(), held_out.0.len()), (1500, TEST_LEN));
        let distinct: HashSet<_> = train
            .0
            .iter()
            .chain(&held_out.0)
            .map(|d| &d.pixels)
            .collect();
        let in_all: HashSet<_> = HashSet::from_iter(load().0.into_iter().map(|d| d.pixels));
        assert_eq!(distinct.len(), in_all.len());
    }
}
