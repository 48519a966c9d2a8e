//! Maximum mean discrepancy, and CMMD.

use super::{Features, check_pair, lengths};
use crate::{
    Error, Result,
    eval::features::pairwise::{for_each_block, for_each_upper_block, squared_norms},
};

/// A kernel of two feature vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum MmdKernel {
    /// `(γ·⟨x, y⟩ + c)^degree`.
    Polynomial {
        /// The power.
        degree: u32,
        /// Factor of the inner product; one over the number of features if `None`.
        gamma: Option<f64>,
        /// The constant `c`.
        coef0: f64,
    },
    /// `exp(−‖x − y‖² / (2·σ²))`.
    Gaussian {
        /// Width `σ`, in units of the features.
        sigma: f64,
    },
}

impl MmdKernel {
    /// The kernel of KID: degree 3, one over the number of features, constant 1.
    pub const KID: Self = Self::Polynomial {
        degree: 3,
        gamma: None,
        coef0: 1.0,
    };

    pub(super) fn validate(&self) -> Result<()> {
        match *self {
            Self::Polynomial {
                degree,
                gamma,
                coef0,
            } => {
                if !(1..=100).contains(&degree) {
                    return Err(Error::argument("degree", degree, "1 to 100"));
                }
                if let Some(gamma) = gamma.filter(|gamma| !(gamma.is_finite() && *gamma > 0.0)) {
                    return Err(Error::argument("gamma", gamma, "a positive number"));
                }
                if !(coef0.is_finite() && coef0 >= 0.0) {
                    return Err(Error::argument("coef0", coef0, "0 or more"));
                }
            }
            Self::Gaussian { sigma } => {
                if !(sigma.is_finite() && sigma > 0.0) {
                    return Err(Error::argument("sigma", sigma, "a positive number"));
                }
            }
        }
        Ok(())
    }

    /// Of two rows of `width` features with this inner product and these squared lengths.
    fn value(&self, width: usize, product: f64, a: f64, b: f64) -> f64 {
        match *self {
            Self::Polynomial {
                degree,
                gamma,
                coef0,
            } => {
                let gamma = gamma.unwrap_or(1.0 / width as f64);
                (gamma * product + coef0).powi(degree.cast_signed())
            }
            Self::Gaussian { sigma } => {
                let squared = (a + b - 2.0 * product).max(0.0);
                (-squared / (2.0 * sigma * sigma)).exp()
            }
        }
    }

    /// The sum over all samples with themselves, and over all pairs of different ones.
    fn within(&self, x: &Features) -> (f64, f64) {
        let norms = squared_norms(x);
        let (mut own, mut pairs) = (0.0, 0.0);
        for_each_upper_block(x, |first, products| {
            for (row, products) in products.chunks_exact(x.len() - first).enumerate() {
                let i = first + row;
                let value = |product: f64, norm| self.value(x.width(), product, norms[i], norm);
                own += value(products[row], norms[i]);
                let others = products[row + 1..].iter().zip(&norms[i + 1..]);
                pairs += others.map(|(p, norm)| value(*p, *norm)).sum::<f64>();
            }
        });
        (own, pairs)
    }

    /// Calls `each` with blocks of kernel values `k(aᵢ, bⱼ)`: the first row of `a`, and the values
    /// of some rows of it with all of `b`, row by row.
    pub(super) fn for_each_block(
        &self,
        a: &Features,
        b: &Features,
        mut each: impl FnMut(usize, &[f64]),
    ) {
        let (norms_a, norms_b) = (squared_norms(a), squared_norms(b));
        let mut values = Vec::new();
        for_each_block(a, b, |first, _, products| {
            values.clear();
            for (row, products) in products.chunks_exact(b.len()).enumerate() {
                let norm = norms_a[first + row];
                let row = products.iter().zip(&norms_b);
                values.extend(row.map(|(p, other)| self.value(a.width(), *p, norm, *other)));
            }
            each(first, &values);
        });
    }
}

/// How a squared discrepancy is estimated from samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MmdEstimator {
    /// Means over all pairs, also of a sample with itself (Gretton et al. 2012, equation 5): never
    /// negative.
    Biased,
    /// Without the pairs of a sample with itself (equation 3): right on average, and below zero in
    /// about half of the cases where the distributions are the same.
    Unbiased,
}

