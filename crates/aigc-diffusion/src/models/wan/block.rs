//! A block of Wan's transformer, and the norms that its conditions scale and shift.

use super::config::WanTransformer3dConfig;
use crate::models::{
    attention::{Attention, AttentionConfig, PromptTokens},
    transformers::{RotaryTable, modulated_norm},
};
use aigc_core::{
    nn::{
        Activation, Dropout, DropoutConfig, Initializer, LayerNorm, LayerNormConfig, Linear,
        LinearConfig,
    },
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{DType, Device, Tensor},
};

/// A tensor of 16-bit floats as 32-bit ones; others as they are.
pub(crate) fn widened<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F16 | DType::BF16 => ops::cast(x, DType::F32),
        _ => x,
    }
}

/// A table that is added to the conditions, normally distributed at first. The last axis of its
/// shape is the width of the tokens.
pub(crate) fn table<const D: usize>(shape: [usize; D], device: &Device) -> Param<Tensor<D>> {
    let width = shape[D - 1];
    let normal = Initializer::Normal {
        mean: 0.0,
        std: 1.0 / (width as f64).sqrt(),
    };
    normal.param(shape, width, width, device)
}

/// The sums of a table and of the conditions, `[batch, 1, width]` each.
///
/// # Shapes
/// - table: `[1, N, width]`
/// - conditions: `[batch, N, width]` or `[batch, 1, width]`
pub(crate) fn parts<const N: usize>(table: Tensor<3>, conditions: Tensor<3>) -> [Tensor<3>; N] {
    let all = conditions.clone() + ops::cast(table, conditions.dtype());
    std::array::from_fn(|i| all.clone().narrow(1, i, 1))
}

/// `norm(x)·(1 + scale) + shift`, computed in 32 bits also for `x` in half precision.
///
/// # Shapes
/// - x and output: `[batch, tokens, width]`
/// - scale and shift: `[batch, 1, width]`, in 32 bits
pub(super) fn modulated(
    x: &Tensor<3>,
    scale: Tensor<3>,
    shift: Tensor<3>,
    epsilon: f64,
) -> Tensor<3> {
    let normed = modulated_norm(widened(x.clone()), scale, shift, epsilon);
    ops::cast(normed, x.dtype())
}

/// `x + gate·y`, computed in 32 bits.
fn gated(x: Tensor<3>, y: Tensor<3>, gate: Tensor<3>) -> Tensor<3> {
    let dtype = x.dtype();
    ops::cast(widened(x) + widened(y) * gate, dtype)
}

/// The first half of a feed-forward layer.
#[derive(Module, Debug)]
struct Widen {
    proj: Linear,
}

/// A feed-forward layer of any inner width. The dropout, which is never used, keeps the places that
/// the weights have in files.
#[derive(Module, Debug)]
struct FeedForward {
    net: (Widen, Dropout, Linear),
}

impl FeedForward {
    fn new(width: usize, inner: usize, device: &Device) -> Self {
        let proj = LinearConfig::new(width, inner).init(device);
        let narrow = LinearConfig::new(inner, width).init(device);
        Self {
            net: (Widen { proj }, DropoutConfig::new(0.0).init(), narrow),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (widen, _, narrow) = &self.net;
        narrow.forward(Activation::GeluTanh.forward(widen.proj.forward(x)))
    }
}

/// Attention of all tokens to each other, attention to the prompt and a feed-forward layer, each
/// around a skip.
#[derive(Module, Debug)]
pub(super) struct WanBlock {
    attn1: Attention,
    attn2: Attention,
    norm2: Option<LayerNorm>,
    ffn: FeedForward,
    /// `[1, 6, width]`
    scale_shift_table: Param<Tensor<3>>,
}

impl WanBlock {
    pub(super) fn new(config: &WanTransformer3dConfig, device: &Device) -> Self {
        let width = config.width();
        let attention = AttentionConfig {
            whole_norm: Some(config.eps),
            ..AttentionConfig::new(width, config.num_attention_heads)
        };
        let norm = || {
            LayerNormConfig::new(width)
                .with_epsilon(config.eps)
                .init(device)
        };
        Self {
            attn1: attention.init(device),
            attn2: attention.init(device),
            norm2: config.cross_attn_norm.then(norm),
            ffn: FeedForward::new(width, config.ffn_dim, device),
            scale_shift_table: table([1, 6, width], device),
        }
    }

    /// # Shapes
    /// - x and output: `[batch, tokens, width]`
    /// - conditions: `[batch, 6, width]`, in 32 bits
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        conditions: &Tensor<3>,
        text: &PromptTokens,
        rotary: &RotaryTable,
        epsilon: f64,
    ) -> Tensor<3> {
        let [shift, scale, gate, shift_ff, scale_ff, gate_ff] =
            parts(self.scale_shift_table.val(), conditions.clone());
        let normed = modulated(&x, scale, shift, epsilon);
        let attended = self.attn1.forward(normed, Some(rotary));
        let x = gated(x, attended, gate);
        let normed = match &self.norm2 {
            Some(norm) => norm.forward(x.clone()),
            None => x.clone(),
        };
        let x = x + self.attn2.cross(normed, text);
        let normed = modulated(&x, scale_ff, shift_ff, epsilon);
        gated(x, self.ffn.forward(normed), gate_ff)
    }
}
