//! The Fréchet distance between normal distributions.

use crate::{
    Error, Result,
    eval::{FeatureStatistics, Features},
};
use faer::{Mat, Side};

/// Mean and covariance of features: the normal distribution that a Fréchet distance compares.
///
/// [`FeatureStatistics::moments`] computes it from samples; [`GaussianMoments::load`] reads it from
/// a file of pytorch-fid.
#[derive(Clone, Debug, PartialEq)]
pub struct GaussianMoments {
    mean: Vec<f64>,
    covariance: Mat<f64>,
    count: Option<usize>,
}

impl GaussianMoments {
    /// From a mean and a covariance, row by row. `count` is the number of samples they were
    /// computed from, if known.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an empty mean, a covariance that is not symmetric or of
    /// another size, a negative variance, or a value that is not finite.
    pub fn new(mean: Vec<f64>, covariance: &[f64], count: Option<usize>) -> Result<Self> {
        let d = mean.len();
        if d == 0 {
            return Err(Error::argument("mean", "empty", "at least 1 feature"));
        }
        if Some(covariance.len()) != d.checked_mul(d) {
            let expected = format!("{d} × {d} values, as the mean has {d} features");
            return Err(Error::argument("covariance", covariance.len(), expected));
        }
        if let Some(value) = mean.iter().find(|value| !value.is_finite()) {
            return Err(Error::argument("mean", value, "finite numbers"));
        }
        if let Some(value) = covariance.iter().find(|value| !value.is_finite()) {
            return Err(Error::argument("covariance", value, "finite numbers"));
        }
        let covariance = Mat::from_fn(d, d, |i, j| covariance[i * d + j]);
        let largest = (0..d).map(|i| covariance[(i, i)]).fold(0.0, f64::max);
        for i in 0..d {
            let variance = covariance[(i, i)];
            if variance < 0.0 {
                return Err(Error::argument(
                    "covariance",
                    variance,
                    "no negative variance",
                ));
            }
            for j in 0..i {
                // Files of 32-bit covariances are symmetric to their precision only.
                if (covariance[(i, j)] - covariance[(j, i)]).abs() > 1e-5 * largest {
                    return Err(Error::argument(
                        "covariance",
                        format!("not symmetric at ({i}, {j})"),
                        "a symmetric matrix",
                    ));
                }
            }
        }
        Ok(Self::from_parts(mean, covariance, count))
    }

    /// From a mean and a symmetric covariance of its size.
    pub(in crate::eval) fn from_parts(
        mean: Vec<f64>,
        covariance: Mat<f64>,
        count: Option<usize>,
    ) -> Self {
        Self {
            mean,
            covariance,
            count,
        }
    }

    /// Number of features.
    pub fn width(&self) -> usize {
        self.mean.len()
    }

    /// Mean of each feature.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// Covariance of two features.
    ///
    /// # Panics
    /// If one of them is out of range.
    pub fn covariance(&self, i: usize, j: usize) -> f64 {
        self.covariance[(i, j)]
    }

    /// Number of samples that the moments were computed from. Files of pytorch-fid do not have it.
    pub fn count(&self) -> Option<usize> {
        self.count
    }

    fn trace(&self) -> f64 {
        (0..self.width()).map(|i| self.covariance[(i, i)]).sum()
    }

    /// The intensity for [`with_shrinkage`](Self::with_shrinkage) by oracle approximating shrinkage
    /// (Chen et al. 2010, <https://arxiv.org/abs/0907.4698>, equation 23), in the form of
    /// scikit-learn's `OAS`, which leaves out the terms in `2/d`. Ledoit and Wolf's needs fourth
    /// moments of the samples; this one needs the covariance and the number of samples.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the number of samples is not known.
    pub fn oas_shrinkage(&self) -> Result<f64> {
        let Some(count) = self.count else {
            return Err(Error::argument("samples", "not known", "their number"));
        };
        let d = self.width() as f64;
        if self.width() == 1 {
            return Ok(0.0);
        }
        let columns = (0..self.width()).flat_map(|j| self.covariance.col_as_slice(j));
        let squares = columns.map(|value| value * value).sum::<f64>() / (d * d);
        let mean = self.trace() / d;
        let numerator = squares + mean * mean;
        let denominator = (count as f64 + 1.0) * (squares - mean * mean / d);
        Ok(if denominator <= 0.0 {
            1.0
        } else {
            (numerator / denominator).min(1.0)
        })
    }

