//! Masked and inverse autoregressive flows.

use super::{Flow, FlowConfig, FlowKind, Made, MadeConfig, bounded, row_sums};
use aigc_core::{Result, nn::Activation};
use burn::{
    module::Module,
    tensor::{Device, Tensor, activation::sigmoid},
};

/// The networks of the layers of an autoregressive flow; the order of the dimensions is reversed
/// from layer to layer.
fn networks(config: &FlowConfig, dim: usize, device: &Device) -> Result<Vec<Made>> {
    config.validate(dim)?;
    let network = |layer: usize| {
        let made = MadeConfig {
            hidden_dims: config.hidden_dims.clone(),
            outputs_per_dim: 2,
            reverse: layer % 2 == 1,
            activation: config.activation,
            context_dim: config.context_dim,
        };
        made.init(dim, device)
    };
    (0..config.num_layers).map(network).collect()
}

/// The two outputs of a network, `[batch, dim]` each.
fn outputs(made: &Made, x: Tensor<2>, context: Option<&Tensor<2>>) -> [Tensor<2>; 2] {
    let outputs = made.forward(x, context);
    outputs.try_into().expect("two outputs per dimension")
}

/// Solves for the values of one layer, dimension by dimension in the order: `solve` computes a
/// value and its term of the log-determinant from the two outputs of the network and the given
/// value of the dimension, `[batch, 1]` each.
fn solve_in_order(
    made: &Made,
    given: &Tensor<2>,
    context: Option<&Tensor<2>>,
    solve: impl Fn([Tensor<2>; 2], Tensor<2>) -> (Tensor<2>, Tensor<2>),
) -> (Tensor<2>, Tensor<1>) {
    let batch = given.dims()[0];
    let mut solved = given.zeros_like();
    let mut log_det = Tensor::<2>::zeros([batch, 1], &given.device());
    for dim in made.order() {
        // Dimensions that are not solved for yet are 0, and do not affect the outputs of this one.
        let outputs = outputs(made, solved.clone(), context).map(|x| x.narrow(1, dim, 1));
        let (value, term) = solve(outputs, given.clone().narrow(1, dim, 1));
        solved = solved.slice_assign([0..batch, dim..dim + 1], value);
        log_det = log_det + term;
    }
    (solved, log_det.squeeze_dim(1))
}

/// Masked autoregressive flow (Papamakarios et al. 2017, <https://arxiv.org/abs/1705.07057>). In
/// each layer `y_i = x_i·exp(α_i) + μ_i`, where the shift `μ_i` and the log scale `α_i` are
/// functions of `y_1 … y_{i−1}` (§3.1), computed by a [`Made`]; the order of the dimensions is
/// reversed from layer to layer. Bounded log scales take the place of the paper's batch
/// normalisation between layers.
///
/// [`inverse`](Flow::inverse) takes one pass, so that densities are fast;
/// [`forward`](Flow::forward) takes as many passes as there are dimensions.
#[derive(Module, Debug)]
pub struct MaskedAutoregressiveFlow {
    layers: Vec<Made>,
    dim: usize,
    #[module(skip)]
    config: FlowConfig,
}

impl MaskedAutoregressiveFlow {
    /// Creates a flow of vectors of `dim` dimensions on `device`, of this configuration whatever
    /// its kind.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn new(config: &FlowConfig, dim: usize, device: &Device) -> Result<Self> {
        let config = config.of_kind(FlowKind::Maf);
        Ok(Self {
            layers: networks(&config, dim, device)?,
            dim,
            config,
        })
    }

    /// Configuration of the flow.
    pub fn config(&self) -> &FlowConfig {
        &self.config
    }
}

impl Flow for MaskedAutoregressiveFlow {
    fn dim(&self) -> usize {
        self.dim
    }

    fn context_dim(&self) -> Option<usize> {
        self.config.context_dim
    }

