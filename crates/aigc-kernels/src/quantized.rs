//! Matrix products with block-quantised weights.
//!
//! A weight `[n, k]` has a row for each output. Rows are split into blocks, the last one padded
//! with zeros. A weight is the scale of its block times an integer; four-bit integers are packed
//! two per byte, with the first half of a block in the low bits (see [`Quantization`]).

use super::{
    few_rows::MAX_ROWS,
    memory::{check_len, filled, volume},
    product::{Matrix, multiply},
    simd::arch,
    threads::{Shared, for_each},
};
use crate::{Quantization, pages::read_often};
use pulp::{Simd, WithSimd};

const BLOCK: usize = Quantization::BLOCK_SIZE;

/// A view of a quantised weight `[n, k]`.
///
/// Any lengths are allowed here: [`dequantize`](Self::dequantize) and [`multiply_packed`] check
/// them.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    /// The packed integers, [`Quantization::packed_len`] bytes per row.
    pub values: &'a [i8],
    /// The block scales, `k.div_ceil(BLOCK_SIZE)` per row.
    pub scales: &'a [f32],
    /// Integer type.
    pub quantization: Quantization,
    /// Weights of a row.
    pub k: usize,
}

impl Packed<'_> {
    fn blocks(&self) -> usize {
        self.k.div_ceil(BLOCK)
    }

    /// Packed integers and block scales of a row.
    fn row(&self, row: usize) -> (&[i8], &[f32]) {
        let (bytes, blocks) = (self.quantization.packed_len(self.k), self.blocks());
        (
            &self.values[row * bytes..][..bytes],
            &self.scales[row * blocks..][..blocks],
        )
    }

    /// The rows `rows` as `f32`, `[rows.len(), k]`.
    ///
    /// # Panics
    /// If the weight does not have these rows.
    pub fn dequantize(&self, rows: std::ops::Range<usize>) -> Vec<f32> {
        const ROWS_PER_PART: usize = 16;
        let (k, n) = (self.k, rows.len());
        let needed =
            [self.quantization.packed_len(k), self.blocks()].map(|len| volume(&[rows.end, len]));
        assert!(
            needed[0] <= self.values.len() && needed[1] <= self.scales.len(),
            "dequantize: values and scales have {} and {} elements, expected at least {needed:?} \
             for rows {rows:?} of {k} {:?} weights",
            self.values.len(),
            self.scales.len(),
            self.quantization
        );
        let write = |to: &mut [f32]| {
            let to = Shared::new(to);
            for_each(n.div_ceil(ROWS_PER_PART), 4 * n * k, |part| {
                for row in part * ROWS_PER_PART..n.min((part + 1) * ROWS_PER_PART) {
                    // SAFETY: every part has its own rows.
                    let to = unsafe { to.range(row * k, k) };
                    arch().dispatch(Dequantize {
                        weight: self,
                        row: rows.start + row,
                        to,
                    });
                }
            });
        };
        // SAFETY: the parts cover all rows. `row` returns as many blocks and scales as `Dequantize`
        // splits a row into, so it writes the whole row.
        unsafe { filled(volume(&[n, k]), write) }
    }
}

struct Dequantize<'a> {
    weight: &'a Packed<'a>,
    row: usize,
    to: &'a mut [f32],
}

impl WithSimd for Dequantize<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (bytes, scales) = self.weight.row(self.row);
        let blocks = bytes
            .chunks_exact(self.weight.quantization.packed_len(BLOCK))
            .zip(scales);
        for ((bytes, scale), to) in blocks.zip(self.to.chunks_mut(BLOCK)) {
            let block = match self.weight.quantization {
                Quantization::Int8 => Int8::block(bytes),
                Quantization::Int4 => Int4::block(bytes),
            };
            to.iter_mut()
                .zip(block.0)
                .for_each(|(to, value)| *to = scale * value);
        }
    }
}

/// A block as `f32`, aligned to whole vectors.
#[repr(align(64))]
struct Block([f32; BLOCK]);

/// Unpacks a block. A trait instead of a function pointer, which would not be inlined and so not be
/// compiled for the selected instruction set.
trait Unpack {
    fn block(bytes: &[i8]) -> Block;
}

struct Int8;

impl Unpack for Int8 {
    #[inline(always)]
    fn block(bytes: &[i8]) -> Block {
        let bytes: &[i8; BLOCK] = bytes
            .try_into()
            .unwrap_or_else(|_| unreachable!("callers pass one block"));
        let mut block = Block([0.0; BLOCK]);
        block
            .0
            .iter_mut()
            .zip(bytes)
            .for_each(|(value, byte)| *value = f32::from(*byte));
        block
    }
}

struct Int4;

impl Unpack for Int4 {
    #[inline(always)]
    fn block(bytes: &[i8]) -> Block {
        const HALF: usize = BLOCK / 2;
        let bytes: &[i8; HALF] = bytes
            .try_into()
            .unwrap_or_else(|_| unreachable!("callers pass one block"));
        let mut block = Block([0.0; BLOCK]);
        let (low, high) = block.0.split_at_mut(HALF);
        low.iter_mut()
            .zip(bytes)
            .for_each(|(value, byte)| *value = ((i32::from(*byte) << 28) >> 28) as f32);
        high.iter_mut()
            .zip(bytes)
            .for_each(|(value, byte)| *value = (i32::from(*byte) >> 4) as f32);
        block
    }
}

