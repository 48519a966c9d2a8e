//! How far samples are from each other, of images and of sounds.

use aigc_core::{
    Result,
    eval::{Estimate, Features, mean_pairwise_distance, sampled_pairwise_distance},
};

/// Samples of which all pairs are compared.
const MAX_ALL_PAIRS: usize = 2000;
/// Pairs of more samples.
const PAIRS: usize = 200_000;

/// The mean distance of two samples; of many, that of random pairs.
///
/// # Errors
/// [`aigc_core::Error::InvalidArgument`] for fewer than two samples.
pub(crate) fn pairwise_distance(x: &Features, seed: u64) -> Result<Estimate> {
    match x.len() {
        0..=MAX_ALL_PAIRS => mean_pairwise_distance(x),
        _ => sampled_pairwise_distance(x, PAIRS, seed),
    }
}
