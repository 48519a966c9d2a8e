//! Points in tiles, which vector instructions work on.

use super::Points;
use std::ops::Range;

/// Number of points that inner loops work on at once, dimension by dimension.
pub(super) const TILE: usize = 64;

/// Differences of at most [`TILE`] points from `centre`, in the first `dims` dimensions:
/// `[dims][TILE]`, zero beyond the points.
pub(super) fn load_tile(
    points: &Points,
    range: Range<usize>,
    centre: &[f64],
    dims: usize,
    tile: &mut Vec<f64>,
) {
    tile.clear();
    tile.resize(dims * TILE, 0.0);
    for (column, index) in range.enumerate() {
        let row = points.row(index).iter().zip(centre).take(dims);
        row.enumerate()
            .for_each(|(j, (x, c))| tile[j * TILE + column] = x - c);
    }
}

/// The tiles of a range.
pub(super) fn tiles(range: &Range<usize>) -> impl Iterator<Item = Range<usize>> + use<> {
    let end = range.end;
    range
        .clone()
        .step_by(TILE)
        .map(move |start| start..(start + TILE).min(end))
}

/// `Σ aᵢ·bᵢ` with independent partial sums, which vector instructions can compute.
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    const LANES: usize = 8;
    let mut sums = [0.0; LANES];
    for (a, b) in a.chunks_exact(LANES).zip(b.chunks_exact(LANES)) {
        let products = a.iter().zip(b).map(|(a, b)| a * b);
        let lanes = sums.iter_mut().zip(products);
        lanes.for_each(|(sum, product)| *sum += product);
    }
    sums.iter().sum()
}
