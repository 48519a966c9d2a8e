//! Principal components of two sets of features.

use crate::{Error, Result, eval::Features};
use faer::{Mat, Side};

/// Rows that are converted to 64 bits at a time.
const BLOCK: usize = 256;

/// The rows of two sets, those of the first one first.
struct Rows<'a> {
    sets: [&'a Features; 2],
    normalize: bool,
}

impl Rows<'_> {
    fn len(&self) -> usize {
        self.sets[0].len() + self.sets[1].len()
    }

    fn width(&self) -> usize {
        self.sets[0].width()
    }

    /// Row `i`, divided by its length if rows are normalised. A row of zeros stays.
    fn row(&self, i: usize) -> Vec<f64> {
        let first = self.sets[0].len();
        let row = if i < first {
            self.sets[0].row(i)
        } else {
            self.sets[1].row(i - first)
        };
        let mut row: Vec<f64> = row.iter().map(|x| f64::from(*x)).collect();
        if self.normalize {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            if norm > 0.0 {
                row.iter_mut().for_each(|x| *x /= norm);
            }
        }
        row
    }

    fn mean(&self) -> Vec<f64> {
        let mut mean = vec![0.0; self.width()];
        for i in 0..self.len() {
            for (sum, x) in mean.iter_mut().zip(self.row(i)) {
                *sum += x;
            }
        }
        let count = self.len() as f64;
        mean.iter_mut().for_each(|sum| *sum /= count);
        mean
    }

    /// Rows `start..` less `mean`, at most [`BLOCK`].
    fn centred(&self, start: usize, mean: &[f64]) -> Mat<f64> {
        let count = BLOCK.min(self.len() - start);
        let rows: Vec<Vec<f64>> = (start..start + count).map(|i| self.row(i)).collect();
        Mat::from_fn(count, self.width(), |i, j| rows[i][j] - mean[j])
    }
}

/// The rows of `p` and then of `q` in their first principal components: the fewest that explain a
/// share `explained` of the variance.
pub(super) fn project(
    p: &Features,
    q: &Features,
    normalize: bool,
    explained: f64,
) -> Result<Features> {
    let rows = Rows {
        sets: [p, q],
        normalize,
    };
    let d = rows.width();
    let mean = rows.mean();
    let mut scatter = Mat::<f64>::zeros(d, d);
    for start in (0..rows.len()).step_by(BLOCK) {
        let block = rows.centred(start, &mean);
        scatter += block.transpose() * &block;
    }
    let eigen = scatter.self_adjoint_eigen(Side::Lower).map_err(|_| {
        Error::argument(
            "features",
            "a covariance",
            "a matrix with an eigendecomposition",
        )
    })?;
    // Eigenvalues increase; rounding can leave one slightly below zero.
    let (vectors, values) = (eigen.U(), eigen.S());
    let variances: Vec<f64> = (0..d).rev().map(|i| values[i].max(0.0)).collect();
    let kept = components(&variances, explained);
    let basis = Mat::from_fn(d, kept, |i, j| vectors[(i, d - 1 - j)]);
    let mut projected = Vec::with_capacity(rows.len() * kept);
    for start in (0..rows.len()).step_by(BLOCK) {
        let block = rows.centred(start, &mean) * &basis;
        for i in 0..block.nrows() {
            projected.extend((0..kept).map(|j| block[(i, j)] as f32));
        }
    }
    Features::new(projected, kept)
}

/// The smallest number of components whose variances reach a share `explained` of the sum.
fn components(variances: &[f64], explained: f64) -> usize {
    let total: f64 = variances.iter().sum();
    let mut sum = 0.0;
    let reached = variances.iter().position(|variance| {
        sum += variance;
        sum >= explained * total
    });
    reached.map_or(variances.len(), |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewest_components_are_kept() {
        assert_eq!(components(&[6.0, 3.0, 1.0], 0.5), 1);
        assert_eq!(components(&[6.0, 3.0, 1.0], 0.9), 2);
        assert_eq!(components(&[6.0, 3.0, 1.0], 0.95), 3);
        // Equal rows have no variance.
        assert_eq!(components(&[0.0, 0.0], 0.9), 1);
    }

    /// Rows on a line: one component, in which they keep their distances.
    #[test]
    fn line_keeps_its_distances() {
        let at = |t: f32| [3.0 + t * 0.6, 1.0, -2.0 + t * 0.8];
        let set = |ts: &[f32]| Features::new(ts.iter().flat_map(|t| at(*t)).collect(), 3).unwrap();
        let found = project(&set(&[0.0, 1.0]), &set(&[4.0]), false, 0.9).unwrap();
        assert_eq!((found.len(), found.width()), (3, 1));
        let x = found.values();
        assert!(((x[1] - x[0]).abs() - 1.0).abs() < 1e-5);
        assert!(((x[2] - x[1]).abs() - 3.0).abs() < 1e-5);
    }

    #[test]
    fn normalised_rows_ignore_their_lengths() {
        let set = |values: &[f32]| Features::new(values.to_vec(), 2).unwrap();
        let (p, q) = (set(&[1.0, 0.0, 5.0, 0.0]), set(&[0.0, 2.0, 0.0, 0.0]));
        let found = project(&p, &q, true, 0.99).unwrap();
        assert_eq!(found.row(0), found.row(1));
        let distance = |a: &[f32], b: &[f32]| -> f32 {
            a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f32>()
        };
        assert!((distance(found.row(0), found.row(2)) - 2.0).abs() < 1e-5);
        assert!((distance(found.row(0), found.row(3)) - 1.0).abs() < 1e-5);
    }
}