/// Linear layer with a quantised weight: `a[m, k]·w[n, k]ᵀ (+ bias[n])`. The sizes are `[m, n]`;
/// the result is `[m, n]`.
///
/// # Panics
/// If `a` is not `[m, k]`, `w` is not `[n, k]`, or `bias` does not have `n` elements.
pub fn multiply_packed([m, n]: [usize; 2], a: &[f32], w: Packed, bias: Option<&[f32]>) -> Vec<f32> {
    let k = w.k;
    check_len("multiply_packed: a", a.len(), volume(&[m, k]));
    let bytes = volume(&[n, w.quantization.packed_len(k)]);
    check_len("multiply_packed: w.values", w.values.len(), bytes);
    let scales = volume(&[n, w.blocks()]);
    check_len("multiply_packed: w.scales", w.scales.len(), scales);
    if let Some(bias) = bias {
        check_len("multiply_packed: bias", bias.len(), n);
    }
    if m == 0 || n == 0 {
        return Vec::new();
    }
    let write = |c: &mut [f32]| {
        match bias {
            Some(bias) => c
                .chunks_exact_mut(n)
                .for_each(|row| row.copy_from_slice(bias)),
            None => c.fill(0.0),
        }
        if k == 0 {
            return;
        }
        if m <= 8 * MAX_ROWS {
            a.chunks(MAX_ROWS * k)
                .zip(c.chunks_mut(MAX_ROWS * n))
                .for_each(|(a, c)| few_rows([a.len() / k, n], a, w, c));
        } else {
            many_rows(n, a, w, c);
        }
    };
    // SAFETY: all elements are written before the products are added to them.
    unsafe { filled(volume(&[m, n]), write) }
}

/// A product with up to [`MAX_ROWS`] rows. It is bound by the memory bandwidth of reading the
/// weight, which is read once.
fn few_rows([m, n]: [usize; 2], a: &[f32], w: Packed, c: &mut [f32]) {
    read_often(w.values);
    let k = w.k;
    let wide = w.blocks() * BLOCK;
    let padded: Vec<f32>;
    let a = if wide == k {
        a
    } else {
        padded = a
            .chunks_exact(k)
            .flat_map(|row| {
                row.iter()
                    .copied()
                    .chain(std::iter::repeat_n(0.0, wide - k))
            })
            .collect();
        &padded
    };
    // Pieces large enough for sequential reads, small enough for an even distribution.
    let piece = n
        .div_ceil(8 * rayon::current_num_threads())
        .next_multiple_of(16);
    let c = Shared::new(c);
    for_each(n.div_ceil(piece), 2 * m * n * k, |part| {
        let rows = part * piece..n.min((part + 1) * piece);
        macro_rules! with {
            ($($m:literal)*) => {
                match m {
                    $($m => arch().dispatch(Dots::<$m> { n, rows, a, w, c: &c }),)*
                    _ => (),
                }
            };
        }
        with!(1 2 3 4 5 6 7 8);
    });
}

struct Dots<'a, const M: usize> {
    n: usize,
    rows: std::ops::Range<usize>,
    a: &'a [f32],
    w: Packed<'a>,
    c: &'a Shared<'a, f32>,
}

impl<const M: usize> WithSimd for Dots<'_, M> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        match self.w.quantization {
            Quantization::Int8 => self.dots::<S, Int8>(s),
            Quantization::Int4 => self.dots::<S, Int4>(s),
        }
    }
}

impl<const M: usize> Dots<'_, M> {
    #[inline(always)]
    fn dots<S: Simd, U: Unpack>(&self, s: S) {
        let wide = self.w.blocks() * BLOCK;
        let (vectors, bytes) = (BLOCK / S::F32_LANES, self.w.quantization.packed_len(BLOCK));
        let a: [&[S::f32s]; M] =
            std::array::from_fn(|at| S::as_simd_f32s(&self.a[at * wide..][..wide]).0);
        for row in self.rows.clone() {
            let (values, scales) = self.w.row(row);
            let mut sums = [s.splat_f32s(0.0); M];
            for (block, (values, scale)) in values.chunks_exact(bytes).zip(scales).enumerate() {
                let values = U::block(values);
                let values = S::as_simd_f32s(&values.0).0;
                let scale = s.splat_f32s(*scale);
                for (a, sum) in a.iter().zip(&mut sums) {
                    let a = &a[block * vectors..][..vectors];
                    let mut acc = s.mul_f32s(a[0], values[0]);
                    for i in 1..vectors {
                        acc = s.mul_add_e_f32s(a[i], values[i], acc);
                    }
                    *sum = s.mul_add_e_f32s(acc, scale, *sum);
                }
            }
            for (at, sum) in sums.into_iter().enumerate() {
                // SAFETY: no other part uses these columns of the result.
                let c = unsafe { self.c.range(at * self.n + row, 1) };
                c[0] += s.reduce_sum_f32s(sum);
            }
        }
    }
}

