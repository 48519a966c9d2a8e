//! Self-BLEU.

use super::{
    Bleu, Smoothing, Tokenizer,
    bleu::BleuStatistics,
    ngrams::{count, number},
};
use crate::{Error, Result, rng::Rng};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// Self-BLEU (Zhu et al. 2018, <https://arxiv.org/abs/1802.01886>): the mean BLEU of each text with
/// all others as its references. High values mean that the texts resemble each other. It rises with
/// the number of texts: compare sets of one size only.
///
/// The cost is linear in the number of tokens, not quadratic in that of texts: an n-gram's largest
/// number in *other* texts is its largest number in all, or the second largest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SelfBleu {
    /// The score of a text. By default words of any language, n-grams up to 4, the smoothing of the
    /// authors' program (a floor of 0.1), and fewer orders for texts that are too short.
    pub bleu: Bleu,
    /// Maximum number of texts, 10,000 by default. Of a larger set, a subset of this size is
    /// drawn.
    pub max_texts: usize,
    /// Seed of the draw.
    pub seed: u64,
}

impl Default for SelfBleu {
    fn default() -> Self {
        Self {
            bleu: Bleu {
                tokenizer: Tokenizer::Words,
                smoothing: Smoothing::Floor(0.1),
                effective_order: true,
                ..Bleu::default()
            },
            max_texts: 10_000,
            seed: 0,
        }
    }
}

/// A self-BLEU score.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfBleuScore {
    /// The mean score, 0 to 100.
    pub score: f64,
    /// Number of texts that were compared.
    pub texts: usize,
}

/// The largest number of an n-gram in a text.
#[derive(Default)]
struct Most {
    count: usize,
    text: usize,
    /// The largest number in any other text.
    second: usize,
}

impl SelfBleu {
    /// Self-BLEU of a set of texts.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for fewer than 2 texts, or settings out of range.
    pub fn score(&self, texts: &[impl AsRef<str>]) -> Result<SelfBleuScore> {
        let texts: Vec<_> = self
            .draw(texts.len())?
            .into_iter()
            .map(|i| self.bleu.split(texts[i].as_ref()))
            .collect();
        self.compare(&texts.iter().map(Vec::as_slice).collect::<Vec<_>>())
    }

    /// [`score`](Self::score) for texts that are tokenised already, words or ids.
    ///
    /// # Errors
    /// See [`score`](Self::score).
    pub fn score_tokens<T: Eq + Hash>(&self, texts: &[impl AsRef<[T]>]) -> Result<SelfBleuScore> {
        let texts: Vec<_> = self
            .draw(texts.len())?
            .into_iter()
            .map(|i| texts[i].as_ref())
            .collect();
        self.compare(&texts)
    }

    /// Which texts are compared.
    fn draw(&self, texts: usize) -> Result<Vec<usize>> {
        self.bleu.validate()?;
        if texts < 2 {
            return Err(Error::argument("texts", texts, "at least 2 texts"));
        }
        if self.max_texts < 2 {
            return Err(Error::argument("max_texts", self.max_texts, "at least 2"));
        }
        if texts <= self.max_texts {
            return Ok((0..texts).collect());
        }
        let mut drawn = Rng::stream(self.seed, "self-bleu", 0).permutation(texts);
        drawn.truncate(self.max_texts);
        drawn.sort_unstable();
        Ok(drawn)
    }

