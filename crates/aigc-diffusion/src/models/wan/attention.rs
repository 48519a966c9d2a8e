//! Attention whose queries and keys are normalised over all heads together, which the transformers
//! of videos have in common.

use aigc_core::{
    nn::{Dropout, DropoutConfig, Linear, LinearConfig, RmsNorm, RmsNormConfig},
    ops,
};
use burn::{
    module::Module,
    tensor::{Bool, Device, Int, Tensor, TensorData},
};

/// Configuration of a [`VideoAttention`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct VideoAttentionConfig {
    /// Width of the tokens, and of all heads together.
    pub(crate) width: usize,
    /// Width of the tokens that keys and values come from.
    pub(crate) context_width: usize,
    pub(crate) heads: usize,
    /// Whether queries, keys and values have biases.
    pub(crate) bias: bool,
    /// Whether the output has a bias.
    pub(crate) out_bias: bool,
    /// Epsilon of the norms of queries and keys.
    pub(crate) epsilon: f64,
}

impl VideoAttentionConfig {
    pub(crate) fn init(self, device: &Device) -> VideoAttention {
        let Self { width, bias, .. } = self;
        let norm = || {
            RmsNormConfig::new(width)
                .with_epsilon(self.epsilon)
                .init(device)
        };
        let linear = |from, bias| LinearConfig::new(from, width).with_bias(bias).init(device);
        VideoAttention {
            norm_q: norm(),
            norm_k: norm(),
            to_q: linear(width, bias),
            to_k: linear(self.context_width, bias),
            to_v: linear(self.context_width, bias),
            to_out: (linear(width, self.out_bias), DropoutConfig::new(0.0).init()),
            heads: self.heads,
        }
    }
}

/// Attention of the tokens of a video to each other, or to those of a prompt. The norms of queries
/// and keys are over all heads.
#[derive(Module, Debug)]
pub(crate) struct VideoAttention {
    norm_q: RmsNorm,
    norm_k: RmsNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    /// The second one stands for a dropout that is never used, so that the places of the weights
    /// are those in files.
    to_out: (Linear, Dropout),
    heads: usize,
}

impl VideoAttention {
    fn heads(&self, x: Tensor<3>) -> Tensor<4> {
        let [batch, tokens, width] = x.dims();
        x.reshape([batch, tokens, self.heads, width / self.heads])
    }

    /// Queries of one stream of tokens, keys and values of another, `[batch, tokens, heads, d]`.
    fn projected(&self, x: Tensor<3>, context: Tensor<3>) -> [Tensor<4>; 3] {
        let q = self.norm_q.forward(self.to_q.forward(x));
        let k = self.norm_k.forward(self.to_k.forward(context.clone()));
        [q, k, self.to_v.forward(context)].map(|x| self.heads(x))
    }

    fn output(&self, x: Tensor<3>) -> Tensor<3> {
        self.to_out.0.forward(x)
    }

    /// Attention of the tokens to each other. `rotate` turns queries and keys by their positions.
    ///
    /// # Shapes
    /// - x and output: `[batch, tokens, width]`
    /// - rotate: from and to `[batch, tokens, heads, d]`
    pub(crate) fn forward(
        &self,
        x: Tensor<3>,
        rotate: impl Fn(Tensor<4>) -> Tensor<4>,
    ) -> Tensor<3> {
        let [q, k, v] = self.projected(x.clone(), x);
        self.output(attend(rotate(q), rotate(k), v))
    }

    /// Attention of the tokens to those of a prompt.
    ///
    /// # Shapes
    /// - x and output: `[batch, tokens, width]`
    /// - context: `[batch, others, context_width]`
    pub(crate) fn cross(&self, x: Tensor<3>, context: Tensor<3>, visible: &Visible) -> Tensor<3> {
        let [q, k, v] = self.projected(x, context);
        let Visible::Some(rows) = visible else {
            return self.output(attend(q, k, v));
        };
        let each = rows.iter().enumerate().map(|(i, rows)| {
            let [k, v] = [&k, &v].map(|x| x.clone().narrow(0, i, 1).select(1, rows.clone()));
            attend(q.clone().narrow(0, i, 1), k, v)
        });
        self.output(Tensor::cat(each.collect(), 0))
    }
}

