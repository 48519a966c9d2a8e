//! The blocks of U-nets.

use super::{
    attention::PromptTokens,
    motion::{LayerHook, UNetLayer},
};
use aigc_core::{
    Error, Result, check,
    nn::{
        Activation,
        diffusers::{
            Downsample2d, Downsample2dConfig, ResnetBlock2d, ResnetBlock2dConfig, SpatialAttention,
            SpatialAttentionConfig, Upsample2d, Upsample2dConfig,
        },
    },
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
            check::positive(field, value)?;
        }
        if padding > 1 {
            return Err(Error::config("downsample_padding", padding, "0 or 1"));
        }
        Ok(self)
    }

    /// `scale`: divisor of the sum with the skip.
    fn resnet(&self, channels: [usize; 2], scale: f64, device: &Device) -> ResnetBlock2d {
        ResnetBlock2dConfig::new(channels, self.groups)
            .with_epsilon(self.epsilon)
            .with_activation(self.activation)
            .with_dropout(self.dropout)
            .with_time_embedding_dim(Some(self.time))
            .with_scale_shift(self.scale_shift)
            .with_output_scale_factor(scale)
            .init(device)
    }

    /// `groups`: of its norm, if it has one.
    pub(crate) fn attention(
        &self,
        channels: usize,
        groups: Option<usize>,
        scale: f64,
        device: &Device,
    ) -> SpatialAttention {
        SpatialAttentionConfig::new(channels)
            .with_num_groups(groups)
            .with_epsilon(self.epsilon)
            .with_heads(channels / self.head_width.unwrap_or(channels))
            .with_output_scale_factor(scale)
            .init(device)
    }
}

/// Attention over the pixels of a map, to each other or to tokens beside it.
pub(crate) trait Attend: Module + ModuleDisplay {
    /// # Shapes
    /// - x and output: `[batch, channels, height, width]`
    fn attend(&self, x: Tensor<4>, tokens: Option<Tokens<'_>>) -> Tensor<4>;
}

impl Attend for SpatialAttention {
    fn attend(&self, x: Tensor<4>, _tokens: Option<Tokens<'_>>) -> Tensor<4> {
        self.forward(x)
    }
}

/// The tokens that cross-attention attends to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens<'a> {
    pub(crate) all: &'a PromptTokens,
    /// Those that a mask leaves.
    pub(crate) visible: &'a PromptTokens,
}

/// The conditions of every block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions<'a> {
    /// `[batch, time]`, activated.
    pub(crate) time: &'a Tensor<2>,
    pub(crate) tokens: Option<Tokens<'a>>,
}

/// Blocks at one size on the way down.
#[derive(Module, Debug)]
pub(crate) struct DownBlock<A: Attend> {
    resnets: Vec<ResnetBlock2d>,
    /// As many, or none.
    attentions: Vec<A>,
    /// One, or none at the smallest size.
    downsamplers: Vec<Downsample2d>,
}

impl<A: Attend> DownBlock<A> {
    /// `attention`: what follows a layer, by its number.
    pub(crate) fn new(
        shared: &Shared,
        [from, to]: [usize; 2],
        layers: usize,
        attention: impl Fn(usize) -> Option<A>,
        padding: Option<usize>,
        device: &Device,
    ) -> Self {
        Self {
            resnets: (0..layers)
                .map(|i| shared.resnet([if i == 0 { from } else { to }, to], 1.0, device))
                .collect(),
            attentions: (0..layers).filter_map(attention).collect(),
            downsamplers: padding
                .iter()
                .map(|padding| {
                    Downsample2dConfig::new(to)
                        .with_padding(*padding)
                        .init(device)
                })
                .collect(),
        }
    }

