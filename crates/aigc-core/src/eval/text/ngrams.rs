//! Counting n-grams of any tokens.

use crate::{Error, Result};
use std::{collections::HashMap, hash::Hash};

/// How often each n-gram occurs.
pub type NgramCounts<'a, T> = HashMap<&'a [T], usize>;

/// How often each sequence of `n` successive tokens occurs. Empty if there are fewer than `n`
/// tokens.
///
/// # Errors
/// [`Error::InvalidArgument`] if `n` is 0.
pub fn ngram_counts<T: Eq + Hash>(tokens: &[T], n: usize) -> Result<NgramCounts<'_, T>> {
    check_order("n", n)?;
    Ok(count(tokens, n))
}

/// [`ngram_counts`] of a valid `n`.
pub(super) fn count<T: Eq + Hash>(tokens: &[T], n: usize) -> NgramCounts<'_, T> {
    let mut counts = HashMap::with_capacity(number(tokens.len(), n));
    for ngram in tokens.windows(n) {
        *counts.entry(ngram).or_insert(0) += 1;
    }
    counts
}

/// The number of n-grams of `len` tokens.
pub(super) fn number(len: usize, n: usize) -> usize {
    (len + 1).saturating_sub(n)
}

/// The number of n-grams that two texts share: the size of the intersection of multisets.
pub(super) fn overlap<T: Eq + Hash>(a: &NgramCounts<'_, T>, b: &NgramCounts<'_, T>) -> usize {
    let (few, many) = if a.len() <= b.len() { (a, b) } else { (b, a) };
    few.iter()
        .map(|(ngram, count)| many.get(*ngram).map_or(0, |other| *count.min(other)))
        .sum()
}

pub(super) fn check_order(name: &str, n: usize) -> Result<()> {
    match n {
        0 => Err(Error::argument(name, n, "at least 1")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ngrams_are_counted() {
        let tokens = [1, 2, 1, 2, 1];
        let counts = ngram_counts(&tokens, 2).unwrap();
        assert_eq!(counts.len(), 2);
        assert_eq!(counts[&[1, 2][..]], 2);
        assert_eq!(counts[&[2, 1][..]], 2);
        assert!(ngram_counts(&tokens, 6).unwrap().is_empty());
        assert!(ngram_counts(&tokens, 0).is_err());
        assert_eq!(overlap(&count(&tokens, 1), &count(&[1, 1, 3], 1)), 2);
        assert_eq!((number(5, 2), number(0, 2), number(0, 1)), (4, 0, 0));
    }
}