    fn compare<T: Eq + Hash>(&self, texts: &[&[T]]) -> Result<SelfBleuScore> {
        let orders = 1..=self.bleu.max_order;
        let ref_lens = closest_other_lengths(texts);
        let mut statistics: Vec<_> = texts
            .iter()
            .zip(ref_lens)
            .map(|(text, ref_len)| BleuStatistics {
                counts: vec![0; self.bleu.max_order],
                totals: orders.clone().map(|n| number(text.len(), n)).collect(),
                sys_len: text.len(),
                ref_len,
            })
            .collect();
        // One order after the other, which bounds the memory.
        for n in orders {
            let mut most: HashMap<&[T], Most> = HashMap::new();
            for (i, text) in texts.iter().enumerate() {
                for (ngram, count) in count(text, n) {
                    let most = most.entry(ngram).or_default();
                    if count > most.count {
                        most.second = most.count;
                        (most.count, most.text) = (count, i);
                    } else {
                        most.second = most.second.max(count);
                    }
                }
            }
            for (i, text) in texts.iter().enumerate() {
                statistics[i].counts[n - 1] = count(text, n)
                    .into_iter()
                    .map(|(ngram, count)| {
                        let most = &most[ngram];
                        count.min(if most.text == i {
                            most.second
                        } else {
                            most.count
                        })
                    })
                    .sum();
            }
        }
        let count = statistics.len();
        let scores = statistics
            .into_iter()
            .map(|statistics| self.bleu.score(statistics).score);
        Ok(SelfBleuScore {
            score: scores.sum::<f64>() / count as f64,
            texts: count,
        })
    }
}

/// For each text, the length closest to its own among the others; of two, the smaller.
fn closest_other_lengths<T>(texts: &[&[T]]) -> Vec<usize> {
    let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
    for text in texts {
        *lengths.entry(text.len()).or_insert(0) += 1;
    }
    texts
        .iter()
        .map(|text| {
            let len = text.len();
            if lengths[&len] > 1 {
                return len;
            }
            let below = lengths.range(..len).next_back();
            let above = lengths.range(len + 1..).next();
            let others = below.into_iter().chain(above).map(|(other, _)| *other);
            others.min_by_key(|other| other.abs_diff(len)).unwrap_or(0)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against the definition, text by text, on random texts with many repeated n-grams.
    #[test]
    fn score_matches_definition() {
        let mut rng = Rng::new(3);
        let texts: Vec<Vec<usize>> = (0..40)
            .map(|_| {
                let len = rng.random_index(12);
                (0..len).map(|_| rng.random_index(4)).collect()
            })
            .collect();
        let measure = SelfBleu::default();
        let scores = (0..texts.len()).map(|i| {
            let mut others = texts.clone();
            let text = others.remove(i);
            measure.bleu.sentence_tokens(&text, &others).unwrap().score
        });
        let expected = scores.sum::<f64>() / texts.len() as f64;
        let found = measure.score_tokens(&texts).unwrap();
        assert!(
            (found.score - expected).abs() < 1e-9,
            "{found:?} {expected}"
        );
        assert_eq!(found.texts, 40);
    }

    #[test]
    fn same_texts_score_100_and_different_ones_0() {
        let measure = SelfBleu::default();
        let same = measure.score(&["今天天气很好"; 3]).unwrap().score;
        assert!((same - 100.0).abs() < 1e-9);
        let different = measure.score(&["a b c d e", "f g h i j"]).unwrap().score;
        assert_eq!(different, 0.0);
    }

    #[test]
    fn large_sets_are_sampled_by_seed() {
        let texts: Vec<Vec<usize>> = (0..50).map(|i| (i..i + 3 + i % 5).collect()).collect();
        let score = |seed| {
            let measure = SelfBleu {
                max_texts: 10,
                seed,
                ..SelfBleu::default()
            };
            measure.score_tokens(&texts).unwrap()
        };
        assert_eq!(score(1).texts, 10);
        assert_eq!(score(1), score(1));
        assert_ne!(score(1).score, score(2).score);
    }

    #[test]
    fn wrong_input_is_named() {
        let error = SelfBleu::default().score(&["a"]).unwrap_err().to_string();
        assert!(error.contains("`texts` is 1"), "{error}");
        let measure = SelfBleu {
            max_texts: 1,
            ..SelfBleu::default()
        };
        let error = measure.score(&["a", "b"]).unwrap_err().to_string();
        assert!(error.contains("`max_texts`"), "{error}");
    }
}
