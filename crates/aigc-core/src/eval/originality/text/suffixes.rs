//! The suffix array of a text, and the longest match of a query in it.

use super::hash::{Hashed, PrefixHashes, common_prefix};
use crate::{Error, Result};
use std::cmp::Ordering;

/// Separates documents; it does not occur in UTF-8, so no match contains it.
pub(super) const SEPARATOR: u8 = 0xff;

/// A longest match: its length in bytes, and its place in the indexed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) length: usize,
    pub(super) place: usize,
}

/// The suffixes of a text in lexicographic order.
#[derive(Clone, Debug)]
pub(super) struct Suffixes {
    text: Vec<u8>,
    order: Vec<i32>,
    hashes: PrefixHashes,
    /// For each pair of bytes, the number of suffixes before those that start with it.
    pairs: Vec<u32>,
}

impl Suffixes {
    /// Bytes of heap memory for a text of `bytes` bytes.
    pub(super) fn memory(bytes: u64) -> u64 {
        5 * bytes + PrefixHashes::memory(bytes) + 4 * 65_537
    }

    /// `text` is not empty, shorter than 2³¹ bytes and ends with [`SEPARATOR`].
    pub(super) fn new(text: Vec<u8>) -> Result<Self> {
        let order = sorted_suffixes(&text)?;
        let mut pairs = vec![0u32; 65_537];
        for pair in text.windows(2) {
            pairs[pair_index(pair[0], pair[1]) + 1] += 1;
        }
        // The last suffix is the separator alone: the first of those that start with it.
        pairs[pair_index(SEPARATOR, 0) + 1] += 1;
        for i in 1..pairs.len() {
            pairs[i] += pairs[i - 1];
        }
        Ok(Self {
            hashes: PrefixHashes::new(&text),
            text,
            order,
            pairs,
        })
    }

    pub(super) fn bytes(&self) -> usize {
        self.text.len()
    }

    /// The longest prefix of `query.text[at..]` that occurs in the text.
    ///
    /// A binary search, whose comparisons start at the part of the query that is known to agree
    /// (Manber and Myers 1993, section 3).
    pub(super) fn longest(&self, query: Hashed<'_>, at: usize) -> Found {
        let wanted = &query.text[at..];
        let (mut low, mut high) = match wanted {
            [] => {
                return Found {
                    length: 0,
                    place: 0,
                };
            }
            [byte] => self.range(pair_index(*byte, 0), pair_index(*byte, 255)),
            [first, second, ..] => {
                let pair = pair_index(*first, *second);
                let (low, high) = self.range(pair, pair);
                if low == high {
                    // The pair does not occur; its first byte may.
                    self.range(pair_index(*first, 0), pair_index(*first, 255))
                } else {
                    (low, high)
                }
            }
        };
        let own = Hashed {
            text: &self.text,
            hashes: &self.hashes,
        };
        let mut best = Found {
            length: 0,
            place: 0,
        };
        let (mut left, mut right) = (0, 0);
        while low < high {
            let middle = low + (high - low) / 2;
            let place = self.order[middle] as usize;
            let known = left.min(right);
            let length = known + common_prefix(own, place + known, query, at + known);
            if length > best.length {
                best = Found { length, place };
            }
            if length == wanted.len() {
                break;
            }
            // The text ends with a byte that no query has: a suffix differs before its end. If
            // equal hashes of different ranges hide that, the suffix counts as the smaller one.
            match self.text.get(place + length).cmp(&wanted.get(length)) {
                Ordering::Less => (low, left) = (middle + 1, length),
                _ => (high, right) = (middle, length),
            }
        }
        best
    }

    /// Ranks of the suffixes that start with the pairs of bytes from `first` to `last`.
    fn range(&self, first: usize, last: usize) -> (usize, usize) {
        (self.pairs[first] as usize, self.pairs[last + 1] as usize)
    }
}

fn pair_index(first: u8, second: u8) -> usize {
    usize::from(first) << 8 | usize::from(second)
}

/// Starts of the suffixes of `text` in lexicographic order, by libsais.
fn sorted_suffixes(text: &[u8]) -> Result<Vec<i32>> {
    let fails = |reason: String| {
        Error::argument(
            "texts",
            format!("{} bytes", text.len()),
            format!("a text that can be indexed: {reason}"),
        )
    };
    let mut order: Vec<i32> = Vec::new();
    order
        .try_reserve_exact(text.len())
        .map_err(|error| fails(error.to_string()))?;
    order.resize(text.len(), 0);
    libsais::SuffixArrayConstruction::for_text(text)
        .in_borrowed_buffer(&mut order)
        .single_threaded()
        .run()
        .map_err(|error| fails(error.to_string()))?;
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> Suffixes {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(SEPARATOR);
        Suffixes::new(bytes).unwrap()
    }

    #[test]
    fn longest_matches_agree_with_exhaustive_search() {
        for (text, query) in [
            ("banana", "nanaban"),
            ("mississippi", "ssissipix"),
            ("aaaa", "aaaaaaab"),
            ("abc", "xyz"),
            ("a", "ab"),
            ("ab", "b"),
        ] {
            let index = index(text);
            let hashes = PrefixHashes::new(query.as_bytes());
            let hashed = Hashed {
                text: query.as_bytes(),
                hashes: &hashes,
            };
            for at in 0..=query.len() {
                let expected = (at..=query.len())
                    .rev()
                    .find(|end| text.contains(&query[at..*end]))
                    .map_or(0, |end| end - at);
                let found = index.longest(hashed, at);
                assert_eq!(found.length, expected, "{query} at {at} in {text}");
                assert!(text[found.place..].starts_with(&query[at..at + expected]));
            }
        }
    }

    #[test]
    fn order_is_that_of_sorted_suffixes() {
        let index = index("the cat sat on the mat, the cat sat");
        let mut expected: Vec<i32> = (0..index.bytes() as i32).collect();
        expected.sort_by_key(|start| &index.text[*start as usize..]);
        assert_eq!(index.order, expected);
    }
}
