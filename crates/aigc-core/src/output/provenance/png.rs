//! Text chunks of PNG files (PNG specification, third edition, sections 5.3 and 11.3.3).

use super::{
    Scan,
    record::{MAX_TEXT, sha256},
};
use crate::{DataFault, Error, Result};
use flate2::{Crc, read::ZlibDecoder};
use std::io::Read;

pub(super) const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Where the header chunk ends, and texts are inserted.
const BEHIND_HEADER: usize = SIGNATURE.len() + 25;

/// Keyword of the text of a record.
pub(super) const KEYWORD: &str = "aigc-provenance";

/// Chunks that say something about the picture and change nothing of it, `caBX` for Content
/// Credentials. Not `eXIf`: its orientation turns the picture in viewers.
const METADATA: [&[u8; 4]; 5] = [b"tEXt", b"zTXt", b"iTXt", b"tIME", b"caBX"];

/// Inserts texts behind the header of a PNG file, as `tEXt` where they are ASCII and as `iTXt`
/// (UTF-8) otherwise.
///
/// # Errors
/// [`Error::InvalidArgument`] if the bytes do not begin like a PNG file, a keyword does not have 1
/// to 79 characters of ASCII, or a text contains the character 0 or has more than 4 MiB.
pub fn insert_texts(png: &mut Vec<u8>, texts: &[(&str, &str)]) -> Result<()> {
    header(png).map_err(|fault| Error::argument("png", fault, "a PNG file"))?;
    let mut inserted = vec![];
    for (keyword, text) in texts {
        let printable = keyword.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if !printable || !(1..=79).contains(&keyword.len()) {
            let expected = "1 to 79 characters of ASCII";
            return Err(Error::argument("keyword", keyword, expected));
        }
        if text.contains('\0') {
            return Err(Error::argument("text", "a text with character 0", "none"));
        }
        if text.len() > MAX_TEXT {
            let expected = format!("at most {MAX_TEXT} bytes");
            return Err(Error::argument(
                "text",
                format!("{} bytes", text.len()),
                expected,
            ));
        }
        let mut data = keyword.as_bytes().to_vec();
        let kind = if text.is_ascii() {
            data.push(0);
            b"tEXt"
        } else {
            // End of the keyword, no compression, no language, no translated keyword.
            data.extend([0; 5]);
            b"iTXt"
        };
        data.extend(text.as_bytes());
        inserted.extend((data.len() as u32).to_be_bytes());
        inserted.extend(kind);
        inserted.extend(&data);
        inserted.extend(checksum(kind, &data).to_be_bytes());
    }
    png.splice(BEHIND_HEADER..BEHIND_HEADER, inserted);
    Ok(())
}

/// Keywords and texts of the text chunks that have one of `keywords`, the first of each, in their
/// order in the file.
///
/// # Errors
/// The fault of the file: it is no PNG file, is truncated, a checksum is wrong, or one of these
/// texts is broken or has more than 4 MiB.
pub fn read_texts(png: &[u8], keywords: &[&str]) -> Result<Vec<(String, String)>, DataFault> {
    let mut texts: Vec<(String, String)> = vec![];
    each_chunk(png, |chunk| {
        for keyword in keywords {
            if texts.iter().any(|(found, _)| found == keyword) {
                continue;
            }
            if let Some(text) = chunk.text(keyword) {
                let text = text
                    .map_err(|reason| DataFault::Decode(format!("text `{keyword}`: {reason}")))?;
                texts.push(((*keyword).to_owned(), text));
            }
        }
        Ok(())
    })?;
    Ok(texts)
}

/// Finds the records; the hash is over types, lengths and data of all chunks but [`METADATA`].
pub(super) fn scan(png: &[u8]) -> Result<Scan, DataFault> {
    let mut parts: Vec<&[u8]> = vec![];
    let mut scan = Scan::default();
    let mut has_data = false;
    let end = each_chunk(png, |chunk| {
        has_data |= chunk.kind == b"IDAT";
        if !METADATA.contains(&chunk.kind) {
            parts.extend([chunk.kind.as_slice(), chunk.length, chunk.data]);
        }
        match chunk.text(KEYWORD) {
            Some(text) => scan.push(chunk.at..chunk.end(), text),
            None => Ok(()),
        }
    })?;
    if end < png.len() {
        return Err(DataFault::Oversized {
            expected: end as u64,
        });
    }
    if !has_data {
        return Err(DataFault::BadHeader("no chunk `IDAT`".into()));
    }
    scan.content_hash = sha256(parts);
    Ok(scan)
}

/// A PNG file with a record.
pub(super) fn insert(png: &[u8], scan: &Scan, text: &str) -> Result<Vec<u8>> {
    let mut png = scan.without_records(png);
    insert_texts(&mut png, &[(KEYWORD, text)])?;
    Ok(png)
}

struct Chunk<'a> {
    at: usize,
    length: &'a [u8],
    kind: &'a [u8; 4],
    data: &'a [u8],
}

