//! Networks with autoregressive masks.

use super::{MAX_WEIGHTS, check_context, check_sizes, weights};
use aigc_core::{
    Result,
    check::{self, ensure},
    nn::{Activation, Initializer, Linear, LinearConfig},
    ops,
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};

/// Configuration to create a [`Made`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MadeConfig {
    /// Widths of the hidden layers. A layer with fewer units than dimensions lacks some of the
    /// connections that the order allows.
    pub hidden_dims: Vec<usize>,
    /// Number of outputs for each dimension, such as 2 for a shift and a scale.
    pub outputs_per_dim: usize,
    /// Whether the order of the dimensions is from the last to the first.
    pub reverse: bool,
    /// Activation of the hidden layers.
    pub activation: Activation,
    /// Width of the context, of a network with context.
    pub context_dim: Option<usize>,
}

impl MadeConfig {
    /// Two outputs per dimension, natural order, ReLU, no context.
    pub fn new(hidden_dims: &[usize]) -> Self {
        Self {
            hidden_dims: hidden_dims.to_vec(),
            outputs_per_dim: 2,
            reverse: false,
            activation: Activation::Relu,
            context_dim: None,
        }
    }

    /// Creates a network for vectors of `dim` dimensions on `device`. The last layer begins with
    /// zeros.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn init(&self, dim: usize, device: &Device) -> Result<Made> {
        check_sizes(dim, &self.hidden_dims, self.context_dim)?;
        check::sizes(&[("outputs_per_dim", self.outputs_per_dim, 1024)])?;
        let outputs = self.outputs_per_dim * dim;
        let inputs = dim + self.context_dim.unwrap_or(0);
        ensure(
            weights(inputs, &self.hidden_dims, outputs) <= MAX_WEIGHTS,
            "hidden_dims",
            format!("{:?}", self.hidden_dims),
            &format!("a network of at most {MAX_WEIGHTS} weights"),
        )?;
        let degrees = self.degrees(dim);
        let last = degrees.len() - 2;
        let layer = |(index, pair): (usize, &[Vec<usize>])| {
            let initializer = match index == last {
                true => Initializer::ZEROS,
                false => Initializer::PYTORCH,
            };
            MaskedLinear::new(&pair[0], &pair[1], index == last, initializer, device)
        };
        Ok(Made {
            layers: degrees.windows(2).enumerate().map(layer).collect(),
            context: self.context_dim.map(|width| {
                // The masked layer beside it has a bias.
                LinearConfig::new(width, self.hidden_dims[0])
                    .with_bias(false)
                    .init(device)
            }),
            dim,
            config: self.clone(),
        })
    }

    /// Degrees of the inputs, of the units of each hidden layer, and of the outputs. The degree of
    /// an input or output is the position of its dimension in the order, from 1 on. A hidden unit
    /// of degree `d` sees the inputs up to degree `d`, and outputs of higher degrees see it. With a
    /// context, there are units of degree 0, which see the context only: without them, the outputs
    /// of the first dimension would not depend on it.
    fn degrees(&self, dim: usize) -> Vec<Vec<usize>> {
        let inputs: Vec<usize> = (1..=dim).collect();
        let inputs = match self.reverse {
            true => inputs.into_iter().rev().collect(),
            false => inputs,
        };
        let lowest = match self.context_dim {
            Some(_) => 0,
            None => usize::from(dim > 1),
        };
        let count = dim - lowest;
        let hidden = self.hidden_dims.iter().map(|width| -> Vec<usize> {
            let degree = |unit: usize| lowest + unit * count / width;
            (0..*width).map(degree).collect()
        });
        let outputs = inputs.repeat(self.outputs_per_dim);
        std::iter::once(inputs.clone())
            .chain(hidden)
            .chain([outputs])
            .collect()
    }
}

/// A linear layer without the connections that the order forbids.
#[derive(Module, Debug)]
struct MaskedLinear {
    /// `[inputs, outputs]`.
    weight: Param<Tensor<2>>,
    /// `[outputs]`.
    bias: Param<Tensor<1>>,
    /// 1 for a connection and 0 elsewhere, `[inputs, outputs]`; constant.
    mask: Tensor<2>,
}

impl MaskedLinear {
    /// A layer between units of these degrees. A unit of the last layer sees lower degrees, a
    /// hidden unit also its own (Germain et al. 2015, eq. 8 and 9).
    fn new(
        inputs: &[usize],
        outputs: &[usize],
        is_last: bool,
        initializer: Initializer,
        device: &Device,
    ) -> Self {
        let (i, o) = (inputs.len(), outputs.len());
        let connected = |from: usize, to: usize| match is_last {
            true => from < to,
            false => from <= to,
        };
        let mask: Vec<f32> = inputs
            .iter()
            .flat_map(|from| outputs.iter().map(|to| f32::from(connected(*from, *to))))
            .collect();
        Self {
            weight: initializer.param([i, o], i, o, device),
            bias: initializer.param([o], i, o, device),
            mask: Tensor::from_data(TensorData::new(mask, [i, o]), device),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let weight = self.weight.val() * self.mask.clone();
        ops::linear(x, weight, Some(self.bias.val()))
    }
}

/// A network with masked weights: the outputs of a dimension depend only on the inputs of the
/// dimensions before it in an order, and on a context (MADE, Germain et al. 2015,
/// <https://arxiv.org/abs/1502.03509>).
#[derive(Module, Debug)]
pub struct Made {
    layers: Vec<MaskedLinear>,
    context: Option<Linear>,
    dim: usize,
    #[module(skip)]
    config: MadeConfig,
}

impl Made {
    /// Configuration of the network.
    pub fn config(&self) -> &MadeConfig {
        &self.config
    }

