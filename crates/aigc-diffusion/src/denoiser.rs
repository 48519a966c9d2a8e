//! Where networks and everything else meet.

use crate::models::{DitModel, UNet2dConditionModel, UNet2dModel};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Int, Tensor},
};

/// What a network is told besides the time.
#[derive(Clone, Debug, Default)]
pub struct Condition {
    /// A class for each sample, `[batch]`.
    pub class: Option<Tensor<1, Int>>,
    /// Tokens for each sample, `[batch, tokens, width]`.
    pub tokens: Option<Tensor<3>>,
}

/// Says what noise hides, or what the noise is.
pub trait Denoiser: Module + ModuleDisplay {
    /// # Shapes
    /// - x: `[batch, channels, height, width]`, as a scheduler's `input` gives it
    /// - time: `[batch]`
    /// - output: as x, or with twice the channels, the second half a variance
    ///
    /// # Panics
    /// If the shapes do not fit, or something that the network has to be told is missing.
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Condition) -> Tensor<4>;

    /// Number of classes that it can be told, if it is told one.
    fn classes(&self) -> Option<usize> {
        None
    }
}

impl Denoiser for UNet2dModel {
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Condition) -> Tensor<4> {
        self.forward(x, time, condition.class.clone())
    }

    fn classes(&self) -> Option<usize> {
        self.config().num_class_embeds
    }
}

impl Denoiser for UNet2dConditionModel {
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Condition) -> Tensor<4> {
        self.forward(x, time, condition.tokens.as_ref().expect("a network that looks at tokens is given some"))
    }
}

impl Denoiser for DitModel {
    fn predict(&self, x: Tensor<4>, time: Tensor<1>, condition: &Condition) -> Tensor<4> {
        self.forward(x, time, condition.class.clone().expect("a network with classes is told one"))
    }

    fn classes(&self) -> Option<usize> {
        Some(self.config().num_embeds_ada_norm + 1)
    }
}