/// The squared maximum mean discrepancy `E k(x, x′) + E k(y, y′) − 2·E k(x, y)` of two sets
/// (Gretton et al. 2012, <https://jmlr.org/papers/v13/gretton12a.html>), of all pairs. The sets may
/// have different numbers of samples.
///
/// # Errors
/// [`Error::InvalidArgument`] for a kernel out of range, different widths, an empty set, a single
/// sample if [`Unbiased`](MmdEstimator::Unbiased), or features so large that the kernel overflows.
pub fn maximum_mean_discrepancy(
    a: &Features,
    b: &Features,
    kernel: MmdKernel,
    estimator: MmdEstimator,
) -> Result<f64> {
    kernel.validate()?;
    let fewest = match estimator {
        MmdEstimator::Biased => 1,
        MmdEstimator::Unbiased => 2,
    };
    check_pair(a, b, fewest)?;
    let within = |x: &Features| {
        let (own, pairs) = kernel.within(x);
        let n = x.len() as f64;
        match estimator {
            MmdEstimator::Biased => (own + 2.0 * pairs) / (n * n),
            MmdEstimator::Unbiased => 2.0 * pairs / (n * (n - 1.0)),
        }
    };
    let mut between = 0.0;
    kernel.for_each_block(a, b, |_, values| between += values.iter().sum::<f64>());
    let between = between / (a.len() as f64 * b.len() as f64);
    let found = within(a) + within(b) - 2.0 * between;
    match found.is_finite() {
        true => Ok(found),
        false => {
            let expected = "values whose kernel does not overflow; scale them";
            Err(Error::argument("features", "too large", expected))
        }
    }
}

/// CMMD, the distance of CLIP features by Jayasumana et al. 2024
/// (<https://arxiv.org/abs/2401.09603>): the biased squared discrepancy of a Gaussian kernel with
/// `σ = 10` for rows of length 1, times 1000, as the authors' implementation computes it. Rows are
/// divided by their lengths here. Published values have the features of CLIP ViT-L/14 at 336
/// pixels.
///
/// # Errors
/// [`Error::InvalidArgument`] for different widths, an empty set, or a row of zeros.
pub fn cmmd(a: &Features, b: &Features) -> Result<f64> {
    check_pair(a, b, 1)?;
    let mean = |x: &Features, y: &Features| -> Result<f64> {
        let mut sum = 0.0;
        cmmd_blocks(x, y, &mut |_, values| sum += values.iter().sum::<f64>())?;
        Ok(sum / (x.len() as f64 * y.len() as f64))
    };
    Ok(CMMD_SCALE * (mean(a, a)? + mean(b, b)? - 2.0 * mean(a, b)?))
}

/// The factor of [`cmmd`].
pub(super) const CMMD_SCALE: f64 = 1000.0;

