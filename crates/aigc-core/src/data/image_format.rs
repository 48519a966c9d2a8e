//! Image formats by their first bytes.

use crate::{Error, Result};
use std::{fs::File, io::Read, path::Path};

/// A format that the first bytes of a file identify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Png,
    Jpeg,
    Gif,
    Bmp,
    WebP,
    Tiff,
    /// A format that is recognised but not decoded.
    Other(&'static str),
}

impl Format {
    /// The format of a file, if it is an image.
    pub(super) fn of_file(path: &Path) -> Result<Option<Self>> {
        let mut head = Vec::with_capacity(32);
        File::open(path)
            .and_then(|file| file.take(32).read_to_end(&mut head))
            .map_err(Error::io(path))?;
        Ok(Self::of(&head))
    }

    fn of(head: &[u8]) -> Option<Self> {
        let brand = head.get(8..12).filter(|_| head.get(4..8) == Some(b"ftyp"));
        Some(match head {
            [0x89, b'P', b'N', b'G', ..] => Self::Png,
            [0xff, 0xd8, 0xff, ..] => Self::Jpeg,
            [b'G', b'I', b'F', b'8', ..] => Self::Gif,
            // Two letters are weak evidence: the size of the header that follows must be one of
            // Windows' or OS/2's, too.
            [b'B', b'M', ..]
                if matches!(
                    head.get(14..18),
                    Some([12 | 40 | 52 | 56 | 64 | 108 | 124, 0, 0, 0])
                ) =>
            {
                Self::Bmp
            }
            _ if head.starts_with(b"RIFF") && head.get(8..12) == Some(b"WEBP") => Self::WebP,
            [b'I', b'I', b'*' | b'+', 0, ..] | [b'M', b'M', 0, b'*' | b'+', ..] => Self::Tiff,
            _ if matches!(brand, Some(b"avif" | b"avis")) => Self::Other("AVIF"),
            _ if matches!(
                brand,
                Some(b"heic" | b"heix" | b"hevc" | b"heim" | b"mif1" | b"msf1")
            ) =>
            {
                Self::Other("HEIC")
            }
            _ if head.starts_with(b"\0\0\0\x0cJXL ") => Self::Other("JPEG XL"),
            _ if head.starts_with(b"\0\0\0\x0cjP  ") => Self::Other("JPEG 2000"),
            _ if head.starts_with(b"8BPS") => Self::Other("Photoshop"),
            _ if head.starts_with(b"qoif") => Self::Other("QOI"),
            _ if head.starts_with(b"DDS ") => Self::Other("DDS"),
            _ if head.starts_with(b"\x76\x2f\x31\x01") => Self::Other("OpenEXR"),
            _ if head.starts_with(b"#?RADIANCE") => Self::Other("Radiance HDR"),
            _ => return None,
        })
    }

    /// Why images of this format cannot be decoded; `None` if they can.
    pub(super) fn unsupported(self) -> Option<String> {
        match self {
            Self::Other(name) => Some(format!(
                "{name} images are not supported; convert it to PNG, JPEG, WebP or TIFF"
            )),
            _ => None,
        }
    }
}

/// Decodes a JPEG without an end-of-image marker; `None` if its scan is truncated.
///
/// Decoders continue a truncated scan with zeros. Other bytes after the end of the file change the
/// picture then; they do not change that of a complete scan.
pub(super) fn decode_without_end<T: PartialEq, E>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<Option<T>, E> {
    let end = &[0xff, 0xd9][..];
    // A last 0xFF is half of a marker, or part of a truncated scan.
    let last = bytes.iter().rposition(|byte| *byte != 0xff);
    let bytes = &bytes[..last.map_or(0, |last| last + 1)];
    let mut state = 1u32;
    let noise: Vec<u8> = (0..1024)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 & 0x7f // no markers
        })
        .collect();
    let picture = decode(&[bytes, end].concat())?;
    let other = decode(&[bytes, &noise, end].concat());
    Ok(other.is_ok_and(|other| other == picture).then_some(picture))
}

/// Whether the markers of a JPEG lead to its end. Segments are skipped by their length, because a
/// thumbnail inside one contains an end marker.
pub(super) fn has_end_of_image(bytes: &[u8]) -> bool {
    let mut at = 2;
    loop {
        // The next marker: 0xFF, followed by neither a stuffed zero nor a restart marker (both
        // occur within entropy-coded data) nor a fill byte.
        let Some(offset) = bytes.get(at..).and_then(|rest| {
            rest.windows(2)
                .position(|pair| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7 | 0xff))
        }) else {
            return false;
        };
        let marker = bytes[at + offset + 1];
        at += offset + 2;
        match marker {
            0xd9 => return true,
            0x01 | 0xd8 => {} // no segment follows
            _ => match bytes.get(at..at + 2) {
                Some(length) => at += usize::from(u16::from_be_bytes([length[0], length[1]])),
                None => return false,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbnail_end_marker_is_ignored() {
        // An application segment of 6 bytes with an end-of-image marker inside, then a scan.
        let start =
            b"\xff\xd8\xff\xe1\x00\x06\xff\xd9\xff\xd9\xff\xda\x00\x02\x12\xff\x00\xff\xd3\x34";
        assert!(!has_end_of_image(start));
        assert!(has_end_of_image(&[&start[..], b"\xff\xff\xd9"].concat()));
        assert!(!has_end_of_image(b"\xff\xd8"));
        assert!(!has_end_of_image(b"\xff\xd8\xff\xe1\xff\xff"));
    }

    #[test]
    fn formats_are_recognised_by_first_bytes() {
        assert_eq!(Format::of(b"BM is text, no bitmap"), None);
        assert_eq!(Format::of(b"II*\0\x08\0\0\0"), Some(Format::Tiff));
        assert_eq!(Format::of(b"RIFF\x24\0\0\0WEBPVP8 "), Some(Format::WebP));
        assert_eq!(Format::of(b"RIFF\x24\0\0\0WAVEfmt "), None);
        assert_eq!(Format::of(b""), None);
    }
}
