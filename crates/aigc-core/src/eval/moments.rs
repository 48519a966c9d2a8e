//! Means and covariances of features, and the Fréchet distance between them.

use crate::{Error, Result};
use burn::tensor::Tensor;
use faer::{Mat, MatRef, Side};

/// Mean and covariance of features, accumulated batch by batch in 64 bits.
///
/// Batches are combined by the update of Chan et al. (1983), which does not lose digits to large
/// means. Memory does not grow with the number of samples.
#[derive(Clone, Debug)]
pub struct FeatureStatistics {
    count: usize,
    mean: Vec<f64>,
    /// `Σ (x − mean)·(x − mean)ᵀ`.
    scatter: Mat<f64>,
}

impl FeatureStatistics {
    /// Empty statistics of `features` features.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no features.
    pub fn new(features: usize) -> Result<Self> {
        if features == 0 {
            return Err(Error::argument("features", features, "at least 1"));
        }
        Ok(Self {
            count: 0,
            mean: vec![0.0; features],
            scatter: Mat::zeros(features, features),
        })
    }

    /// Adds a batch of features.
    ///
    /// # Shapes
    /// - features: `[batch, features]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the number of features differs, or one is not finite.
    pub fn add(&mut self, features: &Tensor<2>) -> Result<()> {
        let [_, width] = features.dims();
        let values: Vec<f64> = features.to_data().iter::<f64>().collect();
        self.add_rows(&values, width)
    }

    /// Adds samples of `width` features each, one after the other.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the number of features differs, or one is not finite.
    pub fn add_rows(&mut self, values: &[f64], width: usize) -> Result<()> {
        let d = self.mean.len();
        if width != d || !values.len().is_multiple_of(d) {
            return Err(Error::argument(
                "features",
                width,
                format!("{d} of each sample, as before"),
            ));
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            return Err(Error::argument("features", value, "finite numbers"));
        }
        let n = values.len() / d;
        if n == 0 {
            return Ok(());
        }
        let rows = MatRef::from_row_major_slice(values, n, d);
        let mean: Vec<f64> = (0..d)
            .map(|j| (0..n).map(|i| rows[(i, j)]).sum::<f64>() / n as f64)
            .collect();
        let centred = Mat::from_fn(n, d, |i, j| rows[(i, j)] - mean[j]);
        let (before, all) = (self.count as f64, (self.count + n) as f64);
        let shift: Vec<f64> = mean
            .iter()
            .zip(&self.mean)
            .map(|(new, old)| new - old)
            .collect();
        self.scatter += centred.transpose() * &centred;
        let weight = before * n as f64 / all;
        for j in 0..d {
            for i in 0..d {
                self.scatter[(i, j)] += shift[i] * shift[j] * weight;
            }
            self.mean[j] += shift[j] * n as f64 / all;
        }
        self.count += n;
        Ok(())
    }

    /// Number of samples.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Mean of each feature.
    pub fn mean(&self) -> &[f64] {
        &self.mean
    }

    /// The unbiased covariance of two features; NaN for fewer than two samples.
    pub fn covariance(&self, i: usize, j: usize) -> f64 {
        self.scatter[(i, j)] / (self.count as f64 - 1.0)
    }

    fn covariances(&self) -> Mat<f64> {
        let d = self.mean.len();
        Mat::from_fn(d, d, |i, j| self.covariance(i, j))
    }
}

