//! Layers of Stable Audio's transformer.

use crate::models::transformer::FeedForward;
use aigc_core::{
    nn::{
        Activation, Dropout, DropoutConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig,
        RotaryEmbedding,
    },
    ops,
};
use burn::{
    module::Module,
    tensor::{DType, Device, Tensor},
};

/// An activation as an element of a sequence of layers. It has no weights, but files count it in
/// the names of the layers after it.
#[derive(Module, Debug)]
pub(super) struct Activate {
    #[module(skip)]
    activation: Activation,
}

/// Two linear layers with SiLU between them.
pub(super) type TwoLayers = (Linear, Activate, Linear);

/// `widths`: of the input, and of both outputs.
pub(super) fn two_layers(widths: [usize; 2], bias: bool, device: &Device) -> TwoLayers {
    let [from, to] = widths;
    let linear = |from| LinearConfig::new(from, to).with_bias(bias).init(device);
    let activation = Activation::Silu;
    (linear(from), Activate { activation }, linear(to))
}

pub(super) fn through<const D: usize>(layers: &TwoLayers, x: Tensor<D>) -> Tensor<D> {
    let (first, between, second) = layers;
    second.forward(between.activation.forward(first.forward(x)))
}

/// Attention without biases, with as many or fewer heads of keys and values.
#[derive(Module, Debug)]
struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: (Linear, Dropout),
    head_width: usize,
}

impl Attention {
    /// `width` and `heads`: of queries; `context`: of the tokens that keys and values come from.
    fn new(width: usize, heads: usize, context: [usize; 2], device: &Device) -> Self {
        let (head_width, [context_width, context_heads]) = (width / heads, context);
        let linear = |from, to| LinearConfig::new(from, to).with_bias(false).init(device);
        Self {
            to_q: linear(width, width),
            to_k: linear(context_width, context_heads * head_width),
            to_v: linear(context_width, context_heads * head_width),
            to_out: (linear(width, width), DropoutConfig::new(0.0).init()),
            head_width,
        }
    }

    /// # Shapes
    /// - x and output: `[batch, tokens, width]`
    /// - context: `[batch, others, context width]`
    fn forward(
        &self,
        x: Tensor<3>,
        context: Tensor<3>,
        rotary: Option<&PartialRotary>,
    ) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        let heads = |x: Tensor<3>| {
            let [batch, tokens, width] = x.dims();
            x.reshape([batch, tokens, width / self.head_width, self.head_width])
                .swap_dims(1, 2)
        };
        let q = heads(self.to_q.forward(x));
        let k = heads(self.to_k.forward(context.clone()));
        let v = heads(self.to_v.forward(context));
        let (q, k) = match rotary {
            Some(rotary) => (rotary.rotate(q), rotary.rotate(k)),
            None => (q, k),
        };
        let attended = ops::attention(q, k, v, None, false)
            .swap_dims(1, 2)
            .reshape([batch, tokens, width]);
        let (linear, dropout) = &self.to_out;
        dropout.forward(linear.forward(attended))
    }
}

/// Rotary position embeddings of the first channels of a head; the others stay as they are.
#[derive(Clone, Debug)]
pub(super) struct PartialRotary {
    pub(super) table: RotaryEmbedding,
    /// Channels that are turned.
    pub(super) width: usize,
}

impl PartialRotary {
    /// # Shapes
    /// - x and output: `[batch, heads, tokens, d]`
    fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let (d, dtype) = (x.dims()[3], x.dtype());
        // The table has 32 bits.
        let turned = ops::cast(x.clone().narrow(3, 0, self.width), DType::F32);
        let turned = self.table.forward(turned, 0);
        let rest = x.narrow(3, self.width, d - self.width);
        Tensor::cat(vec![ops::cast(turned, dtype), rest], 3)
    }
}

/// Self-attention, cross-attention and a feed-forward layer, each around a skip.
#[derive(Module, Debug)]
pub(super) struct Block {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl Block {
    /// `context`: width of the tokens that cross-attention attends to, and heads of their keys.
    pub(super) fn new(width: usize, heads: usize, context: [usize; 2], device: &Device) -> Self {
        let norm = || LayerNormConfig::new(width).init(device);
        Self {
            norm1: norm(),
            attn1: Attention::new(width, heads, [width, heads], device),
            norm2: norm(),
            attn2: Attention::new(width, heads, context, device),
            norm3: norm(),
            ff: FeedForward::new(width, true, Activation::Silu, 0.0, device),
        }
    }

    /// # Shapes
    /// - x and output: `[batch, tokens, width]`
    /// - context: `[batch, others, context width]`
    pub(super) fn forward(
        &self,
        x: Tensor<3>,
        context: Tensor<3>,
        rotary: &PartialRotary,
    ) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        let x = x + self.attn1.forward(normed.clone(), normed, Some(rotary));
        let normed = self.norm2.forward(x.clone());
        let x = x + self.attn2.forward(normed, context, None);
        x.clone() + self.ff.forward(self.norm3.forward(x))
    }
}
