//! Originality of a set of generated texts, beside that of held-out ones.

use super::{
    index::{CopiedSpan, TextIndex},
    overlap::{NgramOverlap, TextUnit, overlap},
    spans::{Span, covered},
};
use crate::{Error, Result, eval::bootstrap, rng::Rng};
use std::cmp::Reverse;

/// What [`TextIndex::originality`] measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalityConfig {
    /// Lengths of n-grams; by default 1 to 10, 20 and 50.
    pub ngrams: Vec<usize>,
    /// What n-grams consist of; characters by default.
    pub unit: TextUnit,
    /// Shortest span that counts as copied, in characters; 50 by default.
    pub min_span_characters: usize,
    /// Number of longest spans to list; 10 by default.
    pub longest_spans: usize,
}

impl Default for OriginalityConfig {
    fn default() -> Self {
        Self {
            ngrams: (1..=10).chain([20, 50]).collect(),
            unit: TextUnit::Characters,
            min_span_characters: 50,
            longest_spans: 10,
        }
    }
}

/// What of a set of texts occurs in the training text.
#[derive(Clone, Debug, PartialEq)]
pub struct TextOriginality {
    /// Number of texts.
    pub texts: usize,
    /// Number of characters, after normalisation.
    pub characters: usize,
    /// Lengths of n-grams, and how many of them occur in the training text.
    pub ngrams: Vec<(usize, NgramOverlap)>,
    /// Number of characters in copied spans of at least the configured length.
    pub copied_characters: usize,
    /// The longest spans, longest first; also those shorter than the configured length.
    pub longest: Vec<TextSpan>,
    /// The part of each text in these numbers.
    parts: Vec<Part>,
}

/// The part of one text.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    /// Characters: copied ones, and all.
    characters: NgramOverlap,
    /// For each length of n-grams.
    ngrams: Vec<NgramOverlap>,
}

impl TextOriginality {
    /// The share of characters in copied spans, in `[0, 1]`; `None` without characters.
    pub fn copied_share(&self) -> Option<f64> {
        (self.characters > 0).then(|| self.copied_characters as f64 / self.characters as f64)
    }

    /// A bootstrap interval of [`copied_share`](Self::copied_share): texts are drawn with
    /// replacement, as the characters of a text are not independent.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] without characters, for fewer than 20 rounds, or a confidence
    /// outside (0, 1).
    pub fn copied_interval(
        &self,
        rounds: usize,
        confidence: f64,
        rng: &mut Rng,
    ) -> Result<(f64, f64)> {
        let parts = self.parts.iter().map(|part| part.characters);
        share_interval(parts, rounds, confidence, rng)
    }

    /// A bootstrap interval of the share of n-grams of length `n` that occur in the training text;
    /// see [`copied_interval`](Self::copied_interval).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` is not among [`ngrams`](Self::ngrams), or no text has
    /// n-grams of this length; for fewer than 20 rounds, or a confidence outside (0, 1).
    pub fn ngram_interval(
        &self,
        n: usize,
        rounds: usize,
        confidence: f64,
        rng: &mut Rng,
    ) -> Result<(f64, f64)> {
        let Some(column) = self.ngrams.iter().position(|(length, _)| *length == n) else {
            let lengths: Vec<usize> = self.ngrams.iter().map(|(length, _)| *length).collect();
            return Err(Error::argument("n", n, format!("one of {lengths:?}")));
        };
        let parts = self.parts.iter().map(|part| part.ngrams[column]);
        share_interval(parts, rounds, confidence, rng)
    }
}

/// Of the share of all parts together.
fn share_interval(
    parts: impl Iterator<Item = NgramOverlap>,
    rounds: usize,
    confidence: f64,
    rng: &mut Rng,
) -> Result<(f64, f64)> {
    // An empty part changes no share, and a round of empty ones has none.
    let parts: Vec<NgramOverlap> = parts.filter(|part| part.total > 0).collect();
    if parts.is_empty() {
        let expected = "at least one with characters or n-grams of this length";
        return Err(Error::argument("texts", "all too short", expected));
    }
    bootstrap(parts.len(), rounds, confidence, rng, |items| {
        let mut sum = NgramOverlap::default();
        items.iter().for_each(|i| sum += parts[*i]);
        Ok(sum.found as f64 / sum.total as f64)
    })
}

