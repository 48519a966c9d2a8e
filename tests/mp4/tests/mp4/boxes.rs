//! A reader of boxes.

/// Kinds and contents of the boxes that `content` consists of.
pub(crate) fn boxes(content: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    let mut rest = content;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let kind = String::from_utf8(rest[4..8].to_vec()).unwrap();
        let (header, length) = match word(rest, 0) {
            1 => (16, long(rest, 8) as usize),
            length => (8, length as usize),
        };
        let (found, behind) = rest.split_at(length);
        rest = behind;
        Some((kind, &found[header..]))
    })
}

/// The content of the only box of a kind.
pub(crate) fn find<'a>(content: &'a [u8], kind: &str) -> &'a [u8] {
    let mut found = boxes(content).filter(|(other, _)| other == kind);
    let (_, content) = found.next().unwrap_or_else(|| panic!("no {kind}"));
    assert!(found.next().is_none(), "two {kind}");
    content
}

pub(crate) fn short(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().unwrap())
}

pub(crate) fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

pub(crate) fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(4).map(|bytes| word(bytes, 0))
}
