//! Corpora, sentence by sentence.

use super::check_corpus;
use crate::Result;

/// What `of` returns for each hypothesis and its references, which are at the same place.
///
/// # Errors
/// [`Error::InvalidArgument`](crate::Error::InvalidArgument) for no hypotheses, or another number
/// of lists of references; errors of `of`.
pub(super) fn per_sentence<H, R, S>(
    hypotheses: &[H],
    references: &[R],
    of: impl Fn(&H, &R) -> Result<S>,
) -> Result<Vec<S>> {
    check_corpus(hypotheses.len(), references.len())?;
    let pairs = hypotheses.iter().zip(references);
    pairs
        .map(|(hypothesis, references)| of(hypothesis, references))
        .collect()
}
