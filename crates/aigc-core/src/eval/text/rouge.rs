//! ROUGE.

use super::{
    Tokenizer, check_corpus, check_references,
    lcs::{Interner, length, positions},
    ngrams::{check_order, count, number, overlap},
    porter_stem,
};
use crate::{Error, Result, eval::bootstrap, rng::Rng};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, hash::Hash};

/// What ROUGE counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum RougeVariant {
    /// ROUGE-N: n-grams of this length.
    #[serde(rename = "rougeN")]
    N(usize),
    /// ROUGE-L: the longest common subsequence of the texts.
    #[serde(rename = "rougeL")]
    L,
    /// ROUGE-Lsum: the longest common subsequences of all pairs of lines, one sentence a line.
    #[serde(rename = "rougeLsum")]
    Lsum,
}

/// ROUGE (Lin 2004, <https://aclanthology.org/W04-1013>): how much of the references a text has.
/// Definitions are those of rouge-score. Its tokenizer finds no words in Chinese; use
/// [`Tokenizer::Words`] there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rouge {
    /// What is counted.
    pub variant: RougeVariant,
    /// How text is split; [`Tokenizer::Rouge`] by default.
    pub tokenizer: Tokenizer,
    /// Whether case is ignored; `true` by default.
    pub lowercase: bool,
    /// Whether English words of more than three letters count as equal if their
    /// [stems](porter_stem) are, in lower case; `use_stemmer` of rouge-score, `false` by default as
    /// there. Scores of summaries are often published with it.
    #[serde(default)]
    pub stem: bool,
}

/// Precision, recall and F-score, 0 to 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RougeScore {
    /// The share of the hypothesis that the reference has.
    pub precision: f64,
    /// The share of the reference that the hypothesis has.
    pub recall: f64,
    /// Their harmonic mean.
    pub fmeasure: f64,
}

/// Mean scores of a corpus with bootstrap intervals.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RougeAggregate {
    /// Lower bounds.
    pub low: RougeScore,
    /// Means. (`mid` of rouge-score is the median of the resampled means.)
    pub mean: RougeScore,
    /// Upper bounds.
    pub high: RougeScore,
    /// Number of scores.
    pub count: usize,
}

impl Rouge {
    /// This variant with the defaults of rouge-score.
    pub fn new(variant: RougeVariant) -> Self {
        Self {
            variant,
            tokenizer: Tokenizer::Rouge,
            lowercase: true,
            stem: false,
        }
    }

    /// The score of one text against the reference with the best F-score.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no references, or n-grams of length 0.
    pub fn sentence(&self, hypothesis: &str, references: &[impl AsRef<str>]) -> Result<RougeScore> {
        check_references(references.len())?;
        let hypothesis = self.split(hypothesis);
        let mut best: Option<RougeScore> = None;
        for reference in references {
            let score = self.score(&hypothesis, &self.split(reference.as_ref()))?;
            if best.is_none_or(|best| score.fmeasure > best.fmeasure) {
                best = Some(score);
            }
        }
        Ok(best.unwrap_or_default())
    }

    /// [`sentence`](Self::sentence) of every text of a corpus; [`RougeAggregate::from_scores`]
    /// gives their means. `references[i]` are the references of `hypotheses[i]`; their number may
    /// differ.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no hypotheses, another number of lists of references, a
    /// hypothesis without references, or n-grams of length 0.
    pub fn scores<R: AsRef<[S]>, S: AsRef<str>>(
        &self,
        hypotheses: &[impl AsRef<str>],
        references: &[R],
    ) -> Result<Vec<RougeScore>> {
        check_corpus(hypotheses.len(), references.len())?;
        hypotheses
            .iter()
            .zip(references)
            .map(|(hypothesis, references)| self.sentence(hypothesis.as_ref(), references.as_ref()))
            .collect()
    }

    /// The tokens of a text, or of each of its lines.
    fn split(&self, text: &str) -> Vec<Vec<String>> {
        let lowered = self.lowercase.then(|| text.to_lowercase());
        let text = lowered.as_deref().unwrap_or(text);
        match self.variant {
            RougeVariant::Lsum => text.split('\n').map(|line| self.tokens(line)).collect(),
            _ => vec![self.tokens(text)],
        }
    }

