//! Activations, as data.

use burn::tensor::{Tensor, activation};
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
        /// Slope of the negative side.
        f64,
    ),
    /// `x·Φ(x)` with the normal distribution function (Hendrycks and Gimpel 2016).
    Gelu,
    /// `x·σ(x)`, also called swish.
    Silu,
    /// Hyperbolic tangent.
    Tanh,
    /// `1 / (1 + e^−x)`.
    Sigmoid,
}

impl Activation {
    /// Applies the activation to every element.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Activation::Identity => x,
            Activation::Relu => activation::relu(x),
            Activation::LeakyRelu(slope) => activation::leaky_relu(x, *slope),
            Activation::Gelu => activation::gelu(x),
            Activation::Silu => activation::silu(x),
            Activation::Tanh => activation::tanh(x),
            Activation::Sigmoid => activation::sigmoid(x),
        }
    }
}
