//! Root-mean-square normalisation.

use super::Initializer;
use crate::ops;
use burn::{
    config::Config,
    module::{Module, Param},
    tensor::{Device, Tensor},
};

/// Configuration to create an [`RmsNorm`] layer.
#[derive(Config, Debug)]
pub struct RmsNormConfig {
    /// Size of the last axis.
    pub d_model: usize,
    /// Added to the mean square.
    #[config(default = 1e-5)]
    pub epsilon: f64,
}

/// `x / √(mean(x²) + ε) · γ` over the last axis (Zhang and Sennrich 2019,
/// <https://arxiv.org/abs/1910.07467>).
#[derive(Module, Debug)]
pub struct RmsNorm {
    /// Scale, `[d_model]`.
    pub gamma: Param<Tensor<1>>,
    epsilon: f64,
}

impl RmsNormConfig {
    /// The layer on `device`.
    pub fn init(&self, device: &Device) -> RmsNorm {
        let d = self.d_model;
        RmsNorm {
            gamma: Initializer::ONES.param([d], d, d, device),
            epsilon: self.epsilon,
        }
    }
}

impl RmsNorm {
    /// # Shapes
    /// - x and output: `[..., d_model]`
    ///
    /// # Panics
    /// If the last axis is not `d_model`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let dtype = x.dtype();
        // Squares overflow in half precision.
        let x = ops::cast(x, ops::computed(dtype));
        let gamma = ops::cast(self.gamma.val(), x.dtype());
        let mean_square = (x.clone() * x.clone()).mean_dim(D - 1);
        let y = x * (mean_square + self.epsilon).sqrt().recip() * gamma.unsqueeze::<D>();
        ops::cast(y, dtype)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::module::ParamId;

    #[test]
    fn rms_norm_matches_its_formula() {
        let device = Device::flex();
        let mut norm = RmsNormConfig::new(3).with_epsilon(0.5).init(&device);
        let gamma = Tensor::<1>::from_floats([1.0, -2.0, 0.5], &device);
        norm.gamma = Param::initialized(ParamId::new(), gamma);
        let x = Tensor::<2>::from_floats([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]], &device);
        let got: Vec<f32> = norm.forward(x).into_data().iter().collect();
        // The mean square of the first row is 14/3.
        let root = (14.0f32 / 3.0 + 0.5).sqrt();
        let expected = [1.0 / root, -4.0 / root, 1.5 / root, 0.0, 0.0, 0.0];
        let apart = got.iter().zip(expected).map(|(a, b)| (a - b).abs());
        assert!(apart.fold(0.0, f32::max) < 1e-6, "{got:?}");
    }
}
