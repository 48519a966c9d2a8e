//! SentencePiece's table of characters and their replacements (`precompiled_charsmap`).
//!
//! The table is the length of a double-array trie in bytes, the trie, and the replacements, each
//! with a zero byte at its end. The `tokenizers` crate indexes the trie without checks, so a broken
//! table has to be found before.

/// Fails for a table with which a lookup could leave the trie or the replacements.
pub(super) fn check(table: &[u8]) -> Result<(), String> {
    let Some((length, rest)) = table.split_first_chunk() else {
        return Err(format!("{} bytes are no header", table.len()));
    };
    let length = u32::from_le_bytes(*length) as usize;
    if !length.is_multiple_of(4) || length > rest.len() {
        return Err(format!(
            "a trie of {length} bytes in a table of {}",
            table.len()
        ));
    }
    let (trie, replacements) = rest.split_at(length);
    let replacements = std::str::from_utf8(replacements)
        .map_err(|error| format!("replacements are not UTF-8: {error}"))?;
    let units = trie.chunks_exact(4);
    let units: Vec<usize> = units
        .map(|unit| u32::from_le_bytes(unit.try_into().expect("four bytes")) as usize)
        .collect();
    let root = *units.first().ok_or("an empty trie")?;
    // Every node that a key can reach; `at` is where its children begin.
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(root)];
    while let Some(at) = open.pop() {
        // A child is at `at ^ byte`, for any byte.
        if at | 0xff >= units.len() {
            return Err(format!("a node at {at} of {} units", units.len()));
        }
        for byte in 1..=0xff {
            let child = at ^ byte;
            let unit = units[child];
            if unit & ((1 << 31) | 0xff) != byte || std::mem::replace(&mut seen[child], true) {
                continue;
            }
            let next = child ^ offset(unit);
            if has_leaf(unit) {
                let value = units.get(next).map_or(usize::MAX, |leaf| leaf & !(1 << 31));
                if !replacements.is_char_boundary(value) {
                    return Err(format!(
                        "a replacement at byte {value} of {}",
                        replacements.len()
                    ));
                }
            }
            open.push(next);
        }
    }
    Ok(())
}

/// Distance to the children of a unit, as the exclusive or of their positions.
fn offset(unit: usize) -> usize {
    (unit >> 10) << ((unit & (1 << 9)) >> 6)
}

/// Whether a key ends at a unit.
fn has_leaf(unit: usize) -> bool {
    unit & (1 << 8) != 0
}
