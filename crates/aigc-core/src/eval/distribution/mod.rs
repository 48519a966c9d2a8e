//! Distances between two sets of features, and the diversity of one.
//!
//! All of it works on [`Features`](super::Features): one row per sample, whatever network they come
//! from. Sums are taken in 64 bits and block by block, so memory grows with the number of samples
//! and not with its square.

mod diversity;
mod frechet;
mod inception;
mod interval;
mod kid;
mod mmd;
mod npy;
mod npz;
mod prdc;
mod vendi;
mod wasserstein;

pub use diversity::{
    ClassEntropy, ClassSpread, class_entropy, intra_class_distance, mean_pairwise_distance,
    sampled_pairwise_distance,
};
pub use frechet::{GaussianMoments, frechet_distance};
pub use inception::inception_score;
pub use interval::{cmmd_interval, frechet_interval, mmd_interval};
pub use kid::{KernelDistance, kid};
pub use mmd::{MmdEstimator, MmdKernel, cmmd, maximum_mean_discrepancy};
pub use prdc::{Prdc, PrdcConfig, PrdcSamples};
pub use vendi::vendi_score;
pub use wasserstein::{sliced_wasserstein, sliced_wasserstein_along, wasserstein_1d};

use super::Features;
use crate::{Error, Result};

/// Mean and standard deviation of a score over subsets of the samples.
///
/// The deviation is the one numpy computes: the root of the mean squared deviation, without a
/// correction for the number of values. It is not a [standard error](super::Estimate).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MeanStd {
    /// Mean of the values.
    pub mean: f64,
    /// Standard deviation of the values.
    pub std: f64,
    /// Number of values.
    pub count: usize,
}

impl MeanStd {
    /// Of at least one value.
    fn of(values: &[f64]) -> Self {
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares = values.iter().map(|value| (value - mean).powi(2));
        let std = (squares.sum::<f64>() / count as f64).sqrt();
        Self { mean, std, count }
    }
}

impl std::fmt::Display for MeanStd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let digits = f.precision().unwrap_or(3);
        write!(f, "{:.digits$} ± {:.digits$}", self.mean, self.std)
    }
}

/// Checks that two sets have features of one width, and at least `fewest` samples each.
fn check_pair(a: &Features, b: &Features, fewest: usize) -> Result<()> {
    if a.width() != b.width() {
        let expected = format!("{}, the width of the other set", a.width());
        return Err(Error::argument("features", b.width(), expected));
    }
    check_count(a, fewest)?;
    check_count(b, fewest)
}

fn check_count(x: &Features, fewest: usize) -> Result<()> {
    if x.len() < fewest {
        return Err(Error::argument(
            "samples",
            x.len(),
            format!("at least {fewest}"),
        ));
    }
    Ok(())
}

/// The lengths of rows with these squared lengths, for a division by them.
fn lengths(squared: &[f64]) -> Result<Vec<f64>> {
    match squared.iter().position(|square| *square == 0.0) {
        Some(row) => Err(Error::argument(
            "features",
            format!("zero in all of row {row}"),
            "rows that can be divided by their length",
        )),
        None => Ok(squared.iter().map(|square| square.sqrt()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    /// `n` standard normal samples of `width` features.
    pub(super) fn normal(seed: u64, n: usize, width: usize) -> Features {
        Features::new(Rng::new(seed).normal_vec(n * width), width).unwrap()
    }

    #[test]
    fn deviation_is_of_the_population() {
        let score = MeanStd::of(&[1.0, 3.0]);
        assert_eq!((score.mean, score.std, score.count), (2.0, 1.0, 2));
        assert_eq!(format!("{score:.1}"), "2.0 ± 1.0");
    }

    #[test]
    fn sets_that_do_not_match_are_errors() {
        let error = |a: &Features, b: &Features| check_pair(a, b, 2).unwrap_err().to_string();
        let pair = normal(0, 2, 3);
        assert!(check_pair(&pair, &pair, 2).is_ok());
        let found = error(&pair, &normal(0, 2, 4));
        assert!(found.contains("`features` is 4, expected 3"), "{found}");
        let found = error(&pair, &Features::empty(3).unwrap());
        assert!(
            found.contains("`samples` is 0, expected at least 2"),
            "{found}"
        );
        let found = lengths(&[1.0, 0.0]).unwrap_err().to_string();
        assert!(found.contains("row 1"), "{found}");
    }
}
