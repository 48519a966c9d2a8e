//! Softmax attention, a block of queries at a time (Dao et al. 2022,
//! <https://arxiv.org/abs/2205.14135>): scores are computed again on the way back, and no matrix of
//! queries × keys outlives its block.

use super::{
    math::exp,
    memory::filled,
    product::{Matrix, multiply_at, multiply_here},
    simd::arch,
    threads::{Scratch, Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Queries that are worked on at once.
const BLOCK: usize = 64;

/// Sizes of an attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSizes {
    /// Batch size.
    pub batch: usize,
    /// Query heads.
    pub heads: usize,
    /// Heads of keys and values; they divide the query heads. Query head `h` attends to key head
    /// `h / (heads / kv_heads)`.
    pub kv_heads: usize,
    /// Query positions.
    pub queries: usize,
    /// Key positions.
    pub keys: usize,
    /// Channels of a head.
    pub d: usize,
    /// Whether a query ignores the keys after it.
    pub causal: bool,
}

impl AttentionSizes {
    /// Query heads for each key head.
    fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    fn work(&self) -> usize {
        4 * self.batch * self.heads * self.queries * self.keys * self.d
    }

    fn scale(&self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    /// How many keys query `query` sees.
    fn seen(&self, query: usize) -> usize {
        if self.causal {
            (query + 1 + self.keys)
                .saturating_sub(self.queries)
                .min(self.keys)
        } else {
            self.keys
        }
    }
}

/// `[batch, heads, tokens, d]` somewhere in a slice.
#[derive(Clone, Copy)]
pub struct Heads<'a> {
    /// The storage.
    pub values: &'a [f32],
    /// Offset of the first element.
    pub start: usize,
    /// Steps along batch, heads, tokens and channels.
    pub steps: [usize; 4],
}

impl<'a> Heads<'a> {
    /// Tokens from `first` on of one head, as a matrix of tokens × channels.
    fn tokens(&self, batch: usize, head: usize, first: usize) -> Matrix<'a> {
        let at = self.start + batch * self.steps[0] + head * self.steps[1] + first * self.steps[2];
        Matrix {
            values: &self.values[at..],
            row: self.steps[2],
            column: self.steps[3],
        }
    }
}

/// Where the heads of an output or a gradient lie, channels side by side: start, and steps along
/// batch, heads and tokens.
#[derive(Clone, Copy)]
pub struct HeadsOut {
    /// Offset of the first element.
    pub start: usize,
    /// Strides of batch, head and position.
    pub steps: [usize; 3],
}

impl HeadsOut {
    /// `[batch, tokens, heads, d]` in order.
    pub fn in_order(heads: usize, tokens: usize, d: usize) -> Self {
        Self {
            start: 0,
            steps: [tokens * heads * d, d, heads * d],
        }
    }
}

/// What one part writes of a tensor whose heads interleave: never as a slice, which would overlap
/// those of other heads.
#[derive(Clone, Copy)]
struct HeadOf<'a> {
    shared: &'a Shared<'a, f32>,
    out: HeadsOut,
    batch: usize,
    head: usize,
    d: usize,
}

impl HeadOf<'_> {
    /// Where the `count` tokens from `first` on lie, [`step`](Self::step) apart.
    fn rows(&self, first: usize, count: usize) -> *mut f32 {
        let start = self.out.start
            + self.batch * self.out.steps[0]
            + self.head * self.out.steps[1]
            + first * self.out.steps[2];
        self.shared
            .pointer(start, (count - 1) * self.step() + self.d)
    }

    fn step(&self) -> usize {
        self.out.steps[2]
    }

    /// Multiplies the rows from `first` on by `factors`.
    ///
    /// # Safety
    /// Nobody else reads or writes this head's numbers.
    unsafe fn scale(&self, first: usize, factors: &[f32]) {
        let start = self.rows(first, factors.len());
        for (row, factor) in factors.iter().enumerate() {
            // SAFETY: inside what `rows` has held against the tensor, and this head's own.
            let row =
                unsafe { std::slice::from_raw_parts_mut(start.add(row * self.step()), self.d) };
            row.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

/// `softmax(q·kᵀ/√d)·v` as `[batch, queries, heads, d]`, and the logarithm of every query's sum of
/// exponentials, `[batch, heads, queries]`.
pub fn attention(q: Heads, k: Heads, v: Heads, sizes: AttentionSizes) -> (Vec<f32>, Vec<f32>) {
    let AttentionSizes {
        batch,
        heads,
        queries,
        keys,
        d,
        ..
    } = sizes;
    let mut log_sums = vec![0.0; batch * heads * queries];
    let order = HeadsOut::in_order(heads, queries, d);
    let output = filled(batch * queries * heads * d, |output| {
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
                // SAFETY: as above.
                unsafe {
                    multiply_at([count, d, seen], scores, v, rows, to.step(), 1.0, false);
                    to.scale(first, &inverse[..count]);
                }
            }
        });
    });
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

