//! Matrix products with some tens of rows, such as those of the tokens of a prompt. To copy the
//! weight into the order of the multiplication, as products with more rows do, takes a good part of
//! their time, because the weight comes from memory. Here the next columns of the weight are
//! fetched into the cache while some are multiplied, and wide vectors are read where they are.

use super::{
    matrix::Matrix,
    memory::volume,
    product::multiply_at,
    simd::{arch, vectors},
    threads::{Scratch, Shared, for_each},
    tile::{Operands, Right, Strided, column_tiles, fixed, tallest, widest},
};
use pulp::{Simd, WithSimd};
use std::ops::Range;

/// Whether [`multiply_some_rows`] is faster than gemm for a product of this size.
///
/// Fewer rows have too few tiles to fetch all cache lines of the next columns. With more rows, the
/// time to pack the weight is small beside the product. A small weight stays in a cache. Threads
/// share the columns, so each thread needs at least a cache line of them.
pub(crate) fn has_some_rows([m, n, k]: [usize; 3]) -> bool {
    let is_wide = vectors()[0] >= LINE;
    let (most, weight) = if is_wide {
        (256, 1 << 16)
    } else {
        (96, 1 << 18)
    };
    (17..=most).contains(&m)
        && k.saturating_mul(n) >= weight
        && n >= LINE * rayon::current_num_threads()
}

/// Terms of the sums that are added to the result together: the columns of a tile and the next ones
/// stay in the second cache.
const TERMS: usize = 256;
/// Elements of a cache line.
const LINE: usize = 16;

/// `c[m, n] = a[m, k]·b[k, n] (+ bias[n])`. `c` may be uninitialised.
///
/// # Panics
/// If the rows of `b` are not contiguous, or an operand does not fit its slice.
pub(crate) fn multiply_some_rows(
    [m, n, k]: [usize; 3],
    a: Matrix,
    b: Matrix,
    bias: Option<&[f32]>,
    c: &mut [f32],
) {
    assert!(
        b.column == 1
            && a.fits(m, k)
            && b.fits(k, n)
            && c.len() == volume(&[m, n])
            && bias.is_none_or(|bias| bias.len() == n),
        "operands of a {m}×{k}×{n} product do not fit their slices"
    );
    // A few parts for each thread, for an even distribution.
    let parts = 2 * rayon::current_num_threads();
    let width = n.div_ceil(parts).max(1).next_multiple_of(LINE);
    let c = Shared::new(c);
    for_each(n.div_ceil(width), 2 * m * n * k, |part| {
        arch().dispatch(Part {
            size: [m, n, k],
            columns: part * width..n.min((part + 1) * width),
            a,
            b,
            bias,
            c: &c,
        });
    });
}

/// Some columns of the result.
struct Part<'a> {
    size: [usize; 3],
    columns: Range<usize>,
    a: Matrix<'a>,
    b: Matrix<'a>,
    bias: Option<&'a [f32]>,
    c: &'a Shared<'a, f32>,
}

/// Rows of B. Each of them fetches a cache line of the columns that follow.
#[derive(Clone, Copy)]
struct Fetching {
    rows: Strided,
    next: *const f32,
    stride: usize,
}

impl Right for Fetching {
    #[inline(always)]
    unsafe fn row(&self, k: usize) -> *const f32 {
        prefetch(self.next.wrapping_add(k * self.stride));
        // SAFETY: the caller's contract.
        unsafe { self.rows.row(k) }
    }
}

/// Fetches the cache line of an address, if it is one of this program.
#[inline(always)]
fn prefetch(address: *const f32) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: the instruction has no effect but on caches, for any address.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

impl WithSimd for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let [m, n, k] = self.size;
        let Range { start, end } = self.columns.clone();
        if let Some(bias) = self.bias {
            for row in 0..m {
                // SAFETY: every part has its own columns.
                let c = unsafe { self.c.range(row * n + start, end - start) };
                c.copy_from_slice(&bias[start..end]);
            }
        }
        let lanes = S::F32_LANES;
        let vectors = (end - start) / lanes;
        let blocks = (0..k.max(1)).step_by(TERMS).flat_map(|term| {
            column_tiles(vectors, widest::<S>())
                .map(move |(vector, width)| (term, start + vector * lanes, width))
        });
        let mut blocks = blocks.peekable();
        // Narrow tiles are many, and a block for them fits the first cache: it is copied there.
        let packed = if lanes < LINE {
            TERMS * widest::<S>() * lanes
        } else {
            0
        };
        let mut scratch = Scratch::new([packed]);
        let [packed] = scratch.split();
        while let Some(block) = blocks.next() {
            let at = |(term, column, _)| {
                (self.b.values.as_ptr()).wrapping_add(term * self.b.row + column)
            };
            let next = blocks.peek().copied().map_or(std::ptr::null(), at);
            self.columns(s, block, next, packed);
        }
        let whole = start + vectors * lanes;
        if whole < end {
            let b = Matrix {
                values: &self.b.values[whole..],
                ..self.b
            };
            let c = self.c.pointer(whole, (m - 1) * n + end - whole);
            // SAFETY: the rows are valid, as the pointer is, and no other part has these columns.
            // With a bias they are initialised.
            unsafe {
                multiply_at(
                    [m, end - whole, k],
                    self.a,
                    b,
                    c,
                    n,
                    1.0,
                    self.bias.is_some(),
                )
            };
        }
    }
}

