//! Pictures with axes: lines, ticks and short labels as pixels, so that a figure is one PNG.

use super::provenance::{Provenance, save_with_provenance};
use crate::{Error, Result, fs::write_atomic};
use image::{ImageFormat, Rgb, RgbImage};
use std::{io::Cursor, ops::Range, path::Path};

/// A finished figure: the bytes of a PNG file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Figure {
    png: Vec<u8>,
}

impl Figure {
    pub(super) fn new(picture: &RgbImage) -> Result<Self> {
        let mut bytes = Cursor::new(vec![]);
        picture
            .write_to(&mut bytes, ImageFormat::Png)
            .map_err(Error::other)?;
        Ok(Self {
            png: bytes.into_inner(),
        })
    }

    /// The bytes of a PNG file.
    pub fn png(&self) -> &[u8] {
        &self.png
    }

    /// Writes the figure.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        write_atomic(path, &self.png)
    }

    /// Writes the figure with a record of how its content was made.
    ///
    /// # Errors
    /// As for [`save_with_provenance`].
    pub fn save_with_provenance(&self, provenance: &Provenance, path: &Path) -> Result<()> {
        save_with_provenance(&self.png, provenance, path)
    }
}

pub(super) const INK: Rgb<u8> = Rgb([32, 32, 32]);
pub(super) const PAPER: Rgb<u8> = Rgb([255, 255, 255]);

/// Side of the square that a pixel of a letter is drawn as.
const SCALE: u32 = 2;
/// Width of a letter with its space, and height, in pixels.
const ADVANCE: u32 = 6 * SCALE;
pub(super) const TEXT_HEIGHT: u32 = 7 * SCALE;

/// Width of a text in pixels.
pub(super) fn text_width(text: &str) -> u32 {
    text.chars().count() as u32 * ADVANCE
}

/// Where a label is, seen from its point.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place {
    /// Right of it, centred on its height.
    Right,
    /// Left of it.
    Left,
    /// Below it.
    Below,
}

/// Writes a text at a point. What lies outside of the picture is cut off.
pub(super) fn label(picture: &mut RgbImage, (x, y): (u32, u32), text: &str, place: Place) {
    let (width, half) = (text_width(text) - SCALE, TEXT_HEIGHT / 2);
    let (left, top) = match place {
        Place::Right => (x, y.saturating_sub(half)),
        Place::Left => (x.saturating_sub(width), y.saturating_sub(half)),
        Place::Below => (x.saturating_sub(width / 2), y),
    };
    for (index, letter) in text.chars().enumerate() {
        let left = left + index as u32 * ADVANCE;
        for (row, bits) in glyph(letter).into_iter().enumerate() {
            for column in (0..5).filter(|column| (bits >> (4 - column)) & 1 == 1) {
                let (x, y) = (left + column * SCALE, top + row as u32 * SCALE);
                fill(picture, x..x + SCALE, y..y + SCALE, INK);
            }
        }
    }
}

/// Fills a rectangle. What lies outside of the picture is cut off.
pub(super) fn fill(picture: &mut RgbImage, x: Range<u32>, y: Range<u32>, colour: Rgb<u8>) {
    let (width, height) = picture.dimensions();
    for y in y.start..y.end.min(height) {
        for x in x.start..x.end.min(width) {
            picture.put_pixel(x, y, colour);
        }
    }
}

/// Round numbers in a range: at most `most` of them, multiples of 1, 2 or 5 times a power of ten.
pub(super) fn ticks(low: f64, high: f64, most: usize) -> Vec<f64> {
    let span = high - low;
    let has_ticks = span > 0.0 && span.is_finite() && most > 0;
    if !has_ticks {
        return vec![];
    }
    let rough = span / most as f64;
    let power = 10f64.powf(rough.log10().floor());
    let factors = [1.0, 2.0, 5.0, 10.0, 20.0];
    let fits = |step: &f64| (high / step).floor() - (low / step).ceil() < most as f64;
    let step = factors.map(|factor| factor * power).into_iter().find(fits);
    let Some(step) = step else {
        return vec![];
    };
    let first = (low / step).ceil() as i64;
    let last = (high / step).floor() as i64;
    (first..=last).map(|index| index as f64 * step).collect()
}

/// A number without zeros at its end, rounded to six decimal places.
pub(super) fn number(value: f64) -> String {
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    match text {
        "-0" => "0".into(),
        text => text.into(),
    }
}

