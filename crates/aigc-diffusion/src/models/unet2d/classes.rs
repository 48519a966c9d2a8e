//! Embeddings of classes.

use aigc_core::{
    nn::{Activation, Initializer, Linear, LinearConfig},
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor},
};

/// An embedding for each class.
#[derive(Module, Debug)]
pub(in crate::models) struct Embedding {
    weight: Param<Tensor<2>>,
}

impl Embedding {
    pub(in crate::models) fn new(rows: usize, width: usize, device: &Device) -> Self {
        let normal = Initializer::Normal {
            mean: 0.0,
            std: 1.0,
        };
        Self {
            weight: normal.param([rows, width], rows, width, device),
        }
    }

    pub(in crate::models) fn of(&self, index: Tensor<1, Int>) -> Tensor<2> {
        rows(self.weight.val(), index)
    }
}

/// Rows of a table, in the type in which networks compute.
fn rows(table: Tensor<2>, index: Tensor<1, Int>) -> Tensor<2> {
    ops::embedding(table, index.unsqueeze_dim(1)).squeeze_dim(1)
}

/// A vector for each class: from a table, or by two layers from its encoded number.
#[derive(Module, Debug)]
pub(super) struct ClassEmbedding {
    weight: Option<Param<Tensor<2>>>,
    linear_1: Option<Linear>,
    linear_2: Option<Linear>,
}

impl ClassEmbedding {
    pub(super) fn table(count: usize, width: usize, device: &Device) -> Self {
        Self {
            weight: Some(Embedding::new(count, width, device).weight),
            linear_1: None,
            linear_2: None,
        }
    }

    pub(super) fn of_number(encoded: usize, width: usize, device: &Device) -> Self {
        let linear = |from| Some(LinearConfig::new(from, width).init(device));
        Self {
            weight: None,
            linear_1: linear(encoded),
            linear_2: linear(width),
        }
    }

    pub(super) fn forward(
        &self,
        class: Tensor<1, Int>,
        encode: impl Fn(Tensor<1>) -> Tensor<2>,
    ) -> Tensor<2> {
        match (&self.weight, &self.linear_1, &self.linear_2) {
            (Some(table), ..) => rows(table.val(), class),
            (None, Some(first), Some(second)) => {
                let hidden = first.forward(encode(class.float()));
                second.forward(Activation::Silu.forward(hidden))
            }
            _ => unreachable!("a table or two layers"),
        }
    }
}
