//! Mixing of maps of frames alone and of frames together.

use aigc_core::{nn::Initializer, ops};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, activation::sigmoid},
};

/// A learned mean of what is computed for each frame alone and for all frames together (Blattmann
/// et al. 2023, <https://arxiv.org/abs/2304.08818>, equation 3).
#[derive(Module, Debug)]
pub(super) struct TimeMixer {
    /// `[1]`: the weight of frames alone before the logistic function.
    mix_factor: Param<Tensor<1>>,
}

impl TimeMixer {
    pub(super) fn new(device: &Device) -> Self {
        Self {
            mix_factor: Initializer::Constant(0.5).param([1], 1, 1, device),
        }
    }

    /// # Shapes
    /// - spatial, temporal and output: the same
    pub(super) fn forward<const D: usize>(
        &self,
        spatial: Tensor<D>,
        temporal: Tensor<D>,
    ) -> Tensor<D> {
        let weight = ops::cast(self.mix_factor.val(), spatial.dtype());
        let weight: Tensor<D> = sigmoid(weight).reshape([1; D]);
        let rest = weight.clone().neg() + 1.0;
        spatial * weight + temporal * rest
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::{
        rng::InitWeights,
        testing::{assert_close, values},
    };

    #[test]
    fn mixing_is_a_mean() {
        let device = Device::flex();
        let mixer = TimeMixer::new(&device).init_weights(0);
        let (a, b) = (
            Tensor::<2>::from_floats([[1.0, 2.0]], &device),
            Tensor::<2>::from_floats([[3.0, -2.0]], &device),
        );
        let weight = 1.0 / (1.0 + (-0.5f32).exp());
        let expected = [3.0 - 2.0 * weight, -2.0 + 4.0 * weight];
        assert_close(&values(mixer.forward(a, b)), &expected, 1e-6);
    }
}
