//! The layers of SEANet (Tagliasacchi et al. 2020, <https://arxiv.org/abs/2009.02095>), as Encodec
//! has them.

use super::config::{EncodecConfig, EncodecNorm};
use aigc_core::{
    nn::{
        Activation, Conv1d, Conv1dConfig, ConvTranspose1d, ConvTranspose1dConfig, GroupNorm,
        GroupNormConfig, Lstm, LstmConfig, PaddingMode,
    },
    ops,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Settings that all layers of a model share.
pub(super) struct Style<'a> {
    pub(super) config: &'a EncodecConfig,
    /// Whether convolutions have weight norm: weights in files may be without.
    pub(super) weight_norm: bool,
    pub(super) device: &'a Device,
}

impl Style<'_> {
    fn norm(&self, channels: usize) -> Option<GroupNorm> {
        let has_norm = self.config.norm_type == EncodecNorm::TimeGroupNorm;
        has_norm.then(|| GroupNormConfig::new(1, channels).init(self.device))
    }
}

/// The activation of all layers.
pub(super) fn elu(x: Tensor<3>) -> Tensor<3> {
    Activation::Elu(1.0).forward(x)
}

/// An ELU. transformers counts it among the layers, so that it has an index in the names of
/// weights.
#[derive(Module, Debug)]
pub(super) struct Elu {
    alpha: f64,
}

impl Elu {
    pub(super) fn new() -> Self {
        Self { alpha: 1.0 }
    }
}

/// A convolution whose input is padded so that it has an output for every `stride` samples.
#[derive(Module, Debug)]
pub(super) struct SeanetConv {
    pub(super) conv: Conv1d,
    norm: Option<GroupNorm>,
    /// Samples that an output is made of, from the first to the last.
    pub(super) reach: usize,
    pub(super) stride: usize,
    causal: bool,
    #[module(skip)]
    pub(super) pad_mode: PaddingMode,
}

impl SeanetConv {
    pub(super) fn new(
        style: &Style<'_>,
        channels: [usize; 2],
        kernel: usize,
        stride: usize,
        dilation: usize,
    ) -> Self {
        Self {
            conv: Conv1dConfig::new(channels, kernel)
                .with_stride(stride)
                .with_dilation(dilation)
                .with_weight_norm(style.weight_norm)
                .init_scaled(1.0, style.device),
            norm: style.norm(channels[1]),
            reach: dilation * (kernel - 1) + 1,
            stride,
            causal: style.config.use_causal_conv,
            pad_mode: style.config.pad_mode,
        }
    }

    /// In a causal convolution, the number of samples that an output depends on before the `stride`
    /// samples that it stands for.
    pub(super) fn history(&self) -> usize {
        self.reach.saturating_sub(self.stride)
    }

    /// # Shapes
    /// - x: `[batch, channels_in, time]`
    /// - output: `[batch, channels_out, ⌈time / stride⌉]`
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let time = x.dims()[2];
        let (total, missing) = (self.history(), time.next_multiple_of(self.stride) - time);
        let pads = match self.causal {
            true => [total, missing],
            false => [total - total / 2, total / 2 + missing],
        };
        let y = self.conv.forward(ops::pad1d(x, pads, self.pad_mode));
        match &self.norm {
            Some(norm) => norm.forward(y),
            None => y,
        }
    }

    pub(super) fn fold(self) -> Self {
        Self {
            conv: self.conv.fold(),
            ..self
        }
    }
}

/// A transposed convolution whose output is cut to `stride` samples for every input.
#[derive(Module, Debug)]
pub(super) struct SeanetConvTranspose {
    pub(super) conv: ConvTranspose1d,
    norm: Option<GroupNorm>,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    /// Samples that are cut off at the end.
    right: usize,
}

