//! Attention and feed-forward layers between tokens.

use super::blocks::Attend;
use aigc_core::{
    nn::{
        Activation, Conv2d, Conv2dConfig, Dropout, DropoutConfig, GroupNorm, GroupNormConfig,
        LayerNorm, LayerNormConfig, Linear, LinearConfig,
    },
    ops,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Attention of tokens to each other, or to others.
#[derive(Module, Debug)]
pub(crate) struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Vec<Linear>,
    heads: usize,
}

impl Attention {
    /// `context_width`: width of the tokens that keys and values come from.
    pub(crate) fn new(
        width: usize,
        context_width: usize,
        heads: usize,
        bias: bool,
        device: &Device,
    ) -> Self {
        let linear = |from| LinearConfig::new(from, width).with_bias(bias).init(device);
        Self {
            to_q: linear(width),
            to_k: linear(context_width),
            to_v: linear(context_width),
            to_out: vec![LinearConfig::new(width, width).init(device)],
            heads,
        }
    }

    /// # Shapes
    /// - x and output: `[batch, tokens, width]`
    /// - context: `[batch, others, context_width]`
    pub(crate) fn forward(&self, x: Tensor<3>, context: Tensor<3>) -> Tensor<3> {
        let heads = |x: Tensor<3>| {
            let [batch, tokens, width] = x.dims();
            x.reshape([batch, tokens, self.heads, width / self.heads])
                .swap_dims(1, 2)
        };
        let [batch, tokens, width] = x.dims();
        let (q, k, v) = (
            self.to_q.forward(x),
            self.to_k.forward(context.clone()),
            self.to_v.forward(context),
        );
        let attended = ops::attention(heads(q), heads(k), heads(v), None, false);
        self.to_out[0].forward(attended.swap_dims(1, 2).reshape([batch, tokens, width]))
    }
}

/// The first half of a feed-forward layer.
#[derive(Module, Debug)]
pub(crate) struct Widen {
    proj: Linear,
    /// Half of the outputs gate the other half (Shazeer 2020, <https://arxiv.org/abs/2002.05202>).
    gated: bool,
    #[module(skip)]
    activation: Activation,
}

/// A feed-forward layer, four times as wide inside.
#[derive(Module, Debug)]
pub(crate) struct FeedForward {
    net: (Widen, Dropout, Linear),
}

impl FeedForward {
    pub(crate) fn new(
        width: usize,
        gated: bool,
        activation: Activation,
        dropout: f64,
        device: &Device,
    ) -> Self {
        let inner = 4 * width;
        let proj = LinearConfig::new(width, if gated { 2 * inner } else { inner }).init(device);
        let widen = Widen {
            proj,
            gated,
            activation,
        };
        Self {
            net: (
                widen,
                DropoutConfig::new(dropout).init(),
                LinearConfig::new(inner, width).init(device),
            ),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (widen, dropout, narrow) = &self.net;
        let x = widen.proj.forward(x);
        let x = if widen.gated {
            let half = x.dims()[2] / 2;
            x.clone().narrow(2, 0, half) * widen.activation.forward(x.narrow(2, half, half))
        } else {
            widen.activation.forward(x)
        };
        narrow.forward(dropout.forward(x))
    }
}

/// Self-attention, cross-attention and a feed-forward layer, each around a skip.
#[derive(Module, Debug)]
pub(crate) struct TransformerBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
}

impl TransformerBlock {
    fn new(width: usize, context_width: usize, heads: usize, device: &Device) -> Self {
        let norm = || LayerNormConfig::new(width).init(device);
        Self {
            norm1: norm(),
            attn1: Attention::new(width, width, heads, false, device),
            norm2: norm(),
            attn2: Attention::new(width, context_width, heads, false, device),
            norm3: norm(),
            ff: FeedForward::new(width, true, Activation::Gelu, 0.0, device),
        }
    }

    fn forward(&self, x: Tensor<3>, tokens: &Tensor<3>) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        let x = x + self.attn1.forward(normed.clone(), normed);
        let x = x.clone() + self.attn2.forward(self.norm2.forward(x), tokens.clone());
        x.clone() + self.ff.forward(self.norm3.forward(x))
    }
}

/// The pixels of a map as tokens, that attend to each other and to others (Rombach et al. 2022,
/// <https://arxiv.org/abs/2112.10752>, section 3.3).
#[derive(Module, Debug)]
pub(crate) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Conv2d,
    transformer_blocks: Vec<TransformerBlock>,
    proj_out: Conv2d,
}

/// Configuration of a [`SpatialTransformer`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpatialConfig {
    pub(crate) channels: usize,
    pub(crate) groups: usize,
    pub(crate) heads: usize,
    pub(crate) layers: usize,
    /// Width of the tokens that cross-attention attends to.
    pub(crate) context_width: usize,
}

impl SpatialConfig {
    pub(crate) fn init(self, device: &Device) -> SpatialTransformer {
        let Self {
            channels,
            groups,
            heads,
            layers,
            context_width,
        } = self;
        let pixelwise = || Conv2dConfig::new([channels, channels], 1).init(device);
        SpatialTransformer {
            norm: GroupNormConfig::new(groups, channels)
                .with_epsilon(1e-6)
                .init(device),
            proj_in: pixelwise(),
            transformer_blocks: (0..layers)
                .map(|_| TransformerBlock::new(channels, context_width, heads, device))
                .collect(),
            proj_out: pixelwise(),
        }
    }
}

impl Attend for SpatialTransformer {
    fn attend(&self, x: Tensor<4>, tokens: Option<&Tensor<3>>) -> Tensor<4> {
        let tokens = tokens.expect("cross-attention needs encoder hidden states");
        let [batch, channels, height, width] = x.dims();
        let h = self.proj_in.forward(self.norm.forward(x.clone()));
        let h = h.reshape([batch, channels, height * width]).swap_dims(1, 2);
        let h = self
            .transformer_blocks
            .iter()
            .fold(h, |h, block| block.forward(h, tokens));
        x + self
            .proj_out
            .forward(h.swap_dims(1, 2).reshape([batch, channels, height, width]))
    }
}