/// A copied span of one of several texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextSpan {
    /// Number of the text, from 0.
    pub text: usize,
    /// The span.
    pub span: CopiedSpan,
    /// Its part of the text.
    pub passage: String,
}

/// Originality of generated texts and, for comparison, of held-out ones.
///
/// Text that a model never saw shares short n-grams with its training text too. Generated text is
/// copied where it shares more than that.
#[derive(Clone, Debug, PartialEq)]
pub struct OriginalityReport {
    /// Of the generated texts.
    pub generated: TextOriginality,
    /// Of the held-out texts.
    pub held_out: TextOriginality,
}

impl TextIndex {
    /// What of `texts` occurs in the training text.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no texts, a text has 2³¹ bytes or more, a length of
    /// n-grams or spans is 0, or for [words](TextUnit::Words) if the index does not normalise
    /// whitespace.
    pub fn originality<S: AsRef<str>>(
        &self,
        texts: &[S],
        config: &OriginalityConfig,
    ) -> Result<TextOriginality> {
        self.originality_of("texts", texts, config)
    }

    /// [`originality`](Self::originality) of generated texts and of held-out ones, which the model
    /// was not trained on. Both should be of the same kind and of similar lengths.
    ///
    /// # Errors
    /// Those of [`originality`](Self::originality).
    pub fn originality_report<S: AsRef<str>, T: AsRef<str>>(
        &self,
        generated: &[S],
        held_out: &[T],
        config: &OriginalityConfig,
    ) -> Result<OriginalityReport> {
        Ok(OriginalityReport {
            generated: self.originality_of("generated", generated, config)?,
            held_out: self.originality_of("held_out", held_out, config)?,
        })
    }

