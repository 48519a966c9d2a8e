//! Transposition of matrices.

use super::{
    memory::{filled, row_count, volume},
    threads::{Shared, for_each},
};

/// Side of the blocks that are transposed at a time: rows of a block are cache lines.
const SIDE: usize = 16;

/// The transposes of matrices of `rows` × `columns` that lie one after the other.
///
/// # Panics
/// If `x` is not whole matrices.
pub fn transpose(x: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let size = volume(&[rows, columns]);
    let matrices = row_count("transpose: x", x.len(), size);
    let bands = columns.div_ceil(SIDE);
    let write = |y: &mut [f32]| {
        let y = Shared::new(y);
        // A part is a band of columns, which become rows.
        for_each(matrices * bands, 4 * x.len(), |part| {
            let (matrix, first) = (part / bands, part % bands * SIDE);
            let width = SIDE.min(columns - first);
            let x = &x[matrix * size..][..size];
            // SAFETY: every part has its own rows of the result.
            let y = unsafe { y.range(matrix * size + first * rows, width * rows) };
            band(&x[first..], columns, y, rows, width);
        });
    };
    // SAFETY: the parts cover all columns of all matrices, and each of them writes its rows of the
    // result from beginning to end.
    unsafe { filled(x.len(), write) }
}

/// Writes `width` columns of a matrix, which `x` begins with, as rows of `y`.
fn band(x: &[f32], columns: usize, y: &mut [f32], rows: usize, width: usize) {
    for top in (0..rows).step_by(SIDE) {
        let height = SIDE.min(rows - top);
        let mut block = [[0.0; SIDE]; SIDE];
        for (row, block) in block[..height].iter_mut().enumerate() {
            let from = &x[(top + row) * columns..][..width];
            block[..width].copy_from_slice(from);
        }
        for column in 0..width {
            let to = &mut y[column * rows + top..][..height];
            for (to, block) in to.iter_mut().zip(&block) {
                *to = block[column];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rng, assert_panics};

    #[test]
    fn transpose_matches_its_definition() {
        for (matrices, rows, columns) in [
            (1, 1, 1),
            (2, 16, 16),
            (3, 5, 40),
            (2, 33, 17),
            (1, 300, 1),
            (2, 100, 257),
        ] {
            let x = Rng::new(1).normals(matrices * rows * columns);
            let y = transpose(&x, rows, columns);
            assert_eq!(y.len(), x.len());
            for (i, y) in y.iter().enumerate() {
                let (matrix, place) = (i / (rows * columns), i % (rows * columns));
                let (column, row) = (place / rows, place % rows);
                assert_eq!(*y, x[matrix * rows * columns + row * columns + column]);
            }
        }
    }

    #[test]
    fn transpose_rejects_parts_of_matrices() {
        assert_panics("transpose: x has 12 elements", || {
            transpose(&[1.0; 12], 5, 2)
        });
        assert_panics("overflow", || transpose(&[], usize::MAX, 2));
        assert!(transpose(&[], 3, 2).is_empty() && transpose(&[], 0, 2).is_empty());
    }
}
