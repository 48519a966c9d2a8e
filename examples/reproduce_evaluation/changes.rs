//! What happens to images on their way: shifts, flips, compression, noise, blur.

use aigc_core::{
    Error, Result,
    data::{Image, ImageShape},
    rng::Rng,
};
use image::{ExtendedColorType, GrayImage, ImageFormat, codecs::jpeg::JpegEncoder, imageops};

/// Displacements by a pixel, down and to the right.
const DIRECTIONS: [(isize, isize); 8] = [
    (-1, -1),
    (-1, 0),
    (-1, 1),
    (0, -1),
    (0, 1),
    (1, -1),
    (1, 0),
    (1, 1),
];

/// Shifted by a pixel in direction `i` of eight, in turn; pixels at the border are repeated.
pub(crate) fn shifted(i: usize, image: &Image) -> Image {
    let (down, right) = DIRECTIONS[i % DIRECTIONS.len()];
    let ImageShape { height, width, .. } = image.shape;
    let inside = |at: usize, by: isize, size: usize| {
        at.saturating_add_signed(-by).min(size.saturating_sub(1))
    };
    mapped(image, |y, x| {
        (inside(y, down, height), inside(x, right, width))
    })
}

/// Mirrored horizontally.
pub(crate) fn flipped(image: &Image) -> Image {
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

/// Encoded as JPEG of `quality` and decoded.
///
/// # Errors
/// [`Error::Other`] if the encoder fails.
pub(crate) fn reencoded(image: &Image, quality: u8) -> Result<Image> {
    let ImageShape {
        channels,
        height,
        width,
    } = image.shape;
    let area = height * width;
    let interleaved: Vec<u8> = (0..area * channels)
        .map(|i| image.pixels[i % channels * area + i / channels])
        .collect();
    let color = if channels == 1 {
        ExtendedColorType::L8
    } else {
        ExtendedColorType::Rgb8
    };
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality)
        .encode(&interleaved, width as u32, height as u32, color)
        .map_err(Error::other)?;
    let decoded =
        image::load_from_memory_with_format(&bytes, ImageFormat::Jpeg).map_err(Error::other)?;
    let decoded = if channels == 1 {
        decoded.into_luma8().into_raw()
    } else {
        decoded.into_rgb8().into_raw()
    };
    Ok(Image {
        pixels: (0..area * channels)
            .map(|i| decoded[i % area * channels + i / area])
            .collect(),
        ..image.clone()
    })
}

/// With normal noise of standard deviation `sigma`, relative to the range of values.
pub(crate) fn noisy(image: &Image, sigma: f32, rng: &mut Rng) -> Image {
    let noise = rng.normal_vec(image.pixels.len());
    let add = |(value, noise): (&u8, f32)| {
        let value = f32::from(*value) + 255.0 * sigma * noise;
        value.round().clamp(0.0, 255.0) as u8
    };
    Image {
        pixels: image.pixels.iter().zip(noise).map(add).collect(),
        ..image.clone()
    }
}

/// Blurred with a Gaussian of standard deviation `sigma` in pixels.
pub(crate) fn blurred(image: &Image, sigma: f32) -> Image {
    let ImageShape { height, width, .. } = image.shape;
    let planes = image.pixels.chunks_exact(height * width);
    let blur = |plane: &[u8]| {
        let plane = GrayImage::from_raw(width as u32, height as u32, plane.to_vec());
        imageops::blur(&plane.expect("a plane has its size"), sigma).into_raw()
    };
    Image {
        pixels: planes.flat_map(blur).collect(),
        ..image.clone()
    }
}
