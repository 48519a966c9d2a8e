//! The components that a fit starts with: those of k-means.

use super::{Component, Points, expectation::Responsibilities, maximisation::maximisation};
use crate::{math::uniform, parallel::in_parallel, prior::CovarianceType};
use aigc_core::rng::Rng;
use std::ops::Range;

/// Components at the centres of k-means, with the points nearest to each.
pub(super) fn initial_components(
    points: &Points,
    count: usize,
    covariance: CovarianceType,
    min_variance: f64,
    rng: &mut Rng,
) -> Vec<Component> {
    /// Iterations of k-means; the components move on anyway.
    const ITERATIONS: usize = 10;
    let mut centres = spread_centres(points, count, rng);
    let mut labels = nearest_centres(points, &centres);
    for _ in 0..ITERATIONS {
        let mut sizes = vec![0.0; count];
        let mut sums = vec![vec![0.0; points.dim()]; count];
        for (index, label) in labels.iter().enumerate() {
            sizes[*label] += 1.0;
            let sum = sums[*label].iter_mut().zip(points.row(index));
            sum.for_each(|(sum, x)| *sum += x);
        }
        for ((centre, sum), size) in centres.iter_mut().zip(sums).zip(sizes) {
            // A centre without points stays where it is.
            if size > 0.0 {
                *centre = sum.into_iter().map(|x| x / size).collect();
            }
        }
        let moved = nearest_centres(points, &centres);
        if moved == labels {
            break;
        }
        labels = moved;
    }
    let variances = points.variances(min_variance);
    let components: Vec<Component> = centres
        .into_iter()
        .map(|centre| Component::uncorrelated(1.0, centre, &variances, covariance))
        .collect();
    let one_hot = |range: Range<usize>| {
        let length = range.len();
        let mut values = vec![0.0; count * length];
        for (column, label) in labels[range.clone()].iter().enumerate() {
            values[label * length + column] = 1.0;
        }
        Responsibilities {
            range,
            values,
            log_likelihood: 0.0,
            worst: (0.0, 0),
        }
    };
    let parts: Vec<_> = points.ranges().into_iter().map(one_hot).collect();
    maximisation(points, &components, covariance, &parts, min_variance)
}

/// Centres far from each other: each next one is a point, drawn with probability proportional to
/// the square of its distance to the nearest centre (k-means++, Arthur and Vassilvitskii 2007).
fn spread_centres(points: &Points, count: usize, rng: &mut Rng) -> Vec<Vec<f64>> {
    let ranges = points.ranges();
    let mut distances = vec![f64::INFINITY; points.count()];
    let mut next = rng.random_index(points.count());
    let mut centres = Vec::with_capacity(count);
    loop {
        let centre = points.row(next).to_vec();
        let nearer = in_parallel(ranges.len(), |index| {
            let near = |i: usize| square_distance(points.row(i), &centre).min(distances[i]);
            ranges[index].clone().map(near).collect::<Vec<_>>()
        });
        distances = nearer.concat();
        centres.push(centre);
        if centres.len() == count {
            return centres;
        }
        let total: f64 = distances.iter().sum();
        next = match total > 0.0 {
            true => {
                let mut left = uniform(rng) * total;
                let drawn = distances.iter().position(|distance| {
                    left -= distance;
                    left < 0.0
                });
                drawn.unwrap_or_else(|| rng.random_index(points.count()))
            }
            // All points are centres already.
            false => rng.random_index(points.count()),
        };
    }
}

/// The nearest centre of each point.
fn nearest_centres(points: &Points, centres: &[Vec<f64>]) -> Vec<usize> {
    let ranges = points.ranges();
    let nearest = |i: usize| {
        let distances = centres.iter().map(|c| square_distance(points.row(i), c));
        let best = distances.enumerate().min_by(|a, b| a.1.total_cmp(&b.1));
        best.map_or(0, |(k, _)| k)
    };
    let parts = in_parallel(ranges.len(), |index| {
        ranges[index].clone().map(nearest).collect::<Vec<_>>()
    });
    parts.concat()
}

pub(super) fn square_distance(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum()
}