    fn tokens(&self, text: &str) -> Vec<String> {
        let mut tokens = self.tokenizer.tokenize(text);
        if self.stem {
            // Shorter words have no stems of their own in rouge-score.
            for token in &mut tokens {
                if token.chars().count() > 3 {
                    *token = porter_stem(token);
                }
            }
        }
        tokens
    }

    fn score(&self, hypothesis: &[Vec<String>], reference: &[Vec<String>]) -> Result<RougeScore> {
        match self.variant {
            RougeVariant::N(n) => rouge_n(&hypothesis[0], &reference[0], n),
            RougeVariant::L => Ok(rouge_l(&hypothesis[0], &reference[0])),
            RougeVariant::Lsum => Ok(rouge_lsum(hypothesis, reference)),
        }
    }
}

impl RougeScore {
    fn new(matches: usize, hypothesis: usize, reference: usize) -> Self {
        let precision = matches as f64 / hypothesis.max(1) as f64;
        let recall = matches as f64 / reference.max(1) as f64;
        Self {
            precision,
            recall,
            fmeasure: match matches {
                0 => 0.0,
                _ => 2.0 * precision * recall / (precision + recall),
            },
        }
    }
}

impl RougeAggregate {
    /// Means of `scores`, with bounds by [`bootstrap`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for no scores, fewer than 20 rounds, or a confidence outside
    /// (0, 1).
    pub fn from_scores(
        scores: &[RougeScore],
        rounds: usize,
        confidence: f64,
        seed: u64,
    ) -> Result<Self> {
        if scores.is_empty() {
            return Err(Error::argument("scores", "empty", "at least 1 score"));
        }
        // Low, mean and high. All measures see the same samples of texts.
        let measure = |value: fn(&RougeScore) -> f64| {
            let values: Vec<f64> = scores.iter().map(value).collect();
            let mut rng = Rng::stream(seed, "rouge", 0);
            let (low, high) = bootstrap(values.len(), rounds, confidence, &mut rng, |items| {
                Ok(items.iter().map(|i| values[*i]).sum::<f64>() / items.len() as f64)
            })?;
            Ok([low, values.iter().sum::<f64>() / values.len() as f64, high])
        };
        let precision = measure(|score| score.precision)?;
        let recall = measure(|score| score.recall)?;
        let fmeasure = measure(|score| score.fmeasure)?;
        let at = |i: usize| RougeScore {
            precision: precision[i],
            recall: recall[i],
            fmeasure: fmeasure[i],
        };
        Ok(Self {
            low: at(0),
            mean: at(1),
            high: at(2),
            count: scores.len(),
        })
    }
}

/// ROUGE-N of token sequences, words or ids.
///
/// # Errors
/// [`Error::InvalidArgument`] if `n` is 0.
pub fn rouge_n<T: Eq + Hash>(hypothesis: &[T], reference: &[T], n: usize) -> Result<RougeScore> {
    check_order("n", n)?;
    Ok(RougeScore::new(
        overlap(&count(hypothesis, n), &count(reference, n)),
        number(hypothesis.len(), n),
        number(reference.len(), n),
    ))
}

/// ROUGE-L of token sequences, words or ids.
pub fn rouge_l<T: Eq + Hash>(hypothesis: &[T], reference: &[T]) -> RougeScore {
    let mut interner = Interner::new();
    let matches = length(&interner.ids(hypothesis), &interner.ids(reference));
    RougeScore::new(matches, hypothesis.len(), reference.len())
}

