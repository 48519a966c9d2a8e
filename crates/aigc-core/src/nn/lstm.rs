//! Long short-term memory.

use super::Initializer;
use crate::ops;
use burn::{
    config::Config,
    module::{Module, Param},
    tensor::{Device, Tensor},
};

/// Configuration to create an [`Lstm`].
#[derive(Config, Debug)]
pub struct LstmConfig {
    /// Input features.
    pub d_input: usize,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// Number of layers, of which each reads the outputs of the one before.
    #[config(default = 1)]
    pub num_layers: usize,
    /// Whether each layer also reads its inputs in reverse; its outputs are those of both
    /// directions, one after the other.
    #[config(default = false)]
    pub bidirectional: bool,
}

/// Recurrent network with long short-term memory (Hochreiter and Schmidhuber 1997; with forget
/// gates: Gers et al. 2000).
///
/// PyTorch has the parameters of all layers in one module; [`layer_key`](super::layer_key) gives
/// their names there, `weight_ih_l0` and so on.
#[derive(Module, Debug)]
pub struct Lstm {
    /// The layers.
    pub layers: Vec<LstmLayer>,
    d_hidden: usize,
}

/// One layer of an [`Lstm`].
#[derive(Module, Debug)]
pub struct LstmLayer {
    /// Reads the steps in order.
    pub forward: LstmCell,
    /// Reads the steps in reverse.
    pub reverse: Option<LstmCell>,
}

/// The parameters of one direction of an [`LstmLayer`]. Rows are those of the input gate, the
/// forget gate, the candidate and the output gate, in this order.
#[derive(Module, Debug)]
pub struct LstmCell {
    /// Weight of the inputs, `[4·hidden, inputs]`.
    pub weight_ih: Param<Tensor<2>>,
    /// Weight of the hidden state, `[4·hidden, hidden]`.
    pub weight_hh: Param<Tensor<2>>,
    /// First bias, `[4·hidden]`.
    pub bias_ih: Param<Tensor<1>>,
    /// Second bias, which is added to the first, `[4·hidden]`.
    pub bias_hh: Param<Tensor<1>>,
}

/// State of an [`Lstm`] between two steps: for every layer, forward before reverse.
#[derive(Clone, Debug)]
pub struct LstmState {
    /// Hidden states, the outputs of the last steps, `[layers·directions, batch, hidden]`.
    pub hidden: Tensor<3>,
    /// States of the cells, `[layers·directions, batch, hidden]`.
    pub cell: Tensor<3>,
}

impl LstmConfig {
    /// Creates the network on `device`. As in PyTorch, all parameters start uniform on
    /// `±1/√d_hidden`.
    ///
    /// # Panics
    /// If there are no layers, or no hidden features.
    pub fn init(&self, device: &Device) -> Lstm {
        let (d, layers) = (self.d_hidden, self.num_layers);
        assert!(
            d > 0 && layers > 0,
            "an LSTM of {layers} layers with {d} hidden features: expected at least one of each"
        );
        let directions = 1 + usize::from(self.bidirectional);
        let layer = |index: usize| {
            let inputs = match index {
                0 => self.d_input,
                _ => directions * d,
            };
            LstmLayer {
                forward: LstmCell::new(inputs, d, device),
                reverse: self.bidirectional.then(|| LstmCell::new(inputs, d, device)),
            }
        };
        Lstm {
            layers: (0..layers).map(layer).collect(),
            d_hidden: d,
        }
    }
}

