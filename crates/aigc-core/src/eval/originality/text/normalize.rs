//! Normalised copies of texts, with a mapping back to the original offsets.

/// What of a text is ignored when it is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Normalization {
    pub(super) whitespace: bool,
    pub(super) lowercase: bool,
}

impl Normalization {
    /// Appends the normalised `text` to `out`.
    ///
    /// With `padded`, a text whose whitespace is normalised starts and ends with one space, so that
    /// each of its words stands between two.
    pub(super) fn append(self, text: &str, padded: bool, out: &mut Vec<u8>, map: &mut OffsetMap) {
        if !self.whitespace && !self.lowercase {
            map.push(out.len(), 0);
            out.extend_from_slice(text.as_bytes());
            map.push(out.len(), text.len());
            return;
        }
        let padded = padded && self.whitespace;
        if padded {
            map.push(out.len(), 0);
            out.push(b' ');
        }
        let mut after_space = padded;
        let mut utf8 = [0; 4];
        for (offset, c) in text.char_indices() {
            let space = self.whitespace && c.is_whitespace();
            if space && after_space {
                continue;
            }
            after_space = space;
            map.push(out.len(), offset);
            if space {
                out.push(b' ');
            } else if self.lowercase {
                for lower in c.to_lowercase() {
                    map.push(out.len(), offset);
                    out.extend_from_slice(lower.encode_utf8(&mut utf8).as_bytes());
                }
            } else {
                out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
            }
        }
        if padded && !after_space {
            map.push(out.len(), text.len());
            out.push(b' ');
        }
        map.push(out.len(), text.len());
    }
}

/// Offsets of an original text by those of the normalised one: only where their difference changes.
#[derive(Clone, Debug, Default)]
pub(super) struct OffsetMap(Vec<(u32, u32)>);

impl OffsetMap {
    fn push(&mut self, normalized: usize, original: usize) {
        let pair = (normalized as u32, original as u32);
        if let Some((last, at)) = self.0.last()
            && pair.0 - last == pair.1.wrapping_sub(*at)
        {
            return;
        }
        self.0.push(pair);
    }

    /// The original offset, for an offset at a character of the normalised text or at its end.
    pub(super) fn original(&self, normalized: usize) -> usize {
        let after = self
            .0
            .partition_point(|(start, _)| *start as usize <= normalized);
        let (start, original) = self.0[after - 1];
        original as usize + (normalized - start as usize)
    }

    pub(super) fn shrink_to_fit(&mut self) {
        self.0.shrink_to_fit();
    }

    /// Bytes of heap memory.
    pub(super) fn memory(&self) -> u64 {
        (self.0.capacity() * size_of::<(u32, u32)>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normalize(text: &str, options: Normalization, padded: bool) -> (String, OffsetMap) {
        let (mut out, mut map) = (Vec::new(), OffsetMap::default());
        options.append(text, padded, &mut out, &mut map);
        (String::from_utf8(out).unwrap(), map)
    }

    const BOTH: Normalization = Normalization {
        whitespace: true,
        lowercase: true,
    };

    #[test]
    fn whitespace_and_case_are_folded() {
        assert_eq!(
            normalize(" \tThe  Cat\n\nsat ", BOTH, true).0,
            " the cat sat "
        );
        assert_eq!(normalize("The  Cat", BOTH, false).0, "the cat");
        assert_eq!(normalize("  The", BOTH, false).0, " the");
        assert_eq!(normalize("", BOTH, true).0, " ");
        let plain = Normalization::default();
        assert_eq!(normalize(" A  b", plain, true).0, " A  b");
    }

    /// Also where lower case has another length: `İ` has 2 bytes and gives 3, `ẞ` has 3 and gives
    /// 2.
    #[test]
    fn offsets_map_back() {
        let text = "A  bİİ ẞ\n\n 猫Z ";
        let (folded, map) = normalize(text, BOTH, true);
        assert_eq!(folded, " a bi\u{307}i\u{307} ß 猫z ");
        for (c, of) in [('a', 'A'), ('b', 'b'), ('ß', 'ẞ'), ('猫', '猫'), ('z', 'Z')] {
            let at = folded.find(c).unwrap();
            assert_eq!(map.original(at), text.find(of).unwrap(), "{c}");
            let end = map.original(at + c.len_utf8());
            assert_eq!(end, text.find(of).unwrap() + of.len_utf8(), "{c}");
        }
        for (at, _) in folded.char_indices() {
            assert!(text.is_char_boundary(map.original(at)), "{at}");
        }
        assert_eq!(map.original(folded.len()), text.len());
    }
}
