//! MLPs of transformer blocks.

use super::Projection;
use aigc_core::nn::{Activation, Dropout};
use burn::{module::Module, tensor::Tensor};

/// `act(x·W₁ + b₁)·W₂ + b₂`, then dropout. Names are those of GPT-2.
#[derive(Module, Debug)]
pub struct Mlp {
    /// Projection to the inner width.
    pub c_fc: Projection,
    /// Projection back to the width.
    pub c_proj: Projection,
    /// Dropout of the output, in training.
    pub dropout: Dropout,
    /// Activation between the projections.
    #[module(skip)]
    pub activation: Activation,
}

impl Mlp {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x and output: `[batch, time, width]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let inner = self.activation.forward(self.c_fc.forward(x));
        self.dropout.forward(self.c_proj.forward(inner))
    }
}

/// `(act(x·W_gate) ⊙ x·W_up)·W_down` (Shazeer 2020, <https://arxiv.org/abs/2002.05202>); with the
/// activation SiLU it is SwiGLU. Names are those of Llama.
#[derive(Module, Debug)]
pub struct GatedMlp {
    /// Projection to the inner width, followed by the activation.
    pub gate_proj: Projection,
    /// Projection to the inner width.
    pub up_proj: Projection,
    /// Projection back to the width.
    pub down_proj: Projection,
    /// Activation of the gate.
    #[module(skip)]
    pub activation: Activation,
}

impl GatedMlp {
    /// Applies the layer.
    ///
    /// # Shapes
    /// - x and output: `[batch, time, width]`
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate = self.activation.forward(self.gate_proj.forward(x.clone()));
        self.down_proj.forward(gate * self.up_proj.forward(x))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Weight;
    use aigc_core::device::device;
    use burn::module::{Param, ParamId};

    #[test]
    fn gated_mlp_matches_its_formula() {
        let flex = device("flex").unwrap();
        let projection = |weight: Tensor<2>| Projection {
            weight: Weight::Full(Param::initialized(ParamId::new(), weight)),
            bias: None,
        };
        let matrix = |values: [[f32; 2]; 2]| Tensor::<2>::from_floats(values, &flex);
        let mlp = GatedMlp {
            gate_proj: projection(matrix([[1.0, 0.5], [0.0, -1.0]])),
            up_proj: projection(matrix([[2.0, 0.0], [1.0, 1.0]])),
            down_proj: projection(matrix([[1.0, 0.0], [1.0, 3.0]])),
            activation: Activation::Silu,
        };
        let x = Tensor::<3>::from_floats([[[1.0, 2.0]]], &flex);
        let silu = |x: f32| x / (1.0 + (-x).exp());
        // Gates 1 and 0.5 − 2, inner values 4 and 2.
        let inner = [silu(1.0) * 4.0, silu(-1.5) * 2.0];
        let expected = [inner[0] + inner[1], 3.0 * inner[1]];
        let found: Vec<f32> = mlp.forward(x).into_data().iter().collect();
        let apart = |(a, b): (&f32, f32)| (a - b).abs() < 1e-5;
        assert!(found.iter().zip(expected).all(apart), "{found:?}");
    }
}
