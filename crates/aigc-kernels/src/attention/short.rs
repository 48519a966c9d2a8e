//! Gradients of attentions over few tokens, such as those over the frames of a video.

use super::heads::{AttentionSizes, HeadOf, Heads, HeadsOut};
use crate::{
    math::exp,
    product::Matrix,
    simd::{arch, vectors},
    threads::{Scratch, Shared, for_each},
};
use pulp::{Simd, WithSimd};

/// Most tokens.
const TOKENS: usize = 32;

/// Most channels of a head.
const CHANNELS: usize = 64;

/// Whether the gradients are computed with one head per vector lane: few tokens and channels, and
/// at least as many heads as lanes. The set-up of matrix products this small takes longer than
/// their arithmetic.
pub(super) fn is_short(sizes: AttentionSizes) -> bool {
    let [lanes, _] = vectors();
    sizes.kv_heads == sizes.heads
        && sizes.batch * sizes.heads >= lanes
        && (1..=TOKENS).contains(&sizes.queries)
        && (1..=TOKENS).contains(&sizes.keys)
        && (1..=CHANNELS).contains(&sizes.d)
}

/// Writes the gradients of queries, keys and values to `grads`, in the places `outs`, for sizes
/// that [are short](is_short): all elements, and none is read before it is written. Every lane of a
/// vector is a head.
///
/// # Safety
/// No element belongs to two heads, be it of one gradient or of two, and only this function uses
/// the gradients.
///
/// # Panics
/// If a head lies outside its gradient, or an argument does not have the size that `sizes`
/// requires.
pub(super) unsafe fn short_grads(
    [q, k, v, dy]: [Heads; 4],
    log_sums: &[f32],
    sizes: AttentionSizes,
    grads: [&Shared<f32>; 3],
    outs: [HeadsOut; 3],
) {
    let AttentionSizes {
        batch,
        heads,
        queries,
        keys,
        d,
        ..
    } = sizes;
    let ([lanes, _], all) = (vectors(), batch * heads);
    let work = sizes.work().saturating_mul(5) / 2;
    for_each(all.div_ceil(lanes), work, |part| {
        let first = part * lanes;
        let count = lanes.min(all - first);
        let place = |lane: usize| ((first + lane) / heads, (first + lane) % heads);
        let [of_queries, of_keys] = [queries, keys].map(|tokens| tokens * d * lanes);
        let mut scratch = Scratch::new([
            of_queries,
            of_keys,
            of_keys,
            of_queries,
            queries * lanes,
            keys * lanes,
            keys * lanes,
            of_queries,
            of_keys,
            of_keys,
        ]);
        let [
            q_of,
            k_of,
            v_of,
            dy_of,
            sums_of,
            weights,
            dweights,
            dq,
            dk,
            dv,
        ] = scratch.split();
        if count < lanes {
            // The results of the other lanes are not used, but numbers of another use may be NaN
            // or denormal, with which arithmetic is slow.
            for values in [&mut *q_of, k_of, v_of, dy_of, sums_of] {
                values.fill(0.0);
            }
        }
        for lane in 0..count {
            let (image, head) = place(lane);
            gather(q.tokens(image, head, 0), q_of, lanes, lane, d);
            gather(k.tokens(image, head, 0), k_of, lanes, lane, d);
            gather(v.tokens(image, head, 0), v_of, lanes, lane, d);
            gather(dy.tokens(image, head, 0), dy_of, lanes, lane, d);
            let sums = &log_sums[(first + lane) * queries..][..queries];
            let to = sums_of[lane..].iter_mut().step_by(lanes);
            to.zip(sums).for_each(|(to, sum)| *to = *sum);
        }
        arch().dispatch(SideBySide {
            sizes,
            q: q_of,
            k: k_of,
            v: v_of,
            dy: dy_of,
            log_sums: sums_of,
            weights,
            dweights,
            dq,
            dk,
            dv,
        });
        for lane in 0..count {
            let (image, head) = place(lane);
            for (index, (values, tokens)) in [(&*dq, queries), (dk, keys), (dv, keys)]
                .into_iter()
                .enumerate()
            {
                let to = HeadOf {
                    shared: grads[index],
                    out: outs[index],
                    batch: image,
                    head,
                    d,
                };
                let start = to.rows(0, tokens);
                for token in 0..tokens {
                    let from = values[token * d * lanes + lane..].iter().step_by(lanes);
                    for (channel, value) in from.take(d).enumerate() {
                        // SAFETY: this head belongs to this part alone, and `rows` checks that its
                        // rows are inside the gradient.
                        unsafe { start.add(token * to.step() + channel).write(*value) };
                    }
                }
            }
        }
    });
}

