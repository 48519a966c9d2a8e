//! Weights, means and covariances from responsibilities.

use super::{
    Component, Points,
    expectation::{Responsibilities, counts},
    precision::precision_factor,
    tiles::{TILE, dot, load_tile, tiles},
};
use crate::{parallel::in_parallel, prior::CovarianceType};
use std::ops::Range;

/// A component with fewer points is empty: it keeps its mean and covariance.
pub(super) const EMPTY: f64 = 1e-9;

/// Maximisation: weights, means and covariances of the responsibilities.
pub(super) fn maximisation(
    points: &Points,
    components: &[Component],
    covariance: CovarianceType,
    parts: &[Responsibilities],
    min_variance: f64,
) -> Vec<Component> {
    /// Rows of a covariance that one task computes.
    const ROWS: usize = 16;
    let dim = points.dim();
    let counts = counts(parts, components.len());
    let step = match covariance {
        CovarianceType::Diagonal => dim,
        CovarianceType::Full => ROWS,
    };
    let tasks: Vec<(usize, Range<usize>)> = (0..components.len())
        .filter(|k| counts[*k] >= EMPTY)
        .flat_map(|k| (0..dim).step_by(step).map(move |row| (k, row)))
        .map(|(k, row)| (k, row..(row + step).min(dim)))
        .collect();
    let moments = in_parallel(tasks.len(), |index| {
        let (k, rows) = tasks[index].clone();
        moments(points, parts, k, &components[k].mean, rows, covariance)
    });
    let mut first = vec![Vec::with_capacity(dim); components.len()];
    let mut second = vec![Vec::new(); components.len()];
    for ((k, _), (means, squares)) in tasks.iter().zip(moments) {
        first[*k].extend(means);
        second[*k].extend(squares);
    }
    let update = |k: usize| {
        let (old, count) = (&components[k], counts[k]);
        let weight = count / points.count() as f64;
        if count < EMPTY {
            return Component {
                weight,
                ..old.clone()
            };
        }
        let shift: Vec<f64> = first[k].iter().map(|sum| sum / count).collect();
        let mean = old.mean.iter().zip(&shift).map(|(m, s)| m + s).collect();
        let factor = match covariance {
            CovarianceType::Diagonal => {
                let variances = second[k].iter().zip(&shift);
                variances
                    .map(|(square, s)| (square / count - s * s).max(min_variance).sqrt().recip())
                    .collect()
            }
            CovarianceType::Full => {
                // The rows of the lower triangle follow each other.
                let mut matrix = vec![0.0; dim * dim];
                let mut sums = second[k].iter();
                for i in 0..dim {
                    for j in 0..=i {
                        let sum = sums.next().copied().unwrap_or(0.0);
                        let value = sum / count - shift[i] * shift[j];
                        matrix[i * dim + j] = value;
                        matrix[j * dim + i] = value;
                    }
                }
                precision_factor(matrix, dim, min_variance)
            }
        };
        Component::new(weight, mean, factor)
    };
    in_parallel(components.len(), update)
}

/// Sums over the points of `r·d_i` and `r·d_i·d_j` for the responsibilities `r` of component `k`
/// and the differences `d` from its `centre`, for these rows `i`. With diagonal covariances
/// `j = i`, else `j` is from 0 to `i`.
fn moments(
    points: &Points,
    parts: &[Responsibilities],
    k: usize,
    centre: &[f64],
    rows: Range<usize>,
    covariance: CovarianceType,
) -> (Vec<f64>, Vec<f64>) {
    let columns = |i: usize| match covariance {
        CovarianceType::Diagonal => i..i + 1,
        CovarianceType::Full => 0..i + 1,
    };
    let mut first = vec![0.0; rows.len()];
    let mut second = vec![0.0; rows.clone().map(|i| columns(i).len()).sum()];
    let mut tile = Vec::new();
    for part in parts {
        let length = part.range.len();
        let all = &part.values[k * length..(k + 1) * length];
        for range in tiles(&part.range) {
            let start = range.start - part.range.start;
            let mut weights = [0.0; TILE];
            weights[..range.len()].copy_from_slice(&all[start..start + range.len()]);
            load_tile(points, range, centre, rows.end, &mut tile);
            let column = |i: usize| &tile[i * TILE..(i + 1) * TILE];
            let mut sums = second.iter_mut();
            for (first, i) in first.iter_mut().zip(rows.clone()) {
                let mut weighted = weights;
                let products = weighted.iter_mut().zip(column(i));
                products.for_each(|(w, d)| *w *= d);
                *first += weighted.iter().sum::<f64>();
                for (j, sum) in columns(i).zip(&mut sums) {
                    *sum += dot(&weighted, column(j));
                }
            }
        }
    }
    (first, second)
}
