//! Activation functions as configuration values.

use super::activation;
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// An elementwise nonlinearity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Activation {
    /// `x`.
    Identity,
    /// `max(0, x)`.
    #[default]
    Relu,
    /// `x` where positive, `slope·x` elsewhere.
    LeakyRelu(
        /// Slope for negative inputs.
        f64,
    ),
    /// `x·Φ(x)` with the normal distribution function (Hendrycks and Gimpel 2016).
    Gelu,
    /// The tanh approximation of [`Gelu`](Self::Gelu), which GPT-2 uses.
    GeluTanh,
    /// `x·σ(x)`, also called swish.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^−x)`.
    Sigmoid,
    /// `ln(1 + e^x)`.
    Softplus,
    /// `x·σ(1.702·x)`, the approximation of [`Gelu`](Self::Gelu) that CLIP was trained with.
    QuickGelu,
    /// `x·tanh(ln(1 + e^x))` (Misra 2019, <https://arxiv.org/abs/1908.08681>).
    Mish,
    /// `bound·tanh(x/bound)`: `x` with its size smoothly bounded.
    SoftClamp(
        /// The bound, which is positive.
        f64,
    ),
    /// `x` where positive, `alpha·(eˣ − 1)` elsewhere (Clevert et al. 2015,
    /// <https://arxiv.org/abs/1511.07289>).
    Elu(
        /// The size that negative values approach.
        f64,
    ),
}

impl Activation {
    /// Applies the activation to every element.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        activation(x, *self)
    }
}

impl From<Activation> for aigc_kernels::Activation {
    fn from(activation: Activation) -> Self {
        match activation {
            Activation::Identity => Self::Identity,
            Activation::Relu => Self::Relu,
            Activation::LeakyRelu(slope) => Self::LeakyRelu(slope as f32),
            Activation::Gelu => Self::Gelu,
            Activation::GeluTanh => Self::GeluTanh,
            Activation::Silu => Self::Silu,
            Activation::Tanh => Self::Tanh,
            Activation::Sigmoid => Self::Sigmoid,
            Activation::Softplus => Self::Softplus,
            Activation::QuickGelu => Self::QuickGelu,
            Activation::Mish => Self::Mish,
            Activation::SoftClamp(bound) => Self::SoftClamp(bound as f32),
            Activation::Elu(alpha) => Self::Elu(alpha as f32),
        }
    }
}
