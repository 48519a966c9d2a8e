//! Multithreaded matrix products over slices.

use super::{
    few_rows::{MAX_ROWS, MIN_WEIGHT_LEN, multiply_few_rows},
    memory::{check_len, filled, row_count, volume},
    some_rows::{has_some_rows, multiply_some_rows},
    threads::{Shared, WORTH_SHARING, for_each},
};

pub use super::matrix::Matrix;

/// `c[m, n] = scale·a[m, k]·b[k, n]`, or `+=` if `add`, on the calling thread. `c_row` is the row
/// stride of `c`.
///
/// # Panics
/// If a matrix does not fit its slice.
#[allow(clippy::too_many_arguments)]
pub(crate) fn multiply_here(
    [m, n, k]: [usize; 3],
    a: Matrix,
    b: Matrix,
    c: &mut [f32],
    c_row: usize,
    scale: f32,
    add: bool,
) {
    assert!(
        (n <= c_row || m <= 1) && Matrix::rows(c, c_row).fits(m, n),
        "the {m}×{n} result does not fit its slice"
    );
    // SAFETY: the rows of C lie in the slice and do not overlap, by the assertion, and the slice is
    // borrowed mutably.
    unsafe { multiply_at([m, n, k], a, b, c.as_mut_ptr(), c_row, scale, add) }
}

