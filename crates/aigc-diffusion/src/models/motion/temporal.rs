//! Transformers over the frames of a video: each pixel attends to itself at other times.

use crate::models::{
    attention::{Attention, AttentionConfig},
    transformer::FeedForward,
};
use aigc_core::{
    nn::{
        Activation, GroupNorm, GroupNormConfig, Initializer, LayerNorm, LayerNormConfig, Linear,
        LinearConfig,
    },
    ops,
};
use burn::{
    module::{Module, Param, ParamId},
    tensor::{Device, Tensor, TensorData},
};

/// Configuration of a [`TemporalTransformer`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct TemporalConfig {
    pub(crate) channels: usize,
    pub(crate) groups: usize,
    pub(crate) heads: usize,
    pub(crate) head_width: usize,
    /// Transformer blocks.
    pub(crate) layers: usize,
    /// Rows of the table of positions, if there is one.
    pub(crate) positions: Option<usize>,
    /// Whether the last layer is zero at first, so that maps pass unchanged.
    pub(crate) zero_output: bool,
}

/// Rows of sines and cosines that are added to tokens (Vaswani et al. 2017,
/// <https://arxiv.org/abs/1706.03762>, section 3.5), side by side. They are not trained.
#[derive(Module, Debug)]
struct Positions {
    /// `[1, positions, width]`
    pe: Param<Tensor<3>>,
}

impl Positions {
    fn new(count: usize, width: usize, device: &Device) -> Self {
        let table = move |device: &Device, require_grad: bool| {
            let table = TensorData::new(sinusoids(count, width), [1, count, width]);
            let table: Tensor<3> = Tensor::from_data(table, device);
            table.set_require_grad(require_grad)
        };
        let shape = [1, count, width].into();
        Self {
            pe: Param::uninitialized(ParamId::new(), table, device.clone(), false, shape),
        }
    }

    /// # Panics
    /// If there are more tokens than positions.
    fn added_to(&self, x: Tensor<3>) -> Tensor<3> {
        let (table, frames) = (self.pe.val(), x.dims()[1]);
        let count = table.dims()[1];
        assert!(
            frames <= count,
            "{frames} frames, more than the {count} positions of the motion modules"
        );
        let table = ops::cast(table.narrow(1, 0, frames), x.dtype());
        x + table
    }
}

fn sinusoids(count: usize, width: usize) -> Vec<f32> {
    let value = |at: usize| {
        let (position, i) = (at / width, at % width);
        let exponent = (i - i % 2) as f64 / width as f64;
        let angle = position as f64 * 10_000f64.powf(-exponent);
        let value = if i % 2 == 0 { angle.sin() } else { angle.cos() };
        value as f32
    };
    (0..count * width).map(value).collect()
}

/// Two self-attentions and a feed-forward layer, each around a skip.
#[derive(Module, Debug)]
struct TemporalBlock {
    norm1: LayerNorm,
    attn1: Attention,
    norm2: LayerNorm,
    attn2: Attention,
    norm3: LayerNorm,
    ff: FeedForward,
    pos_embed: Option<Positions>,
}

impl TemporalBlock {
    fn new(config: TemporalConfig, device: &Device) -> Self {
        let width = config.heads * config.head_width;
        let norm = || LayerNormConfig::new(width).init(device);
        let attention = || {
            let config = AttentionConfig {
                bias: false,
                ..AttentionConfig::new(width, config.heads)
            };
            config.init(device)
        };
        Self {
            norm1: norm(),
            attn1: attention(),
            norm2: norm(),
            attn2: attention(),
            norm3: norm(),
            ff: FeedForward::new(width, true, Activation::Gelu, 0.0, device),
            pos_embed: config
                .positions
                .map(|count| Positions::new(count, width, device)),
        }
    }

    /// # Shapes
    /// - x and output: `[pixels, frames, width]`
    fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let placed = |x: Tensor<3>| match &self.pos_embed {
            Some(positions) => positions.added_to(x),
            None => x,
        };
        let normed = placed(self.norm1.forward(x.clone()));
        let x = x + self.attn1.forward(normed, None);
        let normed = placed(self.norm2.forward(x.clone()));
        let x = x + self.attn2.forward(normed, None);
        x.clone() + self.ff.forward(self.norm3.forward(x))
    }
}

