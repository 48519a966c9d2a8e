//! Colour images for the watermark, from a folder or drawn.

use crate::Context;
use aigc_core::{
    Result,
    data::{
        Dataset, Image, ImageShape,
        folder::{ImageFolder, ImageFolderConfig},
        scenes::{Scenes, Split},
    },
};
use aigc_examples::Progress;
use image::{
    Rgb, RgbImage,
    imageops::{self, FilterType::CatmullRom},
};
use std::path::Path;

/// `count` images of `side × side` pixels, at equal distances from all images of `dir`, or drawn
/// scenes.
///
/// # Errors
/// Errors of reading, which name the file.
pub(crate) fn read(
    dir: Option<&Path>,
    side: usize,
    count: usize,
    context: &Context,
) -> Result<Vec<RgbImage>> {
    let progress = Progress::new("reading images", count, &context.stop);
    let step = || progress.add(1);
    let Some(dir) = dir else {
        let scenes = Scenes::new(Split::Train, count, context.seed);
        let draw = |index| -> Result<RgbImage> {
            step()?;
            let scene = rgb(&scenes.get(index)?.image);
            Ok(resized(&scene, side as u32, side as u32))
        };
        return (0..count).map(draw).collect();
    };
    let config = ImageFolderConfig::new(ImageShape::new(3, side, side));
    let images = ImageFolder::open(dir, config)?;
    let count = count.min(images.len());
    let read = |number| -> Result<RgbImage> {
        step()?;
        Ok(rgb(&images.get(number * images.len() / count)?))
    };
    (0..count).map(read).collect()
}

/// Pixel by pixel.
pub(crate) fn rgb(image: &Image) -> RgbImage {
    let ImageShape { height, width, .. } = image.shape;
    RgbImage::from_fn(width as u32, height as u32, |x, y| {
        let at = y as usize * width + x as usize;
        Rgb([0, 1, 2].map(|channel| image.pixels[channel * height * width + at]))
    })
}

/// Channel by channel.
pub(crate) fn planar(image: &RgbImage) -> Image {
    let (width, height) = image.dimensions();
    let channels = (0..3).flat_map(|channel| image.pixels().map(move |pixel| pixel.0[channel]));
    Image {
        shape: ImageShape::new(3, height as usize, width as usize),
        pixels: channels.collect(),
        label: None,
    }
}

/// Resized by cubic interpolation.
pub(crate) fn resized(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    imageops::resize(image, width, height, CatmullRom)
}

/// Peak signal-to-noise ratio in decibels.
pub(crate) fn psnr(image: &Image, original: &Image) -> f64 {
    let pairs = image.pixels.iter().zip(&original.pixels);
    let squares = pairs.map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    20.0 * 255f64.log10() - 10.0 * (squares.sum::<f64>() / image.pixels.len() as f64).log10()
}