/// Copies the tokens of a head to lane `lane` of `[tokens, d, lanes]`.
fn gather(from: Matrix, to: &mut [f32], lanes: usize, lane: usize, d: usize) {
    for (token, to) in to.chunks_exact_mut(d * lanes).enumerate() {
        let row = &from.values[token * from.row..];
        let to = to[lane..].iter_mut().step_by(lanes).enumerate();
        to.for_each(|(channel, to)| *to = row[channel * from.column]);
    }
}

/// The gradients of as many heads as a vector has lanes: `[tokens, d, lanes]`, but `log_sums` is
/// `[queries, lanes]`, and `weights` and `dweights`, which are scratch, `[keys, lanes]`.
struct SideBySide<'a> {
    sizes: AttentionSizes,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    dy: &'a [f32],
    log_sums: &'a [f32],
    weights: &'a mut [f32],
    dweights: &'a mut [f32],
    dq: &'a mut [f32],
    dk: &'a mut [f32],
    dv: &'a mut [f32],
}

impl WithSimd for SideBySide<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, s: S) {
        let (sizes, d) = (self.sizes, self.sizes.d);
        let [q, k, v, dy, log_sums] = [self.q, self.k, self.v, self.dy, self.log_sums]
            .map(|values| S::as_simd_f32s(values).0);
        let [weights, dweights, dq, dk, dv] =
            [self.weights, self.dweights, self.dq, self.dk, self.dv]
                .map(|values| S::as_mut_simd_f32s(values).0);
        let (zero, scale) = (s.splat_f32s(0.0), s.splat_f32s(sizes.scale()));
        for values in [&mut *dq, dk, dv] {
            values.fill(zero);
        }
        let queries = q.chunks_exact(d).zip(dy.chunks_exact(d));
        let queries = queries.zip(dq.chunks_exact_mut(d)).zip(log_sums);
        for (query, (((q, dy), dq), log_sum)) in queries.enumerate() {
            let seen = sizes.seen(query);
            let mut dot = zero;
            let keys = k.chunks_exact(d).zip(v.chunks_exact(d));
            let scores = weights.iter_mut().zip(&mut *dweights);
            for ((k, v), (weight, dweight)) in keys.zip(scores).take(seen) {
                let (mut score, mut change) = (zero, zero);
                for channel in 0..d {
                    score = s.mul_add_e_f32s(q[channel], k[channel], score);
                    change = s.mul_add_e_f32s(dy[channel], v[channel], change);
                }
                *weight = exp(s, s.sub_f32s(s.mul_f32s(score, scale), *log_sum));
                *dweight = change;
                dot = s.mul_add_e_f32s(*weight, change, dot);
            }
            let keys = k.chunks_exact(d).zip(dk.chunks_exact_mut(d));
            let keys = keys.zip(dv.chunks_exact_mut(d));
            let scores = weights.iter().zip(&*dweights);
            for (((k, dk), dv), (weight, dweight)) in keys.zip(scores).take(seen) {
                let change = s.sub_f32s(*dweight, dot);
                let change = s.mul_f32s(s.mul_f32s(*weight, scale), change);
                for channel in 0..d {
                    dv[channel] = s.mul_add_e_f32s(*weight, dy[channel], dv[channel]);
                    dk[channel] = s.mul_add_e_f32s(change, q[channel], dk[channel]);
                    dq[channel] = s.mul_add_e_f32s(change, k[channel], dq[channel]);
                }
            }
        }
    }
}
