//! What the encoders of CLIP and T5 share.

use aigc_core::{nn::Initializer, ops};
use burn::{
    module::{Module, Param},
    tensor::{DType, Device, Int, Tensor},
};

/// A tensor of 16-bit floats as 32-bit ones; others as they are.
pub(crate) fn widened<const D: usize>(x: Tensor<D>) -> Tensor<D> {
    match x.dtype() {
        DType::F16 | DType::BF16 => ops::cast(x, DType::F32),
        _ => x,
    }
}

/// A distribution of initial weights around zero.
pub(crate) fn normal(std: f64) -> Initializer {
    Initializer::Normal { mean: 0.0, std }
}

/// A table of embeddings, one for each token or position.
#[derive(Module, Debug)]
pub struct Embedding {
    /// Weight, `[count, width]`.
    pub weight: Param<Tensor<2>>,
}

impl Embedding {
    pub(crate) fn new([count, width]: [usize; 2], std: f64, device: &Device) -> Self {
        Self {
            weight: normal(std).param([count, width], count, width, device),
        }
    }

    /// The embeddings of `indices`; those of half precision in 32 bits.
    ///
    /// # Shapes
    /// - indices: `[batch, tokens]`
    /// - output: `[batch, tokens, width]`
    ///
    /// # Panics
    /// If an index is not below the number of embeddings.
    pub fn forward(&self, indices: Tensor<2, Int>) -> Tensor<3> {
        ops::embedding(self.weight.val(), indices)
    }

    /// The first `count` embeddings, `[1, count, width]`.
    pub(crate) fn first(&self, count: usize) -> Tensor<3> {
        widened(self.weight.val().narrow(0, 0, count)).unsqueeze()
    }
}