/// Gradients of [`attention`] into `grads`, `[dq, dk, dv]`, whose places `outs` names.
#[allow(clippy::too_many_arguments)]
pub fn attention_grads(
    q: Heads,
    k: Heads,
    v: Heads,
    output: Heads,
    log_sums: &[f32],
    dy: Heads,
    sizes: AttentionSizes,
    grads: [&mut [f32]; 3],
    outs: [HeadsOut; 3],
) {
    let AttentionSizes {
        heads,
        queries,
        keys,
        d,
        ..
    } = sizes;
    let grads = grads.map(Shared::new);
    attention_grads_shared(
        q,
        k,
        v,
        output,
        log_sums,
        dy,
        sizes,
        grads.each_ref(),
        outs,
        [heads, queries, keys, d],
    );
}

/// Gradients of an attention whose queries, keys and values lie side by side in
/// `[batch, tokens, 3·heads·d]`.
pub fn self_attention_grad(
    qkv: &[f32],
    output: &[f32],
    log_sums: &[f32],
    dy: &[f32],
    sizes: AttentionSizes,
) -> Vec<f32> {
    let AttentionSizes {
        heads,
        queries,
        keys,
        d,
        ..
    } = sizes;
    let [q, k, v] = side_by_side(qkv, sizes);
    let in_order = |values| Heads {
        values,
        start: 0,
        steps: [queries * heads * d, d, heads * d, 1],
    };
    let outs = [q, k, v].map(|part| HeadsOut {
        start: part.start,
        steps: [part.steps[0], part.steps[1], part.steps[2]],
    });
    filled(qkv.len(), |grad| {
        let grad = Shared::new(grad);
        let (output, dy) = (in_order(output), in_order(dy));
        attention_grads_shared(
            q,
            k,
            v,
            output,
            log_sums,
            dy,
            sizes,
            [&grad; 3],
            outs,
            [heads, queries, keys, d],
        );
    })
}

/// Queries, keys and values of `[batch, tokens, 3·heads·d]`.
pub fn side_by_side(qkv: &[f32], sizes: AttentionSizes) -> [Heads<'_>; 3] {
    let AttentionSizes {
        heads, queries, d, ..
    } = sizes;
    let width = 3 * heads * d;
    [0, 1, 2].map(|part| Heads {
        values: qkv,
        start: part * heads * d,
        steps: [queries * width, d, width, 1],
    })
}

