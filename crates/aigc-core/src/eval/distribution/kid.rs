//! The kernel Inception distance.

use super::{Features, MeanStd, MmdEstimator, MmdKernel, check_pair, maximum_mean_discrepancy};
use crate::{Error, Result, rng::Rng};

/// The unbiased squared discrepancy of a kernel, as mean and deviation over random subsets. The
/// defaults are those of KID in torch-fidelity and torchmetrics: the kernel `(⟨x, y⟩/d + 1)³`, 100
/// subsets of 1,000 samples (Bińkowski et al. 2018, <https://arxiv.org/abs/1801.01401>).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct KernelDistance {
    /// The kernel.
    pub kernel: MmdKernel,
    /// Number of subsets.
    pub subsets: usize,
    /// Number of samples of each subset, drawn without replacement.
    pub subset_size: usize,
}

impl Default for KernelDistance {
    fn default() -> Self {
        Self {
            kernel: MmdKernel::KID,
            subsets: 100,
            subset_size: 1000,
        }
    }
}

impl KernelDistance {
    /// The distance over subsets that `seed` draws. It is slightly below zero in about half of the
    /// cases where the distributions are the same.
    ///
    /// If both sets have `subset_size` samples, all subsets are the same: one is computed, and
    /// [`MeanStd::count`] is 1.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for different widths, no subsets, subsets of fewer than two
    /// samples or larger than a set, or a kernel out of range.
    pub fn distance(&self, a: &Features, b: &Features, seed: u64) -> Result<MeanStd> {
        let fewest = a.len().min(b.len());
        if self.subset_size < 2 || self.subset_size > fewest {
            let expected = format!("2 to {fewest}, the number of samples of the smaller set");
            return Err(Error::argument("subset_size", self.subset_size, expected));
        }
        let subsets = match [a.len(), b.len()] == [self.subset_size; 2] {
            true => self.subsets.min(1),
            false => self.subsets,
        };
        let mut rng = Rng::stream(seed, "kernel-distance", 0);
        let mut draw = |x: &Features| {
            let mut rows = rng.permutation(x.len());
            rows.truncate(self.subset_size);
            rows
        };
        self.over(a, b, (0..subsets).map(|_| (draw(a), draw(b))))
    }

    /// The distance over given subsets: for each, the rows of `a` and the rows of `b`. The fields
    /// `subsets` and `subset_size` are not used.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for different widths, no subsets, subsets of fewer than two
    /// samples, a row out of range, or a kernel out of range.
    pub fn distance_of_subsets(
        &self,
        a: &Features,
        b: &Features,
        subsets: &[(Vec<usize>, Vec<usize>)],
    ) -> Result<MeanStd> {
        let in_range = |rows: &[usize], x: &Features| match rows.iter().find(|i| **i >= x.len()) {
            Some(row) => {
                let expected = format!("rows below {}", x.len());
                Err(Error::argument("subsets", row, expected))
            }
            None => Ok(()),
        };
        for (rows_a, rows_b) in subsets {
            in_range(rows_a, a)?;
            in_range(rows_b, b)?;
        }
        self.over(a, b, subsets.iter().cloned())
    }

    fn over(
        &self,
        a: &Features,
        b: &Features,
        subsets: impl Iterator<Item = (Vec<usize>, Vec<usize>)>,
    ) -> Result<MeanStd> {
        check_pair(a, b, 2)?;
        let distances = subsets
            .map(|(rows_a, rows_b)| {
                let (a, b) = (a.select(&rows_a), b.select(&rows_b));
                maximum_mean_discrepancy(&a, &b, self.kernel, MmdEstimator::Unbiased)
            })
            .collect::<Result<Vec<f64>>>()?;
        if distances.is_empty() {
            return Err(Error::argument("subsets", 0, "at least 1"));
        }
        Ok(MeanStd::of(&distances))
    }
}

/// The kernel Inception distance with the usual [`KernelDistance`]: 100 subsets of 1,000 samples.
///
/// # Errors
/// [`Error::InvalidArgument`] for different widths, or fewer than 1,000 samples.
pub fn kid(a: &Features, b: &Features, seed: u64) -> Result<MeanStd> {
    KernelDistance::default().distance(a, b, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::distribution::tests::normal;

    fn small(subsets: usize, subset_size: usize) -> KernelDistance {
        KernelDistance {
            subsets,
            subset_size,
            ..KernelDistance::default()
        }
    }

    /// Nearly zero for samples of one distribution, and larger the further a mean is moved.
    #[test]
    fn distance_grows_with_shift() {
        let (a, b) = (normal(1, 300, 4), normal(2, 300, 4));
        let shifted = |shift: f32| {
            let values = b.values().iter().map(|x| x + shift).collect();
            small(20, 100)
                .distance(&a, &Features::new(values, 4).unwrap(), 5)
                .unwrap()
        };
        let found = [0.0, 0.5, 1.0].map(shifted);
        assert!(found[0].mean.abs() < 3.0 * found[0].std, "{}", found[0]);
        assert!(found[0].mean < found[1].mean && found[1].mean < found[2].mean);
        assert_eq!(found[0], shifted(0.0));
        assert_eq!(found[0].count, 20);
    }

    /// A subset of everything is the discrepancy itself, which is computed once.
    #[test]
    fn whole_subset_is_the_discrepancy() {
        let (a, b) = (normal(3, 30, 3), normal(4, 30, 3));
        let found = small(2, 30).distance(&a, &b, 0).unwrap();
        let whole =
            maximum_mean_discrepancy(&a, &b, MmdKernel::KID, MmdEstimator::Unbiased).unwrap();
        assert!(
            (found.mean - whole).abs() < 1e-9 && found.std < 1e-9,
            "{found} {whole}"
        );
        assert_eq!(found.count, 1);
        // One set is larger: the subsets differ.
        let found = small(2, 30).distance(&a, &normal(4, 31, 3), 0).unwrap();
        assert_eq!(found.count, 2);
    }

    #[test]
    fn invalid_subsets_are_errors() {
        let (a, b) = (normal(1, 30, 3), normal(2, 20, 3));
        let error = |found: Result<MeanStd>| found.unwrap_err().to_string();
        let found = error(small(1, 21).distance(&a, &b, 0));
        assert!(
            found.contains("`subset_size` is 21, expected 2 to 20"),
            "{found}"
        );
        assert!(error(small(1, 1).distance(&a, &b, 0)).contains("`subset_size` is 1"));
        assert!(error(small(0, 5).distance(&a, &b, 0)).contains("`subsets` is 0"));
        assert!(error(small(0, 20).distance(&b, &b, 0)).contains("`subsets` is 0"));
        assert!(error(kid(&a, &b, 0)).contains("`subset_size` is 1000"));
        let far = [(vec![0, 1], vec![0, 20])];
        let found = error(small(1, 2).distance_of_subsets(&a, &b, &far));
        assert!(
            found.contains("`subsets` is 20, expected rows below 20"),
            "{found}"
        );
        let short = [(vec![0], vec![1])];
        assert!(error(small(1, 2).distance_of_subsets(&a, &b, &short)).contains("`samples` is 1"));
        assert!(error(small(1, 5).distance(&a, &normal(0, 9, 2), 0)).contains("`features` is 2"));
    }
}
