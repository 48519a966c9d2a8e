//! Images as files: read without any change of their pixels, and in the formats that are compared.

use crate::name;
use aigc_core::data::{Image, ImageShape, folder};
use anyhow::{Context, Result, anyhow, bail, ensure};
use image::{
    ColorType, DynamicImage, ExtendedColorType, ImageEncoder, ImageReader,
    codecs::{
        png::{CompressionType, FilterType, PngEncoder},
        webp::WebPEncoder,
    },
};
use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// The most memory that an image is decoded with.
const MAX_DECODED_BYTES: u64 = 1 << 30;

/// Reads an image of `shape`. Unlike images to train on, it is neither resized nor converted: it
/// would not be restored from a smaller or grey one. An image that is larger or truncated is
/// refused before it is decoded.
pub(crate) fn read(path: &Path, shape: ImageShape) -> Result<Image> {
    let wrong = |(width, height): (u32, u32)| {
        anyhow!(
            "{}: {height}×{width} pixels, expected {}×{}, the size of the model's images",
            path.display(),
            shape.height,
            shape.width
        )
    };
    let size = (shape.width as u32, shape.height as u32);
    let found = ImageReader::open(path)
        .and_then(ImageReader::with_guessed_format)
        .with_context(|| name(path))?
        .into_dimensions()
        .with_context(|| name(path))?;
    // EXIF data can turn it.
    ensure!(found == size || found == (size.1, size.0), wrong(found));
    let picture = folder::decode(path, MAX_DECODED_BYTES)?;
    let found = (picture.width(), picture.height());
    ensure!(found == size, wrong(found));
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

/// The size of images as files of other lossless formats, one file each.
pub(crate) fn sizes_of_formats(images: &[Image]) -> Result<Vec<(&'static str, usize)>> {
    Ok(vec![
        ("PNG", total(images, png_size)?),
        (
            "WebP lossless (image-webp encoder)",
            total(images, webp_size)?,
        ),
    ])
}

/// The size of images as lossless WebP files by libwebp, one file each, where its program `cwebp`
/// is installed: the encoder in Rust writes larger files.
pub(crate) fn libwebp_size(images: &[Image]) -> Result<Option<(&'static str, usize)>> {
    let version = Command::new("cwebp").arg("-version").output();
    if !version.is_ok_and(|output| output.status.success()) {
        return Ok(None);
    }
    let size = total(images, cwebp_size)?;
    Ok(Some(("WebP lossless (cwebp -z 9)", size)))
}

fn total(images: &[Image], size: fn(&Image) -> Result<usize>) -> Result<usize> {
    images.iter().map(size).sum()
}

/// With the strongest compression and the best filter. The encoder has no pixels of one bit: black
/// and white images are written as grey ones.
fn png_size(image: &Image) -> Result<usize> {
    let (pixels, color) = (interleaved(image), color(image)?);
    let (width, height) = (image.shape.width as u32, image.shape.height as u32);
    let mut smallest = usize::MAX;
    for filter in [
        FilterType::NoFilter,
        FilterType::Sub,
        FilterType::Up,
        FilterType::Avg,
        FilterType::Paeth,
        FilterType::Adaptive,
    ] {
        let mut bytes = Vec::new();
        PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, filter)
            .write_image(&pixels, width, height, color)?;
        smallest = smallest.min(bytes.len());
    }
    Ok(smallest)
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

fn cwebp_size(image: &Image) -> Result<usize> {
    let (width, height) = (image.shape.width as u32, image.shape.height as u32);
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(&interleaved(image), width, height, color(image)?)?;
    let mut program = Command::new("cwebp")
        .args(["-quiet", "-lossless", "-z", "9", "-o", "-", "--", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cwebp")?;
    // Dropped after writing, so that the program finds the end. It reads all before it writes.
    let written = program.stdin.take().map(|mut stdin| stdin.write_all(&png));
    let output = program.wait_with_output().context("cwebp")?;
    let message = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cwebp: {}", message.trim());
    written.transpose().context("cwebp")?;
    Ok(output.stdout.len())
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
