//! Pictures in answers: formats, base64, limits.

use super::{ImagesApiError, ImagesApiErrorKind};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use image::{DynamicImage, ImageFormat, ImageReader, Limits};
use std::io::Cursor;

/// The format of a picture file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PictureFormat {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
    /// WebP.
    WebP,
}

impl PictureFormat {
    /// The format by the first bytes of a file.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            Some(Self::Png)
        } else if bytes.starts_with(b"\xff\xd8\xff") {
            Some(Self::Jpeg)
        } else if bytes.starts_with(b"RIFF") && bytes.get(8..12) == Some(b"WEBP") {
            Some(Self::WebP)
        } else {
            None
        }
    }

    /// The format by its name in the API (`png`, `jpeg`, `webp`) or its media type.
    pub(super) fn named(name: &str) -> Option<Self> {
        let name = name.split(';').next().unwrap_or_default().trim();
        let name = name.strip_prefix("image/").unwrap_or(name);
        match name.to_ascii_lowercase().as_str() {
            "png" => Some(Self::Png),
            "jpeg" | "jpg" => Some(Self::Jpeg),
            "webp" => Some(Self::WebP),
            _ => None,
        }
    }

    /// The extension of file names.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::WebP => "webp",
        }
    }

    /// The media type.
    pub fn mime_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::WebP => "image/webp",
        }
    }

    pub(super) fn is_png(self) -> bool {
        self == Self::Png
    }

    fn image_format(self) -> ImageFormat {
        match self {
            Self::Png => ImageFormat::Png,
            Self::Jpeg => ImageFormat::Jpeg,
            Self::WebP => ImageFormat::WebP,
        }
    }

    /// Width and height, if the file has them.
    pub(super) fn size(self, bytes: &[u8]) -> Option<(u32, u32)> {
        let reader = ImageReader::with_format(Cursor::new(bytes), self.image_format());
        reader.into_dimensions().ok()
    }
}

/// Limits on pictures.
#[derive(Clone, Copy, Debug)]
pub(super) struct PictureLimits {
    /// Bytes of a file.
    pub(super) bytes: u64,
    /// Pixels of an image.
    pub(super) pixels: u64,
}

fn invalid(message: String) -> ImagesApiError {
    ImagesApiError::new(ImagesApiErrorKind::InvalidAnswer, message)
}

impl PictureLimits {
    /// The error for a file of too many bytes.
    pub(super) fn too_many_bytes(&self) -> ImagesApiError {
        let message = format!(
            "a picture has more than {} bytes (max_image_bytes)",
            self.bytes
        );
        ImagesApiError::new(ImagesApiErrorKind::TooLarge, message)
    }

    /// Decodes base64: with or without padding, line breaks and the prefix of a data URL, in either
    /// alphabet.
    pub(super) fn base64(&self, text: &str) -> Result<Vec<u8>, ImagesApiError> {
        let text = text.trim_start();
        let text = match text.strip_prefix("data:") {
            Some(rest) => match rest.split_once(',') {
                Some((kind, data)) if kind.trim_end().ends_with(";base64") => data,
                _ => return Err(invalid("a data URL is not in base64".into())),
            },
            None => text,
        };
        if text.len() as u64 / 4 * 3 > self.bytes.saturating_add(self.bytes / 16) {
            return Err(self.too_many_bytes());
        }
        const CONFIG: GeneralPurposeConfig = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        let digits: Vec<u8> = text
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .map(|byte| match byte {
                b'-' => b'+',
                b'_' => b'/',
                byte => byte,
            })
            .collect();
        let bytes = GeneralPurpose::new(&alphabet::STANDARD, CONFIG)
            .decode(digits)
            .map_err(|error| invalid(format!("a picture is not valid base64 ({error})")))?;
        if bytes.len() as u64 > self.bytes {
            return Err(self.too_many_bytes());
        }
        Ok(bytes)
    }

