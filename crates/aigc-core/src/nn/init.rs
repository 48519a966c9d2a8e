//! Initializers of parameters; values are drawn on the host.

use crate::rng::with_initial_stream;
use burn::{
    module::{Param, ParamId},
    tensor::{Device, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};

/// Distribution of a parameter's initial values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Initializer {
    /// All elements equal.
    Constant(f64),
    /// Normal distribution.
    Normal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        std: f64,
    },
    /// Uniform on `[min, max)`.
    Uniform {
        /// Lower bound.
        min: f64,
        /// Upper bound (exclusive).
        max: f64,
    },
    /// Uniform on `±gain·√(3 / fan_in)` (He et al. 2015, <https://arxiv.org/abs/1502.01852>).
    KaimingUniform {
        /// Factor for the activation that follows; `1/√3` gives PyTorch's default for linear and
        /// convolution layers.
        gain: f64,
    },
    /// Normal with standard deviation `gain / √fan_in` (He et al. 2015).
    KaimingNormal {
        /// Factor for the activation that follows, `√2` for ReLU.
        gain: f64,
    },
    /// Uniform on `±gain·√(6 / (fan_in + fan_out))` (Glorot and Bengio 2010).
    XavierUniform {
        /// Factor for the activation that follows.
        gain: f64,
    },
    /// Normal with standard deviation `gain·√(2 / (fan_in + fan_out))` (Glorot and Bengio 2010).
    XavierNormal {
        /// Factor for the activation that follows.
        gain: f64,
    },
}

impl Initializer {
    /// Zeros.
    pub const ZEROS: Self = Initializer::Constant(0.0);
    /// Ones.
    pub const ONES: Self = Initializer::Constant(1.0);
    /// PyTorch's default for the weight and bias of linear and convolution layers: uniform on
    /// `±1/√fan_in`.
    pub const PYTORCH: Self = Initializer::KaimingUniform {
        gain: 0.577_350_269_189_625_8,
    };

    /// A parameter of `shape` that draws its values at first use. `fan_in` and `fan_out` are the
    /// numbers of inputs per output and of outputs per input.
    pub fn param<const D: usize>(
        self,
        shape: [usize; D],
        fan_in: usize,
        fan_out: usize,
        device: &Device,
    ) -> Param<Tensor<D>> {
        Param::uninitialized(
            ParamId::new(),
            move |device, require_grad| {
                let values = self.draw(shape.iter().product(), fan_in, fan_out);
                Tensor::from_data(TensorData::new(values, shape), device)
                    .set_require_grad(require_grad)
            },
            device.clone(),
            true,
            shape.into(),
        )
    }

    fn draw(self, n: usize, fan_in: usize, fan_out: usize) -> Vec<f32> {
        let (fan_in, fan_sum) = (fan_in.max(1) as f64, (fan_in + fan_out).max(1) as f64);
        let normal = |mean: f64, std: f64| {
            with_initial_stream(|rng| {
                rng.normal_vec(n)
                    .into_iter()
                    .map(|x| (mean + std * x as f64) as f32)
                    .collect()
            })
        };
        let uniform = |min: f64, max: f64| {
            with_initial_stream(|rng| rng.uniform_vec(n, min as f32, max as f32))
        };
        match self {
            Initializer::Constant(value) => vec![value as f32; n],
            Initializer::Normal { mean, std } => normal(mean, std),
            Initializer::Uniform { min, max } => uniform(min, max),
            Initializer::KaimingUniform { gain } => {
                let bound = gain * (3.0 / fan_in).sqrt();
                uniform(-bound, bound)
            }
            Initializer::KaimingNormal { gain } => normal(0.0, gain / fan_in.sqrt()),
            Initializer::XavierUniform { gain } => {
                let bound = gain * (6.0 / fan_sum).sqrt();
                uniform(-bound, bound)
            }
            Initializer::XavierNormal { gain } => normal(0.0, gain * (2.0 / fan_sum).sqrt()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn std(values: &[f32]) -> f64 {
        let n = values.len() as f64;
        let mean = values.iter().map(|x| *x as f64).sum::<f64>() / n;
        (values
            .iter()
            .map(|x| (*x as f64 - mean).powi(2))
            .sum::<f64>()
            / n)
            .sqrt()
    }

    #[test]
    fn initializers_have_expected_standard_deviation() {
        let (fan_in, fan_out) = (50, 150);
        let cases = [
            (
                Initializer::Normal {
                    mean: 1.0,
                    std: 0.02,
                },
                0.02,
            ),
            (
                Initializer::Uniform {
                    min: -1.0,
                    max: 2.0,
                },
                3.0 / 12f64.sqrt(),
            ),
            (Initializer::PYTORCH, (1.0f64 / 50.0).sqrt() / 3f64.sqrt()),
            (
                Initializer::KaimingNormal { gain: 2f64.sqrt() },
                (2.0f64 / 50.0).sqrt(),
            ),
            (
                Initializer::XavierUniform { gain: 1.0 },
                (2.0f64 / 200.0).sqrt(),
            ),
            (
                Initializer::XavierNormal { gain: 1.0 },
                (2.0f64 / 200.0).sqrt(),
            ),
        ];
        for (initializer, expected) in cases {
            let got = std(&initializer.draw(100_000, fan_in, fan_out));
            assert!(
                (got / expected - 1.0).abs() < 0.02,
                "{initializer:?}: {got}, expected {expected}"
            );
        }
        assert_eq!(Initializer::ONES.draw(3, 1, 1), [1.0; 3]);
    }
}
