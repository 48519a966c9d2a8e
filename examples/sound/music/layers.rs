//! Blocks with rotary positions.

use crate::model::NoteLmConfig;
use aigc_core::{
    burn::{
        self,
        module::Module,
        tensor::{Bool, Device, Tensor, TensorData},
    },
    nn::{Activation, Dropout, DropoutConfig, Initializer, LayerNorm, LayerNormConfig},
};
use aigc_text::{
    Cache,
    nn::{AttentionHeads, Mlp, Projection},
};

/// Base of the wavelengths of positions.
const THETA: f64 = 10_000.0;

/// A block of GPT-2 without biases, whose attention has rotary positions.
#[derive(Module, Debug)]
pub(crate) struct Block {
    ln_1: LayerNorm,
    c_attn: Projection,
    c_proj: Projection,
    heads: AttentionHeads,
    drop: Dropout,
    ln_2: LayerNorm,
    mlp: Mlp,
}

impl Block {
    pub(crate) fn new(config: &NoteLmConfig, device: &Device) -> Self {
        let width = config.n_embd;
        let projection = |sizes, std| {
            let normal = Initializer::Normal { mean: 0.0, std };
            Projection::new(sizes, false, normal, device)
        };
        let usual = config.initializer_range;
        let residual = usual / (2.0 * config.n_layer as f64).sqrt();
        let norm = || LayerNormConfig::new(width).with_bias(false).init(device);
        let dropout = |p| DropoutConfig::new(p).init();
        Self {
            ln_1: norm(),
            c_attn: projection([width, 3 * width], usual),
            c_proj: projection([width, width], residual),
            heads: AttentionHeads {
                n_head: config.n_head,
                n_kv_head: config.n_head,
                scale: 1.0,
                // Dropout of attention weights would rule out fused attention.
                dropout: dropout(0.0),
            },
            drop: dropout(config.dropout),
            ln_2: norm(),
            mlp: Mlp {
                c_fc: projection([width, 4 * width], usual),
                c_proj: projection([4 * width, width], residual),
                dropout: dropout(config.dropout),
                activation: Activation::Gelu,
            },
        }
    }

    /// Applies the block to whole sequences, `[batch, time, width]`.
    pub(crate) fn forward(&self, x: Tensor<3>, rotation: &Rotation) -> Tensor<3> {
        let qkv = self.c_attn.forward(self.ln_1.forward(x.clone()));
        let attended = self.heads.forward(rotation.apply(qkv));
        self.after_attention(x, attended)
    }

    /// [`forward`](Self::forward), continuing after the tokens in `cache`, in block `layer`.
    pub(crate) fn forward_cached(
        &self,
        x: Tensor<3>,
        rotation: &Rotation,
        layer: usize,
        cache: &mut dyn Cache,
        mask: Option<Tensor<4, Bool>>,
    ) -> Tensor<3> {
        let qkv = self.c_attn.forward(self.ln_1.forward(x.clone()));
        let qkv = rotation.apply(qkv);
        let attended = self.heads.forward_cached(qkv, layer, cache, mask);
        self.after_attention(x, attended)
    }

    fn after_attention(&self, x: Tensor<3>, attended: Tensor<3>) -> Tensor<3> {
        let x = x + self.drop.forward(self.c_proj.forward(attended));
        x.clone() + self.mlp.forward(self.ln_2.forward(x))
    }
}

/// Rotary positions of the tokens of a forward pass, which all blocks share (Su et al. 2021,
/// <https://arxiv.org/abs/2104.09864>).
#[derive(Debug)]
pub(crate) struct Rotation {
    /// Cosines for every query and key, `[1, time, 2·heads, d/2]`.
    cos: Tensor<4>,
    /// The sines of the same angles.
    sin: Tensor<4>,
}

impl Rotation {
    /// The angles `position · θ^(−2i/d)` of `time` positions from `first` on. They are repeated for
    /// each head: broadcasting over heads is slower.
    pub(crate) fn new(config: &NoteLmConfig, first: usize, time: usize, device: &Device) -> Self {
        let heads = config.n_head;
        let pairs = config.n_embd / heads / 2;
        let table = |of: fn(f64) -> f64| {
            let angle = |at: usize, i: usize| {
                let frequency = THETA.powf(-(i as f64) / pairs as f64);
                of((first + at) as f64 * frequency) as f32
            };
            let rows = (0..time).flat_map(|at| {
                let row: Vec<f32> = (0..pairs).map(|i| angle(at, i)).collect();
                row.repeat(2 * heads)
            });
            let values = TensorData::new(rows.collect::<Vec<_>>(), [1, time, 2 * heads, pairs]);
            Tensor::<4>::from_data(values, device)
        };
        Self {
            cos: table(f64::cos),
            sin: table(f64::sin),
        }
    }

    /// Rotates pairs of channels of every query and key by the angles of its position. Heads stay
    /// side by side: exchanged axes would be copied.
    ///
    /// # Shapes
    /// - qkv and output: `[batch, time, 3·heads·d]`
    pub(crate) fn apply(&self, qkv: Tensor<3>) -> Tensor<3> {
        let [batch, time, width] = qkv.dims();
        let [_, _, turned, pairs] = self.cos.dims();
        let heads = turned / 2;
        let each = qkv.reshape([batch, time, 3 * heads, 2 * pairs]);
        let turned = each.clone().narrow(2, 0, 2 * heads);
        let (a, b) = (
            turned.clone().narrow(3, 0, pairs),
            turned.narrow(3, pairs, pairs),
        );
        let real = a.clone() * self.cos.clone() - b.clone() * self.sin.clone();
        let imaginary = b * self.cos.clone() + a * self.sin.clone();
        let turned = Tensor::cat(vec![real, imaginary], 3);
        let values = each.narrow(2, 2 * heads, heads);
        Tensor::cat(vec![turned, values], 2).reshape([batch, time, width])
    }
}
