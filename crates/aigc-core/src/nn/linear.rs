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
        let weight = match &self.spectral {
            Some(spectral) => spectral.normalize(ops::cast(weight, x.dtype())),
            None => weight,
        };
        ops::linear(x, weight, self.bias.as_ref().map(|b| b.val()))
    }

    /// The outputs in `N` parts of equal size, each in its own memory. Operations on a part are
    /// faster than on a view of all outputs.
    ///
    /// # Shapes
    /// - x: `[..., d_input]`
    /// - output: `N` times `[..., d_output / N]`
    ///
    /// # Panics
    /// If the last axis of `x` is not `d_input`, or `N` does not divide `d_output`.
    pub fn forward_parts<const N: usize, const D: usize>(&self, x: Tensor<D>) -> [Tensor<D>; N] {
        let weight = ops::cast(self.weight.val(), x.dtype());
        let weight = match &self.spectral {
            Some(spectral) => spectral.normalize(weight),
            None => weight,
        };
        let outputs = weight.dims()[1];
        assert!(outputs.is_multiple_of(N), "{outputs} outputs in {N} parts");
        let len = outputs / N;
        let bias = self.bias.as_ref().map(|bias| bias.val());
        std::array::from_fn(|part| {
            let bias = bias.clone().map(|bias| bias.narrow(0, part * len, len));
            ops::linear(x.clone(), weight.clone().narrow(1, part * len, len), bias)
        })
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        rng::{InitWeights, Rng},
        testing::{assert_close, values},
    };

    #[test]
    fn parts_are_those_of_all_outputs() {
        let device = Device::flex();
        for (bias, spectral) in [(true, false), (false, true)] {
            let layer = LinearConfig::new(5, 12)
                .with_bias(bias)
                .with_spectral(spectral)
                .init(&device)
                .init_weights(1);
            let x: Tensor<3> = Rng::new(2).normal([2, 3, 5], &device);
            let whole = layer.forward(x.clone());
            let parts: [Tensor<3>; 3] = layer.forward_parts(x);
            for (i, part) in parts.into_iter().enumerate() {
                let expected = whole.clone().narrow(2, 4 * i, 4);
                assert_close(&values(part), &values(expected), 1e-5);
            }
        }
    }
}
