//! Transformer blocks over the pixels of a map, and their feed-forward layers.

use super::{
    attention::{Attention, AttentionConfig},
    blocks::{Attend, Tokens},
};
use aigc_core::{
    Error, Result, check,
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

/// The activation that a configuration's `activation_fn` names, for layers with its `dropout`.
///
/// # Errors
/// [`Error::Config`] names the field that is out of range.
pub(crate) fn feed_forward_activation(name: &str, dropout: f64) -> Result<Activation> {
    let expected = "0 or more, less than 1";
    check::ensure((0.0..1.0).contains(&dropout), "dropout", dropout, expected)?;
    match name {
        "gelu-approximate" => Ok(Activation::GeluTanh),
        "gelu" => Ok(Activation::Gelu),
        other => {
            let expected = "gelu-approximate or gelu";
            Err(Error::config("activation_fn", other, expected))
        }
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
        let x = if widen.gated {
            let [x, gate] = widen.proj.forward_parts(x);
            x * widen.activation.forward(gate)
        } else {
            widen.activation.forward(widen.proj.forward(x))
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
    /// The first attention is to the tokens too.
    only_cross_attention: bool,
}

impl TransformerBlock {
    pub(super) fn new(config: SpatialConfig, device: &Device) -> Self {
        let SpatialConfig {
            channels: width,
            heads,
            context_width,
            only_cross_attention,
            ..
        } = config;
        let norm = || LayerNormConfig::new(width).init(device);
        let attention = |context_width| {
            let config = AttentionConfig {
                context_width,
                bias: false,
                ..AttentionConfig::new(width, heads)
            };
            config.init(device)
        };
        Self {
            norm1: norm(),
            attn1: attention(if only_cross_attention {
                context_width
            } else {
                width
            }),
            norm2: norm(),
            attn2: attention(context_width),
            norm3: norm(),
            ff: FeedForward::new(width, true, Activation::Gelu, 0.0, device),
            only_cross_attention,
        }
    }

    pub(super) fn forward(&self, x: Tensor<3>, tokens: Tokens<'_>) -> Tensor<3> {
        let normed = self.norm1.forward(x.clone());
        let x = x + match self.only_cross_attention {
            // diffusers does not apply the mask here.
            true => self.attn1.cross(normed, tokens.all),
            false => self.attn1.forward(normed, None),
        };
        let normed = self.norm2.forward(x.clone());
        let x = x + self.attn2.cross(normed, tokens.visible);
        x.clone() + self.ff.forward(self.norm3.forward(x))
    }
}

/// The pixels of a map as tokens, that attend to each other and to others (Rombach et al. 2022,
/// <https://arxiv.org/abs/2112.10752>, section 3.3).
#[derive(Module, Debug)]
pub(crate) struct SpatialTransformer {
    norm: GroupNorm,
    proj_in: Pixelwise,
    transformer_blocks: Vec<TransformerBlock>,
    proj_out: Pixelwise,
}

/// One layer for all pixels: a convolution of one pixel, or a linear layer. The two differ in the
/// shape of their weights only.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // Of a network's many parts, two are of this type.
enum Pixelwise {
    Conv(Conv2d),
    Linear(Linear),
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
    /// Whether the projections around the layers are linear layers, not convolutions.
    pub(crate) linear_projection: bool,
    /// Whether pixels do not attend to each other, but twice to the tokens.
    pub(crate) only_cross_attention: bool,
}

impl SpatialConfig {
    pub(crate) fn init(self, device: &Device) -> SpatialTransformer {
        let Self {
            channels, groups, ..
        } = self;
        let pixelwise = || match self.linear_projection {
            true => Pixelwise::Linear(LinearConfig::new(channels, channels).init(device)),
            false => Pixelwise::Conv(Conv2dConfig::new([channels, channels], 1).init(device)),
        };
        SpatialTransformer {
            norm: GroupNormConfig::new(groups, channels)
                .with_epsilon(1e-6)
                .init(device),
            proj_in: pixelwise(),
            transformer_blocks: (0..self.layers)
                .map(|_| TransformerBlock::new(self, device))
                .collect(),
            proj_out: pixelwise(),
        }
    }
}

impl Attend for SpatialTransformer {
    fn attend(&self, x: Tensor<4>, tokens: Option<Tokens<'_>>) -> Tensor<4> {
        let tokens = tokens.expect("cross-attention needs encoder hidden states");
        let [batch, channels, height, width] = x.dims();
        let pixels = |map: Tensor<4>| {
            let map = map.reshape([batch, channels, height * width]);
            ops::contiguous(map.swap_dims(1, 2))
        };
        let map = |pixels: Tensor<3>| {
            let map = ops::contiguous(pixels.swap_dims(1, 2));
            map.reshape([batch, channels, height, width])
        };
        let h = self.norm.forward(x.clone());
        let h = match &self.proj_in {
            Pixelwise::Conv(conv) => pixels(conv.forward(h)),
            Pixelwise::Linear(linear) => linear.forward(pixels(h)),
        };
        let h = self
            .transformer_blocks
            .iter()
            .fold(h, |h, block| block.forward(h, tokens));
        let h = match &self.proj_out {
            Pixelwise::Conv(conv) => conv.forward(map(h)),
            Pixelwise::Linear(linear) => map(linear.forward(h)),
        };
        x + h
    }
}
