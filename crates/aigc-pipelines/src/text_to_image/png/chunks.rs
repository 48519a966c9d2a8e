//! Text chunks of PNG files (PNG specification, third edition, sections 5.3 and 11.3.3).

use aigc_core::DataFault;

/// Length of the signature, and of the header chunk behind it.
const SIGNATURE: usize = 8;
const HEADER: usize = 25;

/// Inserts texts behind the header of a PNG file, as `tEXt` where they are ASCII and as `iTXt`
/// (UTF-8) otherwise.
///
/// # Panics
/// If the bytes are no PNG file.
pub(super) fn insert_texts(png: &mut Vec<u8>, texts: &[(&str, String)]) {
    let at = SIGNATURE + HEADER;
    let mut inserted = vec![];
    for (keyword, text) in texts {
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
        let start = inserted.len();
        inserted.extend(kind);
        inserted.extend(data);
        let checksum = crc(&inserted[start..]);
        inserted.extend(checksum.to_be_bytes());
    }
    png.splice(at..at, inserted);
}

/// Keywords and texts of all text chunks that are not compressed.
pub(super) fn read_texts(png: &[u8]) -> Result<Vec<(String, String)>, DataFault> {
    let mut texts = vec![];
    let mut at = SIGNATURE;
    loop {
        let head: [u8; 8] = match png.get(at..at + 8) {
            Some(head) => head.try_into().expect("eight bytes"),
            None => return Err(truncated(at + 8, png)),
        };
        let [a, b, c, d, kind @ ..] = head;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some(data) = png.get(at + 8..(at + 8).saturating_add(length)) else {
            return Err(truncated((at + 12).saturating_add(length), png));
        };
        match &kind {
            b"tEXt" => texts.extend(latin_text(data)),
            b"iTXt" => texts.extend(utf8_text(data)),
            b"IEND" => return Ok(texts),
            _ => {}
        }
        at += 12 + length;
    }
}

fn truncated(expected: usize, png: &[u8]) -> DataFault {
    DataFault::Truncated {
        expected: expected as u64,
        found: png.len() as u64,
    }
}

/// Keyword and text of a `tEXt` chunk, which is in Latin-1.
fn latin_text(data: &[u8]) -> Option<(String, String)> {
    let end = data.iter().position(|byte| *byte == 0)?;
    let latin = |bytes: &[u8]| bytes.iter().map(|byte| char::from(*byte)).collect();
    Some((latin(&data[..end]), latin(&data[end + 1..])))
}

/// Keyword and text of an `iTXt` chunk.
fn utf8_text(data: &[u8]) -> Option<(String, String)> {
    let [keyword, rest] = split(data)?;
    let rest = match rest {
        [0, _method, rest @ ..] => rest,
        _ => return None,
    };
    let [_language, rest] = split(rest)?;
    let [_translated, text] = split(rest)?;
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    Some((utf8(keyword)?, utf8(text)?))
}

/// The bytes before and behind the first zero.
fn split(data: &[u8]) -> Option<[&[u8]; 2]> {
    let end = data.iter().position(|byte| *byte == 0)?;
    Some([&data[..end], &data[end + 1..]])
}

/// The checksum of a chunk (section 5.5: CRC-32).
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_is_crc_32() {
        // The usual check value, and that of an empty `IEND`.
        assert_eq!(crc(b"123456789"), 0xcbf4_3926);
        assert_eq!(crc(b"IEND"), 0xae42_6082);
    }

    #[test]
    fn latin_and_compressed_texts() {
        assert_eq!(latin_text(b"k\0caf\xe9"), Some(("k".into(), "café".into())));
        assert_eq!(
            utf8_text(b"k\0\0\0en\0K\0\xe7\x8c\xab"),
            Some(("k".into(), "猫".into()))
        );
        assert_eq!(utf8_text(b"k\0\x01\0\0\0x"), None);
        assert_eq!(utf8_text(b"k"), None);
    }
}
