//! The block that encoder and decoder consist of.

use aigc_core::{
    nn::{Activation, Conv2d, Conv2dConfig, Initializer},
    ops,
};
use burn::{
    module::Module,
    tensor::{Device, Tensor, ops::ConvOptions},
};

/// PyTorch's default scaled by `1/√depth`, for the layers that a residual path of `depth` blocks
/// sums up (Child 2021, §2.3); without the factor for a depth of 0.
pub(super) fn scaled(depth: usize) -> Initializer {
    Initializer::KaimingUniform {
        gain: 1.0 / (3.0 * depth.max(1) as f64).sqrt(),
    }
}

pub(super) struct BlockConfig {
    pub(super) channels: usize,
    pub(super) outputs: usize,
    pub(super) hidden: usize,
    pub(super) kernel_size: usize,
    /// Blocks on the residual path; 0 for a block without a residual path.
    pub(super) depth: usize,
    pub(super) activation: Activation,
}

impl BlockConfig {
    pub(super) fn init(&self, device: &Device) -> Block {
        let (k, hidden) = (self.kernel_size, self.hidden);
        let conv =
            |inputs, outputs, k: usize| Conv2dConfig::new([inputs, outputs], k).with_padding(k / 2);
        Block {
            reduce: conv(self.channels, hidden, 1).init(device),
            first: conv(hidden, hidden, k).init(device),
            second: conv(hidden, hidden, k).init(device),
            expand: conv(hidden, self.outputs, 1)
                .with_initializer(scaled(self.depth))
                .init(device),
            residual: self.depth > 0,
            activation: self.activation,
        }
    }
}

/// A bottleneck block: 1×1, 3×3, 3×3 and 1×1 convolutions, each after an activation.
#[derive(Module, Debug)]
pub(super) struct Block {
    reduce: Conv2d,
    first: Conv2d,
    second: Conv2d,
    expand: Conv2d,
    residual: bool,
    #[module(skip)]
    activation: Activation,
}

impl Block {
    pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<4> {
        let reduced = self.reduce(self.activation.forward(x.clone()));
        let y = self.expand.forward(self.inner(reduced));
        if self.residual { x + y } else { y }
    }

    /// The output of the first convolution, from an activated input.
    pub(super) fn reduce(&self, activated: Tensor<4>) -> Tensor<4> {
        self.reduce.forward(activated)
    }

    /// The output of the first convolution, from two activated inputs, the channels of one after
    /// those of the other.
    ///
    /// Every input is convolved on its own: a concatenation would copy both, and its gradient would
    /// be taken apart again.
    pub(super) fn reduce_pair(&self, [a, b]: [Tensor<4>; 2]) -> Tensor<4> {
        let ([_, channels_a, ..], [_, channels_b, ..]) = (a.dims(), b.dims());
        let weight = self.reduce.weight.val();
        let bias = self.reduce.bias.as_ref().map(|bias| bias.val());
        let of_a = weight.clone().narrow(1, 0, channels_a);
        let of_b = weight.narrow(1, channels_a, channels_b);
        pointwise(a, of_a, bias) + pointwise(b, of_b, None)
    }

    /// The output in parts of these channels, from the output of the first convolution.
    ///
    /// Every part is a convolution of its own: the gradient of a slice of the whole output would
    /// have the size of the whole output.
    pub(super) fn parts<const N: usize>(
        &self,
        reduced: Tensor<4>,
        channels: [usize; N],
    ) -> [Tensor<4>; N] {
        let x = self.inner(reduced);
        let weight = self.expand.weight.val();
        let bias = self.expand.bias.as_ref().map(|bias| bias.val());
        let mut start = 0;
        channels.map(|channels| {
            let weight = weight.clone().narrow(0, start, channels);
            let bias = bias.clone().map(|bias| bias.narrow(0, start, channels));
            start += channels;
            pointwise(x.clone(), weight, bias)
        })
    }

    /// The input of the last convolution, from the output of the first.
    fn inner(&self, reduced: Tensor<4>) -> Tensor<4> {
        [&self.first, &self.second]
            .into_iter()
            .fold(self.activation.forward(reduced), |x, conv| {
                self.activation.forward(conv.forward(x))
            })
    }
}

/// A 1×1 convolution.
fn pointwise(x: Tensor<4>, weight: Tensor<4>, bias: Option<Tensor<1>>) -> Tensor<4> {
    let options = ConvOptions::new([1; 2], [0; 2], [1; 2], 1);
    ops::conv2d(x, weight, bias, options)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    /// Inputs and outputs in parts are those of the whole convolutions.
    #[test]
    fn parts_match_whole_convolutions() {
        let device = Device::flex();
        let config = BlockConfig {
            channels: 5,
            outputs: 6,
            hidden: 4,
            kernel_size: 3,
            depth: 0,
            activation: Activation::Silu,
        };
        let (block, mut rng) = (config.init(&device).init_weights(1), Rng::new(2));
        let mut draw = |channels: usize| rng.normal([3, channels, 4, 4], &device);
        let (a, b) = (draw(2), draw(3));
        let reduced = block.reduce_pair([a.clone(), b.clone()]);
        let whole = block.reduce(Tensor::cat(vec![a, b], 1));
        assert_close(&values(reduced.clone()), &values(whole), 1e-5);
        let parts = block.parts(reduced.clone(), [2, 4]);
        let whole = block.expand.forward(block.inner(reduced));
        let joined = Tensor::cat(parts.to_vec(), 1);
        assert_close(&values(joined), &values(whole), 1e-5);
    }
}