    /// Decodes a picture file, which must be complete.
    pub(super) fn decode(
        &self,
        bytes: &[u8],
    ) -> Result<(DynamicImage, PictureFormat), ImagesApiError> {
        let Some(format) = PictureFormat::of(bytes) else {
            let start = &bytes[..bytes.len().min(16)];
            let start = String::from_utf8_lossy(start);
            return Err(invalid(format!(
                "a picture is not PNG, JPEG or WebP: its {} bytes begin with {start:?}",
                bytes.len()
            )));
        };
        let broken = |error: &dyn std::fmt::Display| {
            invalid(format!(
                "a picture of {} bytes is broken: {error}",
                bytes.len()
            ))
        };
        // Decoders fill what is missing of these formats with grey.
        let is_cut = match format {
            PictureFormat::Png => false,
            PictureFormat::Jpeg => {
                let tail = &bytes[bytes.len().saturating_sub(64)..];
                !tail.windows(2).any(|pair| pair == [0xff, 0xd9])
            }
            PictureFormat::WebP => {
                let size: [u8; 4] = bytes[4..8].try_into().unwrap_or_default();
                (bytes.len() as u64) < 8 + u64::from(u32::from_le_bytes(size))
            }
        };
        if is_cut {
            return Err(broken(&"it has no end"));
        }
        let reader = || ImageReader::with_format(Cursor::new(bytes), format.image_format());
        let (width, height) = reader().into_dimensions().map_err(|error| broken(&error))?;
        if u64::from(width) * u64::from(height) > self.pixels {
            let limit = self.pixels;
            let message =
                format!("a picture is {width}x{height}, more than {limit} pixels (max_pixels)");
            return Err(ImagesApiError::new(ImagesApiErrorKind::TooLarge, message));
        }
        let mut reader = reader();
        let mut limits = Limits::default();
        // 16 bits of four channels, and as much for the decoder.
        limits.max_alloc = Some(self.pixels.saturating_mul(16).saturating_add(1 << 20));
        reader.limits(limits);
        let image = reader.decode().map_err(|error| broken(&error))?;
        Ok((image, format))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::STANDARD;

    const LIMITS: PictureLimits = PictureLimits {
        bytes: 100_000,
        pixels: 10_000,
    };

    fn file(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Cursor::new(vec![]);
        // Noise, so that half of the file is half of the picture.
        let mut image = image::RgbImage::new(width, height);
        for (i, pixel) in image.pixels_mut().enumerate() {
            pixel.0 =
                [0u32, 1, 2].map(|c| ((i as u32 * 3 + c).wrapping_mul(2_654_435_761) >> 24) as u8);
        }
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    #[test]
    fn base64_is_read_in_every_form() {
        let bytes: Vec<u8> = (0..=255).collect();
        let plain = STANDARD.encode(&bytes);
        let broken_lines: String = plain.chars().flat_map(|c| [c, '\n']).collect();
        for text in [
            plain.clone(),
            plain.trim_end_matches('=').to_string(),
            plain.replace('+', "-").replace('/', "_"),
            broken_lines,
            format!("data:image/png;base64,{plain}"),
            format!(" data:;base64,{plain} "),
        ] {
            assert_eq!(LIMITS.base64(&text).unwrap(), bytes, "{text}");
        }
        for text in ["§", "data:image/png,abc", "a", "abc%"] {
            let error = LIMITS.base64(text).unwrap_err();
            assert_eq!(error.kind(), ImagesApiErrorKind::InvalidAnswer, "{text}");
        }
        let large = STANDARD.encode(vec![0; 100_001]);
        let error = LIMITS.base64(&large).unwrap_err();
        assert_eq!(error.kind(), ImagesApiErrorKind::TooLarge);
    }

    #[test]
    fn half_a_picture_is_an_error() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let whole = file(format, 40, 30);
            let (image, found) = LIMITS.decode(&whole).unwrap();
            assert_eq!((image.width(), image.height()), (40, 30));
            assert_eq!(found.image_format(), format);
            assert_eq!(found.size(&whole), Some((40, 30)));
            for end in (0..whole.len() - 16).step_by(97) {
                let error = LIMITS.decode(&whole[..end]).unwrap_err();
                assert_eq!(
                    error.kind(),
                    ImagesApiErrorKind::InvalidAnswer,
                    "{format:?} {end}"
                );
            }
        }
        let error = LIMITS.decode(b"<html>").unwrap_err();
        assert!(error.message().contains("<html>"), "{error}");
    }

    #[test]
    fn large_pictures_are_refused_by_their_header() {
        let error = LIMITS
            .decode(&file(ImageFormat::Png, 101, 100))
            .unwrap_err();
        assert_eq!(error.kind(), ImagesApiErrorKind::TooLarge);
        assert!(error.message().contains("101x100"), "{error}");
        // A header that lies about the size of the image: nothing is allocated for it.
        let mut lying = file(ImageFormat::Png, 100, 100);
        lying[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
        assert!(LIMITS.decode(&lying).is_err());
    }

    #[test]
    fn formats_are_named() {
        for (name, format) in [
            ("png", Some(PictureFormat::Png)),
            ("image/jpeg; q=1", Some(PictureFormat::Jpeg)),
            ("JPG", Some(PictureFormat::Jpeg)),
            ("image/webp", Some(PictureFormat::WebP)),
            ("text/html", None),
        ] {
            assert_eq!(PictureFormat::named(name), format, "{name}");
        }
    }
}