/// # Shapes
/// - q: `[batch, tokens, heads, d]`, k and v: `[batch, others, heads, d]`
/// - output: `[batch, tokens, heads·d]`
fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<3> {
    let [batch, tokens, heads, d] = q.dims();
    let [q, k, v] = [q, k, v].map(|x| x.swap_dims(1, 2));
    ops::attention(q, k, v, None, false)
        .swap_dims(1, 2)
        .reshape([batch, tokens, heads * d])
}

/// The tokens of prompts that attention sees. Hidden ones are left out, so that no mask of
/// queries × keys is needed.
#[derive(Clone, Debug)]
pub(crate) enum Visible {
    /// All tokens.
    All,
    /// The numbers of the visible tokens of each sample.
    Some(Vec<Tensor<1, Int>>),
}

impl Visible {
    /// The visible tokens of a mask. A sample without any sees all of its tokens, as a softmax over
    /// equally low scores does.
    ///
    /// # Shapes
    /// - mask: `[batch, tokens]`, true for visible tokens
    pub(crate) fn new(mask: Option<Tensor<2, Bool>>) -> Self {
        let Some(mask) = mask else {
            return Self::All;
        };
        let ([_, tokens], device) = (mask.dims(), mask.device());
        let mask: Vec<bool> = mask.into_data().iter::<bool>().collect();
        if mask.iter().all(|visible| *visible) {
            return Self::All;
        }
        let rows = mask.chunks(tokens).map(|mask| {
            let none = !mask.contains(&true);
            let rows = (0..tokens).filter(|token| none || mask[*token]);
            let rows: Vec<i32> = rows.map(|token| token as i32).collect();
            let count = rows.len();
            Tensor::from_data(TensorData::new(rows, [count]), &device)
        });
        Self::Some(rows.collect())
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    /// A sample's hidden tokens have no effect, and one without visible tokens sees all.
    #[test]
    fn hidden_tokens_are_left_out() {
        let device = Device::flex();
        let config = VideoAttentionConfig {
            width: 8,
            context_width: 6,
            heads: 2,
            bias: true,
            out_bias: false,
            epsilon: 1e-5,
        };
        let layer = config.init(&device).init_weights(1);
        let mut rng = Rng::new(2);
        let x: Tensor<3> = rng.normal([2, 5, 8], &device);
        let context: Tensor<3> = rng.normal([2, 4, 6], &device);
        let mask = [[true, false, true, false], [false; 4]];
        let mask = Tensor::<2, Bool>::from_data(TensorData::from(mask), &device);
        let found = layer.cross(x.clone(), context.clone(), &Visible::new(Some(mask)));
        let two = Tensor::cat(
            vec![
                context.clone().narrow(1, 0, 1),
                context.clone().narrow(1, 2, 1),
            ],
            1,
        );
        let one = |i: usize, context: &Tensor<3>| {
            let [x, context] = [&x, context].map(|x| x.clone().narrow(0, i, 1));
            values(layer.cross(x, context, &Visible::All))
        };
        assert_close(&values(found.clone().narrow(0, 0, 1)), &one(0, &two), 1e-5);
        assert_close(&values(found.narrow(0, 1, 1)), &one(1, &context), 1e-5);
    }

    /// The norms are over all heads: a head with larger numbers stays larger.
    #[test]
    fn norms_are_over_all_heads() {
        let device = Device::flex();
        let config = VideoAttentionConfig {
            width: 4,
            context_width: 4,
            heads: 2,
            bias: false,
            out_bias: true,
            epsilon: 1e-6,
        };
        let layer = config.init(&device).init_weights(3);
        let x: Tensor<3> = Rng::new(4).normal([1, 1, 4], &device);
        let [q, ..] = layer.projected(x.clone(), x.clone());
        let plain = values(layer.to_q.forward(x));
        let root = (plain.iter().map(|x| x * x).sum::<f32>() / 4.0).sqrt();
        let expected: Vec<f32> = plain.iter().map(|x| x / root).collect();
        assert_close(&values(q), &expected, 1e-4);
    }
}