    /// The moments with a covariance `(1 − s)·Σ + s·(Tr Σ / d)·I` for an intensity `s` from 0 to 1:
    /// of full rank even if there were fewer samples than features. Distances between shrunk
    /// covariances are not comparable with published ones.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for an intensity outside `[0, 1]`.
    pub fn with_shrinkage(&self, intensity: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&intensity) {
            return Err(Error::argument("intensity", intensity, "between 0 and 1"));
        }
        let mut shrunk = self.clone();
        let target = intensity * self.trace() / self.width() as f64;
        for j in 0..self.width() {
            for value in shrunk.covariance.col_as_slice_mut(j) {
                *value *= 1.0 - intensity;
            }
            shrunk.covariance[(j, j)] += target;
        }
        Ok(shrunk)
    }

    /// The squared Fréchet distance; see [`frechet_distance`].
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the numbers of features differ.
    pub fn frechet_distance(&self, other: &Self) -> Result<f64> {
        FrechetReference::new(self)?.distance(other)
    }
}

/// Moments with a factor of their covariance, for distances to several others.
pub(super) struct FrechetReference<'a> {
    moments: &'a GaussianMoments,
    /// `L` with `L·Lᵀ = Σ`; it has fewer columns than rows if Σ is singular.
    factor: Mat<f64>,
}

impl<'a> FrechetReference<'a> {
    pub(super) fn new(moments: &'a GaussianMoments) -> Result<Self> {
        let d = moments.width();
        if let Ok(cholesky) = moments.covariance.llt(Side::Lower) {
            let factor = cholesky.L().to_owned();
            return Ok(Self { moments, factor });
        }
        let eigen = moments.covariance.self_adjoint_eigen(Side::Lower);
        let eigen = eigen.map_err(|_| no_eigenvalues())?;
        let (vectors, values) = (eigen.U(), eigen.S());
        // Rounding leaves the eigenvalues of a singular matrix slightly beside zero.
        let largest = (0..d).map(|i| values[i]).fold(0.0, f64::max);
        let kept: Vec<usize> = (0..d)
            .filter(|i| values[*i] > largest * d as f64 * f64::EPSILON)
            .collect();
        let factor = Mat::from_fn(d, kept.len(), |i, j| {
            vectors[(i, kept[j])] * values[kept[j]].sqrt()
        });
        Ok(Self { moments, factor })
    }

    pub(super) fn distance(&self, other: &GaussianMoments) -> Result<f64> {
        let own = self.moments;
        if own.width() != other.width() {
            let expected = format!("{}, the width of the other moments", own.width());
            return Err(Error::argument("features", other.width(), expected));
        }
        let mut trace_of_root = 0.0;
        let rank = self.factor.ncols();
        if rank > 0 {
            let right = &other.covariance * &self.factor;
            let product = self.factor.transpose() * &right;
            if (0..rank).any(|j| product.col_as_slice(j).iter().any(|x| !x.is_finite())) {
                let expected = "covariances whose product does not overflow";
                return Err(Error::argument("features", "too large", expected));
            }
            let eigenvalues = product.self_adjoint_eigenvalues(Side::Lower);
            let eigenvalues = eigenvalues.map_err(|_| no_eigenvalues())?;
            trace_of_root = eigenvalues.iter().map(|value| value.max(0.0).sqrt()).sum();
        }
        let means = own.mean.iter().zip(&other.mean);
        let means: f64 = means.map(|(x, y)| (x - y) * (x - y)).sum();
        Ok((means + own.trace() + other.trace() - 2.0 * trace_of_root).max(0.0))
    }
}

fn no_eigenvalues() -> Error {
    let expected = "a matrix with an eigendecomposition";
    Error::argument("features", "a covariance", expected)
}

/// `‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2·(Σ₁·Σ₂)^½)`, the squared Fréchet distance between normal
/// distributions with these moments (Dowson and Landau 1982). In Inception features it is the FID
/// of Heusel et al. 2017 (<https://arxiv.org/abs/1706.08500>).
///
/// The trace of the root is computed as `Σ √λᵢ(Lᵀ·Σ₂·L)` with `L·Lᵀ = Σ₁`: only symmetric matrices
/// are decomposed, so no complex numbers appear if a covariance is singular.
///
/// # Errors
/// [`Error::InvalidArgument`] if the numbers of features differ, or one of the two has fewer than
/// two samples.
pub fn frechet_distance(a: &FeatureStatistics, b: &FeatureStatistics) -> Result<f64> {
    a.moments()?.frechet_distance(&b.moments()?)
}

