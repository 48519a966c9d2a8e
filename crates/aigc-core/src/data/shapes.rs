//! 24,576 grey images of simple shapes, 32×32, drawn from six independent factors.
//!
//! The images are those of a data set for measures of disentanglement, such as dSprites (Matthey et
//! al. 2017): every combination of the factors is one image, so the factors are independent and all
//! their values are equally frequent. They are drawn when they are read; nothing is downloaded.
//!
//! | factor | values | meaning |
//! |---|---|---|
//! | shape | 3 | square, ellipse with axes 2:1, equilateral triangle; the class of the image |
//! | size | 4 | radius of the circumscribed circle: 4, 5, 6, 7 pixels |
//! | orientation | 8 | turned by 0° to 78.75°, in steps of 11.25° |
//! | x | 8 | column of the centre: 9, 11, …, 23 pixels from the left |
//! | y | 8 | row of the centre: 9, 11, …, 23 pixels from the top |
//! | brightness | 4 | 0.25, 0.5, 0.75, 1 on black |
//!
//! All images differ, because no shape has a symmetry below 90°, and no shape touches the border.

use super::{Dataset, Image, ImageShape};
use crate::Result;
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_PI_2};

/// Shape of an image.
pub const SHAPE: ImageShape = ImageShape::new(1, 32, 32);
/// Names of the factors.
pub const FACTORS: [&str; 6] = ["shape", "size", "orientation", "x", "y", "brightness"];
/// Number of values of each factor.
pub const NUM_VALUES: [usize; 6] = [3, 4, 8, 8, 8, 4];
/// Number of images, the product of [`NUM_VALUES`].
pub const LEN: usize = 24_576;

/// Samples of a pixel along each side, whose mean is its value.
const SAMPLES: usize = 8;

/// The data set. Image `index` has the factors [`factors(index)`](factors) and, as its label, the
/// number of its shape.
///
/// ```
/// use aigc_core::data::{Dataset, shapes};
///
/// # fn main() -> aigc_core::Result<()> {
/// let image = shapes::Shapes.get(shapes::index([1, 3, 0, 2, 5, 3]))?;
/// assert_eq!(image.label, Some(1));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Shapes;

impl Dataset for Shapes {
    type Item = Image;

    fn len(&self) -> usize {
        LEN
    }

    fn get(&self, index: usize) -> Result<Image> {
        Ok(draw(factors(index)))
    }
}

/// The factors of image `index`, in the order of [`FACTORS`]; the last varies fastest.
///
/// # Panics
/// If `index` is not below [`LEN`].
pub fn factors(index: usize) -> [usize; 6] {
    assert!(index < LEN, "image {index} of {LEN}");
    let (mut factors, mut rest) = ([0; 6], index);
    for (factor, count) in factors.iter_mut().zip(NUM_VALUES).rev() {
        (*factor, rest) = (rest % count, rest / count);
    }
    factors
}

/// The index of the image with these factors.
///
/// # Panics
/// If a factor is not below its number of values.
pub fn index(factors: [usize; 6]) -> usize {
    check(factors);
    let digits = factors.into_iter().zip(NUM_VALUES);
    digits.fold(0, |index, (factor, count)| index * count + factor)
}

/// Draws the image with these factors. The value of a pixel is the part of it that the shape
/// covers, by 8×8 samples, times the brightness.
///
/// # Panics
/// If a factor is not below its number of values.
pub fn draw(factors: [usize; 6]) -> Image {
    check(factors);
    let [shape, size, orientation, x, y, brightness] = factors;
    let radius = (4 + size) as f64;
    let centre = [x, y].map(|step| 9.0 + 2.0 * step as f64);
    let (sin, cos) = (FRAC_PI_2 * orientation as f64 / 8.0).sin_cos();
    let covers = |pixel: [usize; 2]| {
        let at = |axis: usize, sample: usize| {
            pixel[axis] as f64 + (sample as f64 + 0.5) / SAMPLES as f64 - centre[axis]
        };
        if (0..2).any(|axis| at(axis, 0) > radius || at(axis, SAMPLES - 1) < -radius) {
            return 0;
        }
        let samples = (0..SAMPLES * SAMPLES).filter(|sample| {
            let (dx, dy) = (at(0, sample % SAMPLES), at(1, sample / SAMPLES));
            let (u, v) = (dx * cos + dy * sin, dy * cos - dx * sin);
            is_inside(shape, u / radius, v / radius)
        });
        samples.count()
    };
    let level = 255.0 * (1 + brightness) as f64 / 4.0 / (SAMPLES * SAMPLES) as f64;
    let pixels = (0..SHAPE.numel()).map(|pixel| {
        let covered = covers([pixel % SHAPE.width, pixel / SHAPE.width]);
        (level * covered as f64).round() as u8
    });
    Image {
        shape: SHAPE,
        pixels: pixels.collect(),
        label: Some(shape as u32),
    }
}

