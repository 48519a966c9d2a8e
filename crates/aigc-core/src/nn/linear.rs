//! The linear layer.

use super::{Initializer, SpectralNorm};
use crate::ops;
use burn::{
    config::Config,
    module::{Module, Param},
    tensor::{Device, Tensor},
};

/// Configuration to create a [`Linear`] layer.
#[derive(Config, Debug)]
pub struct LinearConfig {
    /// Input features.
    pub d_input: usize,
    /// Output features.
    pub d_output: usize,
    /// Whether a bias is added.
    #[config(default = true)]
    pub bias: bool,
    /// Initializer of weight and bias.
    #[config(default = "Initializer::PYTORCH")]
    pub initializer: Initializer,
    /// Whether the weight is spectrally normalised (divided by its largest singular value).
    #[config(default = false)]
    pub spectral: bool,
}

/// Linear layer, `y = x·W + b`.
#[derive(Module, Debug)]
pub struct Linear {
    /// Weight, `[d_input, d_output]`; files hold its transpose, as PyTorch does.
    pub weight: Param<Tensor<2>>,
    /// Bias, `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Spectral normalisation of the weight.
    pub spectral: Option<SpectralNorm>,
}

impl LinearConfig {
    /// Creates the layer on `device`.
    pub fn init(&self, device: &Device) -> Linear {
        let (i, o) = (self.d_input, self.d_output);
        Linear {
            weight: self.initializer.param([i, o], i, o, device),
            bias: self.bias.then(|| self.initializer.param([o], i, o, device)),
            // The transpose has the same largest singular value.
            spectral: self.spectral.then(|| SpectralNorm::new(i, device)),
        }
    }
}

impl Linear {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x: `[..., d_input]`
    /// - output: `[..., d_output]`
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_input`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let weight = self.weight.val();
        let weight = self
            .spectral
            .as_ref()
            .map_or(weight.clone(), |spectral| spectral.normalize(weight));
        ops::linear(x, weight, self.bias.as_ref().map(|b| b.val()))
    }
}
