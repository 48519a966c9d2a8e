//! Embedding lookup: selection of rows, and its gradient.

use super::{
    memory::{filled, volume},
    threads::{Shared, for_each},
};

/// The rows of `table` `[rows, d]` at `indices`, as `[indices.len(), d]`.
///
/// # Panics
/// If an index is out of range.
pub fn select(table: &[f32], d: usize, indices: &[usize]) -> Vec<f32> {
    filled(volume(&[indices.len(), d]), |to| {
        for (to, index) in to.chunks_exact_mut(d.max(1)).zip(indices) {
            to.copy_from_slice(&table[index * d..][..d]);
        }
    })
}

/// Gradient of [`select`] with respect to the table: row `i` of the result `[rows, d]` is the sum
/// of the rows of `grad` `[indices.len(), d]` whose index is `i`.
///
/// # Panics
/// If an index is not below `rows`, or `grad` does not have one row per index.
pub fn add_up(grad: &[f32], d: usize, indices: &[usize], rows: usize) -> Vec<f32> {
    assert!(
        grad.len() == volume(&[indices.len(), d]),
        "{} gradients for {} indices of rows of {d}",
        grad.len(),
        indices.len()
    );
    let mut sums = vec![0.0; volume(&[rows, d])];
    {
        let shared = Shared::new(&mut sums);
        let columns = 128;
        // The parts split the columns, so every sum is accumulated in the order of the indices.
        for_each(d.div_ceil(columns), grad.len(), |part| {
            let (first, count) = (part * columns, columns.min(d - part * columns));
            for (grad, index) in grad.chunks_exact(d).zip(indices) {
                assert!(
                    *index < rows,
                    "index {index} is out of range for a table of {rows} rows"
                );
                // SAFETY: every part has its own columns.
                let sum = unsafe { shared.range(index * d + first, count) };
                sum.iter_mut()
                    .zip(&grad[first..first + count])
                    .for_each(|(sum, grad)| *sum += grad);
            }
        });
    }
    sums
}