/// Whether a point is inside a shape whose circumscribed circle is the unit circle.
fn is_inside(shape: usize, u: f64, v: f64) -> bool {
    match shape {
        0 => u.abs().max(v.abs()) <= FRAC_1_SQRT_2,
        1 => u * u + 4.0 * v * v <= 1.0,
        // The three sides are half a radius from the centre.
        _ => {
            let slanted = 0.75f64.sqrt() * u.abs() - 0.5 * v;
            v <= 0.5 && slanted <= 0.5
        }
    }
}

fn check(factors: [usize; 6]) {
    for ((name, factor), count) in FACTORS.iter().zip(factors).zip(NUM_VALUES) {
        assert!(factor < count, "{name} {factor} of {count}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::HashSet, f64::consts::PI};

    #[test]
    fn index_and_factors_are_inverse() {
        assert_eq!(NUM_VALUES.iter().product::<usize>(), LEN);
        assert_eq!(Shapes.len(), LEN);
        let mut seen = HashSet::new();
        for image in 0..LEN {
            let values = factors(image);
            assert_eq!(index(values), image);
            assert!(seen.insert(values));
        }
        assert_eq!(factors(0), [0; 6]);
        assert_eq!(factors(LEN - 1), [2, 3, 7, 7, 7, 3]);
    }

    /// Square: `2r²`; ellipse: `πr²/2`; triangle: `3√3/4·r²`. Samples 1/8 pixel apart place each
    /// side of a small upright square wrong by up to 1/16 pixel, which is 4 % of its area.
    #[test]
    fn covered_area_is_that_of_the_shape() {
        for (shape, area) in [2.0, PI / 2.0, 0.75 * 3.0f64.sqrt()]
            .into_iter()
            .enumerate()
        {
            for size in 0..4 {
                for orientation in 0..8 {
                    let image = draw([shape, size, orientation, 1, 6, 3]);
                    let sum: f64 = image.pixels.iter().map(|p| f64::from(*p) / 255.0).sum();
                    let expected = area * ((4 + size) as f64).powi(2);
                    let error = (sum / expected - 1.0).abs();
                    assert!(
                        error < 0.04,
                        "{shape} {size} {orientation}: {sum} {expected}"
                    );
                }
            }
        }
    }

    /// The centre is covered entirely, the border not at all.
    #[test]
    fn values_are_from_zero_to_brightness() {
        for image in (0..LEN).step_by(37) {
            let [shape, _, orientation, x, y, brightness] = factors(image);
            let pixels = Shapes.get(image).unwrap().pixels;
            let full = (255.0 * (1 + brightness) as f64 / 4.0).round() as u8;
            assert_eq!(pixels.len(), 32 * 32);
            assert_eq!(*pixels.iter().max().unwrap(), full);
            for (dx, dy) in [(8, 8), (9, 8), (8, 9), (9, 9)] {
                assert_eq!(pixels[(dy + 2 * y) * 32 + dx + 2 * x], full);
            }
            let border = (0..32).flat_map(|i| [i, 31 * 32 + i, 32 * i, 32 * i + 31]);
            assert!(border.into_iter().all(|pixel| pixels[pixel] == 0));
            // Anti-aliased edges, except that those of an upright square may lie between pixels.
            let upright = shape == 0 && orientation == 0;
            assert!(
                upright || pixels.iter().any(|pixel| (1..full).contains(pixel)),
                "{image}"
            );
        }
    }

    #[test]
    fn a_step_of_x_or_y_moves_the_image_by_two_pixels() {
        for values in [[0, 0, 1, 3, 4, 3], [1, 2, 5, 0, 0, 1], [2, 3, 7, 6, 6, 2]] {
            let [pixels, right, down] = [(0, 0), (1, 0), (0, 1)].map(|(x, y)| {
                let mut values = values;
                values[3] += x;
                values[4] += y;
                draw(values).pixels
            });
            for row in 0..30 {
                for column in 0..30 {
                    let value = pixels[row * 32 + column];
                    assert_eq!(right[row * 32 + column + 2], value);
                    assert_eq!(down[(row + 2) * 32 + column], value);
                }
            }
            assert_ne!(pixels, right);
        }
    }

    #[test]
    fn images_of_other_factors_differ() {
        let mut seen = HashSet::new();
        for shape in 0..3 {
            for size in 0..4 {
                for orientation in 0..8 {
                    for brightness in 0..4 {
                        let image = draw([shape, size, orientation, 4, 4, brightness]);
                        assert!(seen.insert(image.pixels));
                    }
                }
            }
        }
        assert_eq!(seen.len(), 384);
    }
}
