//! Images as files: read without any change of their pixels, and in the formats that are compared.

use crate::name;
use aigc_core::data::{Image, ImageShape};
use anyhow::{Context, Result, bail};
use image::{
    ColorType, DynamicImage, ExtendedColorType, ImageEncoder, ImageReader,
    codecs::{
        png::{CompressionType, FilterType, PngEncoder},
        webp::WebPEncoder,
    },
};
use std::path::Path;

/// Reads an image of `shape`. Unlike images to train on, it is neither resized nor converted: it
/// would not be restored from a smaller or grey one.
pub(crate) fn read(path: &Path, shape: ImageShape) -> Result<Image> {
    let picture = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .with_context(|| name(path))?
        .decode()
        .with_context(|| name(path))?;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    if (height, width) != (shape.height, shape.width) {
        bail!(
            "{}: {height}×{width} pixels, expected {}×{}, the size of the model's images",
            path.display(),
            shape.height,
            shape.width
        );
    }
    let channels = match (picture.color(), shape.channels) {
        (ColorType::L8, 1) => vec![picture.to_luma8().into_raw()],
        (ColorType::L8 | ColorType::Rgb8, 1 | 3) => planes(&picture),
        (color, _) => bail!(
            "{}: {color:?} pixels, expected 8-bit grey or RGB without transparency",
            path.display()
        ),
    };
    if shape.channels == 1 && channels.iter().any(|channel| *channel != channels[0]) {
        bail!(
            "{}: a colour image; those of the model are grey",
            path.display()
        );
    }
    Ok(Image {
        shape,
        pixels: channels[..shape.channels].concat(),
        label: None,
    })
}

/// The red, green and blue values.
fn planes(picture: &DynamicImage) -> Vec<Vec<u8>> {
    let pixels = picture.to_rgb8();
    (0..3)
        .map(|channel| pixels.pixels().map(|pixel| pixel[channel]).collect())
        .collect()
}

/// Writes an image in the format that the name of the file ends in.
pub(crate) fn write(image: &Image, path: &Path) -> Result<()> {
    let (width, height) = (image.shape.width as u32, image.shape.height as u32);
    let pixels = interleaved(image);
    image::save_buffer(path, &pixels, width, height, color(image)?).with_context(|| name(path))
}

/// The size of images as PNG files with the strongest compression, one each.
pub(crate) fn png_sizes(images: &[Image]) -> Result<usize> {
    images.iter().map(png_size).sum()
}

/// The size of images as lossless WebP files, one each.
pub(crate) fn webp_sizes(images: &[Image]) -> Result<usize> {
    images.iter().map(webp_size).sum()
}

fn png_size(image: &Image) -> Result<usize> {
    let mut bytes = Vec::new();
    let encoder =
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive);
    let (width, height) = (image.shape.width as u32, image.shape.height as u32);
    encoder.write_image(&interleaved(image), width, height, color(image)?)?;
    Ok(bytes.len())
}

fn webp_size(image: &Image) -> Result<usize> {
    let mut bytes = Vec::new();
    let (width, height) = (image.shape.width as u32, image.shape.height as u32);
    WebPEncoder::new_lossless(&mut bytes).encode(
        &interleaved(image),
        width,
        height,
        color(image)?,
    )?;
    Ok(bytes.len())
}

fn color(image: &Image) -> Result<ExtendedColorType> {
    match image.shape.channels {
        1 => Ok(ExtendedColorType::L8),
        3 => Ok(ExtendedColorType::Rgb8),
        channels => bail!("{channels} channels, expected 1 (grey) or 3 (RGB)"),
    }
}

/// The pixels one after the other, each with all its channels.
fn interleaved(image: &Image) -> Vec<u8> {
    let area = image.shape.height * image.shape.width;
    let pixel = |at: usize| (0..image.shape.channels).map(move |c| image.pixels[c * area + at]);
    (0..area).flat_map(pixel).collect()
}
