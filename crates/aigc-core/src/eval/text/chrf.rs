//! chrF and chrF++.

use super::{
    MAX_ORDER, check_references,
    corpus::per_sentence,
    ngrams::{NgramCounts, count, number, overlap},
    tokenizer::is_space,
};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::hash::Hash;

/// chrF (Popović 2015, <https://aclanthology.org/W15-3049>) and chrF++ (Popović 2017,
/// <https://aclanthology.org/W17-4770>): the F-score of n-grams of characters, and of words too,
/// averaged over their lengths. Definitions and defaults are those of sacrebleu. It needs no
/// tokenizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Chrf {
    /// The longest n-grams of characters; 6 by default.
    pub char_order: usize,
    /// The longest n-grams of words; 0 by default (chrF), 2 for chrF++.
    pub word_order: usize,
    /// How much more recall counts than precision; 2 by default.
    pub beta: f64,
    /// Whether case is ignored; `false` by default.
    pub lowercase: bool,
    /// Whether white space counts as a character; `false` by default.
    pub whitespace: bool,
    /// Averages the F-scores of all orders, where those without n-grams have nearly 0, as chrF++.py
    /// and NLTK do. By default (`false`) precision and recall are averaged, over the orders of
    /// which both texts have n-grams.
    pub eps_smoothing: bool,
}

impl Default for Chrf {
    fn default() -> Self {
        Self {
            char_order: 6,
            word_order: 0,
            beta: 2.0,
            lowercase: false,
            whitespace: false,
            eps_smoothing: false,
        }
    }
}

/// What the score needs to know of one sentence: for each order, the n-grams of the hypothesis, of
/// the reference, and of both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChrfStatistics(Vec<[usize; 3]>);

/// A text as characters and words.
struct Split<'a> {
    characters: Vec<u32>,
    words: Vec<&'a str>,
}

impl Chrf {
    /// chrF++: n-grams of one and two words count too.
    pub fn plus_plus() -> Self {
        Self {
            word_order: 2,
            ..Self::default()
        }
    }

    /// The score of a corpus, 0 to 100. `references[i]` are the references of `hypotheses[i]`;
    /// their number may differ, and of each list the best counts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no hypotheses, another number of lists of references, a
    /// hypothesis without references, or settings out of range.
    pub fn corpus<R: AsRef<[S]>, S: AsRef<str>>(
        &self,
        hypotheses: &[impl AsRef<str>],
        references: &[R],
    ) -> Result<f64> {
        self.combine(&self.statistics(hypotheses, references)?)
    }

    /// The score of one sentence, 0 to 100.
    ///
    /// # Errors
    /// See [`corpus`](Self::corpus).
    pub fn sentence(&self, hypothesis: &str, references: &[impl AsRef<str>]) -> Result<f64> {
        self.corpus(&[hypothesis], &[references])
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
    ) -> Result<Vec<ChrfStatistics>> {
        self.validate()?;
        per_sentence(hypotheses, references, |hypothesis, references| {
            self.sentence_statistics(hypothesis.as_ref(), references.as_ref())
        })
    }

    /// The score of the sentences with these statistics, 0 to 100.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if they were computed for other orders, or settings are out of
    /// range.
    pub fn combine<'a>(
        &self,
        statistics: impl IntoIterator<Item = &'a ChrfStatistics>,
    ) -> Result<f64> {
        self.validate()?;
        let mut sum = vec![[0; 3]; self.char_order + self.word_order];
        for ChrfStatistics(sentence) in statistics {
            if sentence.len() != sum.len() {
                return Err(Error::argument(
                    "statistics",
                    format!("of {} orders", sentence.len()),
                    format!("{}, as `char_order` + `word_order`", sum.len()),
                ));
            }
            for (sum, sentence) in sum.iter_mut().zip(sentence) {
                for (sum, value) in sum.iter_mut().zip(sentence) {
                    *sum += value;
                }
            }
        }
        Ok(self.score(&sum))
    }

    fn validate(&self) -> Result<()> {
        for (name, order) in [
            ("char_order", self.char_order),
            ("word_order", self.word_order),
        ] {
            if order > MAX_ORDER {
                return Err(Error::argument(name, order, format!("at most {MAX_ORDER}")));
            }
        }
        if self.char_order + self.word_order == 0 {
            let expected = "at least 1, or `word_order` at least 1";
            return Err(Error::argument("char_order", 0, expected));
        }
        if !(self.beta.is_finite() && self.beta > 0.0) {
            return Err(Error::argument(
                "beta",
                self.beta,
                "a finite number above 0",
            ));
        }
        Ok(())
    }

    fn sentence_statistics(
        &self,
        hypothesis: &str,
        references: &[impl AsRef<str>],
    ) -> Result<ChrfStatistics> {
        check_references(references.len())?;
        let text = self.cased(hypothesis);
        let hypothesis = self.split(&text);
        let characters: Vec<_> = (1..=self.char_order)
            .map(|n| count(&hypothesis.characters, n))
            .collect();
        let words: Vec<_> = (1..=self.word_order)
            .map(|n| count(&hypothesis.words, n))
            .collect();
        let mut best: Option<(f64, Vec<[usize; 3]>)> = None;
        for reference in references {
            let text = self.cased(reference.as_ref());
            let reference = self.split(&text);
            let of_characters = characters.iter().zip(1..).map(|(ngrams, n)| {
                compare(&hypothesis.characters, ngrams, &reference.characters, n)
            });
            let of_words = words
                .iter()
                .zip(1..)
                .map(|(ngrams, n)| compare(&hypothesis.words, ngrams, &reference.words, n));
            let found: Vec<_> = of_characters.chain(of_words).collect();
            let score = self.score(&found);
            if best.as_ref().is_none_or(|(most, _)| score > *most) {
                best = Some((score, found));
            }
        }
        Ok(ChrfStatistics(
            best.map(|(_, found)| found).unwrap_or_default(),
        ))
    }

    fn cased(&self, text: &str) -> String {
        match self.lowercase {
            true => text.to_lowercase(),
            false => text.to_string(),
        }
    }

    fn split<'a>(&self, text: &'a str) -> Split<'a> {
        Split {
            characters: text
                .chars()
                .filter(|c| self.whitespace || !is_space(*c))
                .map(u32::from)
                .collect(),
            words: match self.word_order {
                0 => Vec::new(),
                _ => separate_punctuation(text),
            },
        }
    }

    fn score(&self, statistics: &[[usize; 3]]) -> f64 {
        const EPSILON: f64 = 1e-16;
        let factor = self.beta.powi(2);
        let f_score = |precision: f64, recall: f64| {
            (1.0 + factor) * precision * recall / (factor * precision + recall)
        };
        let share = |matches: usize, of: usize| match of {
            0 => EPSILON,
            _ => matches as f64 / of as f64,
        };
        if self.eps_smoothing {
            let sum: f64 = statistics
                .iter()
                .map(|[hypothesis, reference, matches]| {
                    let precision = share(*matches, *hypothesis);
                    let recall = share(*matches, *reference);
                    match factor * precision + recall > 0.0 {
                        true => f_score(precision, recall),
                        false => EPSILON,
                    }
                })
                .sum();
            return 100.0 * sum / statistics.len() as f64;
        }
        let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
        for [hypothesis, reference, matches] in statistics {
            if *hypothesis > 0 && *reference > 0 {
                precision += share(*matches, *hypothesis);
                recall += share(*matches, *reference);
                orders += 1.0;
            }
        }
        match precision + recall > 0.0 {
            true => 100.0 * f_score(precision / orders, recall / orders),
            false => 0.0,
        }
    }
}