    fn originality_of<S: AsRef<str>>(
        &self,
        name: &str,
        texts: &[S],
        config: &OriginalityConfig,
    ) -> Result<TextOriginality> {
        if texts.is_empty() {
            return Err(Error::argument(name, "empty", "at least one text"));
        }
        if config.min_span_characters == 0 {
            return Err(Error::argument("min_span_characters", 0, "at least 1"));
        }
        self.check_ngrams(&config.ngrams, config.unit)?;
        let lengths = config.ngrams.iter();
        let mut result = TextOriginality {
            texts: texts.len(),
            characters: 0,
            ngrams: lengths.map(|n| (*n, NgramOverlap::default())).collect(),
            copied_characters: 0,
            longest: Vec::new(),
            parts: Vec::with_capacity(texts.len()),
        };
        for (number, text) in texts.iter().enumerate() {
            let text = text.as_ref();
            let query = self.query(name, text)?;
            let maximal = self.maximal(&query);
            let mut spans = self.trimmed(&query, &maximal);
            let is_long = |span: &&Span| span.characters() >= config.min_span_characters;
            let ngrams = config.ngrams.iter();
            let part = Part {
                characters: NgramOverlap {
                    found: covered(spans.iter().filter(is_long).copied()),
                    total: query.inner.len(),
                },
                ngrams: ngrams
                    .map(|n| overlap(&query, &maximal, *n, config.unit))
                    .collect(),
            };
            result.characters += part.characters.total;
            result.copied_characters += part.characters.found;
            for ((_, sum), of_text) in result.ngrams.iter_mut().zip(&part.ngrams) {
                *sum += *of_text;
            }
            result.parts.push(part);
            spans.sort_by_key(|span| (Reverse(span.characters()), span.start));
            spans.truncate(config.longest_spans);
            let listed = spans.iter().map(|span| {
                let span = self.copied(&query, span);
                TextSpan {
                    text: number,
                    passage: text[span.range.clone()].to_string(),
                    span,
                }
            });
            // A part of the lower case of one character is no passage.
            let listed = listed.filter(|entry| !entry.passage.is_empty());
            result.longest.extend(listed);
            // A stable sort: of equal lengths the earlier text comes first.
            result
                .longest
                .sort_by_key(|entry| Reverse(entry.span.characters));
            result.longest.truncate(config.longest_spans);
        }
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::originality::text::TextIndexConfig;

    #[test]
    fn report_compares_copies_with_held_out_text() {
        let training = ["The quick brown fox jumps over the lazy dog. It was late."];
        let index = TextIndex::from_texts(&training, &TextIndexConfig::default()).unwrap();
        let config = OriginalityConfig {
            ngrams: vec![1, 5],
            unit: TextUnit::Words,
            min_span_characters: 20,
            longest_spans: 2,
        };
        let generated = ["Zz quick brown fox  jumps over zz", "It was late."];
        let report = index
            .originality_report(&generated, &["A dog was over there"], &config)
            .unwrap();
        let (own, held_out) = (&report.generated, &report.held_out);
        assert_eq!((own.texts, own.characters), (2, 32 + 12));
        let counts = |o: &TextOriginality| -> Vec<(usize, usize)> {
            o.ngrams.iter().map(|(_, n)| (n.found, n.total)).collect()
        };
        assert_eq!(counts(own), [(8, 10), (1, 3)]);
        assert_eq!(counts(held_out), [(2, 5), (0, 1)]);
        assert_eq!(own.longest[0].passage, "quick brown fox  jumps over");
        assert_eq!(own.longest[1].text, 1);
        assert_eq!(own.copied_characters, 26);
        assert_eq!(own.copied_share(), Some(26.0 / 44.0));
        assert_eq!(held_out.copied_share(), Some(0.0));
    }

    /// Texts of equal length, a third of which are copied: nearly the normal interval of a share.
    /// Empty texts change nothing.
    #[test]
    fn intervals_are_those_of_independent_texts() {
        let copied = "The quick brown fox jumps over the lazy dog.";
        let own = "x".repeat(copied.chars().count());
        let index = TextIndex::from_texts(&[copied], &TextIndexConfig::default()).unwrap();
        let config = OriginalityConfig {
            ngrams: vec![5, 60],
            min_span_characters: 20,
            ..OriginalityConfig::default()
        };
        let mut texts = vec![own.as_str(); 60];
        texts[..20].fill(copied);
        let mut rng = Rng::new(1);
        let found = index.originality(&texts, &config).unwrap();
        let share = 1.0 / 3.0;
        assert!((found.copied_share().unwrap() - share).abs() < 1e-12);
        let half = 1.96 * (share * (1.0 - share) / 60.0f64).sqrt();
        for (low, high) in [
            found.copied_interval(2000, 0.95, &mut rng).unwrap(),
            found.ngram_interval(5, 2000, 0.95, &mut rng).unwrap(),
        ] {
            assert!((low - (share - half)).abs() < 0.2 * half, "{low}");
            assert!((high - (share + half)).abs() < 0.2 * half, "{high}");
        }
        texts.extend([""; 40]);
        let more = index.originality(&texts, &config).unwrap();
        let of = |found: &TextOriginality| found.copied_interval(200, 0.9, &mut Rng::new(2));
        assert_eq!(of(&more).unwrap(), of(&found).unwrap());
        let error = |n, rounds| {
            let found = found.ngram_interval(n, rounds, 0.95, &mut Rng::new(0));
            found.unwrap_err().to_string()
        };
        assert!(error(6, 100).contains("`n` is 6, expected one of [5, 60]"));
        assert!(error(60, 100).contains("all too short"));
        assert!(error(5, 19).contains("`rounds` is 19"));
    }

    #[test]
    fn impossible_reports_are_errors() {
        let index = TextIndex::from_texts(&["abc"], &TextIndexConfig::default()).unwrap();
        let config = OriginalityConfig::default();
        let none: [&str; 0] = [];
        let error = index
            .originality_report(&["a"], &none, &config)
            .unwrap_err();
        assert!(error.to_string().contains("`held_out` is empty"), "{error}");
        let zero = OriginalityConfig {
            min_span_characters: 0,
            ..config
        };
        assert!(index.originality(&["a"], &zero).is_err());
    }
}