impl Part<'_> {
    /// Adds [`TERMS`] terms to some vectors of columns, and fetches as many from `next` on.
    #[inline(always)]
    fn columns<S: Simd>(
        &self,
        s: S,
        (term, column, width): (usize, usize, usize),
        next: *const f32,
        packed: &mut [f32],
    ) {
        let [m, n, k] = self.size;
        let Self { a, b, .. } = *self;
        let terms = TERMS.min(k - term);
        let elements = width * S::F32_LANES;
        let mut rows = Strided {
            start: b.values.as_ptr().wrapping_add(term * b.row + column),
            row: 0,
            k: b.row,
        };
        if S::F32_LANES < LINE {
            for (t, to) in packed.chunks_exact_mut(elements).take(terms).enumerate() {
                let from = &b.values[(term + t) * b.row + column..][..elements];
                let (to, from) = (S::as_mut_simd_f32s(to).0, S::as_simd_f32s(from).0);
                for (to, from) in to.iter_mut().zip(from) {
                    *to = *from;
                }
            }
            rows = Strided {
                start: packed.as_ptr(),
                row: 0,
                k: elements,
            };
        }
        let lines = elements.div_ceil(LINE);
        let tiles = m.div_ceil(tallest::<S>());
        for index in 0..tiles {
            let (row, end) = (index * m / tiles, (index + 1) * m / tiles);
            let o = Operands {
                k: terms,
                a: Strided {
                    start: a
                        .values
                        .as_ptr()
                        .wrapping_add(row * a.row + term * a.column),
                    row: a.row,
                    k: a.column,
                },
                b: Fetching {
                    rows,
                    next: next.wrapping_add(index % lines * LINE),
                    stride: b.row,
                },
                c: self
                    .c
                    .pointer(row * n + column, (end - row - 1) * n + elements),
                c_row: n,
                add: term > 0 || self.bias.is_some(),
            };
            // SAFETY: the rows, columns and terms lie in A and B, by the assertions of
            // `multiply_some_rows`, and in C, by that of `pointer`; no other part has these
            // columns. C is initialised if it is added to.
            unsafe { tile(s, end - row, width, o) };
        }
    }
}

/// A tile of 3 or 4 rows, or 5 to 8 where eight are the [`tallest`]: with 17 rows or more, an
/// even split has no others.
///
/// # Safety
/// As for [`fixed`].
#[inline(always)]
unsafe fn tile<S: Simd>(s: S, rows: usize, width: usize, o: Operands<Strided, Fetching>) {
    macro_rules! tiles {
        ($($rows:literal)*) => {
            match (rows, width) {
                // SAFETY: the caller's contract.
                $(($rows, 3) if widest::<S>() == 3 => unsafe { fixed::<S, _, _, $rows, 3>(s, o) },)*
                // SAFETY: as above.
                $(($rows, 2) if widest::<S>() >= 2 => unsafe { fixed::<S, _, _, $rows, 2>(s, o) },)*
                // SAFETY: as above.
                $(($rows, 1) => unsafe { fixed::<S, _, _, $rows, 1>(s, o) },)*
                _ => unreachable!("no tile of {rows} rows and {width} vectors"),
            }
        };
    }
    if tallest::<S>() == 8 {
        tiles!(5 6 7 8)
    } else {
        tiles!(3 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rng, assert_panics};

    /// All heights and widths of tiles, blocks of terms, columns that are no whole vectors, with
    /// and without a bias, a transposed left operand, and rows of B with a gap between them.
    #[test]
    fn multiply_some_rows_matches_f64() {
        let mut rng = Rng::new(2);
        let widest = 96 * rayon::current_num_threads() + 5;
        for [m, n, k] in [
            [17, 1, 1],
            [18, 16, 0],
            [19, 48, 3],
            [20, 100, 37],
            [23, 513, 40],
            [77, 64, 256],
            [33, 320, 257],
            [29, 31, 700],
            [256, 130, 65],
            [21, widest, 9],
        ] {
            let b_row = n + k % 2;
            let (a, b, bias) = (rng.normals(m * k), rng.normals(k * b_row), rng.normals(n));
            let mut transposed = vec![0.0; m * k];
            for (at, value) in a.iter().enumerate() {
                transposed[at % k * m + at / k] = *value;
            }
            for (a, name) in [
                (Matrix::rows(&a, k), "rows"),
                (Matrix::rows(&transposed, m).t(), "transposed"),
            ] {
                for bias in [None, Some(bias.as_slice())] {
                    let mut c = vec![f32::NAN; m * n];
                    multiply_some_rows([m, n, k], a, Matrix::rows(&b, b_row), bias, &mut c);
                    for (at, found) in c.into_iter().enumerate() {
                        let (row, column) = (at / n, at % n);
                        let terms = (0..k).map(|t| {
                            let a = a.values[row * a.row + t * a.column];
                            f64::from(a) * f64::from(b[t * b_row + column])
                        });
                        let exact =
                            terms.sum::<f64>() + bias.map_or(0.0, |bias| f64::from(bias[column]));
                        let error = (f64::from(found) - exact).abs();
                        let allowed = 1e-6 * (1.0 + k as f64).sqrt() * 4.0;
                        assert!(
                            error < allowed,
                            "{name} {m}×{k}×{n} at {row}, {column}: {error}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_rejected() {
        let values = vec![0.5; 20 * 32];
        let matrix = |len: usize| Matrix::rows(&values[..len], 32);
        let mut c = vec![0.0; 20 * 20];
        for (a, b, bias, len) in [
            (639, 640, 20, 400),
            (640, 639, 20, 400),
            (640, 640, 19, 400),
            (640, 640, 20, 399),
        ] {
            let b = Matrix {
                row: 20,
                ..matrix(b)
            };
            let (size, bias) = ([20, 20, 32], Some(&values[..bias]));
            assert_panics("do not fit", || {
                multiply_some_rows(size, matrix(a), b, bias, &mut c[..len])
            });
        }
        assert_panics("do not fit", || {
            multiply_some_rows([20, 20, 32], matrix(640), matrix(640).t(), None, &mut c)
        });
    }
}