    fn forward(&self, x: Tensor<2>, context: Option<&Tensor<2>>) -> (Tensor<2>, Tensor<1>) {
        let mut log_det = Tensor::<1>::zeros([x.dims()[0]], &x.device());
        let mut x = x;
        for made in &self.layers {
            let (y, term) = solve_in_order(made, &x, context, |[shift, scale], x| {
                let log_scale = bounded(scale, self.config.max_log_scale);
                (x * log_scale.clone().exp() + shift, log_scale)
            });
            x = y;
            log_det = log_det + term;
        }
        (x, log_det)
    }

    fn inverse(&self, y: Tensor<2>, context: Option<&Tensor<2>>) -> Result<(Tensor<2>, Tensor<1>)> {
        let mut log_det = Tensor::<1>::zeros([y.dims()[0]], &y.device());
        let mut y = y;
        for made in self.layers.iter().rev() {
            let [shift, scale] = outputs(made, y.clone(), context);
            let negated = -bounded(scale, self.config.max_log_scale);
            y = (y - shift) * negated.clone().exp();
            log_det = log_det + row_sums(negated);
        }
        Ok((y, log_det))
    }
}

/// Inverse autoregressive flow (Kingma et al. 2016, <https://arxiv.org/abs/1606.04934>). In each
/// layer `y = σ·x + (1 − σ)·m`, where the gates `σ = sigmoid(s)` and `m` of dimension `i` are
/// functions of `x_1 … x_{i−1}` and of a context such as the encoder's outputs (algorithm 1),
/// computed by a [`Made`]; the order of the dimensions is reversed from layer to layer.
///
/// [`forward`](Flow::forward) takes one pass, so that posteriors are fast to draw from together
/// with the density of the drawn latents; [`inverse`](Flow::inverse) takes as many passes as there
/// are dimensions.
#[derive(Module, Debug)]
pub struct InverseAutoregressiveFlow {
    layers: Vec<Made>,
    dim: usize,
    #[module(skip)]
    config: FlowConfig,
}

impl InverseAutoregressiveFlow {
    /// The logit of the gates of a network with outputs 0. Positive, so that a layer begins with
    /// gates close to 1 and keeps most of its input (Kingma et al. 2016, §4).
    const INITIAL_LOGIT: f64 = 1.5;

    /// Creates a flow of vectors of `dim` dimensions on `device`, of this configuration whatever
    /// its kind.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn new(config: &FlowConfig, dim: usize, device: &Device) -> Result<Self> {
        let config = config.of_kind(FlowKind::Iaf);
        Ok(Self {
            layers: networks(&config, dim, device)?,
            dim,
            config,
        })
    }

    /// Configuration of the flow.
    pub fn config(&self) -> &FlowConfig {
        &self.config
    }

    /// The gates `σ` and their logarithms, of the network's output.
    fn gates(&self, output: Tensor<2>) -> (Tensor<2>, Tensor<2>) {
        let logit = bounded(output, self.config.max_log_scale) + Self::INITIAL_LOGIT;
        (
            sigmoid(logit.clone()),
            -Activation::Softplus.forward(-logit),
        )
    }
}

impl Flow for InverseAutoregressiveFlow {
    fn dim(&self) -> usize {
        self.dim
    }

    fn context_dim(&self) -> Option<usize> {
        self.config.context_dim
    }

    fn forward(&self, x: Tensor<2>, context: Option<&Tensor<2>>) -> (Tensor<2>, Tensor<1>) {
        let mut log_det = Tensor::<1>::zeros([x.dims()[0]], &x.device());
        let mut x = x;
        for made in &self.layers {
            let [mean, gate] = outputs(made, x.clone(), context);
            let (gate, log_gate) = self.gates(gate);
            // σ·x + (1 − σ)·m
            x = gate * (x - mean.clone()) + mean;
            log_det = log_det + row_sums(log_gate);
        }
        (x, log_det)
    }

