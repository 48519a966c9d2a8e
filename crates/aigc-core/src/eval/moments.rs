//! Means and covariances of features, accumulated batch by batch.

use super::{Features, distribution::GaussianMoments};
use crate::{Error, Result};
use burn::tensor::Tensor;
use faer::{
    Accum, Mat, MatRef, get_global_parallelism,
    linalg::matmul::triangular::{self, BlockStructure},
};

/// Number of samples that are centred and multiplied at once.
const BLOCK: usize = 256;

/// Mean and covariance of features, accumulated batch by batch in 64 bits.
///
/// Batches are combined by the update of Chan et al. (1983), which does not lose digits to large
/// means. Memory does not grow with the number of samples.
#[derive(Clone, Debug)]
pub struct FeatureStatistics {
    count: usize,
    mean: Vec<f64>,
    /// Lower triangle of `Σ (x − mean)·(x − mean)ᵀ`; the rest is not used.
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
        let data = features.to_data();
        match data.as_slice::<f32>() {
            Ok(values) => self.add_values(values, width),
            Err(_) => self.add_values(&data.iter::<f64>().collect::<Vec<_>>(), width),
        }
    }

    /// Adds features that are on the host.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the number of features differs.
    pub fn add_features(&mut self, features: &Features) -> Result<()> {
        self.add_values(features.values(), features.width())
    }

    /// Adds samples of `width` features each, one after the other.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the number of features differs, the last sample is incomplete,
    /// or a value is not finite.
    pub fn add_rows(&mut self, values: &[f64], width: usize) -> Result<()> {
        self.add_values(values, width)
    }

    fn add_values<T: Copy + Into<f64>>(&mut self, values: &[T], width: usize) -> Result<()> {
        let d = self.mean.len();
        if width != d {
            let expected = format!("{d} of each sample, as before");
            return Err(Error::argument("features", width, expected));
        }
        if !values.len().is_multiple_of(d) {
            let found = format!("{} values", values.len());
            let expected = format!("a multiple of {d}, the features of a sample");
            return Err(Error::argument("features", found, expected));
        }
        let mut wide = values.iter().map(|value| Into::<f64>::into(*value));
        if let Some(value) = wide.find(|value| !value.is_finite()) {
            return Err(Error::argument("features", value, "finite numbers"));
        }
        for block in values.chunks(BLOCK * d) {
            self.add_block(block);
        }
        Ok(())
    }

    fn add_block<T: Copy + Into<f64>>(&mut self, values: &[T]) {
        let d = self.mean.len();
        let n = values.len() / d;
        let mut rows = Vec::with_capacity((n + 1) * d);
        rows.extend(values.iter().map(|value| Into::<f64>::into(*value)));
        let mut mean = vec![0.0f64; d];
        for row in rows.chunks_exact(d) {
            for (sum, value) in mean.iter_mut().zip(row) {
                *sum += value;
            }
        }
        for sum in &mut mean {
            *sum /= n as f64;
        }
        for row in rows.chunks_exact_mut(d) {
            for (value, mean) in row.iter_mut().zip(&mean) {
                *value -= mean;
            }
        }
        // The update for the shift of the mean is one more row of the product.
        let (before, all) = (self.count as f64, (self.count + n) as f64);
        let weight = (before * n as f64 / all).sqrt();
        for (new, old) in mean.iter().zip(&mut self.mean) {
            let shift = new - *old;
            rows.push(shift * weight);
            *old += shift * n as f64 / all;
        }
        add_products(&mut self.scatter, &rows);
        self.count += n;
    }

    /// Adds the samples of other statistics, as if they had been added one by one.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the numbers of features differ.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let d = self.mean.len();
        if other.mean.len() != d {
            let expected = format!("{d}, as in the statistics they are merged with");
            return Err(Error::argument("features", other.mean.len(), expected));
        }
        if other.count == 0 {
            return Ok(());
        }
        let (before, new) = (self.count as f64, other.count as f64);
        let all = before + new;
        let shift: Vec<f64> = other
            .mean
            .iter()
            .zip(&self.mean)
            .map(|(new, old)| new - old)
            .collect();
        for (j, along) in shift.iter().enumerate() {
            let scale = along * before * new / all;
            let sums = self.scatter.col_as_slice_mut(j)[j..].iter_mut();
            let added = other.scatter.col_as_slice(j)[j..].iter();
            for ((sum, added), shift) in sums.zip(added).zip(&shift[j..]) {
                *sum += added + shift * scale;
            }
            self.mean[j] += along * new / all;
        }
        self.count += other.count;
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
    ///
    /// # Panics
    /// If one of them is out of range.
    pub fn covariance(&self, i: usize, j: usize) -> f64 {
        match self.count {
            0 | 1 => f64::NAN,
            count => self.scatter[(i.max(j), i.min(j))] / (count as f64 - 1.0),
        }
    }

    /// Whether there are too few samples for a covariance of full rank: `n` samples give at most
    /// rank `n − 1`.
    pub fn is_singular(&self) -> bool {
        self.count <= self.mean.len()
    }

    /// What to tell the user if the statistics [are singular](Self::is_singular).
    pub fn warning(&self) -> Option<String> {
        let (count, width) = (self.count, self.mean.len());
        self.is_singular().then(|| {
            format!(
                "{count} samples for {width} features: the covariance is singular and a Fréchet \
                 distance too large; take more than {width} samples, or \
                 `GaussianMoments::with_shrinkage`"
            )
        })
    }

    /// Mean and covariance, for distances and for files.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for fewer than two samples, or features whose squares overflow.
    pub fn moments(&self) -> Result<GaussianMoments> {
        if self.count < 2 {
            return Err(Error::argument("samples", self.count, "at least 2"));
        }
        let d = self.mean.len();
        let covariance = Mat::from_fn(d, d, |i, j| self.covariance(i, j));
        if (0..d).any(|j| covariance.col_as_slice(j).iter().any(|x| !x.is_finite())) {
            let expected = "values whose squares do not overflow";
            return Err(Error::argument("features", "too large", expected));
        }
        Ok(GaussianMoments::from_parts(
            self.mean.clone(),
            covariance,
            Some(self.count),
        ))
    }
}

