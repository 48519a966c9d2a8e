//! Repetition within texts.

use super::{
    distinct::{distinct, distinct_n, no_ngrams},
    ngrams::{check_order, number},
};
use crate::{Error, Result};
use std::{collections::HashMap, hash::Hash};

/// rep-n of one text: `1 − distinct n-grams / n-grams`, 0 to below 1.
///
/// # Errors
/// [`Error::InvalidArgument`] if `n` is 0, or there are fewer than `n` tokens.
pub fn rep_n<T: Eq + Hash>(tokens: &[T], n: usize) -> Result<f64> {
    Ok(1.0 - distinct_n(tokens, n)?)
}

/// seq-rep-n of a set of continuations (Welleck et al. 2020, <https://arxiv.org/abs/1908.04319>):
/// the mean of [`rep_n`]. Texts of fewer than `n` tokens have no n-grams and do not count.
///
/// # Errors
/// [`Error::InvalidArgument`] if `n` is 0, or no text has `n` tokens.
pub fn seq_rep_n<T: Eq + Hash>(texts: &[impl AsRef<[T]>], n: usize) -> Result<f64> {
    check_order("n", n)?;
    let (mut sum, mut count) = (0.0, 0);
    for text in texts.iter().map(AsRef::as_ref) {
        if text.len() >= n {
            sum += 1.0 - distinct(text, n) as f64 / number(text.len(), n) as f64;
            count += 1;
        }
    }
    match count {
        0 => Err(no_ngrams(texts.len(), n)),
        _ => Ok(sum / f64::from(count)),
    }
}

/// Diversity of a set of texts (Su et al. 2022, <https://arxiv.org/abs/2202.06417>):
/// `Π (1 − seq-rep-n)` for n of 2, 3 and 4; 1 without repetition.
///
/// # Errors
/// [`Error::InvalidArgument`] if no text has 4 tokens.
pub fn rep_diversity<T: Eq + Hash>(texts: &[impl AsRef<[T]>]) -> Result<f64> {
    let mut product = 1.0;
    for n in 2..=4 {
        product *= 1.0 - seq_rep_n(texts, n)?;
    }
    Ok(product)
}

/// rep/l of a text (Welleck et al. 2020): the share of its tokens that occur among the
/// `window` tokens before them, 0 to below 1.
///
/// # Errors
/// [`Error::InvalidArgument`] if `window` is 0, or there are no tokens.
pub fn rep_l<T: Eq + Hash>(tokens: &[T], window: usize) -> Result<f64> {
    check_order("window", window)?;
    if tokens.is_empty() {
        return Err(Error::argument("tokens", "empty", "at least 1 token"));
    }
    let mut last = HashMap::new();
    let mut repeated = 0;
    for (i, token) in tokens.iter().enumerate() {
        if last
            .insert(token, i)
            .is_some_and(|before| i - before <= window)
        {
            repeated += 1;
        }
    }
    Ok(repeated as f64 / tokens.len() as f64)
}

/// The period of the loop that a text ends in: the least number `p ≥ min_period` such that its last
/// `p · repeats` tokens are `repeats` copies of the same `p` tokens. `None` if there is no such
/// number. A loop of fewer than `min_period` tokens is found with a multiple of its period.
///
/// Holtzman et al. (2020, <https://arxiv.org/abs/1904.09751>) call a text repetitive if a phrase of
/// at least 2 tokens stands at its end at least 3 times.
///
/// # Errors
/// [`Error::InvalidArgument`] if `min_period` is 0, or `repeats` is below 2.
pub fn end_loop<T: Eq>(tokens: &[T], min_period: usize, repeats: usize) -> Result<Option<usize>> {
    check_order("min_period", min_period)?;
    if repeats < 2 {
        return Err(Error::argument("repeats", repeats, "at least 2"));
    }
    let same = matches_of_shifts(tokens);
    let longest = tokens.len() / repeats;
    // The last p·r tokens have period p if the last p·(r − 1) recur p tokens earlier.
    Ok((min_period..=longest).find(|period| same[*period] >= period * (repeats - 1)))
}