/// [`multiply_here`] with C behind a pointer.
///
/// # Safety
/// The `m` rows of `n` elements at `c`, `c_row` apart, are valid and do not overlap, and this
/// thread alone may read and write them. They need not be initialised unless `add`.
///
/// # Panics
/// If A or B does not fit its slice, or `c_row` is larger than [`isize::MAX`].
#[allow(clippy::too_many_arguments)]
pub(crate) unsafe fn multiply_at(
    [m, n, k]: [usize; 3],
    a: Matrix,
    b: Matrix,
    c: *mut f32,
    c_row: usize,
    scale: f32,
    add: bool,
) {
    assert!(
        a.fits(m, k) && b.fits(k, n),
        "operands of a {m}×{k}×{n} product do not fit their slices"
    );
    assert!(
        isize::try_from(c_row).is_ok(),
        "the row stride of the result is {c_row}, expected at most {}",
        isize::MAX
    );
    // SAFETY: A and B lie in their slices, and all strides fit `isize`, by the assertions; C by the
    // caller's contract.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            c,
            1,
            c_row as isize,
            add,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            if add { 1.0 } else { 0.0 },
            scale,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

/// Rows and columns of which a part of a product has a multiple, if it is not the last one.
const ROWS: usize = 8;
const COLUMNS: usize = 16;

/// `a[m, k]·b[k, n] (+ bias[n])`, multithreaded. The sizes are `[m, n, k]`; the result is `[m, n]`.
///
/// # Panics
/// If a matrix does not fit its slice, or `bias` does not have `n` elements. An empty result is not
/// checked.
pub fn multiply([m, n, k]: [usize; 3], a: Matrix, b: Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    if m == 0 || n == 0 {
        return Vec::new();
    }
    if let Some(bias) = bias {
        check_len("multiply: bias", bias.len(), n);
    }
    for (name, matrix, [rows, columns]) in [("a", a, [m, k]), ("b", b, [k, n])] {
        assert!(
            matrix.fits(rows, columns),
            "multiply: {name} is {rows}×{columns} with strides {} and {}, which does not fit its \
             {} elements",
            matrix.row,
            matrix.column,
            matrix.values.len()
        );
    }
    let len = volume(&[m, n]);
    // Each element of B is used only a few times: the product is bound by reading B.
    if m <= MAX_ROWS
        && k.saturating_mul(n) >= MIN_WEIGHT_LEN
        && a.column == 1
        && (a.row == k || m == 1)
        && (b.column == 1 || (b.row == 1 && k > 1))
    {
        let write = |c: &mut [f32]| {
            match bias {
                Some(bias) => c
                    .chunks_exact_mut(n)
                    .for_each(|row| row.copy_from_slice(bias)),
                None => c.fill(0.0),
            }
            multiply_few_rows([m, n, k], a.values, b, c);
        };
        // SAFETY: all elements are written before the products are added to them.
        return unsafe { filled(len, write) };
    }
    if b.column == 1 && has_some_rows([m, n, k]) {
        let write = |c: &mut [f32]| multiply_some_rows([m, n, k], a, b, bias, c);
        // SAFETY: all elements are written.
        return unsafe { filled(len, write) };
    }
    let write = |c: &mut [f32]| {
        let work = 2 * m * n * k;
        let threads = (work / WORTH_SHARING).clamp(1, rayon::current_num_threads());
        let share = |len: usize, unit: usize| len.div_ceil(threads).next_multiple_of(unit).min(len);
        // Cycles per term of the sum for the largest part, which multiplies two vectors of eight in
        // a cycle, and copies its share of one operand and the whole other one.
        let cycles = |rows: usize, columns: usize| rows * columns / 16 + rows + columns;
        let (rows, columns) = (share(m, ROWS), share(n, COLUMNS));
        let by_rows = cycles(rows, n) <= cycles(m, columns);
        let [rows, columns] = if by_rows { [rows, n] } else { [m, columns] };
        let c = Shared::new(c);
        for_each(m.div_ceil(rows) * n.div_ceil(columns), work, |part| {
            let [row, column] = if by_rows {
                [part * rows, 0]
            } else {
                [0, part * columns]
            };
            let [height, width] = [rows.min(m - row), columns.min(n - column)];
            let start = row * n + column;
            let place = c.pointer(start, (height - 1) * n + width);
            if let Some(bias) = bias {
                for index in 0..height {
                    // SAFETY: every part has its own rows or columns.
                    let to = unsafe { c.range(start + index * n, width) };
                    to.copy_from_slice(&bias[column..][..width]);
                }
            }
            let a = Matrix {
                values: &a.values[row * a.row..],
                ..a
            };
            let b = Matrix {
                values: &b.values[column * b.column..],
                ..b
            };
            // SAFETY: the rows are valid, as `place` is, and no other part has these elements. With
            // a bias they are initialised.
            unsafe { multiply_at([height, width, k], a, b, place, n, 1.0, bias.is_some()) };
        });
    };
    // SAFETY: the parts cover all rows and columns. A part writes the bias before it adds its
    // product, or overwrites its elements with the product.
    unsafe { filled(len, write) }
}

/// Sums of the columns of a matrix with `width` columns: the gradient of a bias.
///
/// # Panics
/// If `values` is not a whole number of rows.
pub fn column_sums(values: &[f32], width: usize) -> Vec<f32> {
    /// Rows that are summed up together.
    const BLOCK: usize = 64;
    if width == 0 {
        return Vec::new();
    }
    row_count("column_sums: values", values.len(), width);
    let parts = values.len().div_ceil(BLOCK * width);
    let mut sums = vec![0.0; parts.max(1) * width];
    {
        let shared = Shared::new(&mut sums);
        for_each(parts, values.len(), |part| {
            // SAFETY: every part has its own partial sums.
            let sums = unsafe { shared.range(part * width, width) };
            let rows = &values[part * BLOCK * width..values.len().min((part + 1) * BLOCK * width)];
            for row in rows.chunks_exact(width) {
                sums.iter_mut()
                    .zip(row)
                    .for_each(|(sum, value)| *sum += value);
            }
        });
    }
    let (total, rest) = sums.split_at_mut(width);
    for part in rest.chunks_exact(width) {
        total
            .iter_mut()
            .zip(part)
            .for_each(|(sum, value)| *sum += value);
    }
    sums.truncate(width);
    sums
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rng, assert_panics};

    #[test]
    fn multiply_rejects_matrices_outside_their_slices() {
        let values = vec![0.5; 1 << 18];
        let rows = |len: usize, width: usize| Matrix::rows(&values[..len], width);
        // The algorithms for few, some and many rows.
        for [m, n, k] in [[4, 256, 512], [24, 512, 512], [64, 32, 16]] {
            let (a, b) = (rows(m * k, k), rows(k * n, n));
            assert_eq!(multiply([m, n, k], a, b, None).len(), m * n);
            assert_panics("multiply: a is", || {
                multiply([m, n, k], rows(m * k - 1, k), b, None)
            });
            assert_panics("multiply: b is", || {
                multiply([m, n, k], a, rows(k * n - 1, n), None)
            });
            assert_panics("multiply: b is", || {
                multiply([m, n, k], a, rows(k * n - 1, k).t(), None)
            });
            assert_panics("multiply: bias has", || {
                multiply([m, n, k], a, b, Some(&values[..n + 1]))
            });
            // Strides that overflow, or are negative as offsets.
            for stride in [1 << (usize::BITS - 2), 1 << (usize::BITS - 1), usize::MAX] {
                let far = Matrix { row: stride, ..b };
                assert_panics("multiply: b is", || multiply([m, n, k], a, far, None));
                let far = Matrix { row: stride, ..a };
                assert_panics("multiply: a is", || multiply([m, n, k], far, b, None));
            }
        }
        let scalar = Matrix {
            row: 0,
            column: 0,
            ..rows(1, 1)
        };
        assert_panics("overflow", || {
            multiply([usize::MAX, 2, 1], scalar, scalar, None)
        });
        assert_panics("column_sums: values has 7 elements", || {
            column_sums(&values[..7], 2)
        });
    }

    /// A column with a stride, which is neither a contiguous row nor a contiguous column.
    #[test]
    fn multiply_supports_outer_products_with_strides() {
        let (n, mut rng) = (1 << 16, Rng::new(5));
        let (a, values) = (rng.normals(2), rng.normals(2 * n));
        let b = Matrix {
            values: &values,
            row: 1,
            column: 2,
        };
        let c = multiply([2, n, 1], Matrix::rows(&a, 1), b, None);
        for (at, found) in c.into_iter().enumerate() {
            assert_eq!(found, a[at / n] * values[2 * (at % n)]);
        }
    }

    #[test]
    fn multiply_here_rejects_results_outside_their_slice() {
        let values = [0.5; 16];
        let matrix = Matrix::rows(&values, 4);
        for (len, c_row) in [(15, 4), (16, 3), (16, 5), (16, usize::MAX)] {
            assert_panics("the 4×4 result does not fit its slice", || {
                let mut c = vec![0.0; len];
                multiply_here([4; 3], matrix, matrix, &mut c, c_row, 1.0, false)
            });
        }
    }
}
