//! A block of queries against all keys, one step of keys after the other, with the maximum and the
//! sum of the exponentials corrected in each step (Milakov and Gimelshein 2018,
//! <https://arxiv.org/abs/1805.02867>).
//!
//! Vectors lie along the queries: the rows of a tile are keys while scores are computed, and
//! channels while outputs are. So keys and values are read in place, heads of any width fill the
//! vectors, and the softmax needs no sums across a vector.

use super::heads::{AttentionSizes, HeadOf};
use crate::{
    math::exp2,
    matrix::Matrix,
    tile::{Operands, Strided, column_tiles, tallest, tile, widest},
};
use pulp::{Simd, WithSimd};
use std::f32::consts::LN_2;

/// The maximum of a query that has seen no key: below all scores, and finite, so that its
/// difference from a hidden score is not NaN.
const LOWEST: f32 = -1e30;

/// How many queries and keys are worked on at once: what a step reads and writes should stay in
/// the caches of a core.
#[derive(Clone, Copy)]
pub(super) struct BlockSizes {
    /// Queries of a block, a multiple of the lanes of a vector.
    pub(super) queries: usize,
    /// Keys of a step.
    keys: usize,
}

impl BlockSizes {
    pub(super) fn new(sizes: AttentionSizes, lanes: usize) -> Self {
        /// Elements of a block of queries, and of a step of keys.
        const ELEMENTS: [usize; 2] = [1 << 16, 1 << 14];
        let [queries, keys] = ELEMENTS.map(|elements| elements / sizes.d.max(1));
        // Blocks of the same size.
        let blocks = sizes.queries.div_ceil(queries.clamp(64, 192)).max(1);
        Self {
            queries: sizes.queries.div_ceil(blocks).next_multiple_of(lanes),
            keys: keys.clamp(32, 128).min(sizes.keys.max(1)),
        }
    }

    /// Lengths of the buffers: queries, outputs, scores of a tile, and states of the softmax.
    pub(super) fn scratch(self, d: usize, width: usize) -> [usize; 4] {
        [
            self.queries * d,
            self.queries * d,
            self.keys * width,
            3 * self.queries,
        ]
    }
}

/// The work on one block of queries of a head.
pub(super) struct QueryBlock<'a> {
    pub(super) sizes: AttentionSizes,
    pub(super) block: BlockSizes,
    /// The queries of the block and all keys and values, tokens × channels.
    pub(super) q: Matrix<'a>,
    pub(super) k: Matrix<'a>,
    pub(super) v: Matrix<'a>,
    /// The first query, and how many there are.
    pub(super) first: usize,
    pub(super) count: usize,
    /// Buffers of the lengths of [`BlockSizes::scratch`].
    pub(super) scratch: [&'a mut [f32]; 4],
    /// Receives the outputs.
    pub(super) to: HeadOf<'a>,
    /// Receives the logarithms of the queries' sums of exponentials.
    pub(super) log_sums: &'a mut [f32],
}

impl WithSimd for QueryBlock<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let Self {
            sizes,
            block,
            q,
            k,
            v,
            first,
            count,
            scratch: [queries, outputs, scores, states],
            to,
            log_sums,
        } = self;
        let (d, lanes) = (sizes.d, S::F32_LANES);
        let (top, rest) = states.split_at_mut(block.queries);
        let (sum, factor) = rest.split_at_mut(block.queries);
        let tiles = || column_tiles(count.div_ceil(lanes), widest::<S>());
        outputs.fill(0.0);
        top.fill(LOWEST);
        sum.fill(0.0);
        for (vector, vectors) in tiles() {
            let (start, width) = (vector * lanes, vectors * lanes);
            let queries = &mut queries[start * d..][..width * d];
            let rows = Matrix {
                values: q.values.get(start * q.row..).unwrap_or_default(),
                ..q
            };
            // The base of the exponentials is 2.
            let scale = sizes.scale() / LN_2;
            transpose(rows, width.min(count - start), d, scale, queries, width);
        }
        let seen = sizes.seen(first + count - 1);
        for key in (0..seen).step_by(block.keys) {
            let keys = block.keys.min(seen - key);
            for (vector, vectors) in tiles() {
                let (start, width) = (vector * lanes, vectors * lanes);
                let scores = &mut scores[..keys * width];
                let outputs = &mut outputs[start * d..][..width * d];
                let [top, sum, factor] =
                    [&mut *top, &mut *sum, &mut *factor].map(|state| &mut state[start..][..width]);
                // SAFETY: the keys and values lie inside their slices, which `attention` checks,
                // and the other operands are slices of the sizes that the tiles have.
                unsafe {
                    let keys_of = Strided {
                        start: k.values.as_ptr().wrapping_add(key * k.row),
                        row: k.row,
                        k: k.column,
                    };
                    let queries = queries[start * d..][..width * d].as_ptr();
                    multiply(s, [keys, vectors, d], keys_of, queries, scores, false);
                }
                if sizes.causal {
                    for (row, scores) in scores.chunks_exact_mut(width).enumerate() {
                        // Queries of the tile before the first one that sees the key.
                        let query = (key + row + sizes.queries).saturating_sub(sizes.keys);
                        let hidden = query.saturating_sub(first + start).min(width);
                        scores[..hidden].fill(f32::NEG_INFINITY);
                    }
                }
                let changed = match vectors {
                    3 if widest::<S>() == 3 => soften::<S, 3>(s, scores, top, sum, factor),
                    2 => soften::<S, 2>(s, scores, top, sum, factor),
                    _ => soften::<S, 1>(s, scores, top, sum, factor),
                };
                if changed {
                    rescale::<S>(s, outputs, factor);
                }
                // SAFETY: as above.
                unsafe {
                    let channels = Strided {
                        start: v.values.as_ptr().wrapping_add(key * v.row),
                        row: v.column,
                        k: v.row,
                    };
                    let scores = scores.as_ptr();
                    multiply(s, [d, vectors, keys], channels, scores, outputs, true);
                }
            }
        }
        for (vector, vectors) in tiles() {
            let (start, width) = (vector * lanes, vectors * lanes);
            let outputs = &outputs[start * d..][..width * d];
            for query in 0..width.min(count - start) {
                let at = start + query;
                // A query that sees no key has an output of zero.
                let unseen = sum[at] == 0.0;
                let inverse = if unseen { 0.0 } else { sum[at].recip() };
                log_sums[at] = if unseen {
                    0.0
                } else {
                    top[at] * LN_2 + sum[at].ln()
                };
                let row = to.rows(first + at, 1);
                for (channel, value) in outputs[query..].iter().step_by(width).enumerate() {
                    // SAFETY: `rows` checks that the row is inside the output, and this query
                    // belongs to this part.
                    unsafe { row.add(channel).write(value * inverse) };
                }
            }
        }
    }
}

