//! Rows of a table, and the sums of what comes back for them.

use super::{
    memory::filled,
    threads::{Shared, for_each},
};

/// The rows of `table`, of `d` numbers each, that `indices` names.
///
/// # Panics
/// If there is no such row.
pub fn select(table: &[f32], d: usize, indices: &[usize]) -> Vec<f32> {
    filled(indices.len() * d, |to| {
        for (to, index) in to.chunks_exact_mut(d.max(1)).zip(indices) {
            to.copy_from_slice(&table[index * d..][..d]);
        }
    })
}

/// A table of `rows` rows of `d` numbers: for each, the sum of the rows of `grad` whose index it
/// is.
///
/// # Panics
/// If there is no such row.
pub fn add_up(grad: &[f32], d: usize, indices: &[usize], rows: usize) -> Vec<f32> {
    let mut sums = vec![0.0; rows * d];
    {
        let shared = Shared::new(&mut sums);
        let columns = 128;
        // Parts split the columns, so every sum is added up in the order of the tokens.
        for_each(d.div_ceil(columns), grad.len(), |part| {
            let (first, count) = (part * columns, columns.min(d - part * columns));
            for (grad, index) in grad.chunks_exact(d).zip(indices) {
                assert!(*index < rows, "row {index} of {rows}");
                // SAFETY: parts have columns of their own.
                let sum = unsafe { shared.range(index * d + first, count) };
                sum.iter_mut()
                    .zip(&grad[first..first + count])
                    .for_each(|(sum, grad)| *sum += grad);
            }
        });
    }
    sums
}
