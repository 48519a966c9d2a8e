//! Random frequencies of numbers.

use aigc_core::{nn::Initializer, ops};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use std::f64::consts::TAU;

/// Cosines and sines of `2π·w·t` with random frequencies `w`, which are not trained (Tancik et al.
/// 2020, <https://arxiv.org/abs/2006.10739>).
#[derive(Module, Debug)]
pub(crate) struct FourierFeatures {
    weight: Param<Tensor<1>>,
    cosines_first: bool,
}

impl FourierFeatures {
    /// `count` frequencies, normally distributed with standard deviation `std`.
    pub(crate) fn new(count: usize, std: f64, cosines_first: bool, device: &Device) -> Self {
        let normal = Initializer::Normal { mean: 0.0, std };
        let weight = normal.param([count], count, count, device);
        Self {
            weight: weight.set_require_grad(false),
            cosines_first,
        }
    }

    #[cfg(test)]
    pub(crate) fn weight(&self) -> Tensor<1> {
        self.weight.val()
    }

    /// # Shapes
    /// - time: `[batch]`
    /// - output: `[batch, 2·count]`
    pub(crate) fn forward(&self, time: Tensor<1>) -> Tensor<2> {
        let frequencies = ops::cast(self.weight.val(), time.dtype()).unsqueeze::<2>();
        let angles = time.reshape([-1, 1]) * frequencies * TAU;
        let (sines, cosines) = (angles.clone().sin(), angles.cos());
        let pair = match self.cosines_first {
            true => vec![cosines, sines],
            false => vec![sines, cosines],
        };
        Tensor::cat(pair, 1)
    }
}
