//! Heads of causal self-attention, with and without a cache.

use crate::cache::Cache;
use aigc_core::{nn::Dropout, ops};
use burn::{
    module::Module,
    tensor::{Bool, Tensor, activation::softmax},
};

/// Configuration of attention heads: how queries, keys and values are divided into heads.
///
/// There may be fewer heads of keys and values than of queries (grouped-query attention, Ainslie et
/// al. 2023, <https://arxiv.org/abs/2305.13245>): query head `h` then attends to key head `h /
/// (n_head / n_kv_head)`.
#[derive(Module, Debug)]
pub struct AttentionHeads {
    /// Number of query heads.
    pub n_head: usize,
    /// Number of key and value heads; it must divide `n_head`.
    pub n_kv_head: usize,
    /// Factor of the queries in every kind of attention below, in addition to `1/√d`.
    pub scale: f64,
    /// Dropout of the attention weights, in training.
    pub dropout: Dropout,
}

impl AttentionHeads {
    /// Attention over whole sequences, for queries, keys and values that lie side by side.
    ///
    /// # Shapes
    /// - qkv: `[batch, time, (n_head + 2·n_kv_head)·d]`
    /// - output: `[batch, time, n_head·d]`
    pub fn forward(&self, qkv: Tensor<3>) -> Tensor<3> {
        let is_plain = self.scale == 1.0 && self.n_kv_head == self.n_head;
        if is_plain && !self.drops(qkv.device().is_autodiff()) {
            return ops::self_attention(qkv, self.n_head, true);
        }
        let [q, k, v] = self.split(qkv);
        self.attend(q, k, v)
    }

    /// Attention that continues after the tokens in `cache`, in block `layer`. `mask` is true where
    /// padding hides a key ([`Cache::padding_mask`]).
    ///
    /// # Shapes
    /// - as [`forward`](Self::forward); mask: `[batch, n_head, time, keys]`
    pub fn forward_cached(
        &self,
        qkv: Tensor<3>,
        layer: usize,
        cache: &mut dyn Cache,
        mask: Option<Tensor<4, Bool>>,
    ) -> Tensor<3> {
        let [q, k, v] = self.split(qkv);
        self.attend_cached([q, k, v], layer, cache, mask)
    }

    /// Divides queries, keys and values into heads.
    ///
    /// # Shapes
    /// - qkv: `[batch, time, (n_head + 2·n_kv_head)·d]`
    /// - outputs: `[batch, n_head, time, d]`, and twice `[batch, n_kv_head, time, d]`
    pub fn split(&self, qkv: Tensor<3>) -> [Tensor<4>; 3] {
        let [batch, time, width] = qkv.dims();
        let (n, n_kv) = (self.n_head, self.n_kv_head);
        let d = width / (n + 2 * n_kv);
        if n == n_kv {
            let parts = qkv.reshape([batch, time, 3, n, d]).permute([2, 0, 3, 1, 4]);
            [0, 1, 2].map(|part| parts.clone().narrow(0, part, 1).squeeze_dim::<4>(0))
        } else {
            [(0, n), (n, n_kv), (n + n_kv, n_kv)].map(|(first, heads)| {
                let part = qkv.clone().narrow(2, first * d, heads * d);
                part.reshape([batch, time, heads, d]).swap_dims(1, 2)
            })
        }
    }

