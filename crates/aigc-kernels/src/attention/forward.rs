//! The output of an attention.

use super::heads::{AttentionSizes, BLOCK, HeadOf, Heads, HeadsOut};
use crate::{
    math::exp,
    memory::filled,
    product::{Matrix, multiply_at, multiply_here},
    simd::arch,
    threads::{Scratch, Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// `softmax(q·kᵀ/√d)·v` as `[batch, queries, heads, d]`, and the logarithm of every query's sum of
/// exponentials, `[batch, heads, queries]`.
///
/// `q` is `[batch, heads, queries, d]`, `k` and `v` are `[batch, kv_heads, keys, d]`.
///
/// # Panics
/// If `kv_heads` does not divide `heads`, the sizes overflow, or an element of `q`, `k` or `v` lies
/// outside its slice.
pub fn attention(q: Heads, k: Heads, v: Heads, sizes: AttentionSizes) -> (Vec<f32>, Vec<f32>) {
    let AttentionSizes {
        batch,
        heads,
        kv_heads,
        queries,
        keys,
        d,
        ..
    } = sizes;
    sizes.check();
    q.check("q", [batch, heads, queries, d]);
    k.check("k", [batch, kv_heads, keys, d]);
    v.check("v", [batch, kv_heads, keys, d]);
    let mut log_sums = vec![0.0; batch * heads * queries];
    let order = HeadsOut::in_order(heads, queries, d);
    let write = |output: &mut [f32]| {
        let (output, log_sums) = (Shared::new(output), Shared::new(&mut log_sums));
        for_each(batch * heads, sizes.work(), |part| {
            let (image, head) = (part / heads, part % heads);
            let kv_head = head / sizes.group();
            let to = HeadOf {
                shared: &output,
                out: order,
                batch: image,
                head,
                d,
            };
            let mut scratch = Scratch::new([BLOCK.min(queries) * keys]);
            let [scores] = scratch.split();
            for first in (0..queries).step_by(BLOCK) {
                let count = BLOCK.min(queries - first);
                let seen = sizes.seen(first + count - 1);
                let (q, k, v) = (
                    q.tokens(image, head, first),
                    k.tokens(image, kv_head, 0),
                    v.tokens(image, kv_head, 0),
                );
                multiply_here(
                    [count, seen, d],
                    q,
                    k.t(),
                    scores,
                    keys,
                    sizes.scale(),
                    false,
                );
                // SAFETY: queries of this head belong to this part.
                let log_sums = unsafe { log_sums.range(part * queries + first, count) };
                let mut inverse = [0.0; BLOCK];
                for (row, log_sum) in log_sums.iter_mut().enumerate() {
                    let scores = &mut scores[row * keys..][..seen];
                    let (visible, hidden) = scores.split_at_mut(sizes.seen(first + row).min(seen));
                    hidden.fill(0.0);
                    let (top, sum) = arch().dispatch(Exponentials(visible));
                    *log_sum = top + sum.ln();
                    inverse[row] = sum.recip();
                }
                let (scores, rows) = (Matrix::rows(scores, keys), to.rows(first, count));
                // SAFETY: queries of this head belong to this part; `rows` checks that they are
                // inside the output, whose heads do not overlap. The product writes them all.
                unsafe {
                    multiply_at([count, d, seen], scores, v, rows, to.step(), 1.0, false);
                    to.scale(first, &inverse[..count]);
                }
            }
        });
    };
    // SAFETY: the parts cover all heads of the output, and each writes its products for all queries
    // and channels before it scales them.
    let output = unsafe { filled(batch * queries * heads * d, write) };
    (output, log_sums)
}

/// Every value's exponential, relative to the largest: the largest value, and the sum.
struct Exponentials<'a>(&'a mut [f32]);

impl WithSimd for Exponentials<'_> {
    type Output = (f32, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) -> (f32, f32) {
        if self.0.is_empty() {
            // A query that sees nothing: its row of weights is zero.
            return (0.0, 1.0);
        }
        let (body, rest) = S::as_mut_simd_f32s(self.0);
        let mut top = s.splat_f32s(f32::NEG_INFINITY);
        for x in body.iter() {
            top = s.max_f32s(top, *x);
        }
        let top = rest
            .iter()
            .fold(s.reduce_max_f32s(top), |top, x| top.max(*x));
        let (shift, mut sum) = (s.splat_f32s(top), s.splat_f32s(0.0));
        for x in body.iter_mut() {
            *x = exp(s, s.sub_f32s(*x, shift));
            sum = s.add_f32s(sum, *x);
        }
        let mut sum = s.reduce_sum_f32s(sum);
        for x in rest.iter_mut() {
            *x = (*x - top).exp();
            sum += *x;
        }
        (top, sum)
    }
}
