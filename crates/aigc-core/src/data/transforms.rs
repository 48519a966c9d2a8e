//! Changes of images: shifts, flips, compression, noise, blur.
//!
//! They are for tests of what has to withstand or to notice them: a search for copies, a watermark,
//! a measure of quality. All keep the shape and the label.
//!
//! ```
//! use aigc_core::data::{Image, ImageShape, transforms};
//!
//! # fn main() -> aigc_core::Result<()> {
//! let shape = ImageShape::new(1, 16, 16);
//! let pixels = (0..shape.numel()).map(|i| (i % 16 * 16) as u8).collect();
//! let image = Image { shape, pixels, label: None };
//! let copy = transforms::jpeg(&transforms::horizontal_flip(&image)?, 75)?;
//! assert_eq!(copy.shape, shape);
//! # Ok(()) }
//! ```

use super::{Image, ImageShape, interleaved::area};
use crate::{Error, Result, check::ensure_argument, rng::Rng};
use image::{ExtendedColorType, GrayImage, ImageFormat, codecs::jpeg::JpegEncoder, imageops};

/// Translates an image by a number of pixels, down and to the right; negative values up and left.
/// Pixels at the border are repeated.
///
/// # Errors
/// [`Error::InvalidArgument`] if the image does not have the pixels of its shape.
pub fn shift(image: &Image, down: isize, right: isize) -> Result<Image> {
    let ImageShape { height, width, .. } = image.shape;
    // Displacements of the whole side and more repeat the border everywhere.
    let source = |at: usize, by: isize, side: usize| match by {
        0.. => at.saturating_sub(by.unsigned_abs()),
        _ => at.saturating_add(by.unsigned_abs()).min(side - 1),
    };
    mapped(image, |y, x| {
        (source(y, down, height), source(x, right, width))
    })
}

/// Mirrored: left becomes right.
///
/// # Errors
/// As [`shift`].
pub fn horizontal_flip(image: &Image) -> Result<Image> {
    mapped(image, |y, x| (y, image.shape.width - 1 - x))
}

/// An image whose pixel (y, x) is that at `source(y, x)`.
fn mapped(image: &Image, source: impl Fn(usize, usize) -> (usize, usize)) -> Result<Image> {
    let area = area(image.shape, &image.pixels)?;
    let width = image.shape.width;
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for plane in image.pixels.chunks_exact(area) {
        for i in 0..area {
            let (y, x) = source(i / width, i % width);
            pixels.push(plane[y * width + x]);
        }
    }
    Ok(Image { pixels, ..*image })
}

/// Encoded as JPEG and decoded. `quality` is from 1, the worst, to 100.
///
/// # Errors
/// [`Error::InvalidArgument`] if the image does not have the pixels of its shape, has neither 1 nor
/// 3 channels or a side of more than 65,535 pixels, or the quality is out of range;
/// [`Error::Other`] if it is too large for the decoder.
pub fn jpeg(image: &Image, quality: u8) -> Result<Image> {
    let ImageShape {
        channels,
        height,
        width,
    } = image.shape;
    let valid = (1..=100).contains(&quality);
    ensure_argument(valid, "quality", quality, "1 to 100")?;
    let color = match channels {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        _ => {
            let expected = "an image of 1 (grey) or 3 (RGB) channels";
            return Err(Error::argument("image", image.shape, expected));
        }
    };
    let values = image.interleaved()?;
    let longest = usize::from(u16::MAX);
    ensure_argument(
        height.max(width) <= longest,
        "image",
        image.shape,
        &format!("sides of at most {longest} pixels, as JPEG has them"),
    )?;
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode(&values, width as u32, height as u32, color)
        .map_err(Error::other)?;
    let decoded =
        image::load_from_memory_with_format(&bytes, ImageFormat::Jpeg).map_err(Error::other)?;
    let decoded = match channels {
        1 => decoded.into_luma8().into_raw(),
        _ => decoded.into_rgb8().into_raw(),
    };
    let label = image.label;
    let decoded = Image::from_interleaved(&decoded, image.shape)?;
    Ok(Image { label, ..decoded })
}

