//! Images that are uploaded.

use super::{ImagesApiError, picture::PictureFormat};
use image::{DynamicImage, GrayImage, ImageFormat, Rgba, RgbaImage};
use std::{fmt, io::Cursor};

/// An image that is uploaded: PNG, JPEG or WebP.
#[derive(Clone, PartialEq)]
pub struct ImageFile {
    bytes: Vec<u8>,
    format: PictureFormat,
}

impl ImageFile {
    /// The bytes of a file.
    ///
    /// # Errors
    /// [`InvalidRequest`](super::ImagesApiErrorKind::InvalidRequest) if they are not PNG, JPEG or
    /// WebP.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, ImagesApiError> {
        match PictureFormat::of(&bytes) {
            Some(format) => Ok(Self { bytes, format }),
            None => Err(ImagesApiError::field(
                "image",
                "of another format",
                "a PNG, JPEG or WebP file",
            )),
        }
    }

    /// An image, encoded as PNG.
    ///
    /// # Errors
    /// [`InvalidRequest`](super::ImagesApiErrorKind::InvalidRequest) if the image has no pixels.
    pub fn from_image(image: &DynamicImage) -> Result<Self, ImagesApiError> {
        // 32-bit floats have no PNG.
        let image = match image {
            DynamicImage::ImageRgb32F(_) => &DynamicImage::from(image.to_rgb8()),
            DynamicImage::ImageRgba32F(_) => &DynamicImage::from(image.to_rgba8()),
            image => image,
        };
        let mut bytes = Vec::new();
        image
            .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
            .map_err(|error| ImagesApiError::field("image", error, "an image with pixels"))?;
        Ok(Self {
            bytes,
            format: PictureFormat::Png,
        })
    }

    /// A mask as the API has it: transparent where `mask` is white (128 and more).
    ///
    /// # Errors
    /// As [`ImageFile::from_image`].
    pub fn from_mask(mask: &GrayImage) -> Result<Self, ImagesApiError> {
        let mut transparent = RgbaImage::new(mask.width(), mask.height());
        for (to, from) in transparent.pixels_mut().zip(mask.pixels()) {
            *to = Rgba([0, 0, 0, if from[0] >= 128 { 0 } else { 255 }]);
        }
        Self::from_image(&transparent.into())
    }

    /// The bytes of the file.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The format of the file.
    pub fn format(&self) -> PictureFormat {
        self.format
    }

    /// Width and height, if the file has them.
    pub(super) fn size(&self) -> Option<(u32, u32)> {
        self.format.size(&self.bytes)
    }
}

impl fmt::Debug for ImageFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = format_args!("{} bytes", self.bytes.len());
        f.debug_struct("ImageFile")
            .field("bytes", &bytes)
            .field("format", &self.format)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mask_is_transparent_where_it_is_white() {
        let mask = GrayImage::from_raw(4, 1, vec![0, 127, 128, 255]).unwrap();
        let file = ImageFile::from_mask(&mask).unwrap();
        let read = image::load_from_memory(file.bytes()).unwrap().to_rgba8();
        let alphas: Vec<u8> = read.pixels().map(|pixel| pixel[3]).collect();
        assert_eq!(alphas, [255, 255, 0, 0]);
        assert_eq!(file.size(), Some((4, 1)));
        assert!(ImageFile::from_bytes(b"GIF89a".to_vec()).is_err());
    }
}
