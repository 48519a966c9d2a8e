//! The blocks of U-nets.

use aigc_core::{
    Error, Result,
    nn::{
        Activation, Conv2d, Conv2dConfig, Dropout, DropoutConfig, GroupNorm, GroupNormConfig,
        Linear, LinearConfig,
    },
    ops,
};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Device, Tensor},
};

/// Settings that all blocks of a network share.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared {
    /// Width of the time embedding.
    pub(crate) time: usize,
    pub(crate) groups: usize,
    pub(crate) epsilon: f64,
    pub(crate) activation: Activation,
    pub(crate) dropout: f64,
    /// The time scales and shifts a norm's output, instead of being added before it.
    pub(crate) scale_shift: bool,
    /// Channels of a head of attention.
    pub(crate) head_width: Option<usize>,
}

fn conv3(from: usize, to: usize, device: &Device) -> Conv2d {
    Conv2dConfig::new([from, to], 3)
        .with_padding(1)
        .init(device)
}

impl Shared {
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub(crate) fn checked(self, middle_scale: f64, padding: usize) -> Result<Self> {
        if !(0.0..1.0).contains(&self.dropout) {
            return Err(Error::config(
                "dropout",
                self.dropout,
                "0 or more, less than 1",
            ));
        }
        for (field, value) in [
            ("norm_eps", self.epsilon),
            ("mid_block_scale_factor", middle_scale),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(Error::config(field, value, "more than 0"));
            }
        }
        if padding > 1 {
            return Err(Error::config("downsample_padding", padding, "0 or 1"));
        }
        Ok(self)
    }

    fn norm(&self, channels: usize, device: &Device) -> GroupNorm {
        GroupNormConfig::new(self.groups, channels)
            .with_epsilon(self.epsilon)
            .init(device)
    }
}

/// Two convolutions around a skip, with the time embedding between them (Ho et al. 2020, appendix
/// B).
#[derive(Module, Debug)]
pub(crate) struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Linear,
    norm2: GroupNorm,
    dropout: Dropout,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
    #[module(skip)]
    activation: Activation,
    scale_shift: bool,
    scale: f64,
}

impl ResnetBlock {
    /// `scale`: divisor of the sum with the skip.
    pub(crate) fn new(
        shared: &Shared,
        from: usize,
        to: usize,
        scale: f64,
        device: &Device,
    ) -> Self {
        let width = if shared.scale_shift { 2 * to } else { to };
        Self {
            norm1: shared.norm(from, device),
            conv1: conv3(from, to, device),
            time_emb_proj: LinearConfig::new(shared.time, width).init(device),
            norm2: shared.norm(to, device),
            dropout: DropoutConfig::new(shared.dropout).init(),
            conv2: conv3(to, to, device),
            conv_shortcut: (from != to).then(|| Conv2dConfig::new([from, to], 1).init(device)),
            activation: shared.activation,
            scale_shift: shared.scale_shift,
            scale,
        }
    }

    /// # Shapes
    /// - x: `[batch, from, height, width]`
    /// - time: `[batch, time]`, activated
    /// - output: `[batch, to, height, width]`
    pub(crate) fn forward(&self, x: Tensor<4>, time: Tensor<2>) -> Tensor<4> {
        let h = self.conv1.forward(
            self.norm1
                .forward_with_activation(x.clone(), self.activation),
        );
        let embedding = self.time_emb_proj.forward(time);
        let [batch, width] = embedding.dims();
        let embedding = embedding.reshape([batch, width, 1, 1]);
        let h = if self.scale_shift {
            let (scale, shift) = (
                embedding.clone().narrow(1, 0, width / 2),
                embedding.narrow(1, width / 2, width / 2),
            );
            self.activation
                .forward(self.norm2.forward(h) * (scale + 1.0) + shift)
        } else {
            self.norm2
                .forward_with_activation(h + embedding, self.activation)
        };
        let h = self.conv2.forward(self.dropout.forward(h));
        let x = match &self.conv_shortcut {
            Some(shortcut) => shortcut.forward(x),
            None => x,
        };
        divided(x + h, self.scale)
    }
}

/// Self-attention between the pixels of a map, around a skip.
#[derive(Module, Debug)]
pub(crate) struct AttentionBlock {
    group_norm: Option<GroupNorm>,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Vec<Linear>,
    heads: usize,
    scale: f64,
}