/// Moments of the rows `items`, which may repeat.
pub(super) fn moments_of(samples: &Features, items: &[usize]) -> Result<GaussianMoments> {
    let mut statistics = FeatureStatistics::new(samples.width())?;
    for block in items.chunks(1024) {
        statistics.add_features(&samples.select(block))?;
    }
    statistics.moments()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::distribution::tests::normal;

    /// Diagonal covariances have a closed form: `Σ (μ₁−μ₂)² + (σ₁−σ₂)²`.
    #[test]
    fn frechet_distance_matches_closed_form() {
        // ±σ in one feature at a time: covariances exactly diagonal.
        let cross = |scales: &[f64], shift: f64| {
            let d = scales.len();
            let mut moments = FeatureStatistics::new(d).unwrap();
            for (j, scale) in scales.iter().enumerate() {
                for sign in [-1.0, 1.0] {
                    let row: Vec<f64> = (0..d)
                        .map(|k| shift + if k == j { sign * scale } else { 0.0 })
                        .collect();
                    moments.add_rows(&row, d).unwrap();
                }
            }
            moments
        };
        let (a, b) = (cross(&[1.0, 2.0, 0.0], 0.0), cross(&[3.0, 0.5, 1.0], 0.25));
        let std = |scale: f64| (2.0 * scale * scale / 5.0f64).sqrt();
        let expected = 3.0 * 0.0625
            + [(1.0, 3.0), (2.0, 0.5), (0.0, 1.0)]
                .iter()
                .map(|(x, y)| (std(*x) - std(*y)).powi(2))
                .sum::<f64>();
        let got = frechet_distance(&a, &b).unwrap();
        assert!((got - expected).abs() < 1e-10, "{got} {expected}");
        assert!(frechet_distance(&a, &a).unwrap() < 1e-10);
        assert!((frechet_distance(&b, &a).unwrap() - expected).abs() < 1e-10);
    }

    /// In one dimension `(μ₁ − μ₂)² + (σ₁ − σ₂)²`; for covariances that commute,
    /// `Tr (Σ₁^½ − Σ₂^½)²`, also without the zero of a singular one.
    #[test]
    fn moments_have_closed_form_distances() {
        let of = |mean: &[f64], covariance: &[f64]| {
            GaussianMoments::new(mean.to_vec(), covariance, None).unwrap()
        };
        let distance = of(&[1.0], &[4.0])
            .frechet_distance(&of(&[3.0], &[9.0]))
            .unwrap();
        assert!((distance - 5.0).abs() < 1e-12, "{distance}");
        let (a, b) = (
            of(&[0.0; 2], &[1.0, 1.0, 1.0, 1.0]),
            of(&[0.0; 2], &[2.5, 1.5, 1.5, 2.5]),
        );
        // Eigenvalues 2 and 0 against 4 and 1.
        let expected = (2f64.sqrt() - 2.0).powi(2) + 1.0;
        for (x, y) in [(&a, &b), (&b, &a)] {
            let distance = x.frechet_distance(y).unwrap();
            assert!((distance - expected).abs() < 1e-7, "{distance}");
        }
        let zero = of(&[0.0; 2], &[0.0; 4]);
        assert_eq!(zero.frechet_distance(&zero).unwrap(), 0.0);
        assert!((zero.frechet_distance(&b).unwrap() - 5.0).abs() < 1e-12);
    }

    /// Ten samples of 20 features: without shrinkage the covariance has rank 9.
    #[test]
    fn shrinkage_keeps_trace_and_gives_full_rank() {
        let all: Vec<usize> = (0..10).collect();
        let moments = moments_of(&normal(1, 10, 20), &all).unwrap();
        assert_eq!(moments.count(), Some(10));
        assert_eq!(moments.with_shrinkage(0.0).unwrap(), moments);
        let intensity = moments.oas_shrinkage().unwrap();
        assert!(intensity > 0.3 && intensity <= 1.0, "{intensity}");
        let shrunk = moments.with_shrinkage(intensity).unwrap();
        assert!((shrunk.trace() - moments.trace()).abs() < 1e-9);
        let smallest = shrunk
            .covariance
            .self_adjoint_eigenvalues(Side::Lower)
            .unwrap()[0];
        let expected = intensity * moments.trace() / 20.0;
        assert!((smallest - expected).abs() < 1e-9, "{smallest} {expected}");
    }

    #[test]
    fn invalid_moments_are_errors() {
        let error = |mean: &[f64], covariance: &[f64]| {
            let found = GaussianMoments::new(mean.to_vec(), covariance, None);
            found.unwrap_err().to_string()
        };
        assert!(error(&[], &[]).contains("`mean` is empty"));
        assert!(error(&[0.0; 2], &[1.0; 3]).contains("`covariance` is 3, expected 2 × 2"));
        assert!(error(&[f64::NAN], &[1.0]).contains("`mean` is NaN"));
        assert!(error(&[0.0], &[f64::INFINITY]).contains("`covariance` is inf"));
        assert!(error(&[0.0], &[-1.0]).contains("negative"));
        assert!(error(&[0.0; 2], &[1.0, 0.5, 0.0, 1.0]).contains("not symmetric at (1, 0)"));
        let one = GaussianMoments::new(vec![0.0], &[1.0], None).unwrap();
        assert!(one.with_shrinkage(1.5).is_err() && one.oas_shrinkage().is_err());
        let two = GaussianMoments::new(vec![0.0; 2], &[1.0, 0.0, 0.0, 1.0], None).unwrap();
        let found = one.frechet_distance(&two).unwrap_err().to_string();
        assert!(found.contains("`features` is 2, expected 1"), "{found}");
    }
}
