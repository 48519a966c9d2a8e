//! The share of distinct n-grams.

use super::ngrams::{check_order, number};
use crate::{Error, Result};
use std::{collections::HashSet, hash::Hash};

/// distinct-n of one text (Li et al. 2016, <https://arxiv.org/abs/1510.03055>): distinct n-grams
/// over all n-grams, above 0 to 1. (The paper divides by the number of words, of which there are
/// `n − 1` more.) Texts should be of similar lengths: long ones have less.
///
/// # Errors
/// [`Error::InvalidArgument`] if `n` is 0, or there are fewer than `n` tokens.
pub fn distinct_n<T: Eq + Hash>(tokens: &[T], n: usize) -> Result<f64> {
    check_order("n", n)?;
    if tokens.len() < n {
        return Err(Error::argument(
            "tokens",
            tokens.len(),
            format!("at least {n} tokens"),
        ));
    }
    Ok(distinct(tokens, n) as f64 / number(tokens.len(), n) as f64)
}

/// distinct-n of a set of texts: the distinct n-grams of all texts over all their n-grams. It falls
/// where texts repeat each other, too, and with the size of the set.
///
/// # Errors
/// [`Error::InvalidArgument`] if `n` is 0, or no text has `n` tokens.
pub fn corpus_distinct_n<T: Eq + Hash>(texts: &[impl AsRef<[T]>], n: usize) -> Result<f64> {
    check_order("n", n)?;
    let mut seen = HashSet::new();
    let mut all = 0;
    for text in texts {
        seen.extend(text.as_ref().windows(n));
        all += number(text.as_ref().len(), n);
    }
    match all {
        0 => Err(no_ngrams(texts.len(), n)),
        _ => Ok(seen.len() as f64 / all as f64),
    }
}

/// The number of distinct n-grams.
pub(super) fn distinct<T: Eq + Hash>(tokens: &[T], n: usize) -> usize {
    tokens.windows(n).collect::<HashSet<_>>().len()
}

/// The error for a set of texts all of which are too short.
pub(super) fn no_ngrams(texts: usize, n: usize) -> Error {
    Error::argument(
        "texts",
        format!("{texts} of fewer than {n} tokens"),
        format!("one of at least {n} tokens"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_match_counts() {
        assert_eq!(distinct_n(&["a", "b", "a", "b", "a"], 2).unwrap(), 0.5);
        assert_eq!(distinct_n(&[7; 10], 1).unwrap(), 0.1);
        let texts = [vec![1, 2, 3], vec![1, 2, 4], vec![5]];
        assert_eq!(corpus_distinct_n(&texts, 2).unwrap(), 0.75);
        assert_eq!(corpus_distinct_n(&texts, 1).unwrap(), 5.0 / 7.0);
    }

    #[test]
    fn short_texts_are_errors() {
        let message = |result: Result<f64>| result.unwrap_err().to_string();
        assert!(message(distinct_n(&[1, 2], 3)).contains("`tokens` is 2"));
        assert!(message(distinct_n(&[1], 0)).contains("`n` is 0"));
        assert!(message(corpus_distinct_n(&[[1, 2]], 3)).contains("`texts`"));
        let none: [Vec<u32>; 0] = [];
        assert!(message(corpus_distinct_n(&none, 1)).contains("`texts`"));
    }
}