#[allow(clippy::too_many_arguments)]
fn attention_grads_shared(
    q: Heads,
    k: Heads,
    v: Heads,
    output: Heads,
    log_sums: &[f32],
    dy: Heads,
    sizes: AttentionSizes,
    grads: [&Shared<f32>; 3],
    outs: [HeadsOut; 3],
    [heads, queries, keys, d]: [usize; 4],
) {
    let (kv_heads, group) = (sizes.kv_heads, sizes.group());
    // A part is a key head with all query heads that attend to it: it alone writes its gradients.
    for_each(sizes.batch * kv_heads, 5 * sizes.work() / 2, |part| {
        let (image, kv_head) = (part / kv_heads, part % kv_heads);
        let grad = |index: usize, head: usize| HeadOf {
            shared: grads[index],
            out: outs[index],
            batch: image,
            head,
            d,
        };
        let block = BLOCK.min(queries);
        let mut scratch = Scratch::new([block * keys, block * keys]);
        let [weights, dweights] = scratch.split();
        let [dk, dv] = [grad(1, kv_head), grad(2, kv_head)];
        for keys_of in [dk, dv] {
            let start = keys_of.rows(0, keys);
            // SAFETY: keys and values of this key head belong to this part.
            (0..keys).for_each(|key| unsafe { start.add(key * keys_of.step()).write_bytes(0, d) });
        }
        let blocks = (0..queries).step_by(BLOCK);
        let heads_of_part = kv_head * group..(kv_head + 1) * group;
        for (head, first) in heads_of_part.flat_map(|head| blocks.clone().map(move |b| (head, b))) {
            let dq = grad(0, head);
            let count = BLOCK.min(queries - first);
            let seen = sizes.seen(first + count - 1);
            let (q, dy) = (q.tokens(image, head, first), dy.tokens(image, head, first));
            let (k, v) = (k.tokens(image, kv_head, 0), v.tokens(image, kv_head, 0));
            let output = output.tokens(image, head, first);
            multiply_here(
                [count, seen, d],
                q,
                k.t(),
                weights,
                keys,
                sizes.scale(),
                false,
            );
            multiply_here([count, seen, d], dy, v.t(), dweights, keys, 1.0, false);
            for row in 0..count {
                let visible = sizes.seen(first + row).min(seen);
                let dot = (0..d).map(|c| {
                    output.values[row * output.row + c * output.column]
                        * dy.values[row * dy.row + c * dy.column]
                });
                let row_of = row * keys..row * keys + seen;
                let (weights, dweights) = (&mut weights[row_of.clone()], &mut dweights[row_of]);
                weights[visible..].fill(0.0);
                dweights[visible..].fill(0.0);
                arch().dispatch(ScoreGrads {
                    weights: &mut weights[..visible],
                    dweights: &mut dweights[..visible],
                    log_sum: log_sums[(image * heads + head) * queries + first + row],
                    // Σ weights·dweights over the keys is Σ output·dy over the channels.
                    dot: dot.sum(),
                    scale: sizes.scale(),
                });
            }
            let (weights, dscores) = (Matrix::rows(weights, keys), Matrix::rows(dweights, keys));
            // SAFETY: these queries, keys and values belong to this part.
            unsafe {
                multiply_at(
                    [seen, d, count],
                    weights.t(),
                    dy,
                    dv.rows(0, seen),
                    dv.step(),
                    1.0,
                    true,
                );
                multiply_at(
                    [seen, d, count],
                    dscores.t(),
                    q,
                    dk.rows(0, seen),
                    dk.step(),
                    1.0,
                    true,
                );
                multiply_at(
                    [count, d, seen],
                    dscores,
                    k,
                    dq.rows(first, count),
                    dq.step(),
                    1.0,
                    false,
                );
            }
        }
    });
}

/// From scores to weights, and from gradients of weights to gradients of scores.
struct ScoreGrads<'a> {
    weights: &'a mut [f32],
    dweights: &'a mut [f32],
    log_sum: f32,
    dot: f32,
    scale: f32,
}

impl WithSimd for ScoreGrads<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let (w, w_rest) = S::as_mut_simd_f32s(self.weights);
        let (dw, dw_rest) = S::as_mut_simd_f32s(self.dweights);
        let (log_sum, dot, scale) = (
            s.splat_f32s(self.log_sum),
            s.splat_f32s(self.dot),
            s.splat_f32s(self.scale),
        );
        for (w, dw) in w.iter_mut().zip(dw) {
            *w = exp(s, s.sub_f32s(*w, log_sum));
            *dw = s.mul_f32s(s.mul_f32s(*w, scale), s.sub_f32s(*dw, dot));
        }
        for (w, dw) in w_rest.iter_mut().zip(dw_rest) {
            *w = (*w - self.log_sum).exp();
            *dw = *w * self.scale * (*dw - self.dot);
        }
    }
}