impl AttentionBlock {
    /// `groups`: of its norm, if it has one.
    pub(crate) fn new(
        shared: &Shared,
        channels: usize,
        groups: Option<usize>,
        scale: f64,
        device: &Device,
    ) -> Self {
        let linear = || LinearConfig::new(channels, channels).init(device);
        Self {
            group_norm: groups.map(|groups| {
                GroupNormConfig::new(groups, channels)
                    .with_epsilon(shared.epsilon)
                    .init(device)
            }),
            to_q: linear(),
            to_k: linear(),
            to_v: linear(),
            to_out: vec![linear()],
            heads: channels / shared.head_width.unwrap_or(channels),
            scale,
        }
    }

    /// # Shapes
    /// - x and output: `[batch, channels, height, width]`
    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let [batch, channels, height, width] = x.dims();
        let normed = match &self.group_norm {
            Some(norm) => norm.forward(x.clone()),
            None => x.clone(),
        };
        let tokens = normed
            .reshape([batch, channels, height * width])
            .swap_dims(1, 2);
        // One product instead of three.
        let layers = [&self.to_q, &self.to_k, &self.to_v];
        let weight = Tensor::cat(layers.map(|layer| layer.weight.val()).to_vec(), 1);
        let bias = Tensor::cat(
            layers
                .map(|layer| layer.bias.as_ref().expect("built with a bias").val())
                .to_vec(),
            0,
        );
        let attended =
            ops::self_attention(ops::linear(tokens, weight, Some(bias)), self.heads, false);
        let h = self.to_out[0]
            .forward(attended)
            .swap_dims(1, 2)
            .reshape([batch, channels, height, width]);
        divided(x + h, self.scale)
    }
}

fn divided(x: Tensor<4>, by: f64) -> Tensor<4> {
    if by == 1.0 { x } else { x / by }
}

/// A convolution to half the side.
#[derive(Module, Debug)]
pub(crate) struct Downsample {
    conv: Conv2d,
    /// Zeros go after the last row and column only.
    one_sided: bool,
}

impl Downsample {
    pub(crate) fn new(channels: usize, padding: usize, device: &Device) -> Self {
        let conv = Conv2dConfig::new([channels, channels], 3)
            .with_stride(2)
            .with_padding(padding)
            .init(device);
        Self {
            conv,
            one_sided: padding == 0,
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let x = if self.one_sided {
            x.pad((0, 1, 0, 1), 0.0)
        } else {
            x
        };
        self.conv.forward(x)
    }
}

/// Every pixel four times, then a convolution.
#[derive(Module, Debug)]
pub(crate) struct Upsample {
    conv: Conv2d,
}

impl Upsample {
    pub(crate) fn new(channels: usize, device: &Device) -> Self {
        Self {
            conv: conv3(channels, channels, device),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        self.conv.forward(ops::upsample_nearest2d(x, 2))
    }
}

/// Attention over the pixels of a map, to each other or to tokens beside it.
pub(crate) trait Attend: Module + ModuleDisplay {
    /// # Shapes
    /// - x and output: `[batch, channels, height, width]`
    /// - tokens: `[batch, tokens, width]`, for cross-attention
    fn attend(&self, x: Tensor<4>, tokens: Option<&Tensor<3>>) -> Tensor<4>;
}

impl Attend for AttentionBlock {
    fn attend(&self, x: Tensor<4>, _tokens: Option<&Tensor<3>>) -> Tensor<4> {
        self.forward(x)
    }
}

/// The conditions of every block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions<'a> {
    /// `[batch, time]`, activated.
    pub(crate) time: &'a Tensor<2>,
    /// `[batch, tokens, width]`.
    pub(crate) tokens: Option<&'a Tensor<3>>,
}

/// Blocks at one size on the way down.
#[derive(Module, Debug)]
pub(crate) struct DownBlock<A: Attend> {
    resnets: Vec<ResnetBlock>,
    /// As many, or none.
    attentions: Vec<A>,
    /// One, or none at the smallest size.
    downsamplers: Vec<Downsample>,
}

impl<A: Attend> DownBlock<A> {
    /// `attention`: what follows each of the layers.
    pub(crate) fn new(
        shared: &Shared,
        [from, to]: [usize; 2],
        layers: usize,
        attention: impl Fn() -> Option<A>,
        padding: Option<usize>,
        device: &Device,
    ) -> Self {
        Self {
            resnets: (0..layers)
                .map(|i| ResnetBlock::new(shared, if i == 0 { from } else { to }, to, 1.0, device))
                .collect(),
            attentions: (0..layers).filter_map(|_| attention()).collect(),
            downsamplers: padding
                .iter()
                .map(|padding| Downsample::new(to, *padding, device))
                .collect(),
        }
    }

