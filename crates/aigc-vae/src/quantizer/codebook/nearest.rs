//! The nearest rows of a table.

use aigc_core::ops;
use burn::tensor::{Int, Tensor};

/// Distances that are computed at a time; a block of them stays in the cache of a processor.
const BLOCK: usize = 1 << 18;
/// Fewest vectors of a block, so that a large table is not read for every single one.
const BLOCK_VECTORS: usize = 16;

/// The index of the nearest row of `table` for each vector. The squared distance
/// `|x|² − 2·x·c + |c|²` is a matrix product; `|x|²` does not change its minimum.
///
/// # Shapes
/// - vectors: `[n, dim]`, table: `[rows, dim]`
/// - output: `[n]`
pub(crate) fn nearest_rows(vectors: Tensor<2>, table: Tensor<2>) -> Tensor<1, Int> {
    let rows = table.dims()[0];
    nearest_rows_by(vectors, table, (BLOCK / rows).max(BLOCK_VECTORS))
}

/// [`nearest_rows`] of `block` vectors at a time.
fn nearest_rows_by(vectors: Tensor<2>, table: Tensor<2>, block: usize) -> Tensor<1, Int> {
    let n = vectors.dims()[0];
    let norms = (table.clone() * table.clone())
        .sum_dim(1)
        .squeeze_dim::<1>(1);
    let weight = table.transpose() * -2.0;
    let nearest = |vectors: Tensor<2>| {
        ops::linear(vectors, weight.clone(), Some(norms.clone()))
            .argmin(1)
            .squeeze_dim::<1>(1)
    };
    if n <= block {
        return nearest(vectors);
    }
    let parts = (0..n).step_by(block).map(|start| {
        let part = vectors.clone().narrow(0, start, block.min(n - start));
        nearest(part)
    });
    Tensor::cat(parts.collect(), 0)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{rng::Rng, testing::values};
    use burn::tensor::Device;

    #[test]
    fn nearest_rows_have_the_least_distance() {
        let device = Device::flex();
        let mut rng = Rng::new(8);
        let (vectors, table) = (rng.normal([50, 3], &device), rng.normal([7, 3], &device));
        let found: Vec<i64> = nearest_rows_by(vectors.clone(), table.clone(), 8)
            .into_data()
            .iter::<i64>()
            .collect();
        let (vectors, table) = (values(vectors), values(table));
        let distance = |x: &[f32], c: &[f32]| -> f64 {
            let terms = x.iter().zip(c).map(|(x, c)| f64::from(x - c).powi(2));
            terms.sum()
        };
        for (x, code) in vectors.chunks(3).zip(found) {
            let all: Vec<f64> = table.chunks(3).map(|c| distance(x, c)).collect();
            let least = all.iter().copied().fold(f64::INFINITY, f64::min);
            assert!(all[code as usize] <= least + 1e-5);
        }
    }
}
