//! Products with few rows, as when a model says one token after the other. They take as long as
//! their weight takes to come from memory, so it is read once, in the order in which it lies there.

use super::{
    product::Matrix,
    simd::arch,
    threads::{Shared, for_each},
    tile::{Operands, Strided, column_tiles, fixed},
};
use crate::pages::read_often;
use pulp::{Simd, WithSimd};

/// Rows that are worth it: with more, the products of [`product`](super::product) are as fast.
pub(crate) const FEW: usize = 8;

/// Numbers of a weight from which on it is worth it: smaller ones stay in a cache.
pub(crate) const LARGE: usize = 1 << 16;

/// Rows of the weight that are added up at once.
const AT_ONCE: usize = 8;

/// `a[m, k]·b[k, n]`, or its sum with what `c` holds, for `m` of [`FEW`] at most; `b` has its rows
/// or its columns in order.
///
/// # Panics
/// If `b` has neither, there are more rows, or a matrix ends after its slice.
pub(crate) fn multiply_few([m, n, k]: [usize; 3], a: &[f32], b: Matrix, c: &mut [f32]) {
    assert!(
        m <= FEW && a.len() >= m * k && c.len() == m * n && b.fits(k, n),
        "{m}×{k}×{n}"
    );
    read_often(b.values);
    if b.row == 1 && k > 1 {
        by_columns([m, n, k], a, b.values, b.column, c);
    } else {
        assert!(
            b.column == 1,
            "a weight with neither rows nor columns in order"
        );
        by_rows([m, n, k], a, b.values, b.row, c);
    }
}

/// The weight's rows lie in order: threads take some of them each, and add up.
fn by_rows([m, n, k]: [usize; 3], a: &[f32], b: &[f32], step: usize, c: &mut [f32]) {
    let threads = rayon::current_num_threads();
    let work = 2 * m * n * k;
    let rows = k
        .div_ceil(if work < super::threads::WORTH_SHARING {
            1
        } else {
            threads
        })
        .next_multiple_of(AT_ONCE);
    let parts = k.div_ceil(rows.max(1)).max(1);
    let mut sums = vec![0.0; (parts - 1) * m * n];
    {
        let (first, others) = (Shared::new(c), Shared::new(&mut sums));
        for_each(parts, work, |part| {
            let count = rows.min(k - part * rows);
            // SAFETY: parts have sums of their own.
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
                step,
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
    step: usize,
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
    /// Some rows of the weight at a time, which come from memory side by side, in tiles of columns.
    #[inline(always)]
    fn add<S: Simd, const M: usize>(self, s: S) {
        let Self {
            n,
            k,
            rows,
            a,
            b,
            step,
            sums,
            ..
        } = self;
        let lanes = S::F32_LANES;
        let (whole, vectors) = (n / lanes * lanes, n / lanes);
        for first in rows.clone().step_by(AT_ONCE) {
            let count = AT_ONCE.min(rows.end - first);
            let to = sums.as_mut_ptr();
            let at = |column: usize| Operands {
                k: count,
                a: Strided {
                    start: a[first..].as_ptr(),
                    row: k,
                    k: 1,
                },
                b: Strided {
                    start: b[first * step + column..].as_ptr(),
                    row: 0,
                    k: step,
                },
                c: to.wrapping_add(column),
                c_row: n,
                add: true,
            };
            for (vector, width) in column_tiles(vectors) {
                let o = at(vector * lanes);
                // SAFETY: rows and columns of A, B and C, by the assertion in `multiply_few`.
                unsafe {
                    match width {
                        3 => fixed::<S, _, _, M, 3>(s, o),
                        2 => fixed::<S, _, _, M, 2>(s, o),
                        _ => fixed::<S, _, _, M, 1>(s, o),
                    }
                }
            }
            for image in 0..M {
                for column in whole..n {
                    let terms = (first..first + count)
                        .map(|row| a[image * k + row] * b[row * step + column]);
                    sums[image * n + column] += terms.sum::<f32>();
                }
            }
        }
    }
}

/// The weight's columns lie in order: each number of the result is a product of two vectors.
fn by_columns([m, n, k]: [usize; 3], a: &[f32], b: &[f32], step: usize, c: &mut [f32]) {
    let work = 2 * m * n * k;
    // Pieces large enough to be read in a stream, small enough to be shared out evenly.
    let piece = n
        .div_ceil(8 * rayon::current_num_threads())
        .next_multiple_of(16);
    let c = Shared::new(c);
    for_each(n.div_ceil(piece), work, |part| {
        let columns = part * piece..n.min((part + 1) * piece);
        macro_rules! with {
            ($($m:literal)*) => {
                match m {
                    $($m => arch().dispatch(Dots::<$m> { n, k, columns, a, b, step, c: &c }),)*
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
    step: usize,
    c: &'a Shared<'a, f32>,
}

impl<const M: usize> Dots<'_, M> {
    /// `R` columns from `column` on.
    #[inline(always)]
    fn some<S: Simd, const R: usize>(&self, s: S, column: usize) {
        let lanes = S::F32_LANES;
        let (a, b): ([_; M], [_; R]) = (
            std::array::from_fn(|image| S::as_simd_f32s(&self.a[image * self.k..][..self.k])),
            std::array::from_fn(|i| S::as_simd_f32s(&self.b[(column + i) * self.step..][..self.k])),
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
        for (image, (acc, a)) in acc.iter().zip(&a).enumerate() {
            // SAFETY: columns of this part alone.
            let c = unsafe { self.c.range(image * self.n + column, R) };
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
        while column + 4 <= self.columns.end {
            self.some::<S, 4>(s, column);
            column += 4;
        }
        for column in column..self.columns.end {
            self.some::<S, 1>(s, column);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Rng;

    #[test]
    fn few_rows_are_multiplied_as_many_are() {
        let mut rng = Rng::new(1);
        for [m, n, k] in [
            [1, 1, 1],
            [1, 70, 33],
            [2, 64, 8],
            [3, 5, 40],
            [5, 200, 77],
            [7, 4097, 9],
            [8, 31, 130],
        ] {
            let (a, b) = (rng.normals(m * k), rng.normals(k * n));
            let mut turned = vec![0.0; k * n];
            (0..k).for_each(|row| {
                (0..n).for_each(|column| turned[column * k + row] = b[row * n + column])
            });
            let start = rng.normals(m * n);
            for (name, matrix) in [
                ("rows", Matrix::rows(&b, n)),
                ("columns", Matrix::rows(&turned, k).t()),
            ] {
                let mut c = start.clone();
                multiply_few([m, n, k], &a, matrix, &mut c);
                for at in 0..m * n {
                    let (image, column) = (at / n, at % n);
                    let sum = (0..k)
                        .map(|row| f64::from(a[image * k + row]) * f64::from(b[row * n + column]))
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
