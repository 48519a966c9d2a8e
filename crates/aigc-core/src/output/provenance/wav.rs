//! Chunks of WAV files (Multimedia Programming Interface and Data Specifications 1.0, chapters 2
//! and 3): the record in a chunk `aigc`, and a line for people in the comment `ICMT`.

use super::{
    Scan,
    record::{COMMENT, Provenance, sha256},
    too_large,
};
use crate::{DataFault, Error, Result};

/// Type of the chunk with a record.
const RECORD: &[u8; 4] = b"aigc";

/// Chunks that say something about the sound and change nothing of it, `C2PA` for Content
/// Credentials.
const METADATA: [&[u8; 4]; 3] = [RECORD, b"C2PA", b"JUNK"];

/// Types of `LIST` that are the same: texts, and labels of places. Others may hold sound (`wavl`).
const LISTS: [&[u8; 4]; 2] = [b"INFO", b"adtl"];

/// Length of `RIFF`, the size and `WAVE`.
const HEADER: usize = 12;

/// Finds the records; the hash is over types, lengths and data of all chunks but [`METADATA`] and
/// [`LISTS`].
pub(super) fn scan(wav: &[u8]) -> Result<Scan, DataFault> {
    let end = end_of_chunks(wav)?;
    let mut parts: Vec<&[u8]> = vec![];
    let (mut has_format, mut has_data) = (false, false);
    let mut scan = Scan::default();
    // Where a comment of ours begins and ends.
    let mut comment = None;
    let mut at = HEADER;
    while at < end {
        let truncated = |length: usize| DataFault::Truncated {
            expected: (at + 8).saturating_add(length) as u64,
            found: end as u64,
        };
        let rest = &wav[at..end];
        let (kind, rest) = rest.split_first_chunk::<4>().ok_or(truncated(0))?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(truncated(0))?;
        let size = u32::from_le_bytes(*length) as usize;
        let (data, rest) = rest.split_at_checked(size).ok_or(truncated(size))?;
        // Chunks of odd length are padded, the last one not by all programs.
        let padding = rest.first().filter(|_| size % 2 == 1);
        let next = at + 8 + size + usize::from(padding.is_some());
        has_format |= kind == b"fmt ";
        has_data |= kind == b"data";
        let is_list = kind == b"LIST" && LISTS.iter().any(|of| data.starts_with(*of));
        if !is_list && !METADATA.contains(&kind) {
            parts.extend([kind.as_slice(), length, data]);
        }
        if kind == RECORD {
            if padding.is_some_and(|byte| *byte != 0) {
                let reason = format!("padding of the chunk `aigc` at byte {at}");
                return Err(DataFault::Decode(reason));
            }
            let text = String::from_utf8(data.to_vec()).map_err(|_| "not UTF-8".into());
            let start = match comment {
                Some((start, end)) if end == at => start,
                _ => at,
            };
            scan.push(start..next, text)?;
        }
        comment = Some((at, next)).filter(|_| kind == b"LIST" && is_comment(data));
        at = next;
    }
    for (name, is_there) in [("fmt ", has_format), ("data", has_data)] {
        if !is_there {
            return Err(DataFault::BadHeader(format!("no chunk `{name}`")));
        }
    }
    scan.content_hash = sha256(parts);
    Ok(scan)
}

/// A WAV file with a record behind its other chunks.
pub(super) fn insert(
    wav: &[u8],
    scan: &Scan,
    text: &str,
    provenance: &Provenance,
) -> Result<Vec<u8>> {
    let end = end_of_chunks(wav).map_err(|fault| Error::argument("bytes", fault, "a WAV file"))?;
    let mut wav = scan.without_records(&wav[..end]);
    if wav.len() % 2 == 1 {
        wav.push(0);
    }
    let mut info = b"INFO".to_vec();
    // Texts of lists end with a zero.
    push_chunk(
        &mut info,
        b"ICMT",
        format!("{}\0", provenance.comment()).as_bytes(),
    );
    push_chunk(&mut wav, b"LIST", &info);
    push_chunk(&mut wav, RECORD, text.as_bytes());
    let size = u32::try_from(wav.len() - 8).map_err(|_| too_large(wav.len()))?;
    wav[4..8].copy_from_slice(&size.to_le_bytes());
    Ok(wav)
}

/// The text is at most [`MAX_TEXT`](super::record::MAX_TEXT) bytes long.
fn push_chunk(to: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    to.extend(kind);
    to.extend((data.len() as u32).to_le_bytes());
    to.extend(data);
    if data.len() % 2 == 1 {
        to.push(0);
    }
}

/// Whether a list has a comment of ours and nothing else.
fn is_comment(list: &[u8]) -> bool {
    let Some(rest) = list.strip_prefix(b"INFOICMT") else {
        return false;
    };
    let Some((length, text)) = rest.split_first_chunk::<4>() else {
        return false;
    };
    let length = u32::from_le_bytes(*length) as usize;
    text.starts_with(COMMENT.as_bytes()) && text.len() == length.saturating_add(length % 2)
}

/// Checks the header; returns where the last chunk ends.
fn end_of_chunks(wav: &[u8]) -> Result<usize, DataFault> {
    let found = wav.len() as u64;
    let truncated = |expected: u64| DataFault::Truncated { expected, found };
    if wav.len() < HEADER {
        return Err(truncated(HEADER as u64));
    }
    if !wav.starts_with(b"RIFF") || &wav[8..HEADER] != b"WAVE" {
        return Err(DataFault::BadHeader("not a WAV file".into()));
    }
    let expected = 8 + u64::from(u32::from_le_bytes([wav[4], wav[5], wav[6], wav[7]]));
    if expected < HEADER as u64 {
        let reason = format!("a size of {expected} bytes, less than that of the header");
        return Err(DataFault::BadHeader(reason));
    }
    if expected > found {
        return Err(truncated(expected));
    }
    // The padding of a last chunk that is not counted.
    if expected < found && !(expected % 2 == 1 && expected + 1 == found) {
        return Err(DataFault::Oversized { expected });
    }
    Ok(expected as usize)
}
