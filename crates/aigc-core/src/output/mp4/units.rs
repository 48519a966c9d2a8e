//! The units that an AV1 stream consists of (AV1 specification, section 5.3).

use std::io::{Error, Result};

/// Kind of a unit that describes the whole stream. The encoder begins every key frame with it.
pub(super) const SEQUENCE_HEADER: u8 = 1;
/// Kind of a unit that separates frames, for streams without a container.
pub(super) const TEMPORAL_DELIMITER: u8 = 2;

/// Kinds and bytes of all units.
///
/// # Errors
/// If lengths are missing or lie.
pub(super) fn units(packet: &[u8]) -> Result<Vec<(u8, &[u8])>> {
    let broken = || Error::other("the encoder wrote a broken stream");
    let mut rest = packet;
    let mut units = vec![];
    while !rest.is_empty() {
        let (kind, length) = measure(rest).ok_or_else(broken)?;
        let (unit, behind) = rest.split_at_checked(length).ok_or_else(broken)?;
        units.push((kind, unit));
        rest = behind;
    }
    Ok(units)
}

/// Kind and length, with its header, of the first unit.
fn measure(bytes: &[u8]) -> Option<(u8, usize)> {
    let first = *bytes.first()?;
    let (has_extension, has_length) = (first & 4 != 0, first & 2 != 0);
    if !has_length {
        return None;
    }
    let start = 1 + usize::from(has_extension);
    let mut length = 0u64;
    // Seven bits a byte, the lowest first; the highest bit says that more follow.
    for (index, byte) in bytes.get(start..)?.iter().take(8).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let length = usize::try_from(length).ok()?;
            let length = length.checked_add(start + index + 1)?;
            return Some(((first >> 3) & 15, length));
        }
    }
    None
}
