//! Weights of a few bits per number, with a scale for every block of them.
//!
//! A weight has a row for each of its outputs. Rows are cut into blocks, the last one filled up
//! with zeros. A number is a scale times a whole one; four-bit ones lie two to a byte, a block's
//! first half in the low bits.

use super::{
    few::FEW,
    memory::filled,
    product::{Matrix, multiply},
    simd::arch,
    threads::{Shared, for_each},
};
use crate::{Quantization, pages::read_often};
use pulp::{Simd, WithSimd};

const BLOCK: usize = Quantization::BLOCK_SIZE;

/// Where a packed weight lies.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    /// Packed integers.
    pub values: &'a [i8],
    /// One scale per block.
    pub scales: &'a [f32],
    /// Bit width.
    pub quantization: Quantization,
    /// Numbers in a row.
    pub k: usize,
}

impl Packed<'_> {
    fn blocks(&self) -> usize {
        self.k.div_ceil(BLOCK)
    }

    /// Bytes and scales of a row.
    fn row(&self, row: usize) -> (&[i8], &[f32]) {
        let (bytes, blocks) = (self.quantization.packed_len(self.k), self.blocks());
        (
            &self.values[row * bytes..][..bytes],
            &self.scales[row * blocks..][..blocks],
        )
    }

    /// The numbers of some rows.
    pub fn dequantize(&self, rows: std::ops::Range<usize>) -> Vec<f32> {
        const AT_ONCE: usize = 16;
        let (k, n) = (self.k, rows.len());
        filled(n * k, |to| {
            let to = Shared::new(to);
            for_each(n.div_ceil(AT_ONCE), 4 * n * k, |part| {
                for row in part * AT_ONCE..n.min((part + 1) * AT_ONCE) {
                    // SAFETY: every part has rows of its own.
                    let to = unsafe { to.range(row * k, k) };
                    arch().dispatch(Unpack {
                        weight: self,
                        row: rows.start + row,
                        to,
                    });
                }
            });
        })
    }
}

struct Unpack<'a> {
    weight: &'a Packed<'a>,
    row: usize,
    to: &'a mut [f32],
}

impl WithSimd for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (bytes, scales) = self.weight.row(self.row);
        let blocks = bytes
            .chunks_exact(self.weight.quantization.packed_len(BLOCK))
            .zip(scales);
        for ((bytes, scale), to) in blocks.zip(self.to.chunks_mut(BLOCK)) {
            let block = match self.weight.quantization {
                Quantization::Int8 => Eight::block(bytes),
                Quantization::Int4 => Four::block(bytes),
            };
            to.iter_mut()
                .zip(block.0)
                .for_each(|(to, value)| *to = scale * value);
        }
    }
}

/// The numbers of a block, as whole vectors.
#[repr(align(64))]
struct Block([f32; BLOCK]);

/// How a block becomes numbers. Types, not functions: a function's address would not be inlined,
/// and so not be compiled for the widest vectors.
trait Bits {
    fn block(bytes: &[i8]) -> Block;
}

struct Eight;

impl Bits for Eight {
    #[inline(always)]
    fn block(bytes: &[i8]) -> Block {
        let bytes: &[i8; BLOCK] = bytes.try_into().unwrap_or_else(|_| unreachable!("a block"));
        let mut block = Block([0.0; BLOCK]);
        block
            .0
            .iter_mut()
            .zip(bytes)
            .for_each(|(value, byte)| *value = f32::from(*byte));
        block
    }
}

struct Four;

impl Bits for Four {
    #[inline(always)]
    fn block(bytes: &[i8]) -> Block {
        const HALF: usize = BLOCK / 2;
        let bytes: &[i8; HALF] = bytes.try_into().unwrap_or_else(|_| unreachable!("a block"));
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

/// `a[m, k]·wᵀ` (+ `bias[n]` on every row) for a weight of `n` rows.
pub fn multiply_packed([m, n]: [usize; 2], a: &[f32], w: Packed, bias: Option<&[f32]>) -> Vec<f32> {
    let (k, blocks) = (w.k, w.blocks());
    assert!(
        a.len() == m * k && bias.is_none_or(|bias| bias.len() == n),
        "{m}×{k}×{n}"
    );
    assert!(
        w.values.len() == n * w.quantization.packed_len(k) && w.scales.len() == n * blocks,
        "a packed {n}×{k}"
    );
    filled(m * n, |c| {
        match bias {
            Some(bias) => c
                .chunks_exact_mut(n)
                .for_each(|row| row.copy_from_slice(bias)),
            None => c.fill(0.0),
        }
        if m <= 8 * FEW {
            a.chunks(FEW * k)
                .zip(c.chunks_mut(FEW * n))
                .for_each(|(a, c)| few([a.len() / k, n], a, w, c));
        } else {
            many(n, a, w, c);
        }
    })
}

/// With few rows the product takes as long as the weight takes to come from memory, which is read
/// once.
fn few([m, n]: [usize; 2], a: &[f32], w: Packed, c: &mut [f32]) {
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
    // Pieces large enough to be read in a stream, small enough to be shared out evenly.
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
            Quantization::Int8 => self.dots::<S, Eight>(s),
            Quantization::Int4 => self.dots::<S, Four>(s),
        }
    }
}

impl<const M: usize> Dots<'_, M> {
    #[inline(always)]
    fn dots<S: Simd, B: Bits>(&self, s: S) {
        let wide = self.w.blocks() * BLOCK;
        let (vectors, bytes) = (BLOCK / S::F32_LANES, self.w.quantization.packed_len(BLOCK));
        let a: [&[S::f32s]; M] =
            std::array::from_fn(|image| S::as_simd_f32s(&self.a[image * wide..][..wide]).0);
        for row in self.rows.clone() {
            let (values, scales) = self.w.row(row);
            let mut sums = [s.splat_f32s(0.0); M];
            for (block, (values, scale)) in values.chunks_exact(bytes).zip(scales).enumerate() {
                let values = B::block(values);
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
            for (image, sum) in sums.into_iter().enumerate() {
                // SAFETY: rows of this part alone.
                let c = unsafe { self.c.range(image * self.n + row, 1) };
                c[0] += s.reduce_sum_f32s(sum);
            }
        }
    }
}

/// With many rows the weight is unpacked, a panel at a time, and multiplied as others are.
fn many(n: usize, a: &[f32], w: Packed, c: &mut [f32]) {
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
    use crate::testing::Rng;

    #[test]
    fn products_are_those_of_the_unpacked_weight() {
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
                let unpacked = w.dequantize(0..n);
                // No number is further off than half a step.
                for (block, (exact, near)) in weight.chunks(k).zip(unpacked.chunks(k)).enumerate() {
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
                    let (image, row) = (at / n, at % n);
                    let terms = (0..k)
                        .map(|i| f64::from(a[image * k + i]) * f64::from(unpacked[row * k + i]));
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