/// A colour from dark to light: the map "magma" of matplotlib (public domain) by six of its
/// colours. Its lightness grows evenly, so that equal differences look equal.
pub(super) fn heat(share: f64) -> Rgb<u8> {
    const COLOURS: [[f64; 3]; 6] = [
        [0.0, 0.0, 4.0],
        [59.0, 15.0, 112.0],
        [140.0, 41.0, 129.0],
        [222.0, 73.0, 104.0],
        [254.0, 159.0, 109.0],
        [252.0, 253.0, 191.0],
    ];
    // NaN is the darkest.
    let share = if share > 0.0 { share.min(1.0) } else { 0.0 };
    let at = share * (COLOURS.len() - 1) as f64;
    let below = (at.floor() as usize).min(COLOURS.len() - 2);
    let part = at - below as f64;
    Rgb(std::array::from_fn(|channel| {
        let (low, high) = (COLOURS[below][channel], COLOURS[below + 1][channel]);
        (low + part * (high - low)).round() as u8
    }))
}

/// The seven rows of a letter, five bits each; a box for one that is missing.
fn glyph(letter: char) -> [u8; 7] {
    match letter {
        '0' => [14, 17, 19, 21, 25, 17, 14],
        '1' => [4, 12, 4, 4, 4, 4, 14],
        '2' => [14, 17, 1, 2, 4, 8, 31],
        '3' => [31, 2, 4, 2, 1, 17, 14],
        '4' => [2, 6, 10, 18, 31, 2, 2],
        '5' => [31, 16, 30, 1, 1, 17, 14],
        '6' => [6, 8, 16, 30, 17, 17, 14],
        '7' => [31, 1, 2, 4, 8, 8, 8],
        '8' => [14, 17, 17, 14, 17, 17, 14],
        '9' => [14, 17, 17, 15, 1, 2, 12],
        '-' => [0, 0, 0, 31, 0, 0, 0],
        '.' => [0, 0, 0, 0, 0, 12, 12],
        ' ' => [0; 7],
        'B' => [30, 17, 17, 30, 17, 17, 30],
        'C' => [14, 17, 16, 16, 16, 17, 14],
        'H' => [17, 17, 17, 31, 17, 17, 17],
        'd' => [1, 1, 13, 19, 17, 17, 15],
        'g' => [0, 15, 17, 17, 15, 1, 14],
        'k' => [16, 16, 18, 20, 24, 20, 18],
        'l' => [12, 4, 4, 4, 4, 4, 14],
        'n' => [0, 0, 22, 25, 17, 17, 17],
        'o' => [0, 0, 14, 17, 17, 17, 14],
        's' => [0, 0, 15, 16, 14, 1, 30],
        'z' => [0, 0, 31, 2, 4, 8, 31],
        _ => [31, 17, 17, 17, 17, 17, 31],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(ticks(0.0, 1.0, 5), [0.0, 0.5, 1.0]);
        assert_eq!(ticks(-80.0, 0.0, 6), [-80.0, -60.0, -40.0, -20.0, 0.0]);
        assert_eq!(ticks(0.3, 4.1, 4), [1.0, 2.0, 3.0, 4.0]);
        for (low, high) in [(1.0, 1.0), (0.0, f64::NAN), (0.0, f64::INFINITY)] {
            assert!(ticks(low, high, 4).is_empty());
        }
        for high in [1e-6, 0.37, 3.0, 9.99, 48_000.0] {
            let found = ticks(0.0, high, 6);
            assert!((2..=6).contains(&found.len()), "{high}: {found:?}");
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (2.0, "2"),
            (0.25, "0.25"),
            (0.0005, "0.0005"),
            (3.0 * 0.1, "0.3"),
            (-80.0, "-80"),
            (-1e-9, "0"),
            (100.0, "100"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn labels_are_where_they_belong() {
        let ink = |place| {
            let mut picture = RgbImage::from_pixel(60, 40, PAPER);
            label(&mut picture, (30, 20), "11", place);
            let dark = picture.enumerate_pixels().filter(|(_, _, p)| **p == INK);
            let points: Vec<(u32, u32)> = dark.map(|(x, y, _)| (x, y)).collect();
            let x = points.iter().map(|p| p.0);
            let y = points.iter().map(|p| p.1);
            (
                x.clone().min().unwrap()..x.max().unwrap() + 1,
                y.clone().min().unwrap()..y.max().unwrap() + 1,
            )
        };
        assert_eq!(ink(Place::Right), (32..50, 13..27));
        assert_eq!(ink(Place::Left), (10..28, 13..27));
        assert_eq!(ink(Place::Below), (21..39, 20..34));
        let mut tiny = RgbImage::new(3, 3);
        label(&mut tiny, (0, 0), "8888", Place::Right);
    }

    #[test]
    fn heat_gets_lighter() {
        let sum = |share| heat(share).0.iter().map(|v| u32::from(*v)).sum::<u32>();
        assert!((1..=50).all(|i| sum(i as f64 / 50.0) > sum((i - 1) as f64 / 50.0)));
        assert_eq!(heat(f64::NAN), heat(-1.0));
        assert_eq!(heat(7.0), Rgb([252, 253, 191]));
    }
}
