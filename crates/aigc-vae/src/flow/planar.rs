//! Planar flows.

use super::{Flow, FlowConfig, FlowKind, check_context, row_sums};
use aigc_core::{
    Result,
    nn::{Activation, Initializer, Linear, LinearConfig},
};
use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};

/// Planar flow (Rezende and Mohamed 2015, <https://arxiv.org/abs/1505.05770>): each layer maps
/// `y = x + û·tanh(w·x + b)` (eq. 10), which moves points along one direction. `û` is `u`, changed
/// along `w` so that `w·û = softplus(w·u) − 1 > −1`; then the layer is invertible (app. A.1). With
/// a context, a linear layer adds to `u`, `w` and `b` for each sample: amortised flows.
///
/// The inverse has no closed form. Along `w` it is the root of an increasing function of one
/// variable, found by bisection; one Newton step from it gives the derivatives.
#[derive(Module, Debug)]
pub struct PlanarFlow {
    layers: Vec<Planar>,
    dim: usize,
    #[module(skip)]
    config: FlowConfig,
}

/// The parameters of one layer.
#[derive(Module, Debug)]
struct Planar {
    /// `[dim]`.
    u: Param<Tensor<1>>,
    /// `[dim]`.
    w: Param<Tensor<1>>,
    /// `[1]`.
    b: Param<Tensor<1>>,
    /// `context → (u, w, b)`.
    context: Option<Linear>,
}

/// `û`, `w`, `b` and `softplus(w·u)`, `[1 or batch, …]`.
struct Parameters {
    u: Tensor<2>,
    w: Tensor<2>,
    b: Tensor<2>,
    /// `1 + w·û`.
    slope: Tensor<2>,
}

impl Planar {
    fn new(config: &FlowConfig, dim: usize, device: &Device) -> Self {
        let direction = Initializer::Normal {
            mean: 0.0,
            std: 1.0 / (dim as f64).sqrt(),
        };
        Self {
            u: Initializer::ZEROS.param([dim], dim, dim, device),
            w: direction.param([dim], dim, dim, device),
            b: Initializer::ZEROS.param([1], dim, 1, device),
            context: config.context_dim.map(|width| {
                LinearConfig::new(width, 2 * dim + 1)
                    .with_initializer(Initializer::ZEROS)
                    .init(device)
            }),
        }
    }

    fn parameters(&self, context: Option<&Tensor<2>>) -> Parameters {
        let [mut u, mut w, mut b] =
            [&self.u, &self.w, &self.b].map(|param| param.val().unsqueeze::<2>());
        if let (Some(layer), Some(context)) = (&self.context, context) {
            let (dim, added) = (u.dims()[1], layer.forward(context.clone()));
            u = u + added.clone().narrow(1, 0, dim);
            w = w + added.clone().narrow(1, dim, dim);
            b = b + added.narrow(1, 2 * dim, 1);
        }
        let along = (w.clone() * u.clone()).sum_dim(1);
        let slope = Activation::Softplus.forward(along.clone());
        let size = w.clone().square().sum_dim(1).clamp_min(1e-12);
        Parameters {
            u: u + (slope.clone() - 1.0 - along) / size * w.clone(),
            w,
            b,
            slope,
        }
    }
}

impl Parameters {
    /// `log |1 + w·û·(1 − t²)|` for `t = tanh(w·x + b)`, as the logarithm of a sum of terms that
    /// are not negative, `[batch]`.
    fn log_det(&self, t: Tensor<2>) -> Tensor<1> {
        let square = t.square();
        let slope = (-square.clone() + 1.0) * self.slope.clone() + square;
        row_sums(slope.clamp_min(1e-30).log())
    }

    /// `w·x` for the image `y` of `x`, `[batch, 1]`: the root `α` of `α + w·û·tanh(α + b) = w·y`.
    fn project_inverse(&self, y: Tensor<2>) -> Tensor<2> {
        /// Enough for single precision from any bracket that is not far from the origin.
        const BISECTIONS: usize = 40;
        let target = (y * self.w.clone()).sum_dim(1);
        let along = self.slope.clone() - 1.0;
        let root = {
            let [target, along, b] = [&target, &along, &self.b].map(|x| x.clone().detach());
            // |tanh| < 1 brackets the root.
            let mut low = target.clone() - along.clone().abs();
            let mut width = along.clone().abs() * 2.0 + target.zeros_like();
            for _ in 0..BISECTIONS {
                width = width * 0.5;
                let middle = low.clone() + width.clone();
                let value = (middle.clone() + b.clone()).tanh() * along.clone() + middle.clone();
                let below = value.lower(target.clone());
                low = low.mask_where(below, middle);
            }
            low
        };
        let t = (root.clone() + self.b.clone()).tanh();
        let value = root.clone() + along.clone() * t.clone() - target;
        let t = t.detach();
        let steepness = (-t.square() + 1.0) * along.detach() + 1.0;
        root - value / steepness.clamp_min(1e-6)
    }
}

