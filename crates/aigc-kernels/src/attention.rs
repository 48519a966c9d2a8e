//! Softmax attention, a block of queries at a time (Dao et al. 2022,
//! <https://arxiv.org/abs/2205.14135>): scores are computed again on the way back, and no matrix of
//! queries × keys outlives its block.

use super::{
    math::exp,
    memory::{check_len, filled, volume},
    product::{Matrix, multiply_at, multiply_here},
    simd::arch,
    threads::{Scratch, Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Queries that are worked on at once.
const BLOCK: usize = 64;

/// Sizes of an attention.
///
/// Any sizes are allowed here: the functions that take them check them.
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

    /// Approximate number of floating-point operations.
    fn work(&self) -> usize {
        [self.heads, self.queries, self.keys, self.d]
            .iter()
            .fold(self.batch.saturating_mul(4), |work, size| {
                work.saturating_mul(*size)
            })
    }

    fn scale(&self) -> f32 {
        1.0 / (self.d as f32).sqrt()
    }

    /// # Panics
    /// If the key heads do not divide the query heads, or the sizes overflow.
    fn check(&self) {
        let Self {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            d,
            ..
        } = *self;
        assert!(
            kv_heads > 0 && heads.is_multiple_of(kv_heads),
            "attention: kv_heads is {kv_heads}, expected a divisor of the {heads} heads"
        );
        // Upper bounds of all lengths, and of the offsets inside them. A size of 0 must not hide
        // that the others overflow.
        let tokens = queries.max(keys);
        volume(&[3, batch, heads.max(kv_heads), tokens, d].map(|size: usize| size.max(1)));
        volume(&[BLOCK, tokens]);
    }

    /// # Panics
    /// If the sizes are not those of a self-attention over `qkv`.
    fn check_self(&self, qkv: &[f32]) {
        self.check();
        assert!(
            self.kv_heads == self.heads && self.keys == self.queries,
            "self-attention: kv_heads and keys are {} and {}, expected {} and {} as heads and \
             queries",
            self.kv_heads,
            self.keys,
            self.heads,
            self.queries
        );
        let len = volume(&[self.batch, self.queries, 3, self.heads, self.d]);
        check_len("self-attention: qkv", qkv.len(), len);
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
///
/// Any start and steps are allowed here: the functions that take them check that all elements lie
/// inside the slice.
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
    /// # Panics
    /// If an element of `shape`, `[batch, heads, tokens, d]`, lies outside the slice. `name` is
    /// that of the argument.
    fn check(&self, name: &str, shape: [usize; 4]) {
        let Self {
            values,
            start,
            steps,
        } = *self;
        let last = shape
            .iter()
            .zip(steps)
            .try_fold(start, |last, (size, step)| {
                last.checked_add(size.checked_sub(1)?.checked_mul(step)?)
            });
        assert!(
            shape.contains(&0) || last.is_some_and(|last| last < values.len()),
            "attention: {name} of shape {shape:?}, start {start} and steps {steps:?} does not fit \
             its {} elements",
            values.len()
        );
    }

    /// Tokens from `first` on of one head, as a matrix of tokens × channels.
    fn tokens(&self, batch: usize, head: usize, first: usize) -> Matrix<'a> {
        let at = self.start + batch * self.steps[0] + head * self.steps[1] + first * self.steps[2];
        Matrix {
            // A head without elements may start beyond the slice.
            values: self.values.get(at..).unwrap_or_default(),
            row: self.steps[2],
            column: self.steps[3],
        }
    }
}

/// Where the heads of an output or a gradient lie, channels side by side. The steps come from the
/// shape, so that heads do not overlap.
#[derive(Clone, Copy)]
struct HeadsOut {
    /// Offset of the first element.
    start: usize,
    /// Strides of batch, head and position.
    steps: [usize; 3],
}

impl HeadsOut {
    /// `[batch, tokens, heads, d]` in order.
    fn in_order(heads: usize, tokens: usize, d: usize) -> Self {
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
    /// Where the `count` tokens from `first` on lie, [`step`](Self::step) apart: valid for `d`
    /// elements each.
    ///
    /// # Panics
    /// If they do not lie inside the tensor.
    fn rows(&self, first: usize, count: usize) -> *mut f32 {
        if count == 0 {
            return self.shared.pointer(0, 0);
        }
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
    /// The rows are initialised, and only the caller reads or writes this head's numbers.
    unsafe fn scale(&self, first: usize, factors: &[f32]) {
        let start = self.rows(first, factors.len());
        for (row, factor) in factors.iter().enumerate() {
            // SAFETY: `rows` checks that the row is inside the tensor; the rest by the caller's
            // contract.
            let row =
                unsafe { std::slice::from_raw_parts_mut(start.add(row * self.step()), self.d) };
            row.iter_mut().for_each(|value| *value *= factor);
        }
    }
}

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

/// Gradients of [`attention`] with respect to its inputs, from its inputs, its output and
/// `log_sums`, and the gradient `dy` of its output.
///
/// `output` and `dy` are `[batch, heads, queries, d]`. The gradient of `q` is
/// `[batch, queries, heads, d]`, those of `k` and `v` are `[batch, keys, kv_heads, d]`.
///
/// # Panics
/// If `kv_heads` does not divide `heads`, the sizes overflow, an element of `q`, `k`, `v`, `output`
/// or `dy` lies outside its slice, or `log_sums` is not `[batch, heads, queries]`.
pub fn attention_grads(
    q: Heads,
    k: Heads,
    v: Heads,
    output: Heads,
    log_sums: &[f32],
    dy: Heads,
    sizes: AttentionSizes,
) -> [Vec<f32>; 3] {
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
    for (name, values, shape) in [
        ("q", q, [batch, heads, queries, d]),
        ("k", k, [batch, kv_heads, keys, d]),
        ("v", v, [batch, kv_heads, keys, d]),
        ("output", output, [batch, heads, queries, d]),
        ("dy", dy, [batch, heads, queries, d]),
    ] {
        values.check(name, shape);
    }
    let len = volume(&[batch, heads, queries]);
    check_len("attention_grads: log_sums", log_sums.len(), len);
    let places = [(heads, queries), (kv_heads, keys), (kv_heads, keys)];
    let mut grads = places.map(|(heads, tokens)| vec![0.0; volume(&[batch, tokens, heads, d])]);
    let shared = grads.each_mut().map(Vec::as_mut_slice).map(Shared::new);
    // SAFETY: every gradient is a tensor of its own, whose heads do not overlap.
    unsafe {
        attention_grads_shared(
            q,
            k,
            v,
            output,
            log_sums,
            dy,
            sizes,
            shared.each_ref(),
            places.map(|(heads, tokens)| HeadsOut::in_order(heads, tokens, d)),
        );
    }
    grads
}

/// Gradients of an attention whose queries, keys and values lie side by side in
/// `[batch, tokens, 3·heads·d]`; the result has the same shape.
///
/// `output` and `dy` are `[batch, tokens, heads, d]`, `log_sums` `[batch, heads, tokens]`, as
/// returned by [`attention`].
///
/// # Panics
/// If `kv_heads` is not `heads`, `keys` is not `queries`, the sizes overflow, or a slice does not
/// have the length of its shape.
pub fn self_attention_grad(
    qkv: &[f32],
    output: &[f32],
    log_sums: &[f32],
    dy: &[f32],
    sizes: AttentionSizes,
) -> Vec<f32> {
    let AttentionSizes {
        batch,
        heads,
        queries,
        d,
        ..
    } = sizes;
    let [q, k, v] = side_by_side(qkv, sizes);
    let len = volume(&[batch, queries, heads, d]);
    check_len("self_attention_grad: output", output.len(), len);
    check_len("self_attention_grad: dy", dy.len(), len);
    let len = volume(&[batch, heads, queries]);
    check_len("self_attention_grad: log_sums", log_sums.len(), len);
    let in_order = |values| Heads {
        values,
        start: 0,
        steps: [queries * heads * d, d, heads * d, 1],
    };
    let outs = [q, k, v].map(|part| HeadsOut {
        start: part.start,
        steps: [part.steps[0], part.steps[1], part.steps[2]],
    });
    let write = |grad: &mut [f32]| {
        let grad = Shared::new(grad);
        let (output, dy) = (in_order(output), in_order(dy));
        // SAFETY: the heads of the three gradients lie side by side.
        unsafe {
            attention_grads_shared(q, k, v, output, log_sums, dy, sizes, [&grad; 3], outs);
        }
    };
    // SAFETY: queries, keys and values of all heads cover the gradient, and
    // `attention_grads_shared` writes them all.
    unsafe { filled(qkv.len(), write) }
}

/// Queries, keys and values of `[batch, tokens, 3·heads·d]`.
///
/// # Panics
/// If `kv_heads` is not `heads`, `keys` is not `queries`, the sizes overflow, or `qkv` does not
/// have the length of its shape.
pub fn side_by_side(qkv: &[f32], sizes: AttentionSizes) -> [Heads<'_>; 3] {
    sizes.check_self(qkv);
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

/// Writes the gradients of queries, keys and values to `grads`, in the places `outs`: all elements,
/// and none is read before it is written.
///
/// # Safety
/// No element belongs to two heads, be it of one gradient or of two, and only this function uses
/// the gradients.
///
/// # Panics
/// If a head lies outside its gradient, or an argument does not have the size that `sizes`
/// requires.
#[allow(clippy::too_many_arguments)]
unsafe fn attention_grads_shared(
    q: Heads,
    k: Heads,
    v: Heads,
    output: Heads,
    log_sums: &[f32],
    dy: Heads,
    sizes: AttentionSizes,
    grads: [&Shared<f32>; 3],
    outs: [HeadsOut; 3],
) {
    let AttentionSizes {
        heads,
        kv_heads,
        queries,
        keys,
        d,
        ..
    } = sizes;
    let group = sizes.group();
    // A part is a key head with all query heads that attend to it: it alone writes its gradients.
    let work = sizes.work().saturating_mul(5) / 2;
    for_each(sizes.batch * kv_heads, work, |part| {
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
            // SAFETY: keys and values of this key head belong to this part, and `rows` checks that
            // they are inside the gradient.
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
            // SAFETY: these queries, keys and values belong to this part, and `rows` checks that
            // they are inside the gradients. Those of keys and values were zeroed above.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Rng, assert_panics};

    const SIZES: AttentionSizes = AttentionSizes {
        batch: 2,
        heads: 4,
        kv_heads: 2,
        queries: 5,
        keys: 6,
        d: 3,
        causal: false,
    };

    /// `[batch, heads, tokens, d]` in order.
    fn in_order(values: &[f32], [_, heads, tokens, d]: [usize; 4]) -> Heads<'_> {
        Heads {
            values,
            start: 0,
            steps: [heads * tokens * d, tokens * d, d, 1],
        }
    }

    /// Shapes of queries and keys.
    fn shapes(sizes: AttentionSizes) -> [[usize; 4]; 2] {
        let AttentionSizes {
            batch,
            heads,
            kv_heads,
            queries,
            keys,
            d,
            ..
        } = sizes;
        [[batch, heads, queries, d], [batch, kv_heads, keys, d]]
    }

    #[test]
    fn attention_rejects_operands_outside_their_slices() {
        let ([of_q, of_k], values) = (shapes(SIZES), [0.5; 120]);
        let (q, k) = (
            in_order(&values[..120], of_q),
            in_order(&values[..72], of_k),
        );
        let log_sums = [1.0; 41];
        assert_eq!(attention(q, k, k, SIZES).0.len(), 120);
        let grads = |operands: [Heads; 5], log_sums: &[f32], sizes: AttentionSizes| {
            let [q, k, v, output, dy] = operands;
            attention_grads(q, k, v, output, log_sums, dy, sizes)
        };
        let operands = [q, k, k, q, q];
        assert_eq!(
            grads(operands, &log_sums[..40], SIZES).map(|grad| grad.len()),
            [120, 72, 72]
        );
        let names = ["q", "k", "v", "output", "dy"];
        for (index, name) in names.into_iter().enumerate() {
            let fitting = operands[index];
            let mut others = vec![
                Heads {
                    values: &fitting.values[1..],
                    ..fitting
                },
                Heads {
                    start: 1,
                    ..fitting
                },
                Heads {
                    start: usize::MAX,
                    ..fitting
                },
            ];
            for axis in 0..4 {
                // Longer steps, also so long that the offset of the last element overflows.
                for step in [fitting.steps[axis] + 1, usize::MAX, usize::MAX / 2 + 2] {
                    let mut steps = fitting.steps;
                    steps[axis] = step;
                    others.push(Heads { steps, ..fitting });
                }
            }
            for other in others {
                let mut operands = operands;
                operands[index] = other;
                let expected = format!("attention: {name} of shape");
                assert_panics(&expected, || grads(operands, &log_sums[..40], SIZES));
                if index < 3 {
                    let [q, k, v, ..] = operands;
                    assert_panics(&expected, || attention(q, k, v, SIZES));
                }
            }
        }
        for len in [0, 39, 41] {
            let expected = format!("attention_grads: log_sums has {len} elements, expected 40");
            assert_panics(&expected, || grads(operands, &log_sums[..len], SIZES));
        }
    }

    #[test]
    fn attention_rejects_other_sizes() {
        // One element, whatever the sizes are.
        let q = Heads {
            values: &[0.5],
            start: 0,
            steps: [0; 4],
        };
        let half = usize::MAX / 2;
        let rejected = [
            (
                AttentionSizes {
                    kv_heads: 0,
                    ..SIZES
                },
                "kv_heads is 0",
            ),
            (
                AttentionSizes {
                    kv_heads: 3,
                    ..SIZES
                },
                "kv_heads is 3",
            ),
            (
                AttentionSizes {
                    kv_heads: 8,
                    ..SIZES
                },
                "kv_heads is 8",
            ),
            (
                AttentionSizes {
                    queries: half,
                    ..SIZES
                },
                "overflow",
            ),
            (AttentionSizes { d: half, ..SIZES }, "overflow"),
            (
                AttentionSizes {
                    batch: 0,
                    keys: usize::MAX,
                    ..SIZES
                },
                "overflow",
            ),
            (
                AttentionSizes {
                    heads: 0,
                    kv_heads: usize::MAX,
                    ..SIZES
                },
                "overflow",
            ),
        ];
        for (sizes, expected) in rejected {
            assert_panics(expected, || attention(q, q, q, sizes));
            assert_panics(expected, || attention_grads(q, q, q, q, &[], q, sizes));
            assert_panics(expected, || side_by_side(&[], sizes));
        }
    }

    #[test]
    fn self_attention_rejects_other_lengths() {
        let sizes = AttentionSizes {
            kv_heads: 4,
            keys: 5,
            ..SIZES
        };
        let values = [0.5; 400];
        let lens = [360, 120, 40, 120];
        let grad = |lens: [usize; 4], sizes: AttentionSizes| {
            let [qkv, output, log_sums, dy] = lens.map(|len| &values[..len]);
            self_attention_grad(qkv, output, log_sums, dy, sizes)
        };
        assert_eq!(grad(lens, sizes).len(), 360);
        let names = ["qkv", "output", "log_sums", "dy"];
        for (index, name) in names.into_iter().enumerate() {
            for len in [0, lens[index] - 1, lens[index] + 1] {
                let mut lens = lens;
                lens[index] = len;
                let expected = format!("{name} has {len} elements");
                assert_panics(&expected, || grad(lens, sizes));
            }
        }
        for other in [
            AttentionSizes {
                kv_heads: 2,
                ..sizes
            },
            AttentionSizes { keys: 4, ..sizes },
        ] {
            assert_panics("self-attention: kv_heads and keys", || grad(lens, other));
            assert_panics("self-attention: kv_heads and keys", || {
                side_by_side(&values[..360], other)
            });
        }
        assert_panics("self-attention: qkv has 359 elements", || {
            side_by_side(&values[..359], sizes)
        });
    }

    #[test]
    fn self_attention_grad_matches_attention_grads() {
        let (mut rng, tokens) = (Rng::new(2), 70);
        for causal in [false, true] {
            let sizes = AttentionSizes {
                kv_heads: 4,
                queries: tokens,
                keys: tokens,
                causal,
                ..SIZES
            };
            let len = sizes.batch * tokens * sizes.heads * sizes.d;
            let (qkv, dy) = (rng.normals(3 * len), rng.normals(len));
            let [q, k, v] = side_by_side(&qkv, sizes);
            let (output, log_sums) = attention(q, k, v, sizes);
            let in_order = |values| Heads {
                values,
                start: 0,
                steps: [
                    tokens * sizes.heads * sizes.d,
                    sizes.d,
                    sizes.heads * sizes.d,
                    1,
                ],
            };
            let (of_output, of_dy) = (in_order(&output[..]), in_order(&dy[..]));
            let grads = attention_grads(q, k, v, of_output, &log_sums, of_dy, sizes);
            let together = self_attention_grad(&qkv, &output, &log_sums, &dy, sizes);
            let width = sizes.heads * sizes.d;
            for (at, found) in together.into_iter().enumerate() {
                let (token, part, channel) = (at / (3 * width), at / width % 3, at % width);
                let expected = grads[part][token * width + channel];
                assert!(
                    (found - expected).abs() < 1e-5,
                    "{found}, expected {expected} at {at}"
                );
            }
        }
    }

    #[test]
    fn attention_supports_queries_that_see_no_key() {
        for (queries, keys, causal) in [(70, 3, true), (70, 0, false), (0, 3, false)] {
            let sizes = AttentionSizes {
                queries,
                keys,
                causal,
                ..SIZES
            };
            let [of_q, of_k] = shapes(sizes);
            let mut rng = Rng::new(4);
            let [q, k, v, dy] = [of_q, of_k, of_k, of_q].map(|shape| rng.normals(volume(&shape)));
            let (q, k, v) = (in_order(&q, of_q), in_order(&k, of_k), in_order(&v, of_k));
            let (output, log_sums) = attention(q, k, v, sizes);
            let unseen = queries - keys.min(queries);
            let width = sizes.heads * sizes.d;
            let is_zero = |values: &[f32]| {
                values
                    .chunks(width)
                    .enumerate()
                    .filter(|(row, _)| row % queries.max(1) < unseen)
                    .all(|(_, row)| row.iter().all(|value| *value == 0.0))
            };
            assert!(output.iter().all(|value| value.is_finite()) && is_zero(&output));
            let heads_of_output = Heads {
                values: &output,
                start: 0,
                steps: [queries * width, sizes.d, width, 1],
            };
            let grads = attention_grads(
                q,
                k,
                v,
                heads_of_output,
                &log_sums,
                in_order(&dy, of_q),
                sizes,
            );
            let lens = grads.each_ref().map(Vec::len);
            assert_eq!(lens, [volume(&of_q), volume(&of_k), volume(&of_k)]);
            assert!(grads.iter().flatten().all(|value| value.is_finite()));
            assert!(is_zero(&grads[0]));
        }
    }
}
