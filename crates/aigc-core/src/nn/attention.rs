//! Scaled dot-product attention (Vaswani et al. 2017, <https://arxiv.org/abs/1706.03762>).

use super::{Linear, LinearConfig};
use crate::ops;
use burn::{
    config::Config,
    module::Module,
    tensor::{Bool, Device, Tensor},
};

/// `softmax(q·kᵀ / √d)·v`, per head. `mask` is true where a key may not be seen; `causal` also
/// hides keys that come after their query.
///
/// # Shapes
/// - q: `[batch, heads, queries, d]`, k and v: `[batch, heads, keys, d]`
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
    /// Number of heads; it divides the width.
    pub n_heads: usize,
    /// Whether the projections have biases.
    #[config(default = true)]
    pub bias: bool,
    /// Whether a token sees only itself and those before it.
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

    #[test]
    fn attention_is_its_formula() {
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

    #[test]
    fn causal_attention_ignores_what_comes_later() {
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