    /// Number of dimensions of an input.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// The dimensions in their order.
    pub fn order(&self) -> Vec<usize> {
        match self.config.reverse {
            true => (0..self.dim).rev().collect(),
            false => (0..self.dim).collect(),
        }
    }

    /// Applies the network.
    ///
    /// # Shapes
    /// - x: `[batch, dim]`; context: `[batch, context_dim]`
    /// - output: `outputs_per_dim` tensors `[batch, dim]`
    ///
    /// # Panics
    /// Unless a context of this width is given exactly if the network has one.
    pub fn forward(&self, x: Tensor<2>, context: Option<&Tensor<2>>) -> Vec<Tensor<2>> {
        check_context(self.config.context_dim, context);
        let mut context = self
            .context
            .as_ref()
            .zip(context)
            .map(|(layer, context)| layer.forward(context.clone()));
        let mut x = x;
        for (index, layer) in self.layers.iter().enumerate() {
            x = layer.forward(x);
            if let Some(context) = context.take() {
                x = x + context;
            }
            if index + 1 < self.layers.len() {
                x = self.config.activation.forward(x);
            }
        }
        (0..self.config.outputs_per_dim)
            .map(|k| x.clone().narrow(1, k * self.dim, self.dim))
            .collect()
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::flow::testing::{perturbed, rows};
    use aigc_core::testing::values;

    /// Whether output `i` is connected to input `j` through any path of units, `[dim][dim]`.
    fn connections(made: &Made) -> Vec<Vec<bool>> {
        let product = made
            .layers
            .iter()
            .map(|layer| layer.mask.clone())
            .reduce(|product, mask| product.matmul(mask))
            .unwrap();
        let paths = values(product);
        let outputs = made.dim * made.config.outputs_per_dim;
        (0..outputs)
            .map(|i| {
                (0..made.dim)
                    .map(|j| paths[j * outputs + i] > 0.0)
                    .collect()
            })
            .collect()
    }

    #[test]
    fn masks_connect_exactly_what_the_order_allows() {
        let device = Device::flex();
        for (reverse, context_dim) in [(false, None), (true, None), (false, Some(2))] {
            let config = MadeConfig {
                reverse,
                context_dim,
                ..MadeConfig::new(&[9, 6])
            };
            let made = config.init(5, &device).unwrap();
            let mut position = [0; 5];
            for (index, dim) in made.order().into_iter().enumerate() {
                position[dim] = index;
            }
            for (output, connected) in connections(&made).into_iter().enumerate() {
                for (input, connected) in connected.into_iter().enumerate() {
                    let allowed = position[input] < position[output % 5];
                    assert_eq!(connected, allowed, "output {output}, input {input}");
                }
            }
        }
    }

    /// A change of an input changes later outputs only, and a change of the context all outputs.
    #[test]
    fn outputs_depend_on_earlier_inputs_and_on_the_context() {
        let config = MadeConfig {
            context_dim: Some(2),
            activation: Activation::Tanh,
            ..MadeConfig::new(&[8, 8])
        };
        let made = perturbed(config.init(4, &Device::flex()).unwrap(), 0.7, 1);
        let outputs = |x: &[f64], context: &[f64]| {
            let outputs = made.forward(rows(x, 4), Some(&rows(context, 2)));
            assert_eq!(outputs.len(), 2);
            outputs.into_iter().map(values).collect::<Vec<_>>()
        };
        let (x, context) = ([0.3, -0.4, 1.1, 0.2], [0.5, -0.5]);
        let base = outputs(&x, &context);
        for changed in 0..4 {
            let mut other = x;
            other[changed] += 1.0;
            for (a, b) in base.iter().zip(outputs(&other, &context)) {
                for (dim, (a, b)) in a.iter().zip(&b).enumerate() {
                    assert_eq!(a != b, dim > changed, "{changed} {dim}");
                }
            }
        }
        for (a, b) in base.iter().zip(outputs(&x, &[0.6, -0.5])) {
            assert!(a.iter().zip(&b).all(|(a, b)| a != b), "{a:?} {b:?}");
        }
    }

    #[test]
    fn single_dimension_depends_on_the_context_only() {
        let device = Device::flex();
        let with_context = MadeConfig {
            context_dim: Some(1),
            ..MadeConfig::new(&[3])
        };
        let made = perturbed(with_context.init(1, &device).unwrap(), 1.0, 2);
        let output =
            |x: f64, c: f64| values(made.forward(rows(&[x], 1), Some(&rows(&[c], 1)))[0].clone());
        assert_eq!(output(0.0, 1.0), output(5.0, 1.0));
        assert_ne!(output(0.0, 1.0), output(0.0, -1.0));
        let made = perturbed(MadeConfig::new(&[3]).init(1, &device).unwrap(), 1.0, 2);
        let output = |x: f64| values(made.forward(rows(&[x], 1), None)[0].clone());
        assert_eq!(output(0.0), output(5.0));
    }
}