impl Lstm {
    /// Reads `x` from a state, by default of zeros. Returns the outputs of the last layer, and the
    /// state after the last step.
    ///
    /// # Shapes
    /// - x: `[batch, time, d_input]`
    /// - output: `[batch, time, directions·d_hidden]`
    ///
    /// # Panics
    /// If `x` has no steps, or `x` or the state does not fit the network.
    pub fn forward(&self, x: Tensor<3>, state: Option<LstmState>) -> (Tensor<3>, LstmState) {
        let ([batch, time, _], d) = (x.dims(), self.d_hidden);
        assert!(time > 0, "an LSTM needs one step at least");
        let cells: usize = self.layers.iter().map(|layer| layer.cells().count()).sum();
        let shape = [cells, batch, d];
        let state = state.unwrap_or_else(|| {
            let zeros = Tensor::<3>::zeros(shape, (&x.device(), x.dtype()));
            LstmState {
                hidden: zeros.clone(),
                cell: zeros,
            }
        });
        assert_eq!(
            [state.hidden.dims(), state.cell.dims()],
            [shape; 2],
            "shapes of the state of an LSTM"
        );
        // Steps first, so that each lies in one piece.
        let mut x = x.swap_dims(0, 1);
        let (mut hidden, mut cell) = (vec![], vec![]);
        for layer in &self.layers {
            let mut outputs = vec![];
            for (direction, parameters) in layer.cells().enumerate() {
                let of = |all: &Tensor<3>| {
                    let one = all.clone().narrow(0, hidden.len(), 1);
                    one.reshape([batch, d])
                };
                let start = [of(&state.hidden), of(&state.cell)];
                let (y, [last_hidden, last_cell]) =
                    parameters.run(x.clone(), start, direction == 1);
                outputs.push(y);
                hidden.push(last_hidden);
                cell.push(last_cell);
            }
            x = Tensor::cat(outputs, 2);
        }
        let state = LstmState {
            hidden: Tensor::stack(hidden, 0),
            cell: Tensor::stack(cell, 0),
        };
        (x.swap_dims(0, 1), state)
    }
}

impl LstmLayer {
    fn cells(&self) -> impl Iterator<Item = &LstmCell> {
        std::iter::once(&self.forward).chain(&self.reverse)
    }
}

impl LstmCell {
    fn new(inputs: usize, d: usize, device: &Device) -> Self {
        let bound = 1.0 / (d as f64).sqrt();
        let initializer = Initializer::Uniform {
            min: -bound,
            max: bound,
        };
        Self {
            weight_ih: initializer.param([4 * d, inputs], inputs, 4 * d, device),
            weight_hh: initializer.param([4 * d, d], d, 4 * d, device),
            bias_ih: initializer.param([4 * d], inputs, 4 * d, device),
            bias_hh: initializer.param([4 * d], d, 4 * d, device),
        }
    }

    /// Reads steps `[time, batch, inputs]` from a hidden state and a state of the cell. Returns the
    /// outputs in the order of the steps, and the states after the last step that was read.
    fn run(
        &self,
        x: Tensor<3>,
        [mut hidden, mut cell]: [Tensor<2>; 2],
        reversed: bool,
    ) -> (Tensor<3>, [Tensor<2>; 2]) {
        let dtype = x.dtype();
        let bias = ops::cast(self.bias_ih.val(), dtype) + ops::cast(self.bias_hh.val(), dtype);
        // One product for the inputs of all steps.
        let weight = ops::cast(self.weight_ih.val(), dtype).transpose();
        let mut steps = steps(ops::linear(x, weight, Some(bias)));
        if reversed {
            steps.reverse();
        }
        let weight = ops::cast(self.weight_hh.val(), dtype).transpose();
        let mut outputs = Vec::with_capacity(steps.len());
        for step in steps {
            let gates = step + ops::linear(hidden, weight.clone(), None);
            (hidden, cell) = ops::lstm_cell(gates, cell);
            outputs.push(hidden.clone());
        }
        if reversed {
            outputs.reverse();
        }
        (Tensor::stack(outputs, 0), [hidden, cell])
    }
}

/// The steps of `x`, `[time, batch, features]`, one by one.
///
/// They are taken by halves: the gradient of a part of a tensor is as large as the tensor, so that
/// taking all steps from the whole would need a time that grows with the square of their number.
fn steps(x: Tensor<3>) -> Vec<Tensor<2>> {
    let [time, batch, features] = x.dims();
    if time <= 1 {
        return vec![x.reshape([batch, features])];
    }
    let half = time / 2;
    let mut all = steps(x.clone().narrow(0, 0, half));
    all.extend(steps(x.narrow(0, half, time - half)));
    all
}
