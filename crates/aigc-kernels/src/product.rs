//! Matrix products over slices, shared between threads.

use super::{
    few::{FEW, LARGE, multiply_few},
    memory::filled,
    threads::{Shared, WORTH_SHARING, for_each},
};

/// A matrix in a slice: its first element, and the steps from row to row and from column to column.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    /// The storage.
    pub values: &'a [f32],
    /// Stride between rows.
    pub row: usize,
    /// Stride between columns.
    pub column: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `width` numbers.
    pub fn rows(values: &'a [f32], width: usize) -> Self {
        Self {
            values,
            row: width,
            column: 1,
        }
    }

    /// The transpose.
    pub fn t(self) -> Self {
        Self {
            values: self.values,
            row: self.column,
            column: self.row,
        }
    }

    /// Whether `rows` × `columns` lie in the slice.
    pub(crate) fn fits(&self, rows: usize, columns: usize) -> bool {
        rows == 0
            || columns == 0
            || (rows - 1) * self.row + (columns - 1) * self.column < self.values.len()
    }
}

/// `c[m, n] = a[m, k]·b[k, n]·scale`, plus what `c` holds where `add` says so, on the calling
/// thread. Rows of `c` lie `c_row` apart.
///
/// # Panics
/// If a matrix ends after its slice.
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
        m == 0 || n == 0 || (n <= c_row || m == 1) && (m - 1) * c_row + n <= c.len(),
        "{m}×{n} ends too early"
    );
    // SAFETY: C is the slice, by the assertion.
    unsafe { multiply_at([m, n, k], a, b, c.as_mut_ptr(), c_row, scale, add) }
}

/// [`multiply_here`] with C anywhere.
///
/// # Safety
/// C's `m` rows of `n` numbers, `c_row` apart from `c` on, are this thread's to read and write.
///
/// # Panics
/// If A or B ends after its slice.
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
        "operands of {m}×{k}×{n} end too early"
    );
    // SAFETY: A and B lie in their slices by the assertion, C is the caller's promise.
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

/// `a[m, k]·b[k, n]` (+ `bias[n]` on every row), shared between threads.
pub fn multiply([m, n, k]: [usize; 3], a: Matrix, b: Matrix, bias: Option<&[f32]>) -> Vec<f32> {
    if m == 0 || n == 0 {
        return Vec::new();
    }
    assert!(
        bias.is_none_or(|bias| bias.len() == n),
        "a bias for {n} columns"
    );
    // Each number of a large B is used a few times only: what counts is how it is read.
    if m <= FEW
        && k * n >= LARGE
        && a.column == 1
        && (a.row == k || m == 1)
        && (b.column == 1 || b.row == 1)
    {
        return filled(m * n, |c| {
            match bias {
                Some(bias) => c
                    .chunks_exact_mut(n)
                    .for_each(|row| row.copy_from_slice(bias)),
                None => c.fill(0.0),
            }
            multiply_few([m, n, k], a.values, b, c);
        });
    }
    filled(m * n, |c| {
        let work = 2 * m * n * k;
        // Each part packs the operand that is not split, so no more parts than threads.
        let threads = (work / WORTH_SHARING).clamp(1, rayon::current_num_threads());
        let parts = threads.min(m.div_ceil(8));
        if parts >= threads || m >= n {
            let rows = m.div_ceil(parts.max(1)).next_multiple_of(8);
            let c = Shared::new(c);
            for_each(m.div_ceil(rows), work, |part| {
                let (first, count) = (part * rows, rows.min(m - part * rows));
                // SAFETY: parts have rows of their own.
                let c = unsafe { c.range(first * n, count * n) };
                if let Some(bias) = bias {
                    c.chunks_exact_mut(n)
                        .for_each(|row| row.copy_from_slice(bias));
                }
                let a = Matrix {
                    values: &a.values[first * a.row..],
                    ..a
                };
                multiply_here([count, n, k], a, b, c, n, 1.0, bias.is_some());
            });
        } else {
            // Few rows: columns are split, each part into a piece of its own that is copied
            // afterwards.
            let columns = n.div_ceil(threads).next_multiple_of(16);
            let pieces: Vec<std::sync::Mutex<Vec<f32>>> = (0..n.div_ceil(columns))
                .map(|_| Default::default())
                .collect();
            for_each(pieces.len(), work, |part| {
                let (first, count) = (part * columns, columns.min(n - part * columns));
                let mut piece = vec![0.0; m * count];
                let b = Matrix {
                    values: &b.values[first * b.column..],
                    ..b
                };
                multiply_here([m, count, k], a, b, &mut piece, count, 1.0, false);
                *pieces[part].lock().unwrap_or_else(|e| e.into_inner()) = piece;
            });
            for (part, piece) in pieces.into_iter().enumerate() {
                let piece = piece.into_inner().unwrap_or_else(|e| e.into_inner());
                let (first, count) = (part * columns, columns.min(n - part * columns));
                for row in 0..m {
                    let to = &mut c[row * n + first..][..count];
                    to.copy_from_slice(&piece[row * count..][..count]);
                    if let Some(bias) = bias {
                        to.iter_mut()
                            .zip(&bias[first..])
                            .for_each(|(to, bias)| *to += bias);
                    }
                }
            }
        }
    })
}

/// Sum over rows of `width` numbers: the gradient of a bias.
pub fn column_sums(values: &[f32], width: usize) -> Vec<f32> {
    const ROWS: usize = 64;
    if width == 0 {
        return Vec::new();
    }
    let parts = values.len().div_ceil(ROWS * width);
    let mut sums = vec![0.0; parts.max(1) * width];
    {
        let shared = Shared::new(&mut sums);
        for_each(parts, values.len(), |part| {
            // SAFETY: parts have sums of their own.
            let sums = unsafe { shared.range(part * width, width) };
            let rows = &values[part * ROWS * width..values.len().min((part + 1) * ROWS * width)];
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
