//! Decoding of pictures from the network: complete, and of a bounded size.

use super::PictureFormat;
use image::{DynamicImage, ImageDecoder, ImageReader, Limits};
use std::io::Cursor;

/// Why a picture was not decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PictureFault {
    /// It has another format.
    #[error("not PNG, JPEG or WebP: its {bytes} bytes begin with {start:?}")]
    Format {
        /// Length of the file.
        bytes: usize,
        /// Its first bytes: few enough to tell nothing but what it is instead.
        start: String,
    },
    /// It has more pixels than the limit.
    #[error("{width}x{height}, more than {limit} pixels")]
    TooLarge {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The most pixels.
        limit: u64,
    },
    /// It has no end, or is not what its format allows.
    #[error("broken, with {bytes} bytes: {reason}")]
    Broken {
        /// Length of the file.
        bytes: usize,
        /// What is wrong.
        reason: String,
    },
}

/// Decodes a picture in one of the formats of the API, which must be complete and have at most
/// `max_pixels` pixels. It is turned as its camera was.
///
/// # Errors
/// What is wrong with the file. Its size is checked before memory is taken for it.
pub fn decode_picture(
    bytes: &[u8],
    max_pixels: u64,
) -> Result<(DynamicImage, PictureFormat), PictureFault> {
    let Some(format) = PictureFormat::of(bytes) else {
        return Err(PictureFault::Format {
            bytes: bytes.len(),
            start: String::from_utf8_lossy(&bytes[..bytes.len().min(8)]).into_owned(),
        });
    };
    let broken = |reason: &dyn std::fmt::Display| PictureFault::Broken {
        bytes: bytes.len(),
        reason: reason.to_string(),
    };
    if is_cut(format, bytes) {
        return Err(broken(&"it has no end"));
    }
    let reader = || ImageReader::with_format(Cursor::new(bytes), format.image_format());
    let (width, height) = reader().into_dimensions().map_err(|error| broken(&error))?;
    if u64::from(width) * u64::from(height) > max_pixels {
        let limit = max_pixels;
        return Err(PictureFault::TooLarge {
            width,
            height,
            limit,
        });
    }
    let mut reader = reader();
    let mut limits = Limits::default();
    // 16 bits of four channels, and as much for the decoder.
    limits.max_alloc = Some(max_pixels.saturating_mul(16).saturating_add(1 << 20));
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| broken(&error))?;
    let orientation = decoder.orientation().map_err(|error| broken(&error))?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| broken(&error))?;
    image.apply_orientation(orientation);
    Ok((image, format))
}

/// Whether a file ends before its picture does. Decoders fill what is missing of these formats with
/// grey; that of PNG fails.
fn is_cut(format: PictureFormat, bytes: &[u8]) -> bool {
    match format {
        PictureFormat::Png => false,
        PictureFormat::Jpeg => {
            // Cameras append further pictures, films and notes to the end of the picture.
            let scans = scans(bytes).unwrap_or_default();
            !scans.windows(2).any(|pair| pair == [0xff, 0xd9])
        }
        PictureFormat::WebP => {
            let size: Option<[u8; 4]> = bytes.get(4..8).and_then(|size| size.try_into().ok());
            let size = size.map_or(u32::MAX, u32::from_le_bytes);
            (bytes.len() as u64) < 8 + u64::from(size)
        }
    }
}

