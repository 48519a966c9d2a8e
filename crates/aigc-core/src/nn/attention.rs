//! Scaled dot-product attention (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>).

use super::{Linear, LinearConfig};
use crate::ops;
use burn::{
    config::Config,
    module::Module,
    tensor::{Bool, Device, Tensor},
};

/// `softmax(q·kᵀ / √d)·v`, per head. `mask` is true where a key is hidden; `causal` also hides keys
/// after their query. If there are fewer heads of keys and values than of queries, groups of query
/// heads share them.
///
/// # Shapes
/// - q: `[batch, heads, queries, d]`, k and v: `[batch, kv_heads, keys, d]`
/// - mask: `[batch, heads, queries, keys]`
/// - output: `[batch, heads, queries, d]`
pub fn scaled_dot_product_attention(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<Tensor<4, Bool>>,
    causal: bool,
) -> Tensor<4> {
    ops::attention(q, k, v, mask, causal)
}

/// Configuration to create a [`SelfAttention`] layer.
#[derive(Config, Debug)]
pub struct SelfAttentionConfig {
    /// Width of the tokens.
    pub d_model: usize,
    /// Number of heads; it must divide the width.
    pub n_heads: usize,
    /// Whether the projections have biases.
    #[config(default = true)]
    pub bias: bool,
    /// Whether a token attends only to itself and earlier tokens.
    #[config(default = false)]
    pub causal: bool,
}

/// Multi-head self-attention.
#[derive(Module, Debug)]
pub struct SelfAttention {
    /// Projection to queries, keys and values, side by side.
    pub qkv: Linear,
    /// Projection of the heads' outputs.
    pub output: Linear,
    n_heads: usize,
    causal: bool,
}

impl SelfAttentionConfig {
    /// The layer on `device`.
    ///
    /// # Panics
    /// If the heads do not divide the width.
    pub fn init(&self, device: &Device) -> SelfAttention {
        let d = self.d_model;
        assert!(
            self.n_heads > 0 && d.is_multiple_of(self.n_heads),
            "{} heads of width {d}",
            self.n_heads
        );
        SelfAttention {
            qkv: LinearConfig::new(d, 3 * d)
                .with_bias(self.bias)
                .init(device),
            output: LinearConfig::new(d, d).with_bias(self.bias).init(device),
            n_heads: self.n_heads,
            causal: self.causal,
        }
    }
}

