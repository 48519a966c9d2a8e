//! An invisible watermark for generated images.
//!
//! The mark lies in the signs of cosine coefficients of the whole image: the secret key draws a
//! random sign for each frequency, and [`embed`](Watermark::embed) moves coefficients to that sign,
//! the cheapest first. [`detect`](Watermark::detect) needs the key and the image, but not the
//! original: it counts the signs that agree. As a key agrees with an image that it did not mark by
//! coin flips, the count has exactly a binomial distribution, whatever the image, and its tail is
//! the probability of a false positive.
//!
//! Low frequencies of the whole image survive compression and resizing (Cox et al. 1997,
//! <https://doi.org/10.1109/83.650120>). Detection without the original is that of Barni et al.
//! 1998 (<https://doi.org/10.1016/S0165-1684(98)00015-2>), with signs in place of values, which
//! brightness and contrast do not change. Changes are spread to where the image has texture.

mod batch;
mod binomial;
mod texture;
mod transform;

use crate::{
    Error, Result,
    check::ensure_argument,
    data::{Image, ImageShape},
    rng::Rng,
};
use binomial::upper_tail;
use texture::texture;
use transform::{LowFrequencies, SIDE};

/// Radii of the rings of frequencies that can carry a mark, in half periods per image. Each ring
/// begins at an eighth of its radius. Images are marked in one ring by their size; the detector,
/// which does not know the size at marking, tries all that fit.
const RINGS: [usize; 4] = [24, 32, 64, 128];

/// Coefficients of the wrong sign are moved if their magnitude is at most this multiple of the
/// magnitude that marked coefficients get: larger ones would cost more than they add.
const REACH: f64 = 2.0;

/// Rounds of marking: each makes up for what the texture and the range of values took before.
const ROUNDS: usize = 3;

/// An invisible watermark with a secret key. It tells that an image was marked with this key, and
/// carries no other data.
///
/// ```
/// use aigc_core::{data::{Image, ImageShape}, output::Watermark};
///
/// # fn main() -> aigc_core::Result<()> {
/// let shape = ImageShape::new(1, 96, 128);
/// let pixels = (0..shape.numel()).map(|i| (60 + i % 128) as u8).collect();
/// let mut image = Image { shape, pixels, label: None };
/// let watermark = Watermark::from_phrase("a secret of my studio");
/// assert!(!watermark.detect(&image)?.present);
/// watermark.embed(&mut image)?;
/// assert!(watermark.detect(&image)?.present);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Watermark {
    /// Whether the coefficient of each frequency is to be positive, `[SIDE, SIDE]`.
    signs: Vec<bool>,
    psnr: f64,
    false_positive_rate: f64,
}

// The signs are as secret as the key.
impl std::fmt::Debug for Watermark {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watermark")
            .field("psnr", &self.psnr)
            .field("false_positive_rate", &self.false_positive_rate)
            .finish_non_exhaustive()
    }
}

/// The result of the search for a watermark in an image.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Detection {
    /// Whether the mark was found: the p-value is at most the false-positive rate.
    pub present: bool,
    /// Probability that a random key, with which the image was not marked, has at least this
    /// agreement; corrected for the number of rings tried.
    pub p_value: f64,
    /// Agreement of the signs in standard deviations from that of a random key, in the ring where
    /// it is largest.
    pub z: f64,
}

impl Watermark {
    /// Shortest side of an image that can be marked, in pixels. From 256 pixels the mark survives
    /// resizing to half the size and JPEG compression together; in smaller images it survives each
    /// of them, in most images.
    pub const MIN_SIDE: usize = 64;
    /// Shortest side of an image that a mark can be searched in, in pixels.
    pub const MIN_DETECTED_SIDE: usize = 32;

    /// The watermark of `key`. Keys are secrets: who knows one can remove its mark, or forge it.
    pub fn new(key: u64) -> Self {
        Self::drawn(Rng::stream(key, "watermark", 0))
    }

    /// The watermark whose key is derived from `phrase`.
    pub fn from_phrase(phrase: &str) -> Self {
        Self::drawn(Rng::stream(0, &format!("watermark/{phrase}"), 0))
    }

    fn drawn(mut rng: Rng) -> Self {
        let words = (0..SIDE * SIDE / 64).map(|_| rng.next_u64());
        Self {
            signs: words
                .flat_map(|word| (0..64).map(move |bit| (word >> bit) & 1 == 1))
                .collect(),
            psnr: 40.0,
            false_positive_rate: 1e-6,
        }
    }

