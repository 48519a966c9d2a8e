//! Embedding lookup: selection of rows, and its gradient.

use super::{
    memory::{check_len, filled, row_count, volume},
    threads::{Shared, for_each},
};

/// The rows of `table` `[rows, d]` at `indices`, as `[indices.len(), d]`.
///
/// # Panics
/// If `table` is not whole rows of `d`, or an index is out of range.
pub fn select(table: &[f32], d: usize, indices: &[usize]) -> Vec<f32> {
    let rows = row_count("select: table", table.len(), d);
    if d == 0 {
        return Vec::new();
    }
    check_indices("select", indices, rows);
    let write = |to: &mut [f32]| {
        for (to, index) in to.chunks_exact_mut(d).zip(indices) {
            to.copy_from_slice(&table[index * d..][..d]);
        }
    };
    // SAFETY: `to` has one row per index, each of which is written.
    unsafe { filled(volume(&[indices.len(), d]), write) }
}

/// # Panics
/// If an index is not below `rows`.
#[track_caller]
fn check_indices(function: &str, indices: &[usize], rows: usize) {
    if let Some(index) = indices.iter().find(|index| **index >= rows) {
        panic!("{function}: index {index} is out of range for a table of {rows} rows");
    }
}

/// Gradient of [`select`] with respect to the table: row `i` of the result `[rows, d]` is the sum
/// of the rows of `grad` `[indices.len(), d]` whose index is `i`.
///
/// # Panics
/// If an index is not below `rows`, or `grad` does not have one row per index.
pub fn add_up(grad: &[f32], d: usize, indices: &[usize], rows: usize) -> Vec<f32> {
    check_len("add_up: grad", grad.len(), volume(&[indices.len(), d]));
    check_indices("add_up", indices, rows);
    let mut sums = vec![0.0; volume(&[rows, d])];
    {
        let shared = Shared::new(&mut sums);
        let columns = 128;
        // The parts split the columns, so every sum is accumulated in the order of the indices.
        for_each(d.div_ceil(columns), grad.len(), |part| {
            let (first, count) = (part * columns, columns.min(d - part * columns));
            for (grad, index) in grad.chunks_exact(d).zip(indices) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::assert_panics;

    #[test]
    fn rows_reject_other_lengths_and_indices() {
        let table = [1.0; 6];
        assert_panics("select: table has 6 elements, expected whole rows", || {
            select(&table, 4, &[0])
        });
        assert_panics("select: index 3 is out of range", || {
            select(&table, 2, &[0, 3])
        });
        // The index times the width overflows to 0.
        assert_panics("select: index", || {
            select(&table, 2, &[1 << (usize::BITS - 1)])
        });
        assert_panics("add_up: grad has 6 elements, expected 4", || {
            add_up(&table, 2, &[0, 1], 3)
        });
        assert_panics("add_up: index 3 is out of range", || {
            add_up(&table, 2, &[0, 1, 3], 3)
        });
        assert_panics("overflow", || add_up(&[], 2, &[], usize::MAX));
        assert!(select(&[], 0, &[1, 2]).is_empty() && select(&table, 3, &[]).is_empty());
        assert_eq!(add_up(&[], 2, &[], 1), [0.0; 2]);
    }
}
