//! The points that a mixture is fitted to.

use aigc_core::{Error, Result, check};
use std::ops::Range;

/// Points in rows.
pub(in crate::prior) struct Points {
    values: Vec<f64>,
    dim: usize,
    count: usize,
}

impl Points {
    /// The points of these rows.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no points, they differ in length or have no
    /// dimensions, or a value is not finite.
    pub(in crate::prior) fn new(rows: &[Vec<f32>]) -> Result<Self> {
        let dim = rows.first().map_or(0, Vec::len);
        check::ensure_argument(dim > 0, "latents", "empty", "vectors with dimensions")?;
        if let Some(row) = rows.iter().find(|row| row.len() != dim) {
            let expected = format!("{dim} values each, as the first vector");
            return Err(Error::argument("latents", row.len(), expected));
        }
        let values: Vec<f64> = rows.iter().flatten().map(|x| f64::from(*x)).collect();
        if let Some(value) = values.iter().find(|x| !x.is_finite()) {
            return Err(Error::argument("latents", value, "finite numbers"));
        }
        Ok(Self {
            values,
            dim,
            count: rows.len(),
        })
    }

    pub(in crate::prior) fn dim(&self) -> usize {
        self.dim
    }

    pub(in crate::prior) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn row(&self, index: usize) -> &[f64] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }

    /// Variance of each dimension, at least `floor`.
    pub(super) fn variances(&self, floor: f64) -> Vec<f64> {
        let n = self.count as f64;
        let mut mean = vec![0.0; self.dim];
        let mut variance = vec![0.0; self.dim];
        for row in self.values.chunks_exact(self.dim) {
            mean.iter_mut().zip(row).for_each(|(m, x)| *m += x / n);
        }
        for row in self.values.chunks_exact(self.dim) {
            let deviations = row.iter().zip(&mean).map(|(x, m)| (x - m).powi(2));
            let sums = variance.iter_mut().zip(deviations);
            sums.for_each(|(v, d)| *v += d / n);
        }
        variance.iter_mut().for_each(|v| *v = v.max(floor));
        variance
    }

    /// The fixed ranges that processors share.
    pub(super) fn ranges(&self) -> Vec<Range<usize>> {
        const MIN: usize = 1024;
        let size = self.count.div_ceil(64).max(MIN);
        (0..self.count)
            .step_by(size)
            .map(|start| start..(start + size).min(self.count))
            .collect()
    }
}