    /// Sets the similarity of marked images to their originals, as peak signal-to-noise ratio in
    /// decibels (30 to 50, 40 by default). More is less visible and less robust.
    #[must_use]
    pub fn with_psnr(mut self, decibels: f64) -> Self {
        self.psnr = decibels;
        self
    }

    /// Sets the probability of finding the mark in an image that does not have it (1e-6 by
    /// default).
    #[must_use]
    pub fn with_false_positive_rate(mut self, rate: f64) -> Self {
        self.false_positive_rate = rate;
        self
    }

    /// Marks `image`, grey or RGB. Where an image is saturated, as in large areas of pure white,
    /// the mark is weaker: [`detect`](Self::detect) tells how strong it became.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the image has neither 1 nor 3 channels, is smaller than
    /// [`MIN_SIDE`](Self::MIN_SIDE), or does not have the pixels of its shape, or the peak
    /// signal-to-noise ratio is out of range.
    pub fn embed(&self, image: &mut Image) -> Result<()> {
        let values = values(image, Self::MIN_SIDE)?;
        let marked = self.mark(&values, image.shape)?;
        image.pixels = marked.iter().map(|value| value.round() as u8).collect();
        Ok(())
    }

    /// Searches the mark in `image`, which may have been marked at another size.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the image has neither 1 nor 3 channels, is smaller than
    /// [`MIN_DETECTED_SIDE`](Self::MIN_DETECTED_SIDE), or does not have the pixels of its shape, or
    /// the false-positive rate is out of range.
    pub fn detect(&self, image: &Image) -> Result<Detection> {
        self.search(&values(image, Self::MIN_DETECTED_SIDE)?, image.shape)
    }

    /// The marked image of `original`, with values from 0 to 255.
    fn mark(&self, original: &[f32], shape: ImageShape) -> Result<Vec<f32>> {
        ensure_argument(
            (30.0..=50.0).contains(&self.psnr),
            "psnr",
            self.psnr,
            "30 to 50 decibels",
        )?;
        let ImageShape { height, width, .. } = shape;
        let shorter = height.min(width);
        let radius = match shorter {
            512.. => 128,
            256.. => 64,
            128.. => 32,
            _ => 24,
        };
        let plane = luma(original, shape);
        let texture = texture(&plane, width);
        let transform = LowFrequencies::new(height, width);
        let first = transform.forward(&plane);
        let energy = (height * width) as f64 * 255f64.powi(2) / 10f64.powf(self.psnr / 10.0);
        let goals = self.goals(&first, &ring(radius, height, width), energy);

        let mut change = vec![0.0; height * width];
        let mut marked = original.to_vec();
        let mut coefficients = first;
        for round in 0..ROUNDS {
            let mut missing = vec![0.0; SIDE * SIDE];
            for (index, goal) in &goals {
                let lack = goal - coefficients[*index];
                if round == 0 || (lack > 0.0) == self.signs[*index] {
                    missing[*index] = lack;
                }
            }
            let step = transform.inverse(&missing);
            for ((change, step), texture) in change.iter_mut().zip(&step).zip(&texture) {
                *change += step * texture;
            }
            let spent = add_clamped(&mut marked, original, &change);
            if spent > energy {
                let factor = (energy / spent).sqrt() as f32;
                change.iter_mut().for_each(|x| *x *= factor);
                add_clamped(&mut marked, original, &change);
            }
            if round + 1 < ROUNDS {
                coefficients = transform.forward(&luma(&marked, shape));
            }
        }
        Ok(marked)
    }

    /// The coefficients to move, and their new values: all within a distance of the wanted sign
    /// get one magnitude, the largest that `energy`, a sum of squared changes, affords.
    fn goals(&self, coefficients: &[f32], ring: &[usize], energy: f64) -> Vec<(usize, f32)> {
        // Towards the wanted sign.
        let aligned = |index: usize| {
            let value = f64::from(coefficients[index]);
            if self.signs[index] { value } else { -value }
        };
        let moves = |magnitude: f64| {
            let each = ring.iter().map(move |index| (*index, aligned(*index)));
            each.filter(move |(_, value)| *value > -REACH * magnitude && *value < magnitude)
        };
        let (mut low, mut high) = (0.0, energy.sqrt());
        for _ in 0..40 {
            let magnitude = 0.5 * (low + high);
            let cost: f64 = moves(magnitude)
                .map(|(_, value)| (magnitude - value).powi(2))
                .sum();
            if cost > energy {
                high = magnitude;
            } else {
                low = magnitude;
            }
        }
        moves(low)
            .map(|(index, _)| {
                let goal = if self.signs[index] { low } else { -low };
                (index, goal as f32)
            })
            .collect()
    }

