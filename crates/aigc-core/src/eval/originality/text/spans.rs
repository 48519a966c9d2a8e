//! Maximal spans of a text that occur in an indexed text.

use super::{
    hash::{Hashed, PrefixHashes},
    normalize::{Normalization, OffsetMap},
    suffixes::Suffixes,
};
use std::ops::Range;

/// A normalised text, and where its characters start.
pub(super) struct Query {
    pub(super) text: Vec<u8>,
    pub(super) map: OffsetMap,
    /// Offsets of the characters, and the length.
    pub(super) starts: Vec<usize>,
    /// The characters without those that [`Normalization`] adds at both ends.
    pub(super) inner: Range<usize>,
}

impl Query {
    pub(super) fn new(original: &str, normalization: Normalization) -> Self {
        let (mut text, mut map) = (Vec::new(), OffsetMap::default());
        normalization.append(original, true, &mut text, &mut map);
        let mut starts: Vec<usize> = (0..text.len()).filter(|at| is_start(text[*at])).collect();
        let characters = starts.len();
        starts.push(text.len());
        let inner = if normalization.whitespace {
            1..characters.saturating_sub(1).max(1)
        } else {
            0..characters
        };
        Self {
            text,
            map,
            starts,
            inner,
        }
    }

    /// The span without whitespace at its ends, if whitespace is normalised.
    fn trimmed(&self, span: &Span, normalization: Normalization) -> Span {
        let mut span = *span;
        if normalization.whitespace {
            if self.text[self.starts[span.start]] == b' ' {
                span.start += 1;
                span.place += 1;
            }
            if span.end > span.start && self.text[self.starts[span.end - 1]] == b' ' {
                span.end -= 1;
            }
        }
        span
    }
}

/// Whether a byte of UTF-8 is the first of a character.
pub(super) fn is_start(byte: u8) -> bool {
    byte & 0xc0 != 0x80
}

/// Characters `start..end` of a query, which occur at byte `place` of the indexed text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) place: usize,
}

impl Span {
    pub(super) fn characters(&self) -> usize {
        self.end - self.start
    }
}

/// The spans that occur and cannot be extended on either side; both starts and ends increase.
///
/// They hold the matching statistics of the query (Chang and Lawler 1994): from the start of a span
/// up to that of the next one, all longest matches end where the span ends. The next span is
/// therefore found by a search over its start, without a search at each position.
pub(super) fn maximal_spans(suffixes: &Suffixes, query: &Query) -> Vec<Span> {
    let hashes = PrefixHashes::new(&query.text);
    let hashed = Hashed {
        text: &query.text,
        hashes: &hashes,
    };
    let characters = query.starts.len() - 1;
    let longest = |start: usize| {
        let at = query.starts[start];
        let found = suffixes.longest(hashed, at);
        // A match may end within a character.
        let end = query
            .starts
            .partition_point(|boundary| *boundary <= at + found.length)
            - 1;
        Span {
            start,
            end,
            place: found.place,
        }
    };
    let mut spans = Vec::new();
    let mut start = 0;
    while start < characters {
        let mut span = longest(start);
        if span.end == start {
            start += 1;
            continue;
        }
        loop {
            spans.push(span);
            if span.end == characters {
                return spans;
            }
            match next_span(&span, longest) {
                Some(next) => span = next,
                None => break,
            }
        }
        // The character after the span does not occur.
        start = span.end + 1;
    }
    spans
}

/// The first longest match that ends after `span` does, by steps that double and a bisection.
fn next_span(span: &Span, longest: impl Fn(usize) -> Span) -> Option<Span> {
    let (mut before, mut step) = (span.start, 1);
    let mut next = loop {
        let start = (before + step).min(span.end);
        let found = longest(start);
        if found.end > span.end {
            break found;
        }
        if start == span.end {
            return None;
        }
        (before, step) = (start, 2 * step);
    };
    while next.start - before > 1 {
        let found = longest(before + (next.start - before) / 2);
        if found.end > span.end {
            next = found;
        } else {
            before = found.start;
        }
    }
    Some(next)
}

/// The spans without whitespace at their ends, where it is normalised; none lies in another.
pub(super) fn trim(spans: &[Span], query: &Query, normalization: Normalization) -> Vec<Span> {
    let mut trimmed: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        let span = query.trimmed(span, normalization);
        if span.start >= span.end {
            continue;
        }
        match trimmed.last_mut() {
            Some(last) if last.start == span.start => *last = span,
            Some(last) if last.end == span.end => {}
            _ => trimmed.push(span),
        }
    }
    trimmed
}

/// Number of characters that lie in one of `spans`, whose starts increase.
pub(super) fn covered(spans: impl Iterator<Item = Span>) -> usize {
    let (mut count, mut end) = (0, 0);
    for span in spans {
        count += span.end.saturating_sub(span.start.max(end));
        end = end.max(span.end);
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::originality::text::suffixes::SEPARATOR;
    use crate::rng::Rng;

    fn spans(text: &str, query: &str) -> Vec<(usize, usize)> {
        let mut bytes = text.as_bytes().to_vec();
        bytes.push(SEPARATOR);
        let query = Query::new(query, Normalization::default());
        maximal_spans(&Suffixes::new(bytes).unwrap(), &query)
            .iter()
            .map(|span| (span.start, span.end))
            .collect()
    }

    fn exhaustive(text: &str, query: &str) -> Vec<(usize, usize)> {
        let query: Vec<char> = query.chars().collect();
        let mut found: Vec<(usize, usize)> = Vec::new();
        for start in 0..query.len() {
            let end = (start..=query.len())
                .rev()
                .find(|end| text.contains(&query[start..*end].iter().collect::<String>()))
                .unwrap();
            if end > start && found.last().is_none_or(|last| end > last.1) {
                found.push((start, end));
            }
        }
        found
    }

    #[test]
    fn spans_agree_with_exhaustive_search() {
        let mut rng = Rng::new(1);
        for alphabet in ["ab", "abcd", "猫犬狗a", "ab é", "a\0", "👍🏽e\u{301}שa"] {
            let letters: Vec<char> = alphabet.chars().collect();
            for _ in 0..30 {
                let mut draw = |n: usize| -> String {
                    (0..n)
                        .map(|_| letters[rng.random_index(letters.len())])
                        .collect()
                };
                let (text, query) = (draw(60), draw(40));
                assert_eq!(
                    spans(&text, &query),
                    exhaustive(&text, &query),
                    "{text} {query}"
                );
            }
        }
        assert_eq!(spans("abc", "xyz"), []);
        assert_eq!(spans("abc", "xabcx"), [(1, 4)]);
    }

    /// `猫` and `狗` share their first byte: no span ends within a character.
    #[test]
    fn spans_end_at_characters() {
        assert_eq!(spans("a猫", "a狗"), [(0, 1)]);
        assert_eq!(spans("猫", "狗"), []);
    }

    #[test]
    fn coverage_counts_overlaps_once() {
        let span = |start, end| Span {
            start,
            end,
            place: 0,
        };
        assert_eq!(covered([span(0, 4), span(2, 6), span(8, 9)].into_iter()), 7);
        assert_eq!(covered(std::iter::empty()), 0);
    }
}