impl SelfAttention {
    /// # Shapes
    /// - x and output: `[batch, tokens, d_model]`
    ///
    /// # Panics
    /// If the last axis is not `d_model`.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.output.forward(ops::self_attention(
            self.qkv.forward(x),
            self.n_heads,
            self.causal,
        ))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::rng::{InitWeights, Rng};
    use burn::tensor::{FloatDType, TensorData};

    #[test]
    fn attention_matches_its_formula() {
        let device = Device::flex();
        let mut rng = Rng::new(1);
        let [q, k, v]: [Vec<f32>; 3] = std::array::from_fn(|_| rng.normal_vec(4 * 3));
        let tensor = |x: &[f32]| Tensor::<1>::from_floats(x, &device).reshape([1, 1, 4, 3]);
        for causal in [false, true] {
            let got =
                scaled_dot_product_attention(tensor(&q), tensor(&k), tensor(&v), None, causal);
            let got = got.into_data().try_into_vec::<f32>().unwrap();
            for row in 0..4 {
                let seen = if causal { row + 1 } else { 4 };
                let score = |c: usize| {
                    (0..3).map(|i| q[row * 3 + i] * k[c * 3 + i]).sum::<f32>() / 3f32.sqrt()
                };
                let weights: Vec<f32> = (0..seen).map(|c| score(c).exp()).collect();
                let total: f32 = weights.iter().sum();
                for i in 0..3 {
                    let expected: f32 =
                        (0..seen).map(|c| weights[c] * v[c * 3 + i]).sum::<f32>() / total;
                    assert!((got[row * 3 + i] - expected).abs() < 1e-5);
                }
            }
        }
    }

    /// Grouped heads give the outputs and gradients of repeated heads: by the kernel (32 bits), by
    /// primitives (64 bits) and with a mask.
    #[test]
    fn grouped_attention_matches_repeated_heads() {
        let device = Device::flex().autodiff();
        let mut rng = Rng::new(4);
        for (heads, kv_heads, [queries, keys]) in [
            (4, 2, [5, 7]),
            (6, 1, [70, 70]),
            (6, 3, [1, 9]),
            (3, 3, [4, 4]),
        ] {
            let (batch, d) = (2, 3);
            let (q, k) = ([batch, heads, queries, d], [batch, kv_heads, keys, d]);
            let [q, k, v, weight]: [Tensor<4>; 4] =
                [q, k, k, q].map(|shape| rng.normal(shape, &device));
            let repeat = |x: Tensor<4>| {
                let each = x.unsqueeze_dim::<5>(2);
                each.expand([batch, kv_heads, heads / kv_heads, keys, d])
                    .reshape([batch, heads, keys, d])
            };
            for (double, mask, causal) in [
                (false, false, true),
                (false, false, false),
                (true, false, true),
                (false, true, true),
            ] {
                let dtype = if double {
                    FloatDType::F64
                } else {
                    FloatDType::F32
                };
                let leaf = |x: &Tensor<4>| x.clone().cast(dtype).detach().require_grad();
                // A mask that hides the first key from all queries but the first.
                let mask = mask.then(|| {
                    let hidden: Vec<bool> = (0..batch * heads * queries * keys)
                        .map(|at| at % keys == 0 && keys > 1 && at / keys % queries > 0)
                        .collect();
                    let hidden = TensorData::new(hidden, [batch, heads, queries, keys]);
                    Tensor::<4, Bool>::from_data(hidden, &device)
                });
                let run = |grouped: bool| {
                    let [q, k, v] = [&q, &k, &v].map(leaf);
                    let (keys, values) = match grouped {
                        true => (k.clone(), v.clone()),
                        false => (repeat(k.clone()), repeat(v.clone())),
                    };
                    let y = ops::attention(q.clone(), keys, values, mask.clone(), causal);
                    let grads = (y.clone() * weight.clone().cast(dtype)).sum().backward();
                    let grad = |x: &Tensor<4>| x.grad(&grads).expect("a gradient");
                    [y.detach().inner(), grad(&q), grad(&k), grad(&v)]
                        .map(|x| x.into_data().iter::<f64>().collect::<Vec<_>>())
                };
                for (grouped, repeated) in run(true).iter().zip(run(false)) {
                    assert_eq!(grouped.len(), repeated.len());
                    let apart = grouped.iter().zip(&repeated).map(|(a, b)| (a - b).abs());
                    let worst = apart.fold(0.0, f64::max);
                    assert!(worst < 1e-4, "{heads} on {kv_heads}, {double}: {worst:.1e}");
                }
            }
        }
    }

    #[test]
    fn causal_attention_ignores_later_tokens() {
        let device = Device::flex();
        let layer = SelfAttentionConfig::new(8, 2)
            .with_causal(true)
            .init(&device)
            .init_weights(1);
        let x: Tensor<3> = Rng::new(2).normal([1, 5, 8], &device);
        let changed = Tensor::cat(
            vec![
                x.clone().narrow(1, 0, 4),
                Rng::new(3).normal([1, 1, 8], &device),
            ],
            1,
        );
        let difference = (layer.forward(x) - layer.forward(changed))
            .abs()
            .sum_dim(2)
            .into_data();
        let difference = difference.try_into_vec::<f32>().unwrap();
        assert!(
            difference[..4].iter().all(|d| *d < 1e-6) && difference[4] > 1e-3,
            "{difference:?}"
        );
    }
}
