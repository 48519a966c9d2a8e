//! Decodes pictures that clients send, and encodes those that they get.

use crate::error::ApiError;
use aigc_core::{
    Error,
    text_to_image::{GeneratedImage, GeneratedImages},
};
use aigc_pipelines::{
    openai::{PictureFault, decode_picture},
    text_to_image::encode_png,
};
use image::{DynamicImage, GrayImage, ImageFormat, ImageResult, Luma, RgbImage, codecs::jpeg};
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

    /// The file of an image that is not finished.
    pub(crate) fn encode(self, image: &DynamicImage) -> ImageResult<Vec<u8>> {
        self.encode_rgb(&image.to_rgb8())
    }

    /// The file of an image of a result. PNG has its settings, as `save_png` writes them; other
    /// formats have no place for them.
    pub(crate) fn encode_finished(
        self,
        result: &GeneratedImages,
        mut image: GeneratedImage,
    ) -> aigc_core::Result<Vec<u8>> {
        let pixels = image.image.into_rgb8();
        if self != Self::Png {
            return self.encode_rgb(&pixels).map_err(Error::other);
        }
        image.image = pixels.into();
        encode_png(result, &image)
    }

    fn encode_rgb(self, image: &RgbImage) -> ImageResult<Vec<u8>> {
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

/// Decodes the picture of a field.
fn decode(param: &str, bytes: &[u8], max_pixels: u64) -> Result<DynamicImage, ApiError> {
    let found = format!("{} bytes", bytes.len());
    match decode_picture(bytes, max_pixels) {
        Ok((image, _)) => Ok(image),
        Err(PictureFault::TooLarge {
            width,
            height,
            limit,
        }) => {
            let expected = format!("at most {limit} pixels");
            Err(ApiError::value(
                param,
                &format!("{width}x{height}"),
                &expected,
            ))
        }
        Err(PictureFault::Broken { reason, .. }) => {
            let expected = format!("a complete picture ({reason})");
            Err(ApiError::value(param, &found, &expected))
        }
        Err(_) => Err(ApiError::value(param, &found, "a PNG, JPEG or WebP file")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::text_to_image::ImageRequest;
    use aigc_pipelines::text_to_image::decode_png_settings;
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
    fn finished_png_files_have_their_settings() {
        let request = ImageRequest::new("a cat").with_seed(7);
        let result = GeneratedImages::new(vec![], request, "squares");
        for format in [OutputFormat::Png, OutputFormat::WebP] {
            // Floats, which no format has, are written too.
            let image = DynamicImage::new_rgb32f(3, 2);
            let bytes = format.encode_finished(&result, GeneratedImage::new(image, 1));
            let bytes = bytes.unwrap();
            assert_eq!(image::load_from_memory(&bytes).unwrap().width(), 3);
            let settings = decode_png_settings(&bytes).ok();
            assert_eq!(settings.is_some(), format == OutputFormat::Png);
            if let Some(settings) = settings {
                assert_eq!(settings.request.prompt, "a cat");
                assert_eq!(settings.request.first_image, Some(1));
                assert_eq!(settings.model, "squares");
            }
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
