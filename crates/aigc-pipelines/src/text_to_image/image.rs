//! Images into and out of pipelines, as diffusers' `VaeImageProcessor` processes them.

use aigc_core::{
    Result,
    data::{Resampling, resample},
    text_to_image::ImageSize,
};
use burn::tensor::{Device, Tensor, TensorData};
use image::{DynamicImage, GrayImage, RgbImage};

/// The size of an image whose sides are cut to multiples of `factor`.
pub(crate) fn floored(size: ImageSize, factor: u32) -> ImageSize {
    let side = |side: u32| side - side % factor;
    ImageSize::new(side(size.width), side(size.height))
}

/// An image of three channels and of `size`.
///
/// # Errors
/// Of images without pixels.
pub(crate) fn resized(image: &DynamicImage, size: ImageSize) -> Result<RgbImage> {
    let image = image.to_rgb8();
    let pixels = resize(
        image.as_raw(),
        3,
        of_image(image.width(), image.height()),
        size,
    )?;
    Ok(RgbImage::from_raw(size.width, size.height, pixels).expect("a byte for each channel"))
}

/// A mask of `size`: 255 where it is 128 and more after resizing, else 0.
///
/// # Errors
/// Of masks without pixels.
pub(crate) fn resized_mask(mask: &GrayImage, size: ImageSize) -> Result<GrayImage> {
    let mut pixels = resize(
        mask.as_raw(),
        1,
        of_image(mask.width(), mask.height()),
        size,
    )?;
    for pixel in &mut pixels {
        *pixel = if *pixel >= 128 { 255 } else { 0 };
    }
    Ok(GrayImage::from_raw(size.width, size.height, pixels).expect("a byte for each pixel"))
}

fn of_image(width: u32, height: u32) -> [usize; 2] {
    [height as usize, width as usize]
}

fn resize(pixels: &[u8], channels: usize, from: [usize; 2], size: ImageSize) -> Result<Vec<u8>> {
    let to = of_image(size.width, size.height);
    if from == to {
        return Ok(pixels.to_vec());
    }
    resample(pixels, channels, from, to, Resampling::Lanczos)
}

/// An image as a tensor in `[0, 1]`, `[1, 3, height, width]`.
pub(crate) fn to_tensor(image: &RgbImage, device: &Device) -> Tensor<4> {
    let [height, width] = of_image(image.width(), image.height());
    let values: Vec<f32> = image
        .as_raw()
        .iter()
        .map(|pixel| f32::from(*pixel) / 255.0)
        .collect();
    let data = TensorData::new(values, [1, height, width, 3]);
    Tensor::<4>::from_data(data, device).permute([0, 3, 1, 2])
}

/// A mask as a tensor of 0 and 1, `[1, 1, height, width]`.
pub(crate) fn mask_to_tensor(mask: &GrayImage, device: &Device) -> Tensor<4> {
    let [height, width] = of_image(mask.width(), mask.height());
    let value = |pixel: &u8| f32::from(u8::from(*pixel >= 128));
    let values: Vec<f32> = mask.as_raw().iter().map(value).collect();
    Tensor::from_data(TensorData::new(values, [1, 1, height, width]), device)
}

/// A mask for each latent: the pixel at its upper left corner.
///
/// # Shapes
/// - mask: `[1, 1, height, width]`
/// - output: `[1, 1, height/scale, width/scale]`
pub(crate) fn mask_of_latents(mask: Tensor<4>, scale: usize) -> Tensor<4> {
    let [_, _, height, width] = mask.dims();
    let (rows, columns) = (height / scale, width / scale);
    mask.narrow(2, 0, rows * scale)
        .narrow(3, 0, columns * scale)
        .reshape([rows, scale, columns, scale])
        .narrow(1, 0, 1)
        .narrow(3, 0, 1)
        .reshape([1, 1, rows, columns])
}

/// Images of tensors in `[0, 1]`. Values outside become black or white.
///
/// # Shapes
/// - images: `[batch, 1 or 3, height, width]`
pub(crate) fn to_images(images: Tensor<4>) -> Vec<RgbImage> {
    let [_, channels, height, width] = images.dims();
    let values = images.permute([0, 2, 3, 1]).into_data();
    // NumPy rounds halves to even numbers.
    let pixel = |value: f32| (value.clamp(0.0, 1.0) * 255.0).round_ties_even() as u8;
    let pixels: Vec<u8> = values.iter::<f32>().map(pixel).collect();
    let pixels: Vec<u8> = match channels {
        1 => pixels.iter().flat_map(|pixel| [*pixel; 3]).collect(),
        _ => pixels,
    };
    let image = |pixels: &[u8]| {
        RgbImage::from_raw(width as u32, height as u32, pixels.to_vec()).expect("three channels")
    };
    pixels.chunks_exact(3 * height * width).map(image).collect()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::values;

    #[test]
    fn pixels_round_trip_and_round_to_even() {
        let device = Device::flex();
        let image = RgbImage::from_fn(3, 2, |x, y| image::Rgb([x as u8, 100 + y as u8, 255]));
        let tensor = to_tensor(&image, &device);
        assert_eq!(tensor.dims(), [1, 3, 2, 3]);
        assert_eq!(values(tensor.clone())[1], 1.0 / 255.0);
        assert_eq!(to_images(tensor), [image]);
        let odd = Tensor::<4>::from_floats([[[[0.5 / 255.0, 1.5 / 255.0, -3.0, 1.01]]]], &device);
        let pixels = to_images(odd)[0].as_raw().clone();
        assert_eq!(pixels, [0, 0, 0, 2, 2, 2, 0, 0, 0, 255, 255, 255]);
    }

    #[test]
    fn masks_are_binary_and_sampled_at_corners() {
        let device = Device::flex();
        let mask = GrayImage::from_raw(4, 2, vec![0, 127, 128, 255, 255, 0, 0, 0]).unwrap();
        let resized = resized_mask(&mask, ImageSize::new(4, 2)).unwrap();
        let tensor = mask_to_tensor(&resized, &device);
        assert_eq!(values(tensor.clone()), [0., 0., 1., 1., 1., 0., 0., 0.]);
        assert_eq!(values(mask_of_latents(tensor, 2)), [0.0, 1.0]);
        assert_eq!(floored(ImageSize::new(67, 64), 8), ImageSize::new(64, 64));
    }
}
