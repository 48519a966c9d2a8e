//! Colour images for the watermark, from a folder or drawn.

use crate::Context;
use aigc_core::{
    Error, Result,
    data::{
        Dataset, Image, ImageShape,
        folder::{ImageFolder, ImageFolderConfig},
        scenes::{Scenes, Split},
    },
};
use aigc_examples::Progress;
use image::{
    RgbImage,
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
            let scene = rgb(&scenes.get(index)?.image)?;
            Ok(resized(&scene, side as u32, side as u32))
        };
        return (0..count).map(draw).collect();
    };
    let config = ImageFolderConfig::new(ImageShape::new(3, side, side));
    let images = ImageFolder::open(dir, config)?;
    let count = count.min(images.len());
    let read = |number| -> Result<RgbImage> {
        step()?;
        rgb(&images.get(number * images.len() / count)?)
    };
    (0..count).map(read).collect()
}

/// The image, pixel by pixel.
///
/// # Errors
/// [`Error::InvalidArgument`] if it is not RGB.
pub(crate) fn rgb(image: &Image) -> Result<RgbImage> {
    let ImageShape { height, width, .. } = image.shape;
    let picture = RgbImage::from_raw(width as u32, height as u32, image.interleaved()?);
    picture.ok_or_else(|| Error::argument("image", image.shape, "an RGB image"))
}

/// The image, channel by channel.
///
/// # Errors
/// [`Error::InvalidArgument`] if it has no pixels.
pub(crate) fn planar(image: &RgbImage) -> Result<Image> {
    let (width, height) = image.dimensions();
    let shape = ImageShape::new(3, height as usize, width as usize);
    Image::from_interleaved(image.as_raw(), shape)
}

/// Resized by cubic interpolation.
pub(crate) fn resized(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    imageops::resize(image, width, height, CatmullRom)
}