    fn inverse(&self, y: Tensor<2>, context: Option<&Tensor<2>>) -> Result<(Tensor<2>, Tensor<1>)> {
        let mut log_det = Tensor::<1>::zeros([y.dims()[0]], &y.device());
        let mut y = y;
        for made in self.layers.iter().rev() {
            let (x, term) = solve_in_order(made, &y, context, |[mean, gate], y| {
                let (_, log_gate) = self.gates(gate);
                let x = (y - mean.clone()) * (-log_gate.clone()).exp() + mean;
                (x, -log_gate)
            });
            y = x;
            log_det = log_det + term;
        }
        Ok((y, log_det))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::flow::{
        AnyFlow,
        testing::{check_flow, jacobian, perturbed, rows},
    };
    use aigc_core::testing::{assert_close, values};

    fn flow(kind: FlowKind, dim: usize, layers: usize, context: Option<usize>) -> AnyFlow {
        let config = FlowConfig {
            activation: Activation::Tanh,
            context_dim: context,
            ..FlowConfig::new(kind)
        };
        let config = config.with_num_layers(layers).with_hidden_dims(&[12]);
        let flow = config.init(dim, &Device::flex()).unwrap();
        perturbed(flow, 0.4, 3)
    }

    #[test]
    fn log_determinants_and_inverses_are_exact() {
        for kind in [FlowKind::Maf, FlowKind::Iaf] {
            check_flow(&flow(kind, 4, 3, None));
            check_flow(&flow(kind, 3, 2, Some(2)));
            check_flow(&flow(kind, 1, 2, Some(1)));
        }
    }

    /// One layer has a triangular Jacobian in its order; a second one reverses the order.
    #[test]
    fn jacobian_of_a_layer_is_triangular() {
        let x = [0.4, -0.3, 0.8, 0.1];
        let triangles = |kind, layers| {
            let flow = flow(kind, 4, layers, None);
            let jacobian = jacobian(&x, |near| flow.forward(near, None).0);
            let largest = |above: bool| {
                (0..16)
                    .filter(|k| k % 4 != k / 4 && (k % 4 > k / 4) == above)
                    .map(|k| jacobian[k].abs())
                    .fold(0.0, f64::max)
            };
            (largest(true), largest(false))
        };
        for kind in [FlowKind::Maf, FlowKind::Iaf] {
            let (upper, lower) = triangles(kind, 1);
            assert!(upper < 1e-5 && lower > 1e-3, "{kind:?} {upper} {lower}");
            let (upper, _) = triangles(kind, 2);
            assert!(upper > 1e-3, "{kind:?} {upper}");
        }
    }

    /// Before training a masked flow is the identity, and an inverse one scales by its gates.
    #[test]
    fn flows_begin_close_to_the_identity() {
        let x = rows(&[0.5, -2.0, 3.0, 1.0], 2);
        let config = FlowConfig::new(FlowKind::Maf).with_num_layers(2);
        let maf = config.init(2, &Device::flex()).unwrap();
        let (y, log_det) = maf.forward(x.clone(), None);
        assert_close(&values(y), &values(x.clone()), 1e-6);
        assert_close(&values(log_det), &[0.0, 0.0], 1e-6);
        let config = FlowConfig::new(FlowKind::Iaf).with_num_layers(2);
        let iaf = config.init(2, &Device::flex()).unwrap();
        let (y, log_det) = iaf.forward(x.clone(), None);
        let gate = 1.0 / (1.0 + (-InverseAutoregressiveFlow::INITIAL_LOGIT).exp());
        for (y, x) in values(y).into_iter().zip(values(x)) {
            assert!((f64::from(y) - f64::from(x) * gate * gate).abs() < 1e-5);
        }
        for log_det in values(log_det) {
            assert!((f64::from(log_det) - 4.0 * gate.ln()).abs() < 1e-5);
        }
    }

    /// The scale of one layer stays within its bound for any weights.
    #[test]
    fn log_scales_are_bounded() {
        let config = FlowConfig {
            max_log_scale: 0.5,
            ..FlowConfig::new(FlowKind::Maf)
        };
        let flow = config.with_num_layers(1).init(3, &Device::flex()).unwrap();
        let flow = perturbed(flow, 20.0, 4);
        let (_, log_det) = flow.inverse(rows(&[5.0, -9.0, 4.0], 3), None).unwrap();
        let log_det = values(log_det)[0];
        assert!(
            log_det.is_finite() && log_det.abs() <= 1.5 + 1e-5,
            "{log_det}"
        );
    }
}
