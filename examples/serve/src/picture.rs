//! Decodes pictures that clients send, and encodes those that they get.

use crate::error::ApiError;
use image::{
    DynamicImage, GrayImage, ImageFormat, ImageReader, ImageResult, Limits, Luma, codecs::jpeg,
};
use std::io::Cursor;

/// The format of the pictures of an answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum OutputFormat {
    Png,
    /// With the quality from 1 to 100.
    Jpeg(u8),
    /// Without loss.
    WebP,
}

impl OutputFormat {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg(_) => "jpeg",
            Self::WebP => "webp",
        }
    }

    pub(crate) fn mime_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg(_) => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }

    /// The file of an image.
    pub(crate) fn encode(self, image: &DynamicImage) -> ImageResult<Vec<u8>> {
        let image = image.to_rgb8();
        let mut bytes = Cursor::new(vec![]);
        match self {
            Self::Png => image.write_to(&mut bytes, ImageFormat::Png)?,
            Self::Jpeg(quality) => {
                let encoder = jpeg::JpegEncoder::new_with_quality(&mut bytes, quality);
                image.write_with_encoder(encoder)?;
            }
            Self::WebP => image.write_to(&mut bytes, ImageFormat::WebP)?,
        }
        Ok(bytes.into_inner())
    }
}

/// An image that a client sends, with the mask that is painted anew: white where it is transparent.
#[derive(Debug)]
pub(crate) struct Input {
    pub(crate) image: DynamicImage,
    pub(crate) mask: Option<GrayImage>,
}

/// Decodes an image and its mask. Without a mask, a transparent part of the image is the mask.
pub(crate) fn decode_input(
    image: &[u8],
    mask: Option<&[u8]>,
    max_pixels: u64,
) -> Result<Input, ApiError> {
    let image = decode("image", image, max_pixels)?;
    let mask = match mask {
        Some(mask) => {
            let mask = decode("mask", mask, max_pixels)?;
            if (mask.width(), mask.height()) != (image.width(), image.height()) {
                let found = format!("{}x{}", mask.width(), mask.height());
                let expected = format!(
                    "{}x{}, the size of the image",
                    image.width(),
                    image.height()
                );
                return Err(ApiError::value("mask", &found, &expected));
            }
            if !mask.color().has_alpha() {
                let expected = "a picture with transparency: its transparent part is edited";
                return Err(ApiError::value("mask", "no alpha channel", expected));
            }
            Some(transparent(&mask))
        }
        None if image.color().has_alpha() => {
            let mask = transparent(&image);
            mask.pixels().any(|pixel| pixel[0] > 0).then_some(mask)
        }
        None => None,
    };
    Ok(Input {
        image: image.to_rgb8().into(),
        mask,
    })
}

/// White where an image is transparent.
fn transparent(image: &DynamicImage) -> GrayImage {
    let image = image.to_rgba8();
    let mut mask = GrayImage::new(image.width(), image.height());
    for (to, from) in mask.pixels_mut().zip(image.pixels()) {
        *to = Luma([if from[3] < 128 { 255 } else { 0 }]);
    }
    mask
}

fn decode(param: &str, bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, ApiError> {
    let found = format!("{} bytes", bytes.len());
    let fail = |expected: &str| ApiError::value(param, &found, expected);
    let format = image::guess_format(bytes).ok();
    let format = format.filter(|format| {
        matches!(
            format,
            ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP
        )
    });
    let Some(format) = format else {
        return Err(fail("a PNG, JPEG or WebP file"));
    };
    let reader = || ImageReader::with_format(Cursor::new(bytes), format);
    let broken = |error| fail(&format!("a complete picture ({error})"));
    let (width, height) = reader().into_dimensions().map_err(broken)?;
    if u64::from(width) * u64::from(height) > max_pixels {
        let found = format!("{width}x{height}");
        let expected = format!("at most {max_pixels} pixels");
        return Err(ApiError::value(param, &found, &expected));
    }
    let mut reader = reader();
    let mut limits = Limits::default();
    // 16 bits of four channels, and as much for the decoder.
    limits.max_alloc = Some(max_pixels.saturating_mul(16).saturating_add(1 << 20));
    reader.limits(limits);
    reader.decode().map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{Rgba, RgbaImage};

    fn png(image: impl Into<DynamicImage>) -> Vec<u8> {
        let mut bytes = Cursor::new(vec![]);
        image.into().write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn transparent_parts_are_the_mask() {
        let mut image = RgbaImage::from_pixel(3, 2, Rgba([9, 9, 9, 255]));
        let opaque = png(image.clone());
        assert!(decode_input(&opaque, None, 100).unwrap().mask.is_none());
        image.put_pixel(1, 0, Rgba([0, 0, 0, 0]));
        let mask = [0, 255, 0, 0, 0, 0];
        let hole = png(image);
        let found = decode_input(&hole, None, 100).unwrap();
        assert_eq!(found.mask.unwrap().into_raw(), mask);
        let found = decode_input(&opaque, Some(&hole), 100).unwrap();
        assert_eq!(found.mask.unwrap().into_raw(), mask);
        assert!(!found.image.color().has_alpha());
    }

    #[test]
    fn bad_pictures_are_errors_of_their_field() {
        let image = png(DynamicImage::new_rgb8(3, 2));
        let mask = png(DynamicImage::new_rgba8(2, 2));
        for (image, mask, param, message) in [
            (&b"<html>"[..], None, "image", "PNG, JPEG or WebP"),
            (&image[..image.len() / 2], None, "image", "complete picture"),
            (&image[..], Some(&mask[..]), "mask", "3x2"),
            (&image[..], Some(&image[..]), "mask", "transparency"),
            (
                &png(DynamicImage::new_rgb8(11, 10))[..],
                None,
                "image",
                "100 pixels",
            ),
        ] {
            let error = decode_input(image, mask, 100).unwrap_err();
            assert_eq!(error.param.as_deref(), Some(param));
            assert!(error.message.contains(message), "{}", error.message);
        }
    }

    #[test]
    fn outputs_have_their_format() {
        let image = DynamicImage::new_rgba8(3, 2);
        for (format, expected) in [
            (OutputFormat::Png, ImageFormat::Png),
            (OutputFormat::Jpeg(80), ImageFormat::Jpeg),
            (OutputFormat::WebP, ImageFormat::WebP),
        ] {
            let bytes = format.encode(&image).unwrap();
            assert_eq!(image::guess_format(&bytes).unwrap(), expected);
            assert_eq!(image::load_from_memory(&bytes).unwrap().width(), 3);
        }
    }
}