    /// Searches the mark in values from 0 to 255.
    fn search(&self, image: &[f32], shape: ImageShape) -> Result<Detection> {
        let ImageShape { height, width, .. } = shape;
        let coefficients = LowFrequencies::new(height, width).forward(&luma(image, shape));
        self.search_coefficients(&coefficients, height, width)
    }

    fn search_coefficients(
        &self,
        coefficients: &[f32],
        height: usize,
        width: usize,
    ) -> Result<Detection> {
        let rate = self.false_positive_rate;
        ensure_argument(
            rate > 0.0 && rate < 1.0,
            "false_positive_rate",
            rate,
            "above 0 and below 1",
        )?;
        let fitting = RINGS.iter().filter(|ring| **ring <= height.min(width));
        let mut tried = 0;
        let mut best = (1.0, f64::NEG_INFINITY);
        for radius in fitting {
            tried += 1;
            let ring = ring(*radius, height, width);
            let agreeing = ring
                .iter()
                .filter(|index| (coefficients[**index] > 0.0) == self.signs[**index])
                .count();
            let n = ring.len() as f64;
            let z = (2.0 * agreeing as f64 - n) / n.sqrt();
            let p = upper_tail(ring.len(), agreeing);
            // Among the smallest p-values, which round to 0, z decides.
            if p < best.0 || (p == best.0 && z > best.1) {
                best = (p, z);
            }
        }
        let p_value = (best.0 * f64::from(tried)).min(1.0);
        Ok(Detection {
            present: p_value <= rate,
            p_value,
            z: best.1,
        })
    }
}

/// Sets `marked` to `original` with `change` added to each channel, within 0 to 255. Returns the
/// mean over channels of the sum of squared changes.
fn add_clamped(marked: &mut [f32], original: &[f32], change: &[f32]) -> f64 {
    let mut spent = 0.0;
    let planes = marked.chunks_exact_mut(change.len());
    for (marked, original) in planes.zip(original.chunks_exact(change.len())) {
        for ((marked, original), change) in marked.iter_mut().zip(original).zip(change) {
            *marked = (original + change).clamp(0.0, 255.0);
            spent += f64::from(*marked - original).powi(2);
        }
    }
    spent * change.len() as f64 / original.len() as f64
}

/// Indices of the coefficients of a ring that an image of this size has.
fn ring(radius: usize, height: usize, width: usize) -> Vec<usize> {
    let squares = (radius * radius).div_ceil(64)..radius * radius;
    let side = radius.min(SIDE);
    let rows = (0..side.min(height)).flat_map(|u| (0..side.min(width)).map(move |v| (u, v)));
    rows.filter(|(u, v)| squares.contains(&(u * u + v * v)))
        .map(|(u, v)| u * SIDE + v)
        .collect()
}

fn check_size(shape: ImageShape, min_side: usize) -> Result<()> {
    ensure_argument(
        matches!(shape.channels, 1 | 3),
        "channels",
        shape.channels,
        "1 (grey) or 3 (RGB)",
    )?;
    ensure_argument(
        shape.height.min(shape.width) >= min_side,
        "image",
        format!("{}×{}", shape.height, shape.width),
        &format!("at least {min_side}×{min_side} pixels"),
    )
}

fn values(image: &Image, min_side: usize) -> Result<Vec<f32>> {
    check_size(image.shape, min_side)?;
    if image.pixels.len() != image.shape.numel() {
        return Err(Error::argument(
            "image",
            format!("{} values", image.pixels.len()),
            format!("{}, as its shape says", image.shape.numel()),
        ));
    }
    Ok(image.pixels.iter().map(|value| f32::from(*value)).collect())
}

/// Brightness around 0, `[height, width]`, with the weights of JPEG (ITU-R BT.601).
fn luma(values: &[f32], shape: ImageShape) -> Vec<f32> {
    let plane = shape.height * shape.width;
    if shape.channels == 1 {
        return values.iter().map(|value| value - 128.0).collect();
    }
    let (red, rest) = values.split_at(plane);
    let (green, blue) = rest.split_at(plane);
    let colours = red.iter().zip(green).zip(blue);
    colours
        .map(|((r, g), b)| 0.299 * r + 0.587 * g + 0.114 * b - 128.0)
        .collect()
}

#[cfg(test)]
mod tests;
