//! The share of n-grams that occur in the training text.

use super::{
    index::TextIndex,
    spans::{Query, Span},
};
use crate::{Error, Result};
use std::ops::{AddAssign, Range};

/// What an n-gram consists of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum TextUnit {
    /// Characters, which suits text without spaces between words, such as Chinese.
    #[default]
    Characters,
    /// Words: what stands between whitespace, with its punctuation.
    Words,
}

/// How many n-grams of a text occur in the training text. Each occurrence in the text counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NgramOverlap {
    /// Number of n-grams that occur in the training text.
    pub found: usize,
    /// Number of n-grams.
    pub total: usize,
}

impl NgramOverlap {
    /// The share of n-grams that occur in the training text, in `[0, 1]`; `None` without n-grams.
    pub fn share(&self) -> Option<f64> {
        (self.total > 0).then(|| self.found as f64 / self.total as f64)
    }
}

impl AddAssign for NgramOverlap {
    fn add_assign(&mut self, other: Self) {
        self.found += other.found;
        self.total += other.total;
    }
}

impl TextIndex {
    /// How many of the n-grams of `text` occur in the training text, for each length in `n`. The
    /// text is searched once for all lengths.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a length is 0, `text` has 2³¹ bytes or more, or for
    /// [words](TextUnit::Words) if the index does not normalise whitespace.
    pub fn ngram_overlap(
        &self,
        text: &str,
        n: &[usize],
        unit: TextUnit,
    ) -> Result<Vec<NgramOverlap>> {
        self.check_ngrams(n, unit)?;
        let query = self.query("text", text)?;
        let spans = self.maximal(&query);
        Ok(n.iter()
            .map(|n| overlap(&query, &spans, *n, unit))
            .collect())
    }

    pub(super) fn check_ngrams(&self, n: &[usize], unit: TextUnit) -> Result<()> {
        if n.contains(&0) {
            return Err(Error::argument("n", 0, "at least 1"));
        }
        if unit == TextUnit::Words && !self.config().normalize_whitespace {
            return Err(Error::argument(
                "unit",
                "Words",
                "Characters, or an index with normalize_whitespace",
            ));
        }
        Ok(())
    }
}

/// An n-gram occurs if it lies in a maximal span. A word stands between two spaces, which belong to
/// it here: `cat` is not found in `bobcat`.
pub(super) fn overlap(query: &Query, spans: &[Span], n: usize, unit: TextUnit) -> NgramOverlap {
    match unit {
        TextUnit::Characters => {
            let starts = query.inner.clone();
            let last = (query.inner.end + 1).saturating_sub(n);
            count(starts.start..last, |start| start, |start| start + n, spans)
        }
        TextUnit::Words => {
            let spaces: Vec<usize> = (0..query.starts.len() - 1)
                .filter(|character| query.text[query.starts[*character]] == b' ')
                .collect();
            let ngrams = 0..spaces.len().saturating_sub(n);
            let end = |k: usize| spaces[k + n] + 1;
            count(ngrams, |k| spaces[k], end, spans)
        }
    }
}

/// Counts ranges with increasing starts that lie in one of `spans`.
fn count(
    ngrams: Range<usize>,
    start: impl Fn(usize) -> usize,
    end: impl Fn(usize) -> usize,
    spans: &[Span],
) -> NgramOverlap {
    let (mut found, mut after) = (0, 0);
    let total = ngrams.len();
    for ngram in ngrams {
        while spans.get(after).is_some_and(|s| s.start <= start(ngram)) {
            after += 1;
        }
        // Of the spans that start early enough, the last one ends last.
        if after > 0 && spans[after - 1].end >= end(ngram) {
            found += 1;
        }
    }
    NgramOverlap { found, total }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::originality::text::TextIndexConfig;

    fn overlaps(index: &TextIndex, text: &str, n: &[usize], unit: TextUnit) -> Vec<(usize, usize)> {
        let overlaps = index.ngram_overlap(text, n, unit).unwrap();
        overlaps.iter().map(|o| (o.found, o.total)).collect()
    }

    #[test]
    fn characters_match_count_by_hand() {
        let index = TextIndex::from_texts(&["我爱猫", "bc"], &TextIndexConfig::default()).unwrap();
        // 我 爱 not 狗; 我爱 not 爱狗.
        assert_eq!(
            overlaps(&index, "我爱狗", &[1, 2, 3, 4], TextUnit::Characters),
            [(2, 3), (1, 2), (0, 1), (0, 0)]
        );
        assert_eq!(overlaps(&index, "", &[1], TextUnit::Characters), [(0, 0)]);
        assert_eq!(NgramOverlap::default().share(), None);
        assert_eq!(NgramOverlap { found: 1, total: 4 }.share(), Some(0.25));
    }

    #[test]
    fn words_are_whole() {
        let index =
            TextIndex::from_texts(&["the bobcat  sat\non a mat"], &TextIndexConfig::default())
                .unwrap();
        // the, sat and on occur, cat does not; "sat on" occurs over the line break.
        assert_eq!(
            overlaps(&index, "the cat sat on", &[1, 2, 3, 5], TextUnit::Words),
            [(3, 4), (1, 3), (0, 2), (0, 0)]
        );
        assert_eq!(overlaps(&index, "mat", &[1], TextUnit::Words), [(1, 1)]);
        assert_eq!(overlaps(&index, " ", &[1], TextUnit::Words), [(0, 0)]);
    }

    #[test]
    fn impossible_ngrams_are_errors() {
        let config = TextIndexConfig {
            normalize_whitespace: false,
            ..TextIndexConfig::default()
        };
        let index = TextIndex::from_texts(&["abc"], &config).unwrap();
        for (n, unit, name) in [
            (0, TextUnit::Characters, "`n`"),
            (1, TextUnit::Words, "`unit`"),
        ] {
            let error = index.ngram_overlap("abc", &[n], unit).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