/// What follows the header of the first scan of a JPEG file; `None` if there is none. The segments
/// before it may hold a preview with an end of its own.
fn scans(bytes: &[u8]) -> Option<&[u8]> {
    let mut rest = bytes;
    loop {
        // As decoders do, bytes between segments are skipped.
        let start = rest.iter().position(|byte| *byte == 0xff)?;
        rest = &rest[start + 1..];
        let marker = *rest.first()?;
        let segment = match marker {
            0xff => continue,
            // Markers without a segment.
            0x00 | 0x01 | 0xd0..=0xd8 => 0,
            0xd9 => return None,
            _ => {
                let length: [u8; 2] = rest.get(1..3)?.try_into().ok()?;
                // The length counts its own two bytes.
                usize::from(u16::from_be_bytes(length)).max(2)
            }
        };
        rest = rest.get(1 + segment..)?;
        if marker == 0xda {
            return Some(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::ImageFormat;

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
    fn half_a_picture_is_an_error() {
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let whole = file(format, 40, 30);
            let (image, found) = decode_picture(&whole, 10_000).unwrap();
            assert_eq!((image.width(), image.height()), (40, 30));
            assert_eq!(found.image_format(), format);
            assert_eq!(found.size(&whole), Some((40, 30)));
            for end in (0..whole.len() - 16).step_by(97) {
                let fault = decode_picture(&whole[..end], 10_000).unwrap_err();
                let is_large = matches!(fault, PictureFault::TooLarge { .. });
                assert!(!is_large, "{format:?} {end}: {fault}");
            }
        }
        let fault = decode_picture(b"<html>", 10_000).unwrap_err();
        assert!(matches!(fault, PictureFault::Format { bytes: 6, .. }));
        assert!(fault.to_string().contains("<html>"), "{fault}");
    }

    #[test]
    fn jpeg_files_end_where_their_picture_does() {
        let jpeg = file(ImageFormat::Jpeg, 40, 30);
        // Exif without entries, and a preview with an end.
        let preview = file(ImageFormat::Jpeg, 8, 8);
        let exif = [&b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"[..], &preview].concat();
        let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
        let with_preview = [&jpeg[..2], b"\xff\xe1", &length, &exif, &jpeg[2..]].concat();
        for whole in [jpeg, with_preview] {
            let (expected, _) = decode_picture(&whole, 10_000).unwrap();
            let appended = [&whole[..], &[7u8; 1000]].concat();
            let (found, _) = decode_picture(&appended, 10_000).unwrap();
            assert_eq!(found, expected);
            for end in (0..whole.len() - 1).step_by(7) {
                assert!(decode_picture(&whole[..end], 10_000).is_err(), "{end}");
            }
        }
    }

    #[test]
    fn lengths_of_segments_may_be_wrong() {
        for (bytes, expected) in [
            (&b"\xff\xd8\xff\xe1\xff\xff\xff\xd9"[..], None),
            (b"\xff\xd8\xff\xe1\0\0\xff\xd9", None),
            (b"\xff\xd8\xff\xe1\0", None),
            (b"\xff\xd8\xff\xff\xff", None),
            (b"\xff\xd8\xff\xda\0\x04x", None),
            (b"", None),
            (b"\xff\xd8\xff\xda\0\0x", Some(&b"x"[..])),
            (
                b"\xff\xd8\xff\xe1\0\x04\xff\xda?\xff\xff\xda\0\x02",
                Some(&b""[..]),
            ),
        ] {
            assert_eq!(scans(bytes), expected, "{bytes:?}");
            assert!(decode_picture(bytes, 10_000).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn large_pictures_are_refused_by_their_header() {
        let large = decode_picture(&file(ImageFormat::Png, 101, 100), 10_000);
        let expected = PictureFault::TooLarge {
            width: 101,
            height: 100,
            limit: 10_000,
        };
        assert_eq!(large.unwrap_err(), expected);
        // A header that lies about the size of the image: nothing is allocated for it.
        let mut lying = file(ImageFormat::Png, 100, 100);
        lying[16..24].copy_from_slice(&[0, 1, 0x86, 0xa0, 0, 1, 0x86, 0xa0]);
        assert!(decode_picture(&lying, 10_000).is_err());
    }

    #[test]
    fn pictures_are_turned_as_their_camera_was() {
        let jpeg = file(ImageFormat::Jpeg, 16, 8);
        // Exif with one entry: the orientation 6, a quarter turn.
        let exif = [
            &b"\xff\xe1\0\x22Exif\0\0MM\0*\0\0\0\x08\0\x01"[..],
            b"\x01\x12\0\x03\0\0\0\x01\0\x06\0\0",
            b"\0\0\0\0",
        ];
        let turned = [&jpeg[..2], &exif.concat(), &jpeg[2..]].concat();
        let size = |bytes: &[u8]| {
            let (image, _) = decode_picture(bytes, 1000).unwrap();
            (image.width(), image.height())
        };
        assert_eq!((size(&jpeg), size(&turned)), ((16, 8), (8, 16)));
    }
}
