//! The output of an attention.

use super::{
    heads::{AttentionSizes, HeadOf, Heads, HeadsOut},
    queries::{BlockSizes, QueryBlock},
};
use crate::{
    math::exp,
    memory::filled,
    product::{Matrix, multiply_at, multiply_here},
    simd::{arch, vectors},
    threads::{Scratch, Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// The most queries of a head whose scores are computed by matrix products.
const FEW: usize = 8;

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
    let [lanes, widest] = vectors();
    let block = BlockSizes::new(sizes, lanes);
    let few = queries <= FEW;
    let blocks = if few {
        1
    } else {
        queries.div_ceil(block.queries)
    };
    let write = |output: &mut [f32]| {
        let (output, log_sums) = (Shared::new(output), Shared::new(&mut log_sums));
        for_each(batch * heads * blocks, sizes.work(), |part| {
            let (head_of_batch, first) = (part / blocks, part % blocks * block.queries);
            let (image, head) = (head_of_batch / heads, head_of_batch % heads);
            let kv_head = head / sizes.group();
            let count = if few {
                queries
            } else {
                block.queries.min(queries - first)
            };
            let to = HeadOf {
                shared: &output,
                out: order,
                batch: image,
                head,
                d,
            };
            let (q, k, v) = (
                q.tokens(image, head, first),
                k.tokens(image, kv_head, 0),
                v.tokens(image, kv_head, 0),
            );
            // SAFETY: these queries of this head belong to this part.
            let log_sums = unsafe { log_sums.range(head_of_batch * queries + first, count) };
            if few {
                return few_queries([q, k, v], sizes, to, log_sums);
            }
            let mut scratch = Scratch::new(block.scratch(d, lanes * widest));
            arch().dispatch(QueryBlock {
                sizes,
                block,
                q,
                k,
                v,
                first,
                count,
                scratch: scratch.split(),
                to,
                log_sums,
            });
        });
    };
    // SAFETY: the parts cover all queries of all heads of the output, and each writes all channels
    // of its queries.
    let output = unsafe { filled(batch * queries * heads * d, write) };
    (output, log_sums)
}

/// Few queries of a head, as in autoregressive decoding: matrix products that read keys and values
/// in the order of memory.
fn few_queries([q, k, v]: [Matrix; 3], sizes: AttentionSizes, to: HeadOf, log_sums: &mut [f32]) {
    let AttentionSizes { keys, d, .. } = sizes;
    let count = log_sums.len();
    let mut scratch = Scratch::new([count * keys]);
    let [scores] = scratch.split();
    let seen = sizes.seen(count.saturating_sub(1));
    multiply_here(
        [count, seen, d],
        q,
        k.t(),
        scores,
        keys,
        sizes.scale(),
        false,
    );
    let mut inverse = [0.0; FEW];
    for (row, log_sum) in log_sums.iter_mut().enumerate() {
        let scores = &mut scores[row * keys..][..seen];
        let (visible, hidden) = scores.split_at_mut(sizes.seen(row).min(seen));
        hidden.fill(0.0);
        let (top, sum) = arch().dispatch(Exponentials(visible));
        *log_sum = top + sum.ln();
        inverse[row] = sum.recip();
    }
    let (scores, rows) = (Matrix::rows(scores, keys), to.rows(0, count));
    // SAFETY: queries of this head belong to the caller's part; `rows` checks that they are inside
    // the output, whose heads do not overlap. The product writes them all.
    unsafe {
        multiply_at([count, d, seen], scores, v, rows, to.step(), 1.0, false);
        to.scale(0, &inverse[..count]);
    }
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