    /// Attention of heads over whole sequences, for models that transform queries and keys first
    /// (rotary positions) or have separate projections. Queries are multiplied by `scale` here.
    ///
    /// # Shapes
    /// - q: `[batch, n_head, time, d]`, k and v: `[batch, n_kv_head, time, d]`
    /// - output: `[batch, time, n_head·d]`
    pub fn attend(&self, q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<3> {
        join(if self.drops(q.device().is_autodiff()) {
            self.attend_with_dropout(q, k, v)
        } else {
            ops::attention(self.scaled(q), k, v, None, true)
        })
    }

    /// [`attend`](Self::attend), continuing after the tokens in `cache`.
    pub fn attend_cached(
        &self,
        [q, k, v]: [Tensor<4>; 3],
        layer: usize,
        cache: &mut dyn Cache,
        mask: Option<Tensor<4, Bool>>,
    ) -> Tensor<3> {
        let (k, v) = cache.update(layer, k, v);
        join(ops::attention(self.scaled(q), k, v, mask, true))
    }

    fn scaled(&self, q: Tensor<4>) -> Tensor<4> {
        if self.scale == 1.0 { q } else { q * self.scale }
    }

    fn drops(&self, is_training: bool) -> bool {
        self.dropout.prob > 0.0 && is_training
    }

    /// Attention with dropout of its weights, which fused attention does not support.
    pub(crate) fn attend_with_dropout(
        &self,
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
    ) -> Tensor<4> {
        let [batch, heads, time, d] = q.dims();
        let [k, v] = [k, v].map(|x| repeat_heads(x, heads));
        let later = Tensor::<2, Bool>::tril_mask([time, time], 0, &q.device());
        let scores = self.scaled(q).matmul(k.transpose()) / (d as f64).sqrt();
        let scores = scores.mask_fill(
            later.unsqueeze::<4>().expand([batch, heads, time, time]),
            f32::NEG_INFINITY,
        );
        self.dropout.forward(softmax(scores, 3)).matmul(v)
    }
}

/// Repeats each key head for the query heads that attend to it.
fn repeat_heads(x: Tensor<4>, heads: usize) -> Tensor<4> {
    let [batch, kv_heads, time, d] = x.dims();
    if kv_heads == heads {
        return x;
    }
    let group = heads / kv_heads;
    let each = x
        .unsqueeze_dim::<5>(2)
        .expand([batch, kv_heads, group, time, d]);
    each.reshape([batch, heads, time, d])
}

/// Joins heads: `[batch, heads, time, d]` to `[batch, time, heads·d]`.
pub(crate) fn join(heads: Tensor<4>) -> Tensor<3> {
    let [batch, n, time, d] = heads.dims();
    heads.swap_dims(1, 2).reshape([batch, time, n * d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::KvCache;
    use aigc_core::{
        device::device,
        nn::DropoutConfig,
        rng::Rng,
        testing::{assert_close, values},
    };

    /// Queries are multiplied by `scale` once, however attention is called.
    #[test]
    fn scale_applies_to_separate_queries() {
        let flex = device("flex").unwrap();
        let heads = |scale| AttentionHeads {
            n_head: 2,
            n_kv_head: 2,
            scale,
            dropout: DropoutConfig::new(0.0).init(),
        };
        let (scaled, plain) = (heads(0.25), heads(1.0));
        let shape = [1, 2, 5, 4];
        let [q, k, v] = [1, 2, 3].map(|seed| Rng::new(seed).normal::<4>(shape, &flex));
        let expected = values(plain.attend(q.clone() * 0.25, k.clone(), v.clone()));
        assert_ne!(
            values(plain.attend(q.clone(), k.clone(), v.clone())),
            expected
        );
        let parts = || [q.clone(), k.clone(), v.clone()];
        let [a, b, c] = parts();
        assert_eq!(values(scaled.attend(a, b, c)), expected);
        let [a, b, c] = parts();
        assert_close(
            &values(join(scaled.attend_with_dropout(a, b, c))),
            &expected,
            1e-5,
        );
        let mut cache = KvCache::new(1, shape);
        assert_close(
            &values(scaled.attend_cached(parts(), 0, &mut cache, None)),
            &expected,
            1e-5,
        );
        let qkv = Tensor::cat(parts().map(join).into(), 2);
        assert_close(&values(scaled.forward(qkv)), &expected, 1e-5);
    }

    /// Grouped heads equal heads with repeated keys and values, with and without a cache.
    #[test]
    fn grouped_heads_match_repeated_ones() {
        let flex = device("flex").unwrap();
        let heads = |n_kv_head| AttentionHeads {
            n_head: 4,
            n_kv_head,
            scale: 1.0,
            dropout: DropoutConfig::new(0.0).init(),
        };
        let (batch, time, d) = (2, 7, 3);
        for n_kv in [1, 2] {
            let grouped = heads(n_kv);
            let qkv: Tensor<3> =
                Rng::new(n_kv as u64).normal([batch, time, (4 + 2 * n_kv) * d], &flex);
            let [q, k, v] = grouped.split(qkv.clone());
            assert_eq!(k.dims(), [batch, n_kv, time, d]);
            let [k, v] = [k, v].map(|x| repeat_heads(x, 4));
            let full = Tensor::cat([q, k, v].map(join).into(), 2);
            let expected = values(heads(4).forward(full));
            assert_close(&values(grouped.forward(qkv.clone())), &expected, 1e-5);
            let mut cache = KvCache::new(1, [batch, n_kv, time, d]);
            let parts = [(0, 4), (4, 1), (5, 2)].map(|(first, count)| {
                let part = qkv.clone().narrow(1, first, count);
                let y = grouped.forward_cached(part, 0, &mut cache, None);
                cache.advance(count);
                y
            });
            assert_close(&values(Tensor::cat(parts.into(), 1)), &expected, 1e-5);
            let [q, k, v] = grouped.split(qkv);
            assert_close(
                &values(join(grouped.attend_with_dropout(q, k, v))),
                &expected,
                1e-5,
            );
        }
    }
}