/// A product with many rows: the weight is dequantised a panel at a time, and multiplied in `f32`.
fn many_rows(n: usize, a: &[f32], w: Packed, c: &mut [f32]) {
    const PANEL: usize = 1024;
    let k = w.k;
    for first in (0..n).step_by(PANEL) {
        let rows = PANEL.min(n - first);
        let panel = w.dequantize(first..first + rows);
        let product = multiply(
            [a.len() / k, rows, k],
            Matrix::rows(a, k),
            Matrix::rows(&panel, k).t(),
            None,
        );
        for (c, product) in c.chunks_exact_mut(n).zip(product.chunks_exact(rows)) {
            c[first..first + rows]
                .iter_mut()
                .zip(product)
                .for_each(|(c, product)| *c += product);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rng, assert_panics};

    #[test]
    fn quantized_weight_rejects_other_lengths() {
        let (x, bytes) = ([0.5; 400], [1i8; 1024]);
        // Two blocks per row.
        let (m, n, k) = (2, 3, 100);
        for (quantization, packed) in [(Quantization::Int8, 128), (Quantization::Int4, 64)] {
            let weight = |values: usize, scales: usize, k: usize| Packed {
                values: &bytes[..values],
                scales: &x[..scales],
                quantization,
                k,
            };
            let product = |a: usize, w: Packed, bias: usize| {
                multiply_packed([m, n], &x[..a], w, Some(&x[..bias]))
            };
            let fitting = weight(n * packed, n * 2, k);
            assert_eq!(product(m * k, fitting, n).len(), m * n);
            assert_eq!(fitting.dequantize(1..3).len(), 2 * k);
            assert_panics("multiply_packed: a has 199 elements, expected 200", || {
                product(199, fitting, n)
            });
            assert_panics("multiply_packed: bias has 4 elements, expected 3", || {
                product(m * k, fitting, 4)
            });
            for values in [n * packed - 1, n * packed + 1] {
                let expected = format!("multiply_packed: w.values has {values} elements");
                assert_panics(&expected, || product(m * k, weight(values, n * 2, k), n));
            }
            for scales in [5, 7] {
                let expected = format!("multiply_packed: w.scales has {scales} elements");
                assert_panics(&expected, || {
                    product(m * k, weight(n * packed, scales, k), n)
                });
            }
            assert_panics("dequantize: values and scales have", || {
                fitting.dequantize(1..4)
            });
            assert_panics("overflow", || {
                fitting.dequantize(usize::MAX - 1..usize::MAX)
            });
            // The padded width overflows to 0.
            assert_panics("overflow", || weight(0, 0, usize::MAX).dequantize(0..1));
            assert_panics("overflow", || {
                multiply_packed([0, 0], &[], weight(0, 0, usize::MAX), None)
            });
            assert_panics("pack: weight has 7 elements", || {
                quantization.pack(&x[..7], 4)
            });
            // Without inputs the product is the bias.
            let empty = multiply_packed([m, n], &[], weight(0, 0, 0), Some(&x[..n]));
            assert_eq!(empty, [0.5; 6]);
            assert!(multiply_packed([m, 0], &x[..m * k], weight(0, 0, k), None).is_empty());
        }
    }

    #[test]
    fn quantized_product_matches_dequantized_weight() {
        let mut rng = Rng::new(1);
        for quantization in [Quantization::Int8, Quantization::Int4] {
            for [m, n, k] in [
                [1, 1, 1],
                [1, 70, 64],
                [2, 5, 130],
                [5, 33, 100],
                [8, 40, 256],
                [9, 1100, 65],
            ] {
                let (a, weight) = (rng.normals(m * k), rng.normals(n * k));
                let (values, scales) = quantization.pack(&weight, k);
                let w = Packed {
                    values: &values,
                    scales: &scales,
                    quantization,
                    k,
                };
                let dequantized = w.dequantize(0..n);
                // The error is at most half a quantisation step.
                for (block, (exact, near)) in
                    weight.chunks(k).zip(dequantized.chunks(k)).enumerate()
                {
                    for (i, (exact, near)) in exact.iter().zip(near).enumerate() {
                        let step = scales[block * k.div_ceil(BLOCK) + i / BLOCK];
                        assert!(
                            (exact - near).abs() <= 0.5001 * step,
                            "{exact} {near} {step}"
                        );
                    }
                }
                let bias = rng.normals(n);
                let c = multiply_packed([m, n], &a, w, Some(&bias));
                for (at, found) in c.into_iter().enumerate() {
                    let (batch_row, row) = (at / n, at % n);
                    let terms = (0..k).map(|i| {
                        f64::from(a[batch_row * k + i]) * f64::from(dequantized[row * k + i])
                    });
                    let expected = f64::from(bias[row]) + terms.sum::<f64>();
                    assert!(
                        (f64::from(found) - expected).abs() < 1e-4,
                        "{m}×{k}×{n} at {at}: {found} {expected}"
                    );
                }
            }
        }
    }
}
