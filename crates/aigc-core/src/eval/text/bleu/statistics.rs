//! What BLEU needs to know of a sentence.

use crate::{
    Error, Result,
    eval::text::{
        check_references,
        ngrams::{count, number},
    },
};
use std::{collections::HashMap, hash::Hash};

/// What the score needs to know of one sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BleuStatistics {
    pub(in crate::eval::text) counts: Vec<usize>,
    pub(in crate::eval::text) totals: Vec<usize>,
    pub(in crate::eval::text) sys_len: usize,
    pub(in crate::eval::text) ref_len: usize,
}

impl BleuStatistics {
    /// # Errors
    /// [`Error::InvalidArgument`] for no references.
    pub(super) fn of<T: Eq + Hash>(
        hypothesis: &[T],
        references: &[impl AsRef<[T]>],
        max_order: usize,
    ) -> Result<Self> {
        check_references(references.len())?;
        let sys_len = hypothesis.len();
        let lengths = references.iter().map(|reference| reference.as_ref().len());
        let ref_len = lengths.min_by_key(|len| (len.abs_diff(sys_len), *len));
        let matches = |n| {
            // Of each n-gram: its number in the hypothesis, and the largest in a reference.
            let mut found: HashMap<&[T], (usize, usize)> = count(hypothesis, n)
                .into_iter()
                .map(|(ngram, count)| (ngram, (count, 0)))
                .collect();
            for reference in references {
                for (ngram, count) in count(reference.as_ref(), n) {
                    if let Some((_, most)) = found.get_mut(ngram) {
                        *most = count.max(*most);
                    }
                }
            }
            found.values().map(|(count, most)| *count.min(most)).sum()
        };
        Ok(Self {
            counts: (1..=max_order).map(matches).collect(),
            totals: (1..=max_order).map(|n| number(sys_len, n)).collect(),
            sys_len,
            ref_len: ref_len.unwrap_or(0),
        })
    }

    /// Of no sentences.
    pub(super) fn zero(max_order: usize) -> Self {
        Self {
            counts: vec![0; max_order],
            totals: vec![0; max_order],
            sys_len: 0,
            ref_len: 0,
        }
    }

    /// # Errors
    /// [`Error::InvalidArgument`] if `other` is of another order.
    pub(super) fn add(&mut self, other: &Self) -> Result<()> {
        let (order, found) = (self.counts.len(), other.counts.len());
        if found != order {
            let found = format!("of order {found}");
            return Err(Error::argument(
                "statistics",
                found,
                format!("{order}, as `max_order`"),
            ));
        }
        for n in 0..order {
            self.counts[n] += other.counts[n];
            self.totals[n] += other.totals[n];
        }
        self.sys_len += other.sys_len;
        self.ref_len += other.ref_len;
        Ok(())
    }
}