/// ROUGE-Lsum of sentences of tokens, words or ids. A token of a reference sentence is a match if
/// it lies on the longest common subsequence with some sentence of the hypothesis, and no token of
/// the hypothesis counts twice, as in ROUGE-1.5.5.
pub fn rouge_lsum<T: Eq + Hash>(
    hypothesis: &[impl AsRef<[T]>],
    reference: &[impl AsRef<[T]>],
) -> RougeScore {
    let mut interner = Interner::new();
    let hypothesis: Vec<_> = hypothesis
        .iter()
        .map(|sentence| interner.ids(sentence.as_ref()))
        .collect();
    let reference: Vec<_> = reference
        .iter()
        .map(|sentence| interner.ids(sentence.as_ref()))
        .collect();
    let mut unused: HashMap<u32, usize> = HashMap::new();
    for token in hypothesis.iter().flatten() {
        *unused.entry(*token).or_insert(0) += 1;
    }
    let mut matches = 0;
    for sentence in &reference {
        let mut on_some = vec![false; sentence.len()];
        for other in &hypothesis {
            for i in positions(sentence, other) {
                on_some[i] = true;
            }
        }
        let found = sentence.iter().zip(on_some).filter(|(_, found)| *found);
        for (token, _) in found {
            if let Some(left) = unused.get_mut(token).filter(|left| **left > 0) {
                *left -= 1;
                matches += 1;
            }
        }
    }
    let tokens = |sentences: &[Vec<u32>]| sentences.iter().map(Vec::len).sum();
    RougeScore::new(matches, tokens(&hypothesis), tokens(&reference))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Examples of Lin (2004): section 3.1 (police killed the gunman) and 3.2 (w1 … w5).
    #[test]
    fn examples_of_paper_have_their_scores() {
        let rouge = Rouge::new(RougeVariant::L);
        let score = |text| {
            rouge
                .sentence(text, &["police killed the gunman"])
                .unwrap()
                .fmeasure
        };
        assert_eq!(score("police kill the gunman"), 0.75);
        assert_eq!(score("the gunman kill police"), 0.5);
        let sum = rouge_lsum(
            &[vec![1, 2, 6, 7, 8], vec![1, 3, 8, 9, 5]],
            &[[1, 2, 3, 4, 5]],
        );
        assert!((sum.recall - 0.8).abs() < 1e-12, "{sum:?}");
    }

    #[test]
    fn best_reference_counts_and_chinese_is_split() {
        let rouge = Rouge {
            tokenizer: Tokenizer::Words,
            ..Rouge::new(RougeVariant::N(2))
        };
        let score = rouge
            .sentence("今天天气好", &["明天下雨", "今天天气很好"])
            .unwrap();
        assert_eq!((score.precision, score.recall), (0.75, 0.6));
        assert_eq!(
            rouge.sentence("好", &["好"]).unwrap(),
            RougeScore::default()
        );
    }

    #[test]
    fn aggregate_has_means_within_bounds() {
        let rouge = Rouge::new(RougeVariant::N(1));
        let hypotheses = ["a b c", "a b x", "x y z", "a"];
        let references = [["a b c"]; 4];
        let scores = rouge.scores(&hypotheses, &references).unwrap();
        let total = RougeAggregate::from_scores(&scores, 500, 0.9, 1).unwrap();
        assert!((total.mean.precision - (1.0 + 2.0 / 3.0 + 1.0) / 4.0).abs() < 1e-12);
        assert!(total.low.recall < total.mean.recall && total.mean.recall < total.high.recall);
        assert_eq!(
            total,
            RougeAggregate::from_scores(&scores, 500, 0.9, 1).unwrap()
        );
    }

    #[test]
    fn stems_match_instead_of_words() {
        let plain = Rouge::new(RougeVariant::L);
        let stemmed = Rouge {
            stem: true,
            ..plain.clone()
        };
        let score = |rouge: &Rouge, text| rouge.sentence(text, &["police killed the gunmen"]);
        assert_eq!(score(&plain, "police kill his gunmen").unwrap().recall, 0.5);
        let found = score(&stemmed, "police kill his gunmen").unwrap();
        assert_eq!(found.recall, 0.75);
        // Words of three letters stay.
        assert_eq!(stemmed.sentence("hi", &["his"]).unwrap().recall, 0.0);
        // Settings that were saved before there was a stemmer.
        let saved = r#"{"variant": "rougeL", "tokenizer": "rouge", "lowercase": true}"#;
        assert_eq!(serde_json::from_str::<Rouge>(saved).unwrap(), plain);
    }

    #[test]
    fn wrong_input_is_named() {
        let rouge = Rouge::new(RougeVariant::N(0));
        let error = rouge.sentence("a", &["a"]).unwrap_err().to_string();
        assert!(error.contains("`n`"), "{error}");
        let none: [&str; 0] = [];
        let error = rouge.sentence("a", &none).unwrap_err().to_string();
        assert!(error.contains("`references`"), "{error}");
        let error = RougeAggregate::from_scores(&[], 100, 0.9, 0).unwrap_err();
        assert!(error.to_string().contains("`scores`"), "{error}");
    }
}