    /// Adds every map that the way up needs to `skips`.
    fn forward(
        &self,
        mut x: Tensor<4>,
        conditions: Conditions<'_>,
        skips: &mut Vec<Tensor<4>>,
        (block, hook): (usize, &dyn LayerHook),
    ) -> Tensor<4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            let place = UNetLayer::Down { block, layer };
            x = resnet.forward(x, Some(conditions.time));
            x = hook.after_convolutions(place, x);
            if let Some(attention) = self.attentions.get(layer) {
                x = attention.attend(x, conditions.tokens);
            }
            x = hook.after_layer(place, x);
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
    resnets: Vec<ResnetBlock2d>,
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
                .map(|_| shared.resnet([channels, channels], scale, device))
                .collect(),
            attentions: attention.into_iter().collect(),
        }
    }

    /// One layer without attention.
    pub(crate) fn one_layer(shared: &Shared, channels: usize, scale: f64, device: &Device) -> Self {
        Self {
            resnets: vec![shared.resnet([channels, channels], scale, device)],
            attentions: vec![],
        }
    }

    pub(crate) fn forward(
        &self,
        x: Tensor<4>,
        conditions: Conditions<'_>,
        hook: &dyn LayerHook,
    ) -> Tensor<4> {
        let convolutions = |x: Tensor<4>, layer: usize| {
            let x = self.resnets[layer].forward(x, Some(conditions.time));
            hook.after_convolutions(UNetLayer::Middle { layer }, x)
        };
        let x = convolutions(x, 0);
        let x = self
            .attentions
            .iter()
            .fold(x, |x, attention| attention.attend(x, conditions.tokens));
        let x = hook.after_layer(UNetLayer::Middle { layer: 0 }, x);
        (1..self.resnets.len()).fold(x, convolutions)
    }
}

/// Blocks at one size on the way up.
#[derive(Module, Debug)]
pub(crate) struct UpBlock<A: Attend> {
    resnets: Vec<ResnetBlock2d>,
    /// As many, or none.
    attentions: Vec<A>,
    /// One, or none at the largest size.
    upsamplers: Vec<Upsample2d>,
}

impl<A: Attend> UpBlock<A> {
    /// `from`: channels that come from below; `skips`: of the maps from the way down, in the order
    /// they are used; `attention`: what follows a layer, by its number.
    pub(crate) fn new(
        shared: &Shared,
        [from, to]: [usize; 2],
        skips: &[usize],
        attention: impl Fn(usize) -> Option<A>,
        up: bool,
        device: &Device,
    ) -> Self {
        let resnet = |(i, skip): (usize, &usize)| {
            let below = if i == 0 { from } else { to };
            shared.resnet([below + skip, to], 1.0, device)
        };
        Self {
            resnets: skips.iter().enumerate().map(resnet).collect(),
            attentions: (0..skips.len()).filter_map(attention).collect(),
            upsamplers: up
                .then(|| Upsample2dConfig::new(to).init(device))
                .into_iter()
                .collect(),
        }
    }

    /// Takes from the end of `skips`. The output has the sides of the next map there: an odd side
    /// was rounded when it was halved.
    fn forward(
        &self,
        mut x: Tensor<4>,
        conditions: Conditions<'_>,
        skips: &mut Vec<Tensor<4>>,
        (block, hook): (usize, &dyn LayerHook),
    ) -> Tensor<4> {
        for (layer, resnet) in self.resnets.iter().enumerate() {
            let place = UNetLayer::Up { block, layer };
            let skip = skips.pop().expect("as many maps as on the way down");
            x = resnet.forward(Tensor::cat(vec![x, skip], 1), Some(conditions.time));
            x = hook.after_convolutions(place, x);
            if let Some(attention) = self.attentions.get(layer) {
                x = attention.attend(x, conditions.tokens);
            }
            x = hook.after_layer(place, x);
        }
        match (self.upsamplers.first(), skips.last().map(Tensor::dims)) {
            (Some(up), Some([.., height, width])) => up.forward_to(x, [height, width]),
            _ => x,
        }
    }
}

/// Down to the smallest size: the last map, and every map that the way up needs, in order.
pub(crate) fn down<A: Attend>(
    mut x: Tensor<4>,
    conditions: Conditions<'_>,
    blocks: &[DownBlock<A>],
    hook: &dyn LayerHook,
) -> (Tensor<4>, Vec<Tensor<4>>) {
    let mut skips = vec![x.clone()];
    for (number, block) in blocks.iter().enumerate() {
        x = block.forward(x, conditions, &mut skips, (number, hook));
    }
    (x, skips)
}

/// Up from the smallest size, every map on the way down joined to its like on the way up.
pub(crate) fn up<A: Attend>(
    x: Tensor<4>,
    conditions: Conditions<'_>,
    mut skips: Vec<Tensor<4>>,
    blocks: &[UpBlock<A>],
    hook: &dyn LayerHook,
) -> Tensor<4> {
    blocks.iter().enumerate().fold(x, |x, (number, block)| {
        block.forward(x, conditions, &mut skips, (number, hook))
    })
}