/// Adds `Σ x·xᵀ` to the lower triangle of `sum`, for the rows `x` of `rows`.
pub(super) fn add_products(sum: &mut Mat<f64>, rows: &[f64]) {
    let d = sum.nrows();
    let columns = MatRef::from_column_major_slice(rows, d, rows.len() / d);
    triangular::matmul(
        sum,
        BlockStructure::TriangularLower,
        Accum::Add,
        columns,
        BlockStructure::Rectangular,
        columns.transpose(),
        BlockStructure::Rectangular,
        1.0,
        get_global_parallelism(),
    );
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

    /// Statistics of parts, also of an empty one, are those of the whole.
    #[test]
    fn merged_statistics_match_single_pass() {
        let (n, d) = (90, 4);
        let values = rows(2, n, d, 3.0);
        let of = |values: &[f64]| {
            let mut statistics = FeatureStatistics::new(d).unwrap();
            statistics.add_rows(values, d).unwrap();
            statistics
        };
        let whole = of(&values);
        let mut merged = FeatureStatistics::new(d).unwrap();
        for part in [
            &values[..0],
            &values[..40],
            &values[40..d * 50],
            &values[d * 50..],
        ] {
            merged.merge(&of(part)).unwrap();
        }
        assert_eq!(merged.count(), n);
        for i in 0..d {
            assert!((merged.mean()[i] - whole.mean()[i]).abs() < 1e-12);
            for j in 0..d {
                let difference = merged.covariance(i, j) - whole.covariance(i, j);
                assert!(difference.abs() < 1e-12, "{difference}");
            }
        }
        let other = FeatureStatistics::new(3).unwrap();
        let error = merged.merge(&other).unwrap_err().to_string();
        assert!(error.contains("`features` is 3, expected 4"), "{error}");
    }

    #[test]
    fn features_on_host_are_added_like_rows() {
        let values = rows(3, 20, 3, 0.0);
        let single = values.iter().map(|value| *value as f32).collect();
        let (mut a, mut b) = (
            FeatureStatistics::new(3).unwrap(),
            FeatureStatistics::new(3).unwrap(),
        );
        a.add_rows(&values, 3).unwrap();
        b.add_features(&Features::new(single, 3).unwrap()).unwrap();
        assert_eq!(a.mean(), b.mean());
        assert_eq!(a.covariance(0, 2), b.covariance(2, 0));
    }

    #[test]
    fn few_samples_are_warned_of() {
        let mut statistics = FeatureStatistics::new(3).unwrap();
        statistics.add_rows(&rows(1, 3, 3, 0.0), 3).unwrap();
        assert!(statistics.is_singular());
        let warning = statistics.warning().unwrap();
        assert!(warning.starts_with("3 samples for 3 features"), "{warning}");
        statistics.add_rows(&rows(2, 1, 3, 0.0), 3).unwrap();
        assert!(statistics.warning().is_none());
    }

    #[test]
    fn invalid_features_are_errors() {
        assert!(FeatureStatistics::new(0).is_err());
        let mut moments = FeatureStatistics::new(2).unwrap();
        assert!(moments.add_rows(&[1.0, 2.0, 3.0], 3).is_err());
        let part = moments.add_rows(&[1.0, 2.0, 3.0], 2).unwrap_err();
        assert!(
            part.to_string()
                .contains("3 values, expected a multiple of 2")
        );
        assert!(moments.covariance(0, 1).is_nan());
        let mut large = FeatureStatistics::new(1).unwrap();
        large.add_rows(&[1e200, -1e200], 1).unwrap();
        let error = large.moments().unwrap_err().to_string();
        assert!(error.contains("too large"), "{error}");
        assert!(
            moments
                .add_rows(&[1.0, f64::NAN], 2)
                .unwrap_err()
                .to_string()
                .contains("finite")
        );
        moments.add_rows(&[1.0, 2.0], 2).unwrap();
        let error = moments.moments().unwrap_err().to_string();
        assert!(
            error.contains("`samples` is 1, expected at least 2"),
            "{error}"
        );
    }
}