/// `‖μ₁ − μ₂‖² + Tr(Σ₁ + Σ₂ − 2·(Σ₁·Σ₂)^½)`, the squared Fréchet distance between normal
/// distributions with these moments (Dowson and Landau 1982). In Inception features it is the FID
/// of Heusel et al. 2017 (<https://arxiv.org/abs/1706.08500>).
///
/// The trace of the root is computed as `Σ √λᵢ(Σ₁^½·Σ₂·Σ₁^½)`: only symmetric matrices are
/// decomposed, so no complex numbers appear if a covariance is singular.
///
/// # Errors
/// [`Error::InvalidArgument`] if the numbers of features differ, or one of the two has fewer than
/// two samples.
pub fn frechet_distance(a: &FeatureStatistics, b: &FeatureStatistics) -> Result<f64> {
    if a.mean.len() != b.mean.len() {
        return Err(Error::argument(
            "features",
            b.mean.len(),
            format!(
                "{}, the number of features of the other statistics",
                a.mean.len()
            ),
        ));
    }
    if let Some(few) = [a.count, b.count].into_iter().find(|count| *count < 2) {
        return Err(Error::argument(
            "samples",
            few,
            "at least 2 in both statistics",
        ));
    }
    let (sa, sb) = (a.covariances(), b.covariances());
    let decompose = |m: &Mat<f64>| {
        m.self_adjoint_eigen(Side::Lower).map_err(|_| {
            Error::argument(
                "features",
                "a covariance",
                "a matrix with an eigendecomposition",
            )
        })
    };
    let eigen = decompose(&sa)?;
    let d = a.mean.len();
    let (vectors, values) = (eigen.U(), eigen.S());
    // Rounding can leave an eigenvalue slightly below zero.
    let scaled = Mat::from_fn(d, d, |i, j| vectors[(i, j)] * values[j].max(0.0).sqrt());
    let root = &scaled * vectors.transpose();
    let product = decompose(&(&root * &sb * &root))?;
    let trace_of_root: f64 = (0..d).map(|i| product.S()[i].max(0.0).sqrt()).sum();
    let means: f64 = a
        .mean
        .iter()
        .zip(&b.mean)
        .map(|(x, y)| (x - y) * (x - y))
        .sum();
    let traces: f64 = (0..d).map(|i| sa[(i, i)] + sb[(i, i)]).sum();
    Ok((means + traces - 2.0 * trace_of_root).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn rows(seed: u64, n: usize, d: usize, shift: f64) -> Vec<f64> {
        Rng::new(seed)
            .normal_vec(n * d)
            .into_iter()
            .map(|x| f64::from(x) + shift)
            .collect()
    }

    #[test]
    fn batched_statistics_match_single_pass() {
        let (n, d) = (500, 5);
        // Far from zero, where a sum of squares would lose its digits.
        let values = rows(1, n, d, 1e7);
        let mut streamed = FeatureStatistics::new(d).unwrap();
        for chunk in values.chunks(d * 37) {
            streamed.add_rows(chunk, d).unwrap();
        }
        assert_eq!(streamed.count(), n);
        let mean = |j: usize| (0..n).map(|i| values[i * d + j] - 1e7).sum::<f64>() / n as f64;
        for a in 0..d {
            assert!((streamed.mean()[a] - 1e7 - mean(a)).abs() < 1e-7);
            for b in 0..d {
                let expected: f64 = (0..n)
                    .map(|i| {
                        (values[i * d + a] - 1e7 - mean(a)) * (values[i * d + b] - 1e7 - mean(b))
                    })
                    .sum::<f64>()
                    / (n as f64 - 1.0);
                assert!((streamed.covariance(a, b) - expected).abs() < 1e-6);
            }
        }
    }

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

    #[test]
    fn invalid_features_are_errors() {
        assert!(FeatureStatistics::new(0).is_err());
        let mut moments = FeatureStatistics::new(2).unwrap();
        assert!(moments.add_rows(&[1.0, 2.0, 3.0], 3).is_err());
        assert!(
            moments
                .add_rows(&[1.0, f64::NAN], 2)
                .unwrap_err()
                .to_string()
                .contains("finite")
        );
        moments.add_rows(&[1.0, 2.0], 2).unwrap();
        let error = frechet_distance(&moments, &moments)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`samples` is 1, expected at least 2"),
            "{error}"
        );
    }
}
