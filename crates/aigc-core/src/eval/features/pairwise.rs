//! Distances and inner products of pairs of features; of all pairs of two sets, block by block.

use super::Features;
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};
use rayon::iter::{IntoParallelIterator, ParallelIterator};

/// Values of a block of products, or of the features that are converted for it: 32 MiB.
const BLOCK: usize = 1 << 22;

/// Rows of a block of pairs in one order: the fewer, the fewer pairs are computed twice.
const UPPER: usize = 128;

/// Rows of `b` that a thread converts to 64 bits and multiplies at once. The split does not depend
/// on the number of threads, so results do not either.
const COLUMNS: usize = 256;

/// Calls `each` with the number of the block's first row of `a`, its number of rows, and the inner
/// products `⟨aᵢ, bⱼ⟩`, `[rows, b.len()]` row by row. Both sets stay in 32 bits but for the rows of
/// one block.
pub(crate) fn for_each_block(a: &Features, b: &Features, each: impl FnMut(usize, usize, &[f64])) {
    let most = BLOCK / b.len().max(a.width());
    blocks(a, b, most, |_| 0, each);
}

/// Calls `each` with the number `i` of a block's first row, and the inner products `⟨x, xⱼ⟩` of its
/// rows with all rows `j ≥ i`, `[rows, x.len() − i]` row by row: every pair of different samples at
/// least once.
pub(crate) fn for_each_upper_block(x: &Features, mut each: impl FnMut(usize, &[f64])) {
    let most = UPPER.min(BLOCK / x.len().max(x.width()));
    blocks(
        x,
        x,
        most,
        |first| first,
        |first, _, products| each(first, products),
    );
}

/// Blocks of `most` rows of `a`, from the column on that `start` returns.
fn blocks(
    a: &Features,
    b: &Features,
    most: usize,
    start: impl Fn(usize) -> usize,
    mut each: impl FnMut(usize, usize, &[f64]),
) {
    let width = a.width();
    let most = most.clamp(1, a.len().max(1));
    let mut products = vec![0.0; most * b.len()];
    for first in (0..a.len()).step_by(most) {
        let rows = most.min(a.len() - first);
        let left = widened(a, first, rows);
        let left = MatRef::from_row_major_slice(&left, rows, width);
        let begin = start(first);
        let columns = b.len() - begin;
        let products = &mut products[..rows * columns];
        let mut rest = MatMut::from_row_major_slice_mut(products, rows, columns);
        let mut parts = Vec::with_capacity(columns.div_ceil(COLUMNS));
        for at in (0..columns).step_by(COLUMNS) {
            let (part, others) = rest.split_at_col_mut(COLUMNS.min(columns - at));
            parts.push((begin + at, part));
            rest = others;
        }
        parts.into_par_iter().for_each(|(at, out)| {
            let right = widened(b, at, out.ncols());
            let right = MatRef::from_row_major_slice(&right, out.ncols(), width);
            matmul(out, Accum::Replace, left, right.transpose(), 1.0, Par::Seq);
        });
        each(first, rows, products);
    }
}

/// Some rows in 64 bits.
fn widened(x: &Features, first: usize, rows: usize) -> Vec<f64> {
    let values = &x.values()[first * x.width()..][..rows * x.width()];
    values.iter().copied().map(f64::from).collect()
}

/// `‖x‖²` of every sample.
pub(crate) fn squared_norms(x: &Features) -> Vec<f64> {
    x.rows().map(squared_norm).collect()
}

/// `‖x‖²` of one sample.
pub(crate) fn squared_norm(x: &[f32]) -> f64 {
    x.iter().map(|v| f64::from(*v).powi(2)).sum()
}

/// `‖x − y‖²` from the differences: products of large values would hide an exact copy.
pub(crate) fn squared_distance(x: &[f32], y: &[f32]) -> f64 {
    let pairs = x.iter().zip(y);
    pairs
        .map(|(x, y)| (f64::from(*x) - f64::from(*y)).powi(2))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    #[test]
    fn blocks_hold_all_products() {
        let mut rng = Rng::new(3);
        let set = |rng: &mut Rng, n: usize| Features::new(rng.normal_vec(n * 5), 5).unwrap();
        // So many columns that a block has 3 rows.
        let (a, b) = (set(&mut rng, 7), set(&mut rng, BLOCK / 3));
        let mut next = 0;
        for_each_block(&a, &b, |first, rows, products| {
            assert_eq!((first, products.len()), (next, rows * b.len()));
            next += rows;
            for (i, row) in products.chunks_exact(b.len()).enumerate() {
                for j in (0..b.len()).step_by(997) {
                    let pairs = a.row(first + i).iter().zip(b.row(j));
                    let exact: f64 = pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                    assert!((row[j] - exact).abs() < 1e-9);
                }
            }
        });
        assert_eq!(next, 7);
        let norms = squared_norms(&a);
        assert!(
            (norms[2] - a.row(2).iter().map(|v| f64::from(*v).powi(2)).sum::<f64>()).abs() < 1e-12
        );
    }

    /// More rows than one block has.
    #[test]
    fn upper_blocks_hold_all_pairs() {
        let n = 2 * UPPER + 5;
        let x = Features::new(Rng::new(4).normal_vec(n * 3), 3).unwrap();
        let mut seen = vec![0; n * n];
        for_each_upper_block(&x, |first, products| {
            for (row, products) in products.chunks_exact(n - first).enumerate() {
                for (j, product) in (first..).zip(products) {
                    let i = first + row;
                    let pairs = x.row(i).iter().zip(x.row(j));
                    let exact: f64 = pairs.map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                    assert!((product - exact).abs() < 1e-9);
                    seen[i * n + j] += 1;
                }
            }
        });
        assert!((0..n).all(|i| (i..n).all(|j| seen[i * n + j] == 1)));
    }
}