/// The frames of each pixel as tokens that attend to each other, around a skip: AnimateDiff's
/// motion module (Guo et al. 2023, <https://arxiv.org/abs/2307.04725>, section 4.2), and without
/// positions the temporal attention of 3-D U-nets.
#[derive(Module, Debug)]
pub(crate) struct TemporalTransformer {
    norm: GroupNorm,
    proj_in: Linear,
    transformer_blocks: Vec<TemporalBlock>,
    proj_out: Linear,
}

impl TemporalConfig {
    pub(crate) fn init(self, device: &Device) -> TemporalTransformer {
        let width = self.heads * self.head_width;
        let output = LinearConfig::new(width, self.channels);
        let output = match self.zero_output {
            true => output.with_initializer(Initializer::ZEROS),
            false => output,
        };
        TemporalTransformer {
            norm: GroupNormConfig::new(self.groups, self.channels)
                .with_epsilon(1e-6)
                .init(device),
            proj_in: LinearConfig::new(self.channels, width).init(device),
            transformer_blocks: (0..self.layers)
                .map(|_| TemporalBlock::new(self, device))
                .collect(),
            proj_out: output.init(device),
        }
    }
}

impl TemporalTransformer {
    /// # Shapes
    /// - x and output: `[batch·frames, channels, height, width]`
    ///
    /// # Panics
    /// If there are more frames than positions, or the maps are no multiple of the frames.
    pub(crate) fn forward(&self, x: Tensor<4>, frames: usize) -> Tensor<4> {
        let [rows, channels, height, width] = x.dims();
        let (batch, pixels) = (rows / frames, height * width);
        // The norm is over all frames of a sample.
        let h: Tensor<4> = x.clone().reshape([batch, frames, channels, pixels]);
        let h = self.norm.forward(ops::contiguous(h.swap_dims(1, 2)));
        // Pixels first, in two steps: a copy that exchanges two axes is faster than one that
        // reverses three.
        let h: Tensor<3> = h
            .swap_dims(1, 2)
            .reshape([batch, frames * channels, pixels]);
        let h = h
            .swap_dims(1, 2)
            .reshape([batch * pixels, frames, channels]);
        let h = self.proj_in.forward(h);
        let h = self
            .transformer_blocks
            .iter()
            .fold(h, |h, block| block.forward(h));
        let h: Tensor<4> = self
            .proj_out
            .forward(h)
            .reshape([batch, pixels, frames, channels]);
        let h = h
            .permute([0, 2, 3, 1])
            .reshape([rows, channels, height, width]);
        x + h
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    fn config() -> TemporalConfig {
        TemporalConfig {
            channels: 4,
            groups: 2,
            heads: 2,
            head_width: 2,
            layers: 1,
            positions: Some(5),
            zero_output: false,
        }
    }

    #[test]
    fn positions_are_sines_and_cosines() {
        let table = sinusoids(3, 4);
        let expected = [
            [0.0, 1.0, 0.0, 1.0],
            [1f64.sin(), 1f64.cos(), 0.01f64.sin(), 0.01f64.cos()],
            [2f64.sin(), 2f64.cos(), 0.02f64.sin(), 0.02f64.cos()],
        ];
        let expected: Vec<f32> = expected.concat().iter().map(|x| *x as f32).collect();
        assert_close(&table, &expected, 1e-6);
    }

    /// Pixels do not see each other beyond the norm; without positions, frames have no order.
    #[test]
    fn frames_without_positions_have_no_order() {
        let device = Device::flex();
        let x: Tensor<4> = Rng::new(1).normal([3, 4, 2, 2], &device);
        let reversed = x.clone().flip([0]);
        for (positions, same) in [(None, true), (Some(5), false)] {
            let config = TemporalConfig {
                positions,
                ..config()
            };
            let layer = config.init(&device).init_weights(0);
            let forward = layer.forward(x.clone(), 3);
            let backward = layer.forward(reversed.clone(), 3).flip([0]);
            let apart = (forward - backward).abs().max().into_scalar::<f32>();
            assert_eq!(apart < 1e-5, same, "{apart}");
        }
    }

    #[test]
    fn a_zero_output_changes_nothing() {
        let device = Device::flex();
        let config = TemporalConfig {
            zero_output: true,
            ..config()
        };
        let layer = config.init(&device).init_weights(0);
        let x: Tensor<4> = Rng::new(1).normal([4, 4, 2, 3], &device);
        assert_eq!(values(layer.forward(x.clone(), 2)), values(x));
    }
}
