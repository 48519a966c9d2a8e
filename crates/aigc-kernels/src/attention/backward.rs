//! The gradients of an attention.

use super::{
    heads::{AttentionSizes, BLOCK, HeadOf, Heads, HeadsOut, side_by_side},
    short::{is_short, short_grads},
};
use crate::{
    math::exp,
    memory::{check_len, filled, volume},
    product::{Matrix, multiply_at, multiply_here},
    simd::arch,
    threads::{Scratch, Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Gradients of [`attention`](super::attention) with respect to its inputs, from its inputs, its
/// output and `log_sums`, and the gradient `dy` of its output.
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
/// returned by [`attention`](super::attention).
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
    if is_short(sizes) {
        // SAFETY: the caller's contract.
        return unsafe { short_grads([q, k, v, dy], log_sums, sizes, grads, outs) };
    }
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