/// With normal noise of standard deviation `sigma`, relative to the range of values; rounded and
/// clamped.
///
/// # Errors
/// [`Error::InvalidArgument`] if the image does not have the pixels of its shape, or `sigma` is
/// negative or not finite.
pub fn gaussian_noise(image: &Image, sigma: f32, rng: &mut Rng) -> Result<Image> {
    area(image.shape, &image.pixels)?;
    let valid = sigma >= 0.0 && sigma.is_finite();
    ensure_argument(valid, "sigma", sigma, "a finite number, 0 or above")?;
    let noise = rng.normal_vec(image.pixels.len());
    let add = |(value, noise): (&u8, f32)| {
        let value = f32::from(*value) + 255.0 * sigma * noise;
        value.round().clamp(0.0, 255.0) as u8
    };
    let pixels = image.pixels.iter().zip(noise).map(add).collect();
    Ok(Image { pixels, ..*image })
}

/// Blurred with a Gaussian of standard deviation `sigma` in pixels; 0 leaves the image as it is.
///
/// # Errors
/// [`Error::InvalidArgument`] if the image does not have the pixels of its shape, a side has 2³²
/// pixels or more, or `sigma` is negative, larger than the longer side, or not a number.
pub fn gaussian_blur(image: &Image, sigma: f32) -> Result<Image> {
    let area = area(image.shape, &image.pixels)?;
    let ImageShape { height, width, .. } = image.shape;
    // The kernel grows with it, and larger ones leave little more than the mean.
    let most = height.max(width) as f32;
    ensure_argument(
        (0.0..=most).contains(&sigma),
        "sigma",
        sigma,
        &format!("0 to {most}, the longer side of the image"),
    )?;
    // Subnormal ones, too: the kernel would not be finite.
    if sigma < f32::MIN_POSITIVE {
        return Ok(image.clone());
    }
    let mut pixels = Vec::with_capacity(image.pixels.len());
    for plane in image.pixels.chunks_exact(area) {
        let sides = u32::try_from(width).ok().zip(u32::try_from(height).ok());
        let plane = sides.and_then(|(w, h)| GrayImage::from_raw(w, h, plane.to_vec()));
        let Some(plane) = plane else {
            let expected = "sides of fewer than 2³² pixels";
            return Err(Error::argument("image", image.shape, expected));
        };
        pixels.extend(imageops::blur(&plane, sigma).into_raw());
    }
    Ok(Image { pixels, ..*image })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(channels: usize) -> Image {
        let shape = ImageShape::new(channels, 20, 24);
        let value = |i: usize| (128.0 + 100.0 * (i as f32 * 0.02).sin()) as u8;
        Image {
            shape,
            pixels: (0..shape.numel()).map(value).collect(),
            label: Some(3),
        }
    }

    fn moments(pixels: &[u8]) -> (f64, f64) {
        let n = pixels.len() as f64;
        let mean = pixels.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let squares = pixels.iter().map(|x| (f64::from(*x) - mean).powi(2));
        (mean, (squares.sum::<f64>() / n).sqrt())
    }

    #[test]
    fn pixels_move_and_borders_are_repeated() {
        let small = Image {
            shape: ImageShape::new(2, 2, 3),
            pixels: vec![1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60],
            label: Some(7),
        };
        let flipped = horizontal_flip(&small).unwrap();
        assert_eq!(flipped.pixels, [3, 2, 1, 6, 5, 4, 30, 20, 10, 60, 50, 40]);
        assert_eq!((flipped.shape, flipped.label), (small.shape, Some(7)));
        assert_eq!(horizontal_flip(&flipped).unwrap(), small);
        let shifted = |down, right| shift(&small, down, right).unwrap().pixels[..6].to_vec();
        assert_eq!(shifted(1, 0), [1, 2, 3, 1, 2, 3]);
        assert_eq!(shifted(0, 1), [1, 1, 2, 4, 4, 5]);
        assert_eq!(shifted(-1, -1), [5, 6, 6, 5, 6, 6]);
        assert_eq!(shifted(isize::MIN, isize::MAX), [4; 6]);
        assert_eq!(shift(&small, 0, 0).unwrap(), small);
    }

    #[test]
    fn compression_keeps_most_of_the_image() {
        for channels in [1, 3] {
            let image = image(channels);
            let error = |quality| {
                let found = jpeg(&image, quality).unwrap();
                assert_eq!((found.shape, found.label), (image.shape, image.label));
                let pairs = found.pixels.iter().zip(&image.pixels);
                let differences = pairs.map(|(a, b)| f64::from(a.abs_diff(*b)));
                differences.sum::<f64>() / found.pixels.len() as f64
            };
            let (good, poor) = (error(95), error(5));
            assert!(good < 4.0 && good < poor, "{good} {poor}");
        }
    }

    #[test]
    fn noise_adds_and_blur_removes_variance() {
        let grey = Image {
            shape: ImageShape::new(1, 64, 64),
            pixels: vec![128; 64 * 64],
            label: None,
        };
        let noisy = gaussian_noise(&grey, 0.1, &mut Rng::new(0)).unwrap();
        let (mean, deviation) = moments(&noisy.pixels);
        assert!((mean - 128.0).abs() < 2.0, "{mean}");
        assert!((deviation - 25.5).abs() < 1.5, "{deviation}");
        let blurred = gaussian_blur(&noisy, 1.0).unwrap();
        let (blurred_mean, after) = moments(&blurred.pixels);
        assert!((blurred_mean - mean).abs() < 1.0, "{blurred_mean} {mean}");
        // A Gaussian over white noise leaves 1 / (2 √π σ) of its deviation.
        let expected = deviation / (2.0 * std::f64::consts::PI.sqrt());
        assert!((after / expected - 1.0).abs() < 0.15, "{after} {expected}");
        let mut rng = Rng::new(0);
        assert_eq!(gaussian_noise(&noisy, 0.0, &mut rng).unwrap(), noisy);
        for sigma in [0.0, f32::MIN_POSITIVE / 2.0] {
            assert_eq!(gaussian_blur(&noisy, sigma).unwrap(), noisy);
        }
    }

    #[test]
    fn invalid_arguments_are_errors() {
        let good = image(1);
        let message = |found: Result<Image>| found.unwrap_err().to_string();
        assert_eq!(
            message(jpeg(&good, 0)),
            "argument `quality` is 0, expected 1 to 100"
        );
        assert!(message(jpeg(&image(2), 75)).contains("`image` is 2×20×24"));
        let long = Image {
            shape: ImageShape::new(1, 1, 70_000),
            pixels: vec![0; 70_000],
            label: None,
        };
        assert!(message(jpeg(&long, 75)).contains("at most 65535 pixels"));
        for sigma in [-1.0, f32::NAN, f32::INFINITY] {
            let noise = gaussian_noise(&good, sigma, &mut Rng::new(0));
            assert!(message(noise).contains("`sigma`"));
            assert!(message(gaussian_blur(&good, sigma)).contains("`sigma`"));
        }
        assert!(message(gaussian_blur(&good, 25.0)).contains("0 to 24"));
        let mut cut = good;
        cut.pixels.pop();
        for found in [
            shift(&cut, 1, 1),
            horizontal_flip(&cut),
            jpeg(&cut, 75),
            gaussian_noise(&cut, 0.1, &mut Rng::new(0)),
            gaussian_blur(&cut, 1.0),
        ] {
            assert!(message(found).contains("`pixels` is 479 values"));
        }
    }
}
