//! BLEU.

mod score;
mod statistics;

pub use score::{BleuScore, Smoothing};
pub use statistics::BleuStatistics;

use super::{MAX_ORDER, Tokenizer, corpus::per_sentence};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::hash::Hash;

/// BLEU (Papineni et al. 2002, <https://aclanthology.org/P02-1040>):
/// `BP · exp(Σ ln pₙ / N)`, where `pₙ` is the share of the n-grams of the hypotheses that the
/// references have, and `BP` the penalty for hypotheses shorter than their references. Definitions
/// and defaults are those of sacrebleu. For single sentences set
/// [`effective_order`](Self::effective_order).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Bleu {
    /// How text is split; 13a by default.
    pub tokenizer: Tokenizer,
    /// Whether case is ignored; `false` by default.
    pub lowercase: bool,
    /// `N`, the longest n-grams that count; 4 by default.
    pub max_order: usize,
    /// What stands for precisions of zero; exponential by default.
    pub smoothing: Smoothing,
    /// Whether `N` is lowered where the hypotheses are too short to have n-grams of that length;
    /// `false` by default.
    pub effective_order: bool,
}

impl Default for Bleu {
    fn default() -> Self {
        Self {
            tokenizer: Tokenizer::default(),
            lowercase: false,
            max_order: 4,
            smoothing: Smoothing::default(),
            effective_order: false,
        }
    }
}

impl Bleu {
    /// The score of a corpus. `references[i]` are the references of `hypotheses[i]`; their number
    /// may differ.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no hypotheses, another number of lists of references, a
    /// hypothesis without references, or settings out of range.
    pub fn corpus<R: AsRef<[S]>, S: AsRef<str>>(
        &self,
        hypotheses: &[impl AsRef<str>],
        references: &[R],
    ) -> Result<BleuScore> {
        self.combine(&self.statistics(hypotheses, references)?)
    }

    /// [`corpus`](Self::corpus) for texts that are tokenised already, words or ids.
    ///
    /// # Errors
    /// See [`corpus`](Self::corpus).
    pub fn corpus_tokens<T: Eq + Hash, R: AsRef<[S]>, S: AsRef<[T]>>(
        &self,
        hypotheses: &[impl AsRef<[T]>],
        references: &[R],
    ) -> Result<BleuScore> {
        self.validate()?;
        let statistics = per_sentence(hypotheses, references, |hypothesis, references| {
            BleuStatistics::of(hypothesis.as_ref(), references.as_ref(), self.max_order)
        })?;
        self.combine(&statistics)
    }

    /// The score of one sentence.
    ///
    /// # Errors
    /// See [`corpus`](Self::corpus).
    pub fn sentence(&self, hypothesis: &str, references: &[impl AsRef<str>]) -> Result<BleuScore> {
        self.corpus(&[hypothesis], &[references])
    }

    /// [`sentence`](Self::sentence) for texts that are tokenised already, words or ids.
    ///
    /// # Errors
    /// See [`corpus`](Self::corpus).
    pub fn sentence_tokens<T: Eq + Hash>(
        &self,
        hypothesis: &[T],
        references: &[impl AsRef<[T]>],
    ) -> Result<BleuScore> {
        self.corpus_tokens(&[hypothesis], &[references])
    }

    /// The statistics of every sentence, from which [`combine`](Self::combine) computes the score
    /// of any selection of sentences: the way to a [bootstrap](crate::eval::bootstrap) interval.
    ///
    /// # Errors
    /// See [`corpus`](Self::corpus).
    pub fn statistics<R: AsRef<[S]>, S: AsRef<str>>(
        &self,
        hypotheses: &[impl AsRef<str>],
        references: &[R],
    ) -> Result<Vec<BleuStatistics>> {
        self.validate()?;
        per_sentence(hypotheses, references, |hypothesis, references| {
            let references = references.as_ref().iter();
            let references: Vec<_> = references.map(|text| self.split(text.as_ref())).collect();
            let hypothesis = self.split(hypothesis.as_ref());
            BleuStatistics::of(&hypothesis, &references, self.max_order)
        })
    }

