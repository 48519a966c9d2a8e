//! Matrix products with few rows, as in autoregressive decoding. Such a product is bound by the
//! memory bandwidth of reading the weight, so the weight is read once, in memory order.

use super::{
    matrix::Matrix,
    memory::volume,
    simd::arch,
    threads::{Shared, for_each},
    tile::{Operands, Strided, column_tiles, fixed, widest_of},
};
use crate::pages::read_often;
use pulp::{Simd, WithSimd};

/// The most rows: with more, the products of [`product`](super::product) are as fast.
pub(crate) const MAX_ROWS: usize = 8;

/// The smallest weight that is worth it, in elements: smaller ones stay in a cache.
pub(crate) const MIN_WEIGHT_LEN: usize = 1 << 16;

/// Rows of the weight that are accumulated together.
const ROW_BLOCK: usize = 8;

/// `c[m, n] += a[m, k]·b[k, n]` for `m` from 1 to [`MAX_ROWS`]. `a` and `c` are contiguous; `b` has
/// contiguous rows or contiguous columns.
///
/// # Panics
/// If `b` has neither, `m` is outside this range, or a matrix does not fit its slice.
pub(crate) fn multiply_few_rows([m, n, k]: [usize; 3], a: &[f32], b: Matrix, c: &mut [f32]) {
    assert!(
        (1..=MAX_ROWS).contains(&m),
        "a product of few rows has {m}, expected 1 to {MAX_ROWS}"
    );
    assert!(
        Matrix::rows(a, k).fits(m, k) && c.len() == volume(&[m, n]) && b.fits(k, n),
        "operands of a {m}×{k}×{n} product do not fit their slices"
    );
    read_often(b.values);
    if b.row == 1 && k > 1 {
        by_columns([m, n, k], a, b.values, b.column, c);
    } else {
        assert!(
            b.column == 1,
            "the weight has neither contiguous rows nor contiguous columns"
        );
        by_rows([m, n, k], a, b.values, b.row, c);
    }
}

/// The weight has contiguous rows: every thread accumulates some of them, then the partial sums are
/// added.
fn by_rows([m, n, k]: [usize; 3], a: &[f32], b: &[f32], stride: usize, c: &mut [f32]) {
    let threads = rayon::current_num_threads();
    let work = 2 * m * n * k;
    let rows = k
        .div_ceil(if work < super::threads::WORTH_SHARING {
            1
        } else {
            threads
        })
        .next_multiple_of(ROW_BLOCK);
    let parts = k.div_ceil(rows.max(1)).max(1);
    let mut sums = vec![0.0; (parts - 1) * m * n];
    {
        let (first, others) = (Shared::new(c), Shared::new(&mut sums));
        for_each(parts, work, |part| {
            let count = rows.min(k - part * rows);
            // SAFETY: every part has its own partial sums.
            let sums = unsafe {
                if part == 0 {
                    first.range(0, m * n)
                } else {
                    others.range((part - 1) * m * n, m * n)
                }
            };
            arch().dispatch(AddRows {
                m,
                n,
                k,
                rows: part * rows..part * rows + count,
                a,
                b,
                stride,
                sums,
            });
        });
    }
    for part in sums.chunks_exact(m * n) {
        c.iter_mut().zip(part).for_each(|(c, part)| *c += part);
    }
}

struct AddRows<'a> {
    m: usize,
    n: usize,
    k: usize,
    rows: std::ops::Range<usize>,
    a: &'a [f32],
    b: &'a [f32],
    stride: usize,
    sums: &'a mut [f32],
}

impl WithSimd for AddRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        match self.m {
            1 => self.add::<S, 1>(s),
            2 => self.add::<S, 2>(s),
            3 => self.add::<S, 3>(s),
            4 => self.add::<S, 4>(s),
            5 => self.add::<S, 5>(s),
            6 => self.add::<S, 6>(s),
            7 => self.add::<S, 7>(s),
            _ => self.add::<S, 8>(s),
        }
    }
}

impl AddRows<'_> {
    /// Accumulates [`ROW_BLOCK`] rows of the weight at a time, in tiles of columns.
    #[inline(always)]
    fn add<S: Simd, const M: usize>(self, s: S) {
        let Self {
            n,
            k,
            rows,
            a,
            b,
            stride,
            sums,
            ..
        } = self;
        let lanes = S::F32_LANES;
        let (whole, vectors) = (n / lanes * lanes, n / lanes);
        for first in rows.clone().step_by(ROW_BLOCK) {
            let count = ROW_BLOCK.min(rows.end - first);
            let to = sums.as_mut_ptr();
            let at = |column: usize| Operands {
                k: count,
                a: Strided {
                    start: a[first..].as_ptr(),
                    row: k,
                    k: 1,
                },
                b: Strided {
                    start: b[first * stride + column..].as_ptr(),
                    row: 0,
                    k: stride,
                },
                c: to.wrapping_add(column),
                c_row: n,
                add: true,
            };
            for (vector, width) in column_tiles(vectors, widest_of::<S>(M)) {
                let o = at(vector * lanes);
                // SAFETY: `M` rows of A and C, `count` rows of B, and whole vectors of columns lie
                // in their slices, by the assertions in `multiply_few_rows`; `sums` is borrowed
                // mutably.
                unsafe {
                    match width {
                        3 => fixed::<S, _, _, M, 3>(s, o),
                        2 => fixed::<S, _, _, M, 2>(s, o),
                        _ => fixed::<S, _, _, M, 1>(s, o),
                    }
                }
            }
            for batch_row in 0..M {
                for column in whole..n {
                    let terms = (first..first + count)
                        .map(|row| a[batch_row * k + row] * b[row * stride + column]);
                    sums[batch_row * n + column] += terms.sum::<f32>();
                }
            }
        }
    }
}