/// Copies `count` rows of `d` elements to `d` rows of `width`, times `scale`; the rest is zero.
#[inline(always)]
fn transpose(from: Matrix, count: usize, d: usize, scale: f32, to: &mut [f32], width: usize) {
    if count < width {
        to.fill(0.0);
    }
    for row in 0..count {
        let (from, step) = (&from.values[row * from.row..], from.column);
        let to = to[row..].iter_mut().step_by(width);
        match step {
            1 => to.zip(&from[..d]).for_each(|(to, from)| *to = from * scale),
            _ => to
                .enumerate()
                .for_each(|(at, to)| *to = from[at * step] * scale),
        }
    }
}

/// `c[m, vectors·lanes] = a[m, k]·b[k, vectors·lanes]`, or `+=`.
///
/// # Safety
/// All elements of A and B may be read.
#[inline(always)]
unsafe fn multiply<S: Simd>(
    s: S,
    [m, vectors, k]: [usize; 3],
    a: Strided,
    b: *const f32,
    c: &mut [f32],
    add: bool,
) {
    let width = vectors * S::F32_LANES;
    assert!(
        c.len() == m * width,
        "the result of a tile has {} elements",
        c.len()
    );
    let mut row = 0;
    while row < m {
        let height = 1 << (m - row).min(tallest::<S>()).ilog2();
        // SAFETY: the tile ends at or before the last row, so C lies inside its slice; A and B by
        // the caller's contract.
        unsafe {
            let operands = Operands {
                k,
                a: Strided {
                    // Heads without channels have no elements.
                    start: a.start.wrapping_add(row * a.row),
                    ..a
                },
                b: Strided {
                    start: b,
                    row: 0,
                    k: width,
                },
                c: c.as_mut_ptr().add(row * width),
                c_row: width,
                add,
            };
            tile(s, height, vectors, operands);
        }
        row += height;
    }
}

/// Replaces scores, keys × queries, by their powers of two relative to the largest so far, and
/// updates the largest, the sum of the powers, and the factor for what was summed before. Returns
/// whether any factor differs from 1.
#[inline(always)]
fn soften<S: Simd, const NV: usize>(
    s: S,
    scores: &mut [f32],
    top: &mut [f32],
    sum: &mut [f32],
    factor: &mut [f32],
) -> bool {
    let (scores, _) = S::as_mut_simd_f32s(scores);
    let [(top, _), (sum, _), (factor, _)] = [top, sum, factor].map(S::as_mut_simd_f32s);
    let (scores, _) = scores.as_chunks_mut::<NV>();
    let mut largest: [S::f32s; NV] = std::array::from_fn(|v| top[v]);
    for row in scores.iter() {
        for (largest, score) in largest.iter_mut().zip(row) {
            *largest = s.max_f32s(*largest, *score);
        }
    }
    let mut sums = [s.splat_f32s(0.0); NV];
    for row in scores.iter_mut() {
        for (v, score) in row.iter_mut().enumerate() {
            *score = exp2(s, s.sub_f32s(*score, largest[v]));
            sums[v] = s.add_f32s(sums[v], *score);
        }
    }
    let mut changed = false;
    for v in 0..NV {
        factor[v] = exp2(s, s.sub_f32s(top[v], largest[v]));
        sum[v] = s.mul_add_e_f32s(sum[v], factor[v], sums[v]);
        let less = s.less_than_f32s(top[v], largest[v]);
        changed |= s.first_true_m32s(less) < S::F32_LANES;
        top[v] = largest[v];
    }
    changed
}

/// Multiplies every row by the factors.
#[inline(always)]
fn rescale<S: Simd>(s: S, rows: &mut [f32], factors: &[f32]) {
    let ((rows, _), (factors, _)) = (S::as_mut_simd_f32s(rows), S::as_simd_f32s(factors));
    for row in rows.chunks_exact_mut(factors.len()) {
        for (value, factor) in row.iter_mut().zip(factors) {
            *value = s.mul_f32s(*value, *factor);
        }
    }
}