/// As [`MmdKernel::for_each_block`], the kernel of [`cmmd`] less 1: the difference of sums close to
/// 1 would lose digits.
pub(super) fn cmmd_blocks(
    a: &Features,
    b: &Features,
    each: &mut dyn FnMut(usize, &[f64]),
) -> Result<()> {
    const SIGMA: f64 = 10.0;
    let (lengths_a, lengths_b) = (lengths(&squared_norms(a))?, lengths(&squared_norms(b))?);
    let mut values = Vec::new();
    for_each_block(a, b, |first, _, products| {
        values.clear();
        for (row, products) in products.chunks_exact(b.len()).enumerate() {
            let length = lengths_a[first + row];
            values.extend(products.iter().zip(&lengths_b).map(|(product, other)| {
                let cosine: f64 = product / (length * other);
                let squared = (2.0 - 2.0 * cosine).max(0.0);
                (-squared / (2.0 * SIGMA * SIGMA)).exp_m1()
            }));
        }
        each(first, &values);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::distribution::tests::normal;

    fn features(values: &[f32], width: usize) -> Features {
        Features::new(values.to_vec(), width).unwrap()
    }

    /// Two samples against two, written out.
    #[test]
    fn discrepancy_matches_closed_form() {
        let (a, b) = (features(&[0.0, 1.0], 1), features(&[2.0, 4.0], 1));
        let kernel = MmdKernel::Gaussian { sigma: 1.5 };
        let k = |x: f64| (-x * x / 4.5).exp();
        let between = 2.0 * (k(2.0) + k(4.0) + k(1.0) + k(3.0)) / 4.0;
        let unbiased = k(1.0) + k(2.0) - between;
        let biased = (1.0 + k(1.0)) / 2.0 + (1.0 + k(2.0)) / 2.0 - between;
        for (estimator, expected) in [
            (MmdEstimator::Unbiased, unbiased),
            (MmdEstimator::Biased, biased),
        ] {
            let found = maximum_mean_discrepancy(&a, &b, kernel, estimator).unwrap();
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        // (x·y + 1)³ with one feature.
        let found = maximum_mean_discrepancy(&a, &b, MmdKernel::KID, MmdEstimator::Unbiased);
        let expected = 1.0 + 729.0 - 2.0 * (1.0 + 1.0 + 27.0 + 125.0) / 4.0;
        assert!((found.unwrap() - expected).abs() < 1e-9);
    }

    /// `E k` of normal distributions with a Gaussian kernel: for means `m` apart, in `d`
    /// dimensions, `2·c·(1 − exp(−m² / (2·(σ² + 2))))` with `c = (σ² / (σ² + 2))^(d/2)`.
    #[test]
    fn discrepancy_of_shifted_normals_matches_closed_form() {
        let (n, d, shift) = (1500, 2, 1.0f32);
        let a = normal(1, n, d);
        let moved = normal(2, n, d)
            .rows()
            .flat_map(|row| [row[0] + shift, row[1]])
            .collect();
        let b = Features::new(moved, d).unwrap();
        let kernel = MmdKernel::Gaussian { sigma: 2f64.sqrt() };
        let found = maximum_mean_discrepancy(&a, &b, kernel, MmdEstimator::Unbiased).unwrap();
        let expected = 2.0 * 0.5 * (1.0 - (-1.0f64 / 8.0).exp());
        assert!((found - expected).abs() < 0.03, "{found} {expected}");
    }

    #[test]
    fn cmmd_depends_on_directions_only() {
        let a = features(&[3.0, 0.0], 2);
        let b = features(&[0.0, 0.5, 0.0, 7.0], 2);
        let expected = 2000.0 * (1.0 - (-0.01f64).exp());
        let found = cmmd(&a, &b).unwrap();
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
        assert!(cmmd(&a, &a).unwrap().abs() < 1e-9);
        let error = cmmd(&a, &features(&[0.0; 2], 2)).unwrap_err().to_string();
        assert!(error.contains("zero in all of row 0"), "{error}");
    }

    #[test]
    fn invalid_kernels_are_errors() {
        let a = normal(0, 3, 2);
        let error = |kernel| {
            let found = maximum_mean_discrepancy(&a, &a, kernel, MmdEstimator::Biased);
            found.unwrap_err().to_string()
        };
        let polynomial = |degree, gamma, coef0| MmdKernel::Polynomial {
            degree,
            gamma,
            coef0,
        };
        assert!(error(MmdKernel::Gaussian { sigma: 0.0 }).contains("`sigma` is 0"));
        assert!(error(polynomial(0, None, 1.0)).contains("`degree` is 0"));
        assert!(error(polynomial(3, Some(f64::NAN), 1.0)).contains("`gamma` is NaN"));
        assert!(error(polynomial(3, None, -1.0)).contains("`coef0` is -1"));
        let large = features(&[1e30, -1e30, 2e30, 1e29], 2);
        let power = MmdKernel::Polynomial {
            degree: 9,
            gamma: None,
            coef0: 1.0,
        };
        let found = maximum_mean_discrepancy(&large, &a, power, MmdEstimator::Biased);
        assert!(found.unwrap_err().to_string().contains("too large"));
        let one = normal(0, 1, 2);
        let found = maximum_mean_discrepancy(&a, &one, MmdKernel::KID, MmdEstimator::Unbiased);
        assert!(found.unwrap_err().to_string().contains("`samples` is 1"));
    }
}