/// The weight has contiguous columns: every element of the result is a dot product.
fn by_columns([m, n, k]: [usize; 3], a: &[f32], b: &[f32], stride: usize, c: &mut [f32]) {
    let work = 2 * m * n * k;
    // Pieces large enough for sequential reads, small enough for an even distribution.
    let piece = n
        .div_ceil(8 * rayon::current_num_threads())
        .next_multiple_of(16);
    let c = Shared::new(c);
    for_each(n.div_ceil(piece), work, |part| {
        let columns = part * piece..n.min((part + 1) * piece);
        macro_rules! with {
            ($($m:literal)*) => {
                match m {
                    $($m => arch().dispatch(Dots::<$m> { n, k, columns, a, b, stride, c: &c }),)*
                    _ => (),
                }
            };
        }
        with!(1 2 3 4 5 6 7 8);
    });
}

struct Dots<'a, const M: usize> {
    n: usize,
    k: usize,
    columns: std::ops::Range<usize>,
    a: &'a [f32],
    b: &'a [f32],
    stride: usize,
    c: &'a Shared<'a, f32>,
}

impl<const M: usize> Dots<'_, M> {
    /// Computes `R` columns from `column` on.
    #[inline(always)]
    fn columns<S: Simd, const R: usize>(&self, s: S, column: usize) {
        let lanes = S::F32_LANES;
        let (a, b): ([_; M], [_; R]) = (
            std::array::from_fn(|row| S::as_simd_f32s(&self.a[row * self.k..][..self.k])),
            std::array::from_fn(|i| {
                S::as_simd_f32s(&self.b[(column + i) * self.stride..][..self.k])
            }),
        );
        let mut acc = [[s.splat_f32s(0.0); R]; M];
        for at in 0..self.k / lanes {
            let b: [S::f32s; R] = std::array::from_fn(|i| b[i].0[at]);
            for (acc, a) in acc.iter_mut().zip(&a) {
                for (acc, b) in acc.iter_mut().zip(&b) {
                    *acc = s.mul_add_e_f32s(a.0[at], *b, *acc);
                }
            }
        }
        for (row, (acc, a)) in acc.iter().zip(&a).enumerate() {
            // SAFETY: no other part uses these columns of the result.
            let c = unsafe { self.c.range(row * self.n + column, R) };
            for ((c, acc), b) in c.iter_mut().zip(acc).zip(&b) {
                *c +=
                    s.reduce_sum_f32s(*acc) + a.1.iter().zip(b.1).map(|(a, b)| a * b).sum::<f32>();
            }
        }
    }
}

impl<const M: usize> WithSimd for Dots<'_, M> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let mut column = self.columns.start;
        // Accumulators, the vectors of all columns and one of a row leave a register free.
        let fits = |columns: usize| (M + 1) * columns + 2 <= S::REGISTER_COUNT;
        if fits(4) {
            while column + 4 <= self.columns.end {
                self.columns::<S, 4>(s, column);
                column += 4;
            }
        } else if fits(2) {
            while column + 2 <= self.columns.end {
                self.columns::<S, 2>(s, column);
                column += 2;
            }
        }
        for column in column..self.columns.end {
            self.columns::<S, 1>(s, column);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    #[test]
    fn multiply_few_rows_matches_f64() {
        let mut rng = Rng::new(1);
        for [m, n, k] in [
            [1, 1, 1],
            [1, 70, 33],
            [2, 64, 8],
            [3, 5, 40],
            [4, 37, 50],
            [5, 200, 77],
            [6, 90, 61],
            [7, 4097, 9],
            [8, 31, 130],
        ] {
            let (a, b) = (rng.normals(m * k), rng.normals(k * n));
            let mut transposed = vec![0.0; k * n];
            (0..k).for_each(|row| {
                (0..n).for_each(|column| transposed[column * k + row] = b[row * n + column])
            });
            let start = rng.normals(m * n);
            for (name, matrix) in [
                ("rows", Matrix::rows(&b, n)),
                ("columns", Matrix::rows(&transposed, k).t()),
            ] {
                let mut c = start.clone();
                multiply_few_rows([m, n, k], &a, matrix, &mut c);
                for at in 0..m * n {
                    let (batch_row, column) = (at / n, at % n);
                    let sum = (0..k)
                        .map(|row| {
                            f64::from(a[batch_row * k + row]) * f64::from(b[row * n + column])
                        })
                        .sum::<f64>();
                    let expected = f64::from(start[at]) + sum;
                    assert!(
                        (f64::from(c[at]) - expected).abs() < 1e-4,
                        "{name} {m}×{k}×{n} at {at}: {} {expected}",
                        c[at]
                    );
                }
            }
        }
    }
}
