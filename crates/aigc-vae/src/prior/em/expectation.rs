//! The responsibilities of components for points.

use super::{
    Component, Points,
    tiles::{TILE, load_tile, tiles},
};
use crate::{parallel::in_parallel, prior::CovarianceType};
use std::ops::Range;

/// The responsibilities of the components for a range of points.
pub(super) struct Responsibilities {
    pub(super) range: Range<usize>,
    /// Component by component, `[components][points]`.
    pub(super) values: Vec<f64>,
    /// Sum of the log-densities of the points.
    pub(super) log_likelihood: f64,
    /// The least log-density and its point.
    pub(super) worst: (f64, usize),
}

/// Expectation: the responsibilities `w_k·N_k(x) / Σ_j w_j·N_j(x)` of all points.
pub(super) fn expectation(
    points: &Points,
    components: &[Component],
    covariance: CovarianceType,
) -> Vec<Responsibilities> {
    let ranges = points.ranges();
    in_parallel(ranges.len(), |index| {
        expectation_of_range(points, components, covariance, ranges[index].clone())
    })
}

fn expectation_of_range(
    points: &Points,
    components: &[Component],
    covariance: CovarianceType,
    range: Range<usize>,
) -> Responsibilities {
    let (dim, length) = (points.dim(), range.len());
    let mut values = vec![0.0; components.len() * length];
    let (mut log_likelihood, mut worst) = (0.0, (f64::INFINITY, range.start));
    let mut tile = Vec::new();
    for part in tiles(&range) {
        let (offset, size) = (part.start - range.start, part.len());
        for (k, component) in components.iter().enumerate() {
            load_tile(points, part.clone(), &component.mean, dim, &mut tile);
            let mut squares = [0.0; TILE];
            let mut add = |whitened: &[f64]| {
                let sums = squares.iter_mut().zip(whitened);
                sums.for_each(|(square, y)| *square += y * y);
            };
            for i in 0..dim {
                let mut whitened = [0.0; TILE];
                let mut accumulate = |factor: f64, column: &[f64]| {
                    let sums = whitened.iter_mut().zip(column);
                    sums.for_each(|(y, x)| *y += factor * x);
                };
                match covariance {
                    CovarianceType::Diagonal => {
                        accumulate(component.factor[i], &tile[i * TILE..(i + 1) * TILE]);
                    }
                    CovarianceType::Full => {
                        let row = &component.factor[i * dim..i * dim + i + 1];
                        let columns = row.iter().zip(tile.chunks_exact(TILE));
                        columns.for_each(|(factor, column)| accumulate(*factor, column));
                    }
                }
                add(&whitened);
            }
            let at_mean = component.weight.ln() + component.log_peak;
            for (column, square) in squares[..size].iter().enumerate() {
                values[k * length + offset + column] = at_mean - 0.5 * square;
            }
        }
        for column in offset..offset + size {
            let terms = || (0..components.len()).map(|k| k * length + column);
            let largest = terms().map(|t| values[t]).fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = terms().map(|t| (values[t] - largest).exp()).sum();
            let log_density = largest + sum.ln();
            terms().for_each(|t| values[t] = (values[t] - log_density).exp());
            log_likelihood += log_density;
            if log_density < worst.0 {
                worst = (log_density, range.start + column);
            }
        }
    }
    Responsibilities {
        range,
        values,
        log_likelihood,
        worst,
    }
}

/// Mean log-likelihood of the points in nats.
pub(super) fn mean_log_likelihood(points: &Points, parts: &[Responsibilities]) -> f64 {
    let sum: f64 = parts.iter().map(|part| part.log_likelihood).sum();
    sum / points.count() as f64
}

/// Number of points of each component, `Σ` of its responsibilities.
pub(super) fn counts(parts: &[Responsibilities], components: usize) -> Vec<f64> {
    let mut counts = vec![0.0; components];
    for part in parts {
        let length = part.range.len();
        for (k, count) in counts.iter_mut().enumerate() {
            let values = &part.values[k * length..(k + 1) * length];
            *count += values.iter().sum::<f64>();
        }
    }
    counts
}
