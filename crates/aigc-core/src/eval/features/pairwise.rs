//! Inner products of all pairs of two sets of features, block by block.

use super::Features;
use faer::{Accum, MatMut, MatRef, Par, linalg::matmul::matmul};

/// Values of a block of products: 8 MiB.
const BLOCK: usize = 1 << 20;

/// Calls `each` with the number of the block's first row of `a`, its number of rows, and the inner
/// products `⟨aᵢ, bⱼ⟩`, `[rows, b.len()]` row by row.
pub(crate) fn for_each_block(
    a: &Features,
    b: &Features,
    mut each: impl FnMut(usize, usize, &[f64]),
) {
    let (width, columns) = (a.width(), b.len());
    let wide: Vec<f64> = b.values().iter().copied().map(f64::from).collect();
    let other = MatRef::from_row_major_slice(&wide, columns, width);
    let most = (BLOCK / columns.max(1)).clamp(1, a.len().max(1));
    let mut products = vec![0.0; most * columns];
    for first in (0..a.len()).step_by(most) {
        let rows = most.min(a.len() - first);
        let block: Vec<f64> = a.values()[first * width..][..rows * width]
            .iter()
            .copied()
            .map(f64::from)
            .collect();
        let block = MatRef::from_row_major_slice(&block, rows, width);
        let products = &mut products[..rows * columns];
        let out = MatMut::from_row_major_slice_mut(products, rows, columns);
        matmul(out, Accum::Replace, block, other.transpose(), 1.0, Par::Seq);
        each(first, rows, products);
    }
}

/// `‖x‖²` of every sample.
pub(crate) fn squared_norms(x: &Features) -> Vec<f64> {
    let square = |row: &[f32]| row.iter().map(|v| f64::from(*v).powi(2)).sum();
    x.rows().map(square).collect()
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
}