/// The n-grams of a hypothesis, of its reference, and of both. Those of a length that the reference
/// is too short for do not count as wrong.
fn compare<T: Eq + Hash>(
    hypothesis: &[T],
    ngrams: &NgramCounts<'_, T>,
    reference: &[T],
    n: usize,
) -> [usize; 3] {
    match number(reference.len(), n) {
        0 => [0; 3],
        in_reference => [
            number(hypothesis.len(), n),
            in_reference,
            overlap(ngrams, &count(reference, n)),
        ],
    }
}

/// The words of a text, with a punctuation mark at the end of each split off, or else one at its
/// beginning. Only ASCII counts as punctuation, and only one mark is split off, as in chrF++.py.
fn separate_punctuation(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    for word in text.split(is_space).filter(|word| !word.is_empty()) {
        let ends = |c: char| c.is_ascii_punctuation();
        if word.chars().nth(1).is_none() {
            words.push(word);
        } else if word.ends_with(ends) {
            let (word, mark) = word.split_at(word.len() - 1);
            words.extend([word, mark]);
        } else if word.starts_with(ends) {
            let (mark, word) = word.split_at(1);
            words.extend([mark, word]);
        } else {
            words.push(word);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extremes_have_extreme_scores() {
        for chrf in [Chrf::default(), Chrf::plus_plus()] {
            let same = chrf
                .sentence("今天天气很好。", &["今天天气很好。"])
                .unwrap();
            assert!((same - 100.0).abs() < 1e-9, "{same}");
            assert_eq!(chrf.sentence("abc", &["xyz"]).unwrap(), 0.0);
            assert_eq!(chrf.sentence("", &["xyz"]).unwrap(), 0.0);
        }
    }

    /// Of unigrams, 3 of 3 characters of the hypothesis match, and 3 of 4 of the reference.
    #[test]
    fn recall_counts_beta_squared_times() {
        let chrf = Chrf {
            char_order: 1,
            ..Chrf::default()
        };
        let score = chrf.sentence("a bc", &["abcd"]).unwrap();
        assert!((score - 100.0 * 5.0 * 0.75 / 4.75).abs() < 1e-9, "{score}");
    }

    #[test]
    fn marks_are_separated() {
        assert_eq!(
            separate_punctuation("(hi) 'tis, . don't 好。"),
            ["(hi", ")", "'tis", ",", ".", "don't", "好。"]
        );
    }

    #[test]
    fn wrong_input_is_named() {
        let none: [&str; 0] = [];
        let message = |result: Result<f64>| result.unwrap_err().to_string();
        let chrf = Chrf::default();
        assert!(message(chrf.sentence("a", &none)).contains("`references`"));
        assert!(message(chrf.corpus(&["a"], &[["b"], ["c"]])).contains("2 lists"));
        let beta = Chrf {
            beta: f64::NAN,
            ..Chrf::default()
        };
        assert!(message(beta.sentence("a", &["a"])).contains("`beta`"));
        let orders = Chrf {
            char_order: 0,
            ..Chrf::default()
        };
        assert!(message(orders.sentence("a", &["a"])).contains("`char_order`"));
        let orders = Chrf {
            word_order: usize::MAX,
            ..Chrf::default()
        };
        assert!(message(orders.sentence("a", &["a"])).contains("`word_order`"));
        let statistics = Chrf::plus_plus().statistics(&["a"], &[["a"]]).unwrap();
        assert!(message(chrf.combine(&statistics)).contains("8 orders"));
    }
}