    /// The score of the sentences with these statistics.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they were computed for another
    /// [`max_order`](Self::max_order), or settings are out of range.
    pub fn combine<'a>(
        &self,
        statistics: impl IntoIterator<Item = &'a BleuStatistics>,
    ) -> Result<BleuScore> {
        self.validate()?;
        let mut sum = BleuStatistics::zero(self.max_order);
        for sentence in statistics {
            sum.add(sentence)?;
        }
        Ok(self.score(sum))
    }

    pub(in crate::eval::text) fn split(&self, text: &str) -> Vec<String> {
        match self.lowercase {
            true => self.tokenizer.tokenize(&text.to_lowercase()),
            false => self.tokenizer.tokenize(text),
        }
    }

    pub(in crate::eval::text) fn validate(&self) -> Result<()> {
        if self.max_order == 0 || self.max_order > MAX_ORDER {
            let expected = format!("1 to {MAX_ORDER}");
            return Err(Error::argument("max_order", self.max_order, expected));
        }
        match self.smoothing {
            Smoothing::Floor(value) | Smoothing::AddK(value)
                if !(value.is_finite() && value >= 0.0) =>
            {
                Err(Error::argument(
                    "smoothing",
                    value,
                    "a finite number, at least 0",
                ))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{eval::bootstrap, rng::Rng};

    /// The example of Papineni et al. (2002), section 2.1: clipped, two of seven words match.
    #[test]
    fn counts_are_clipped() {
        let score = Bleu::default()
            .sentence(
                "the the the the the the the",
                &["The cat is on the mat", "There is a cat on the mat"],
            )
            .unwrap();
        assert_eq!((score.counts[0], score.totals[0]), (1, 7));
        let lowercase = Bleu {
            lowercase: true,
            ..Bleu::default()
        };
        let score = lowercase
            .sentence(
                "the the the the the the the",
                &["The cat is on the mat", "There is a cat on the mat"],
            )
            .unwrap();
        assert_eq!((score.counts[0], score.totals[0]), (2, 7));
    }

    #[test]
    fn ids_score_as_words() {
        let bleu = Bleu {
            max_order: 2,
            smoothing: Smoothing::None,
            ..Bleu::default()
        };
        // 3 of 4 unigrams, 2 of 3 bigrams; one token shorter than the reference.
        let score = bleu
            .sentence_tokens(&[1, 2, 3, 9], &[vec![1, 2, 3, 4, 5]])
            .unwrap();
        let expected = 100.0 * (-0.25f64).exp() * (0.5f64).sqrt();
        assert!((score.score - expected).abs() < 1e-12);
        let words = bleu.sentence("a b c x", &["a b c d e"]).unwrap();
        assert_eq!(score, words);
    }

    /// The corpus score lies within the bounds of resampled corpora, which are not all the same.
    #[test]
    fn statistics_can_be_resampled() {
        let bleu = Bleu::default();
        let hypotheses = ["a b c d e f", "a b c x y z", "q r s t u v"];
        let references = [["a b c d e g"], ["a b c d y z"], ["q r s t u v"]];
        let statistics = bleu.statistics(&hypotheses, &references).unwrap();
        let all = bleu.combine(&statistics).unwrap();
        assert_eq!(all, bleu.corpus(&hypotheses, &references).unwrap());
        let (low, high) = bootstrap(3, 200, 0.95, &mut Rng::new(0), |items| {
            Ok(bleu.combine(items.iter().map(|i| &statistics[*i]))?.score)
        })
        .unwrap();
        assert!(low < all.score && all.score < high);
    }

    #[test]
    fn wrong_input_is_named() {
        let message = |result: Result<BleuScore>| result.unwrap_err().to_string();
        let bleu = Bleu::default();
        let none: [&str; 0] = [];
        let no_lists: [[&str; 1]; 0] = [];
        assert!(message(bleu.corpus(&none, &no_lists)).contains("`hypotheses`"));
        assert!(message(bleu.corpus(&["a", "b"], &[["a"]])).contains("1 lists"));
        assert!(message(bleu.sentence("a", &none)).contains("`references`"));
        for max_order in [0, usize::MAX] {
            let order = Bleu {
                max_order,
                ..Bleu::default()
            };
            assert!(message(order.sentence("a", &["a"])).contains("`max_order`"));
        }
        let smoothing = Bleu {
            smoothing: Smoothing::AddK(f64::NAN),
            ..Bleu::default()
        };
        assert!(message(smoothing.sentence("a", &["a"])).contains("NaN"));
        let shorter = Bleu {
            max_order: 2,
            ..Bleu::default()
        };
        let statistics = shorter.statistics(&["a"], &[["a"]]).unwrap();
        assert!(message(bleu.combine(&statistics)).contains("order 2"));
    }
}