/// The share of texts with an [`end_loop`], 0 to 1.
///
/// # Errors
/// [`Error::InvalidArgument`] for no texts; see [`end_loop`].
pub fn end_loop_share<T: Eq>(
    texts: &[impl AsRef<[T]>],
    min_period: usize,
    repeats: usize,
) -> Result<f64> {
    if texts.is_empty() {
        return Err(Error::argument("texts", "empty", "at least 1 text"));
    }
    let mut looping = 0;
    for text in texts {
        looping += usize::from(end_loop(text.as_ref(), min_period, repeats)?.is_some());
    }
    Ok(looping as f64 / texts.len() as f64)
}

/// For each shift, how many tokens at the end equal those that many places earlier: the Z-function
/// of the reversed text, in linear time (Gusfield 1997, section 1.4).
fn matches_of_shifts<T: Eq>(tokens: &[T]) -> Vec<usize> {
    let len = tokens.len();
    let back = |i: usize| &tokens[len - 1 - i];
    let mut same = vec![0; len];
    // The known match that reaches farthest back: from `start` to before `end`.
    let (mut start, mut end) = (0, 0);
    for shift in 1..len {
        let mut matches = match shift < end {
            true => (end - shift).min(same[shift - start]),
            false => 0,
        };
        while shift + matches < len && back(matches) == back(shift + matches) {
            matches += 1;
        }
        if shift + matches > end {
            (start, end) = (shift, shift + matches);
        }
        same[shift] = matches;
    }
    same
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn shares_match_counts() {
        let text: Vec<char> = "abababab".chars().collect();
        assert!((rep_n(&text, 2).unwrap() - 5.0 / 7.0).abs() < 1e-12);
        let texts = [text, "abcd".chars().collect(), vec!['x']];
        assert!((seq_rep_n(&texts, 2).unwrap() - 2.5 / 7.0).abs() < 1e-12);
        let expected = (1.0 - 2.5 / 7.0) * (1.0 - 2.0 / 6.0) * (1.0 - 1.5 / 5.0);
        assert!((rep_diversity(&texts).unwrap() - expected).abs() < 1e-12);
        assert_eq!(rep_l(&[1, 2, 3, 1, 1], 2).unwrap(), 0.2);
        assert_eq!(rep_l(&[1, 2, 3, 1, 1], 3).unwrap(), 0.4);
    }

    #[test]
    fn loops_are_found() {
        let period = |text: &str| end_loop(text.as_bytes(), 2, 3).unwrap();
        assert_eq!(period("it is so so so good so good so good"), Some(8));
        assert_eq!(period("xyzabababab"), Some(2));
        assert_eq!(period("xyzaaaaaa"), Some(2));
        assert_eq!(period("xyzaaaaa"), None);
        assert_eq!(period("abababx"), None);
        assert_eq!(period(""), None);
        let share = end_loop_share(&["ababab", "abcdef"].map(str::as_bytes), 2, 3).unwrap();
        assert_eq!(share, 0.5);
    }

    /// Against the definition, on random texts of two tokens.
    #[test]
    fn loops_match_definition() {
        let mut rng = Rng::new(5);
        for _ in 0..300 {
            let len = rng.random_index(20);
            let text: Vec<usize> = (0..len).map(|_| rng.random_index(2)).collect();
            for repeats in [2, 3] {
                let expected = (1..=len / repeats).find(|period| {
                    let end = &text[len - period * repeats..];
                    end.iter().zip(&end[*period..]).all(|(a, b)| a == b)
                });
                assert_eq!(end_loop(&text, 1, repeats).unwrap(), expected, "{text:?}");
            }
        }
    }

    #[test]
    fn wrong_input_is_named() {
        let message = |result: Result<f64>| result.unwrap_err().to_string();
        assert!(message(rep_n(&[1], 2)).contains("`tokens`"));
        assert!(message(rep_l(&[1], 0)).contains("`window`"));
        assert!(message(seq_rep_n(&[[1]], 2)).contains("`texts`"));
        let none: [[u32; 1]; 0] = [];
        assert!(message(end_loop_share(&none, 2, 3)).contains("`texts`"));
        assert!(message(end_loop_share(&[[1]], 2, 1)).contains("`repeats`"));
        assert!(message(end_loop_share(&[[1]], 0, 2)).contains("`min_period`"));
    }
}