impl SeanetConvTranspose {
    pub(super) fn new(style: &Style<'_>, channels: [usize; 2], ratio: usize) -> Self {
        // The kernel is twice as long as the stride.
        let excess = ratio;
        let config = style.config;
        let right = match config.use_causal_conv {
            true => (excess as f64 * config.trim_right_ratio).ceil() as usize,
            false => excess / 2,
        };
        Self {
            conv: ConvTranspose1dConfig::new(channels, 2 * ratio)
                .with_stride(ratio)
                .with_weight_norm(style.weight_norm)
                .init_scaled(1.0, style.device),
            norm: style.norm(channels[1]),
            kernel: 2 * ratio,
            stride: ratio,
            right,
        }
    }

    /// # Shapes
    /// - x: `[batch, channels_in, time]`
    /// - output: `[batch, channels_out, stride·time]`
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let time = x.dims()[2];
        let y = self.conv.forward(x);
        let y = match &self.norm {
            Some(norm) => norm.forward(y),
            None => y,
        };
        let left = self.kernel - self.stride - self.right;
        y.narrow(2, left, time * self.stride)
    }

    pub(super) fn fold(self) -> Self {
        Self {
            conv: self.conv.fold(),
            ..self
        }
    }
}

/// A residual block: a dilated convolution to fewer channels, and one of one sample back.
#[derive(Module, Debug)]
pub(super) struct SeanetBlock {
    pub(super) block: (Elu, SeanetConv, Elu, SeanetConv),
    pub(super) shortcut: Option<SeanetConv>,
}

impl SeanetBlock {
    pub(super) fn new(style: &Style<'_>, channels: usize, index: usize) -> Self {
        let config = style.config;
        let hidden = (channels / config.compress).max(1);
        let dilation = config.dilation_growth_rate.pow(index as u32);
        let kernel = config.residual_kernel_size;
        let pointwise = |channels| SeanetConv::new(style, channels, 1, 1, 1);
        let first = SeanetConv::new(style, [channels, hidden], kernel, 1, dilation);
        Self {
            block: (Elu::new(), first, Elu::new(), pointwise([hidden, channels])),
            shortcut: config
                .use_conv_shortcut
                .then(|| pointwise([channels, channels])),
        }
    }

    /// # Shapes
    /// - x and output: `[batch, channels, time]`
    pub(super) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let (_, first, _, second) = &self.block;
        let y = second.forward(elu(first.forward(elu(x.clone()))));
        self.shortened(x) + y
    }

    /// The shortcut, which sees one sample at a time.
    pub(super) fn shortened(&self, x: Tensor<3>) -> Tensor<3> {
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        }
    }

    pub(super) fn fold(self) -> Self {
        let (before, first, between, second) = self.block;
        Self {
            block: (before, first.fold(), between, second.fold()),
            shortcut: self.shortcut.map(SeanetConv::fold),
        }
    }
}

/// A recurrent network with a shortcut.
#[derive(Module, Debug)]
pub(super) struct SeanetLstm {
    pub(super) lstm: Lstm,
}

impl SeanetLstm {
    pub(super) fn new(style: &Style<'_>, channels: usize) -> Self {
        Self {
            lstm: LstmConfig::new(channels, channels)
                .with_num_layers(style.config.num_lstm_layers)
                .init(style.device),
        }
    }
}

/// A layer of the encoder or the decoder.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // A model has a few dozen.
pub(super) enum SeanetLayer {
    Conv(SeanetConv),
    Upsample(SeanetConvTranspose),
    Block(SeanetBlock),
    Lstm(SeanetLstm),
    Elu(Elu),
}

impl SeanetLayer {
    pub(super) fn fold(self) -> Self {
        match self {
            SeanetLayer::Conv(layer) => SeanetLayer::Conv(layer.fold()),
            SeanetLayer::Upsample(layer) => SeanetLayer::Upsample(layer.fold()),
            SeanetLayer::Block(layer) => SeanetLayer::Block(layer.fold()),
            other => other,
        }
    }
}
