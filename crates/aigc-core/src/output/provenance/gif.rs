//! Blocks of GIF files (GIF89a specification): the record in an application extension
//! `AIGCPROV1.0` before the trailer.

use super::{
    Scan,
    record::{MAX_TEXT, sha256},
};
use crate::DataFault;

pub(super) const SIGNATURES: [&[u8]; 2] = [b"GIF87a", b"GIF89a"];

/// Identifier and authentication code of the extension with a record.
const RECORD: &[u8; 11] = b"AIGCPROV1.0";

/// Application extensions that change nothing of the picture: ours, Content Credentials, XMP.
const METADATA: [&[u8; 11]; 3] = [RECORD, b"C2PA_GIF\x01\0\0", b"XMP DataXMP"];

const EXTENSION: u8 = 0x21;
const APPLICATION: u8 = 0xff;
const COMMENT: u8 = 0xfe;
const IMAGE: u8 = 0x2c;
const TRAILER: u8 = 0x3b;

/// Finds the records; the hash is over all bytes behind the version but those of comments and of
/// the extensions in [`METADATA`].
pub(super) fn scan(gif: &[u8]) -> Result<Scan, DataFault> {
    let mut cursor = Cursor { gif, at: 0 };
    if !SIGNATURES.contains(&cursor.take(6)?) {
        return Err(DataFault::BadHeader("not a GIF file".into()));
    }
    let mut parts = vec![];
    let mut scan = Scan::default();
    let mut has_image = false;
    // Width, height, flags, background, aspect ratio, and the colours of all images.
    let screen = cursor.take(7)?;
    parts.extend([screen, cursor.colours(screen[4])?]);
    loop {
        let start = cursor.at;
        let mut is_metadata = false;
        match cursor.take(1)? {
            [EXTENSION] => {
                let label = cursor.take(1)?[0];
                is_metadata = label == COMMENT;
                if label == APPLICATION {
                    let name = cursor.sub_block()?;
                    is_metadata = METADATA.iter().any(|known| *known == name);
                    if name == RECORD {
                        let text = cursor.text()?;
                        scan.push(start..cursor.at, text)?;
                    } else if !name.is_empty() {
                        cursor.skip_sub_blocks()?;
                    }
                } else {
                    cursor.skip_sub_blocks()?;
                }
            }
            [IMAGE] => {
                has_image = true;
                // Place, size, flags, and the colours of this image.
                let image = cursor.take(9)?;
                cursor.colours(image[8])?;
                // Bits of the codes.
                cursor.take(1)?;
                cursor.skip_sub_blocks()?;
            }
            [TRAILER] => {
                parts.push(&gif[start..cursor.at]);
                break;
            }
            other => {
                let reason = format!("{other:02x?} at byte {start} begins no block");
                return Err(DataFault::Decode(reason));
            }
        }
        if !is_metadata {
            parts.push(&gif[start..cursor.at]);
        }
    }
    if cursor.at < gif.len() {
        return Err(DataFault::Oversized {
            expected: cursor.at as u64,
        });
    }
    if !has_image {
        return Err(DataFault::BadHeader("no image".into()));
    }
    scan.content_hash = sha256(parts);
    Ok(scan)
}

/// A GIF file with a record.
pub(super) fn insert(gif: &[u8], scan: &Scan, text: &str) -> Vec<u8> {
    let mut gif = scan.without_records(gif);
    // The first version has no application extensions.
    gif[..6].copy_from_slice(SIGNATURES[1]);
    gif.pop();
    gif.extend([EXTENSION, APPLICATION, RECORD.len() as u8]);
    gif.extend(RECORD);
    for part in text.as_bytes().chunks(255) {
        gif.push(part.len() as u8);
        gif.extend(part);
    }
    gif.extend([0, TRAILER]);
    gif
}

struct Cursor<'a> {
    gif: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], DataFault> {
        let end = self.at + length;
        let taken = self.gif.get(self.at..end);
        let taken = taken.ok_or(DataFault::Truncated {
            expected: end as u64,
            found: self.gif.len() as u64,
        })?;
        self.at = end;
        Ok(taken)
    }

    /// The table of colours that flags announce.
    fn colours(&mut self, flags: u8) -> Result<&'a [u8], DataFault> {
        self.take(match flags & 0x80 {
            0 => 0,
            _ => 3 << ((flags & 7) + 1),
        })
    }

    /// The next sub-block; an empty one ends a block.
    fn sub_block(&mut self) -> Result<&'a [u8], DataFault> {
        let length = self.take(1)?[0];
        self.take(length.into())
    }

    fn skip_sub_blocks(&mut self) -> Result<(), DataFault> {
        while !self.sub_block()?.is_empty() {}
        Ok(())
    }

    /// The text in all sub-blocks up to the end of the block.
    fn text(&mut self) -> Result<Result<String, String>, DataFault> {
        let mut text = vec![];
        loop {
            let part = self.sub_block()?;
            if part.is_empty() {
                return Ok(String::from_utf8(text).map_err(|_| "not UTF-8".into()));
            }
            // What is longer than a record can be is still read to its end.
            if text.len() <= MAX_TEXT {
                text.extend(part);
            }
        }
    }
}
