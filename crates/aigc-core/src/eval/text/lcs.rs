//! Longest common subsequences.

use std::{collections::HashMap, hash::Hash};

/// Numbers tokens, so that comparing them is cheap.
pub(super) struct Interner<'a, T>(HashMap<&'a T, u32>);

impl<'a, T: Eq + Hash> Interner<'a, T> {
    pub(super) fn new() -> Self {
        Self(HashMap::new())
    }

    pub(super) fn ids(&mut self, tokens: &'a [T]) -> Vec<u32> {
        tokens
            .iter()
            .map(|token| {
                let next = self.0.len() as u32;
                *self.0.entry(token).or_insert(next)
            })
            .collect()
    }
}

/// The length of the longest common subsequence.
pub(super) fn length(a: &[u32], b: &[u32]) -> usize {
    let mut row = vec![0usize; b.len() + 1];
    for x in a {
        advance(&mut row, *x, b, |_, _| ());
    }
    row[b.len()]
}

/// The positions in `a` of one of the longest common subsequences of `a` and `b`, last to first.
/// Where several exist, which one decides on ROUGE-Lsum: as in rouge-score, `b` is shortened where
/// that keeps the longer subsequence, and otherwise `a`.
pub(super) fn positions(a: &[u32], b: &[u32]) -> Vec<usize> {
    let width = b.len();
    // One bit per pair: whether `b` is shortened there.
    let mut shorten_b = vec![0u64; (a.len() * width).div_ceil(64)];
    let mut row = vec![0usize; width + 1];
    for (i, x) in a.iter().enumerate() {
        advance(&mut row, *x, b, |j, shorten| {
            let bit = i * width + j;
            shorten_b[bit / 64] |= u64::from(shorten) << (bit % 64);
        });
    }
    let (mut i, mut j) = (a.len(), width);
    let mut positions = Vec::with_capacity(row[width]);
    while i > 0 && j > 0 {
        let bit = (i - 1) * width + j - 1;
        if a[i - 1] == b[j - 1] {
            positions.push(i - 1);
            i -= 1;
            j -= 1;
        } else if shorten_b[bit / 64] >> (bit % 64) & 1 == 1 {
            j -= 1;
        } else {
            i -= 1;
        }
    }
    positions
}

/// From the lengths for some beginning of `a`, with every beginning of `b`, to those for one more
/// token `x`. `each` hears of every token of `b` whether leaving it out keeps more than leaving out
/// `x`.
fn advance(row: &mut [usize], x: u32, b: &[u32], mut each: impl FnMut(usize, bool)) {
    let mut diagonal = 0;
    for (j, y) in b.iter().enumerate() {
        let (above, left) = (row[j + 1], row[j]);
        each(j, left > above);
        row[j + 1] = match x == *y {
            true => diagonal + 1,
            false => above.max(left),
        };
        diagonal = above;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subsequences_are_longest() {
        let ids = |text: &str| text.chars().map(u32::from).collect::<Vec<_>>();
        let (a, b) = (ids("AGGTAB"), ids("GXTXAYB"));
        assert_eq!(length(&a, &b), 4);
        let mut found = positions(&a, &b);
        found.reverse();
        let found: Vec<u32> = found.into_iter().map(|i| a[i]).collect();
        assert_eq!(found, ids("GTAB"));
        assert_eq!(length(&a, &[]), 0);
        assert!(positions(&[], &b).is_empty());
    }

    #[test]
    fn equal_tokens_have_equal_ids() {
        let (a, b) = (["x", "y"], ["y", "z", "x"]);
        let mut interner = Interner::new();
        assert_eq!(interner.ids(&a), [0, 1]);
        assert_eq!(interner.ids(&b), [1, 2, 0]);
    }
}
