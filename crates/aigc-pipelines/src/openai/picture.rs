//! Pictures in answers: formats, base64, limits.

use super::{
    ImagesApiError, ImagesApiErrorKind,
    decode::{PictureFault, decode_picture},
};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use image::{DynamicImage, ImageFormat, ImageReader};
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

    pub(super) fn image_format(self) -> ImageFormat {
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
        decode_picture(bytes, self.pixels).map_err(|fault| match fault {
            PictureFault::TooLarge { .. } => {
                let message = format!("a picture is {fault} (max_pixels)");
                ImagesApiError::new(ImagesApiErrorKind::TooLarge, message)
            }
            fault => invalid(format!("a picture is {fault}")),
        })
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
    fn faults_of_pictures_have_their_kind() {
        let large = super::super::ImageFile::from_image(&DynamicImage::new_rgb8(101, 100)).unwrap();
        let error = LIMITS.decode(large.bytes()).unwrap_err();
        assert_eq!(error.kind(), ImagesApiErrorKind::TooLarge);
        let message = error.message();
        assert!(
            message.contains("101x100") && message.contains("max_pixels"),
            "{error}"
        );
        for broken in [&b"<html>"[..], &large.bytes()[..40]] {
            let error = LIMITS.decode(broken).unwrap_err();
            assert_eq!(error.kind(), ImagesApiErrorKind::InvalidAnswer, "{error}");
        }
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