impl Chunk<'_> {
    fn end(&self) -> usize {
        self.at + 12 + self.data.len()
    }

    /// The text, if it is one with this keyword.
    fn text(&self, keyword: &str) -> Option<Result<String, String>> {
        let rest = self.data.strip_prefix(keyword.as_bytes())?;
        let rest = rest.strip_prefix(&[0])?;
        match self.kind {
            b"tEXt" => Some(short(rest).map(latin)),
            b"zTXt" => Some(match rest {
                [0, packed @ ..] => unpack(packed).map(|text| latin(&text)),
                _ => Err("unknown method of compression".into()),
            }),
            b"iTXt" => Some(international(rest)),
            _ => None,
        }
    }
}

/// Bytes that are not too many for a text.
fn short(bytes: &[u8]) -> Result<&[u8], String> {
    match bytes.len() {
        0..=MAX_TEXT => Ok(bytes),
        length => Err(format!("it has {length} bytes, more than {MAX_TEXT}")),
    }
}

fn latin(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

/// The text of an `iTXt` chunk, from the byte behind its keyword on.
fn international(data: &[u8]) -> Result<String, String> {
    let [is_packed @ (0 | 1), 0, rest @ ..] = data else {
        return Err("unknown method of compression".into());
    };
    // The language, the keyword in this language, the text.
    let mut fields = rest.splitn(3, |byte| *byte == 0);
    let (Some(_), Some(_), Some(text)) = (fields.next(), fields.next(), fields.next()) else {
        return Err("no text".into());
    };
    let text = match is_packed {
        0 => short(text)?.to_vec(),
        _ => unpack(text)?,
    };
    String::from_utf8(text).map_err(|_| "not UTF-8".into())
}

fn unpack(packed: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = vec![];
    ZlibDecoder::new(packed)
        .take(MAX_TEXT as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be unpacked: {error}"))?;
    match bytes.len() {
        0..=MAX_TEXT => Ok(bytes),
        _ => Err(format!("unpacks to more than {MAX_TEXT} bytes")),
    }
}

/// Calls `each` with every chunk up to the last; returns where that ends.
fn each_chunk<'a>(
    png: &'a [u8],
    mut each: impl FnMut(Chunk<'a>) -> Result<(), DataFault>,
) -> Result<usize, DataFault> {
    header(png)?;
    let mut at = SIGNATURE.len();
    loop {
        let truncated = |length: usize| DataFault::Truncated {
            expected: (at + 12).saturating_add(length) as u64,
            found: png.len() as u64,
        };
        let rest = &png[at..];
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(truncated(0))?;
        let size = u32::from_be_bytes(*length) as usize;
        let (kind, rest) = rest.split_first_chunk::<4>().ok_or(truncated(size))?;
        let (data, rest) = rest.split_at_checked(size).ok_or(truncated(size))?;
        let (stated, _) = rest.split_first_chunk::<4>().ok_or(truncated(size))?;
        if u32::from_be_bytes(*stated) != checksum(kind, data) {
            let name = String::from_utf8_lossy(kind).escape_debug().to_string();
            let reason = format!("checksum of the chunk `{name}` at byte {at}");
            return Err(DataFault::Decode(reason));
        }
        let is_last = kind == b"IEND";
        let chunk = Chunk {
            at,
            length,
            kind,
            data,
        };
        at = chunk.end();
        each(chunk)?;
        if is_last {
            return Ok(at);
        }
    }
}

/// Checks that the bytes begin with signature and header.
fn header(png: &[u8]) -> Result<(), DataFault> {
    let rest = png.strip_prefix(SIGNATURE);
    let rest = rest.ok_or_else(|| DataFault::BadHeader("not a PNG file".into()))?;
    let expected = b"\0\0\0\x0dIHDR";
    if !rest.starts_with(&expected[..rest.len().min(8)]) {
        let reason = "the first chunk is no IHDR of 13 bytes";
        return Err(DataFault::BadHeader(reason.into()));
    }
    if png.len() < BEHIND_HEADER {
        return Err(DataFault::Truncated {
            expected: BEHIND_HEADER as u64,
            found: png.len() as u64,
        });
    }
    Ok(())
}

/// The checksum of a chunk (section 5.5: CRC-32 over type and data).
fn checksum(kind: &[u8; 4], data: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(kind);
    crc.update(data);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_crc_32() {
        // The usual check value, and that of an empty `IEND`.
        assert_eq!(checksum(b"1234", b"56789"), 0xcbf4_3926);
        assert_eq!(checksum(b"IEND", b""), 0xae42_6082);
    }

    #[test]
    fn texts_of_each_kind() {
        let text = |kind, data| {
            let chunk = Chunk {
                at: 0,
                length: &[],
                kind,
                data,
            };
            chunk.text("k").map(|text| text.ok())
        };
        assert_eq!(text(b"tEXt", b"k\0caf\xe9"), Some(Some("café".into())));
        assert_eq!(text(b"tEXt", b"key\0x"), None);
        assert_eq!(text(b"IDAT", b"k\0x"), None);
        let named = b"k\0\0\0en\0K\0\xe7\x8c\xab";
        assert_eq!(text(b"iTXt", named), Some(Some("猫".into())));
        for broken in [
            b"k\0".as_slice(),
            b"k\0\x02\0\0\0x",
            b"k\0\0\0\0x",
            b"k\0\x01\0\0\0x",
        ] {
            assert_eq!(text(b"iTXt", broken), Some(None));
        }
        assert_eq!(text(b"zTXt", b"k\0\x01x"), Some(None));
    }
}