    /// Adds every map that the way up needs to `skips`.
    pub(crate) fn forward(
        &self,
        mut x: Tensor<4>,
        conditions: Conditions<'_>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            x = resnet.forward(x, conditions.time.clone());
            if let Some(attention) = self.attentions.get(i) {
                x = attention.attend(x, conditions.tokens);
            }
            skips.push(x.clone());
        }
        if let Some(down) = self.downsamplers.first() {
            x = down.forward(x);
            skips.push(x.clone());
        }
        x
    }
}

/// The blocks at the smallest size.
#[derive(Module, Debug)]
pub(crate) struct MidBlock<A: Attend> {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<A>,
}

impl<A: Attend> MidBlock<A> {
    /// `attention`: what stands between the two layers.
    pub(crate) fn new(
        shared: &Shared,
        channels: usize,
        attention: Option<A>,
        scale: f64,
        device: &Device,
    ) -> Self {
        Self {
            resnets: (0..2)
                .map(|_| ResnetBlock::new(shared, channels, channels, scale, device))
                .collect(),
            attentions: attention.into_iter().collect(),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>, conditions: Conditions<'_>) -> Tensor<4> {
        let x = self.resnets[0].forward(x, conditions.time.clone());
        let x = self
            .attentions
            .iter()
            .fold(x, |x, attention| attention.attend(x, conditions.tokens));
        self.resnets[1].forward(x, conditions.time.clone())
    }
}

/// Blocks at one size on the way up.
#[derive(Module, Debug)]
pub(crate) struct UpBlock<A: Attend> {
    resnets: Vec<ResnetBlock>,
    /// As many, or none.
    attentions: Vec<A>,
    /// One, or none at the largest size.
    upsamplers: Vec<Upsample>,
}

impl<A: Attend> UpBlock<A> {
    /// `from`: channels that come from below; `skips`: of the maps from the way down, in the order
    /// they are used.
    pub(crate) fn new(
        shared: &Shared,
        [from, to]: [usize; 2],
        skips: &[usize],
        attention: impl Fn() -> Option<A>,
        up: bool,
        device: &Device,
    ) -> Self {
        let resnet = |(i, skip): (usize, &usize)| {
            let below = if i == 0 { from } else { to };
            ResnetBlock::new(shared, below + skip, to, 1.0, device)
        };
        Self {
            resnets: skips.iter().enumerate().map(resnet).collect(),
            attentions: skips.iter().filter_map(|_| attention()).collect(),
            upsamplers: up.then(|| Upsample::new(to, device)).into_iter().collect(),
        }
    }

    /// Takes from the end of `skips`.
    pub(crate) fn forward(
        &self,
        mut x: Tensor<4>,
        conditions: Conditions<'_>,
        skips: &mut Vec<Tensor<4>>,
    ) -> Tensor<4> {
        for (i, resnet) in self.resnets.iter().enumerate() {
            let skip = skips.pop().expect("as many maps as on the way down");
            x = resnet.forward(Tensor::cat(vec![x, skip], 1), conditions.time.clone());
            if let Some(attention) = self.attentions.get(i) {
                x = attention.attend(x, conditions.tokens);
            }
        }
        match self.upsamplers.first() {
            Some(up) => up.forward(x),
            None => x,
        }
    }
}

/// Down to the smallest size and up again, every map on the way down joined to its like on the way
/// up.
pub(crate) fn through<A: Attend>(
    mut x: Tensor<4>,
    conditions: Conditions<'_>,
    down: &[DownBlock<A>],
    middle: &MidBlock<A>,
    up: &[UpBlock<A>],
) -> Tensor<4> {
    let mut skips = vec![x.clone()];
    for block in down {
        x = block.forward(x, conditions, &mut skips);
    }
    x = middle.forward(x, conditions);
    for block in up {
        x = block.forward(x, conditions, &mut skips);
    }
    x
}