impl PlanarFlow {
    /// Creates a flow of vectors of `dim` dimensions on `device`, of this configuration whatever
    /// its kind. The layers have no networks: `hidden_dims`, `activation` and `max_log_scale` are
    /// recorded, and not used.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range.
    pub fn new(config: &FlowConfig, dim: usize, device: &Device) -> Result<Self> {
        let config = config.of_kind(FlowKind::Planar);
        config.validate(dim)?;
        Ok(Self {
            layers: (0..config.num_layers)
                .map(|_| Planar::new(&config, dim, device))
                .collect(),
            dim,
            config,
        })
    }

    /// Configuration of the flow.
    pub fn config(&self) -> &FlowConfig {
        &self.config
    }
}

impl Flow for PlanarFlow {
    fn dim(&self) -> usize {
        self.dim
    }

    fn context_dim(&self) -> Option<usize> {
        self.config.context_dim
    }

    fn forward(&self, x: Tensor<2>, context: Option<&Tensor<2>>) -> (Tensor<2>, Tensor<1>) {
        check_context(self.config.context_dim, context);
        let mut log_det = Tensor::<1>::zeros([x.dims()[0]], &x.device());
        let mut x = x;
        for layer in &self.layers {
            let parameters = layer.parameters(context);
            let projected = (x.clone() * parameters.w.clone()).sum_dim(1);
            let t = (projected + parameters.b.clone()).tanh();
            x = x + parameters.u.clone() * t.clone();
            log_det = log_det + parameters.log_det(t);
        }
        (x, log_det)
    }

    fn inverse(&self, y: Tensor<2>, context: Option<&Tensor<2>>) -> Result<(Tensor<2>, Tensor<1>)> {
        check_context(self.config.context_dim, context);
        let mut log_det = Tensor::<1>::zeros([y.dims()[0]], &y.device());
        let mut y = y;
        for layer in self.layers.iter().rev() {
            let parameters = layer.parameters(context);
            let projected = parameters.project_inverse(y.clone());
            let t = (projected + parameters.b.clone()).tanh();
            y = y - parameters.u.clone() * t.clone();
            log_det = log_det - parameters.log_det(t);
        }
        Ok((y, log_det))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::flow::testing::{check_flow, perturbed, rows};
    use aigc_core::testing::values;

    fn flow(dim: usize, layers: usize, context: Option<usize>, std: f64) -> PlanarFlow {
        let config = FlowConfig {
            context_dim: context,
            ..FlowConfig::new(FlowKind::Planar).with_num_layers(layers)
        };
        let flow = PlanarFlow::new(&config, dim, &Device::flex()).unwrap();
        perturbed(flow, std, 8)
    }

    #[test]
    fn log_determinants_and_inverses_are_exact() {
        check_flow(&flow(3, 4, None, 0.6));
        check_flow(&flow(4, 3, Some(2), 0.5));
        check_flow(&flow(1, 2, None, 0.8));
    }

    /// `w·û > −1` for weights that would make a layer without the constraint fold.
    #[test]
    fn constraint_keeps_layers_invertible() {
        let flow = flow(2, 1, None, 3.0);
        let layer = Planar {
            u: flow.layers[0].w.clone().map(|w| w * -2.0),
            ..flow.layers[0].clone()
        };
        let parameters = layer.parameters(None);
        let plain = values((layer.w.val() * layer.u.val()).sum())[0];
        let constrained = values((parameters.w.clone() * parameters.u.clone()).sum())[0];
        assert!(
            plain < -1.5 && constrained >= -1.0 - 1e-3,
            "{plain} {constrained}"
        );
        let folded = PlanarFlow {
            layers: vec![layer],
            ..flow
        };
        let (_, log_det) = folded.forward(rows(&[0.1, 0.2, -3.0, 1.0, 40.0, 2.0], 2), None);
        assert!(values(log_det).iter().all(|l| l.is_finite()));
    }

    /// The gradient of a function of the inverse, against differences.
    #[test]
    fn inverse_has_the_derivatives_of_the_root() {
        let plain = flow(2, 2, None, 0.6);
        let y = rows(&[0.4, -0.9, 1.3, 0.2], 2);
        let value = |flow: &PlanarFlow, y: Tensor<2>| {
            let (x, log_det) = flow.inverse(y, None).unwrap();
            x.square().sum() + log_det.sum()
        };
        let trained = plain.clone().train();
        let gradients = value(&trained, y.clone().autodiff()).backward();
        let found = trained.layers[0].w.val().grad(&gradients).unwrap();
        let found = values(found);
        const STEP: f64 = 1e-2;
        for (index, found) in found.into_iter().enumerate() {
            let moved = |offset: f64| {
                let mut flow = plain.clone();
                let mut step = [0.0f32; 2];
                step[index] = offset as f32;
                flow.layers[0].w = flow.layers[0]
                    .w
                    .clone()
                    .map(|w| w + Tensor::from_floats(step, &Device::flex()));
                f64::from(values(value(&flow, y.clone()))[0])
            };
            let expected = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
            let error = (f64::from(found) - expected).abs();
            assert!(error < 0.02 * (1.0 + expected.abs()), "{found} {expected}");
        }
    }
}
