//! Normalising flows of vectors (Rezende and Mohamed 2015, <https://arxiv.org/abs/1505.05770>).
//!
//! A flow is an invertible map with a Jacobian determinant that is cheap to compute. It turns a
//! simple density into a flexible one, by the change of variables.

mod autoregressive;
mod coupling;
mod made;
mod planar;
#[cfg(all(test, feature = "flex"))]
pub(crate) mod testing;

pub use autoregressive::{InverseAutoregressiveFlow, MaskedAutoregressiveFlow};
pub use coupling::RealNvp;
pub use made::{Made, MadeConfig};
pub use planar::PlanarFlow;

use aigc_core::{
    Error, Result,
    check::{self, ensure},
    nn::Activation,
};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};

/// An invertible map of vectors, from the side of a simple density to that of the data or latents.
///
/// If `x` has the density `p`, then `y = forward(x)` has the density
/// `log q(y) = log p(x) − log_det`. Both directions of every flow of this crate exist, but their
/// costs differ:
///
/// | flow | `forward` | `inverse` |
/// |---|---|---|
/// | [`PlanarFlow`] | one pass | one scalar root per sample and layer |
/// | [`InverseAutoregressiveFlow`] | one pass | `dim` passes per layer |
/// | [`MaskedAutoregressiveFlow`] | `dim` passes per layer | one pass |
/// | [`RealNvp`] | one pass | one pass |
///
/// A posterior is drawn from in every training step, which takes `forward`; a prior evaluates the
/// density of given latents, which takes `inverse`.
pub trait Flow: Module + ModuleDisplay {
    /// Number of dimensions of a vector.
    fn dim(&self) -> usize;

    /// Width of the context that the map depends on; `None` for a map without context.
    fn context_dim(&self) -> Option<usize> {
        None
    }

    /// Maps `x` to `y`.
    ///
    /// # Shapes
    /// - x: `[batch, dim]`; context: `[batch, context_dim]`
    /// - output: `y`, `[batch, dim]`, and `log |det ∂y/∂x|`, `[batch]`
    ///
    /// # Panics
    /// Unless a context of this width is given exactly if the flow has one.
    fn forward(&self, x: Tensor<2>, context: Option<&Tensor<2>>) -> (Tensor<2>, Tensor<1>);

    /// Maps `y` back to `x`.
    ///
    /// # Shapes
    /// - y: `[batch, dim]`; context: `[batch, context_dim]`
    /// - output: `x`, `[batch, dim]`, and `log |det ∂x/∂y|`, `[batch]`: minus that of
    ///   [`forward`](Self::forward)
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the inverse cannot be computed. The flows of this crate have no
    /// errors.
    ///
    /// # Panics
    /// Unless a context of this width is given exactly if the flow has one.
    fn inverse(&self, y: Tensor<2>, context: Option<&Tensor<2>>) -> Result<(Tensor<2>, Tensor<1>)>;
}

/// Type of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FlowKind {
    /// [`PlanarFlow`].
    Planar,
    /// [`MaskedAutoregressiveFlow`].
    Maf,
    /// [`InverseAutoregressiveFlow`].
    Iaf,
    /// [`RealNvp`].
    RealNvp,
}

/// Configuration to create a flow of any kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowConfig {
    /// Type of the flow.
    pub kind: FlowKind,
    /// Number of maps, one after the other.
    pub num_layers: usize,
    /// Widths of the hidden layers of each network; planar flows have no networks.
    pub hidden_dims: Vec<usize>,
    /// Activation of the hidden layers.
    pub activation: Activation,
    /// Bound on the logarithm of the scale of each dimension in one layer, in both directions: the
    /// network's output `s` becomes `m·tanh(s/m)`. It keeps a layer invertible in single precision.
    /// In an [`InverseAutoregressiveFlow`] it bounds the logit of the gate in the same way; planar
    /// flows do not use it.
    pub max_log_scale: f64,
    /// Width of the context, of a flow with context.
    pub context_dim: Option<usize>,
}

/// Limit on the number of weights and masks of a flow.
const MAX_WEIGHTS: u128 = 1 << 28;

impl FlowConfig {
    /// Ten planar layers, or four layers of another kind, with one hidden layer of 64 units, ReLU,
    /// log scales within ±3, no context.
    pub fn new(kind: FlowKind) -> Self {
        Self {
            kind,
            num_layers: if kind == FlowKind::Planar { 10 } else { 4 },
            hidden_dims: vec![64],
            activation: Activation::Relu,
            max_log_scale: 3.0,
            context_dim: None,
        }
    }

    /// Sets the number of layers.
    pub fn with_num_layers(mut self, num_layers: usize) -> Self {
        self.num_layers = num_layers;
        self
    }

    /// Sets the widths of the hidden layers.
    pub fn with_hidden_dims(mut self, hidden_dims: &[usize]) -> Self {
        self.hidden_dims = hidden_dims.to_vec();
        self
    }

    /// Sets the width of the context.
    pub fn with_context_dim(mut self, context_dim: usize) -> Self {
        self.context_dim = Some(context_dim);
        self
    }

    /// Creates a flow of vectors of `dim` dimensions on `device`. Its networks begin with outputs
    /// of zero: an autoregressive or coupling flow begins as the identity, up to the initial gates
    /// of an [`InverseAutoregressiveFlow`].
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range.
    pub fn init(&self, dim: usize, device: &Device) -> Result<AnyFlow> {
        Ok(match self.kind {
            FlowKind::Planar => AnyFlow::Planar(PlanarFlow::new(self, dim, device)?),
            FlowKind::Maf => AnyFlow::Maf(MaskedAutoregressiveFlow::new(self, dim, device)?),
            FlowKind::Iaf => AnyFlow::Iaf(InverseAutoregressiveFlow::new(self, dim, device)?),
            FlowKind::RealNvp => AnyFlow::RealNvp(RealNvp::new(self, dim, device)?),
        })
    }

    /// The configuration with another kind, for flows that record what they were created from.
    fn of_kind(&self, kind: FlowKind) -> Self {
        Self {
            kind,
            ..self.clone()
        }
    }

    /// Fails unless every value is in its range, and the number of weights of all layers together.
    fn validate(&self, dim: usize) -> Result<()> {
        check_sizes(dim, &self.hidden_dims, self.context_dim)?;
        check::sizes(&[("num_layers", self.num_layers, 1024)])?;
        ensure(
            self.max_log_scale > 0.0 && self.max_log_scale <= 20.0,
            "max_log_scale",
            self.max_log_scale,
            "above 0, at most 20",
        )?;
        let context = self.context_dim.unwrap_or(0);
        let per_layer = match self.kind {
            FlowKind::Planar => weights(context, &[], 2 * dim + 1),
            _ => weights(dim + context, &self.hidden_dims, 2 * dim),
        };
        let weights = per_layer * self.num_layers as u128;
        let expected = format!("a flow of at most {MAX_WEIGHTS} weights, not {weights}");
        ensure(
            weights <= MAX_WEIGHTS,
            "num_layers",
            self.num_layers,
            &expected,
        )
    }
}

/// Fails unless the sizes of a network are within limits.
fn check_sizes(dim: usize, hidden_dims: &[usize], context_dim: Option<usize>) -> Result<()> {
    const MAX_DIM: usize = 1 << 14;
    check::sizes(&[
        ("dim", dim, MAX_DIM),
        ("context_dim", context_dim.unwrap_or(1), MAX_DIM),
    ])?;
    ensure(
        (1..=8).contains(&hidden_dims.len())
            && hidden_dims.iter().all(|width| (1..=4096).contains(width)),
        "hidden_dims",
        format!("{hidden_dims:?}"),
        "1 to 8 numbers from 1 to 4096",
    )
}

/// Number of weights of a network.
fn weights(inputs: usize, hidden_dims: &[usize], outputs: usize) -> u128 {
    let widths: Vec<u128> = std::iter::once(inputs)
        .chain(hidden_dims.iter().copied())
        .chain([outputs])
        .map(|width| width as u128)
        .collect();
    widths.windows(2).map(|pair| pair[0] * pair[1]).sum()
}

/// Panics unless a context of the width `expected` is given exactly if the flow has one.
#[track_caller]
fn check_context(expected: Option<usize>, context: Option<&Tensor<2>>) {
    let given = context.map(|context| context.dims()[1]);
    assert_eq!(given, expected, "width of the context of a flow");
}

/// `s` with its size smoothly bounded by `max`: `m·tanh(s/m)`.
fn bounded(s: Tensor<2>, max: f64) -> Tensor<2> {
    Activation::SoftClamp(max).forward(s)
}

/// Sum over the dimensions, `[batch]`.
fn row_sums(x: Tensor<2>) -> Tensor<1> {
    x.sum_dim(1).squeeze_dim(1)
}

/// Any flow of this crate.
#[derive(Module, Debug)]
#[non_exhaustive]
pub enum AnyFlow {
    /// Maps along one direction each.
    Planar(PlanarFlow),
    /// Autoregressive, with a fast inverse.
    Maf(MaskedAutoregressiveFlow),
    /// Autoregressive, with a fast forward direction.
    Iaf(InverseAutoregressiveFlow),
    /// Affine coupling layers.
    RealNvp(RealNvp),
}

/// Evaluates an expression of the flow in an [`AnyFlow`].
macro_rules! with_flow {
    ($any:expr, $flow:ident => $value:expr) => {
        match $any {
            AnyFlow::Planar($flow) => $value,
            AnyFlow::Maf($flow) => $value,
            AnyFlow::Iaf($flow) => $value,
            AnyFlow::RealNvp($flow) => $value,
        }
    };
}

impl AnyFlow {
    /// Configuration of the flow.
    pub fn config(&self) -> &FlowConfig {
        with_flow!(self, flow => flow.config())
    }
}

impl Flow for AnyFlow {
    fn dim(&self) -> usize {
        with_flow!(self, flow => flow.dim())
    }

    fn context_dim(&self) -> Option<usize> {
        with_flow!(self, flow => flow.context_dim())
    }

    fn forward(&self, x: Tensor<2>, context: Option<&Tensor<2>>) -> (Tensor<2>, Tensor<1>) {
        with_flow!(self, flow => flow.forward(x, context))
    }

    fn inverse(&self, y: Tensor<2>, context: Option<&Tensor<2>>) -> Result<(Tensor<2>, Tensor<1>)> {
        with_flow!(self, flow => flow.inverse(y, context))
    }
}

/// An error for a flow that does not have as many dimensions as the latents.
pub(crate) fn check_dim(flow: &impl Flow, latent_dim: usize) -> Result<()> {
    let expected = format!("{latent_dim}, the number of latent dimensions");
    if flow.dim() == latent_dim {
        return Ok(());
    }
    Err(Error::config("flow.dim", flow.dim(), expected))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use serde_json::{from_value, json, to_value};

    const KINDS: [FlowKind; 4] = [
        FlowKind::Planar,
        FlowKind::Maf,
        FlowKind::Iaf,
        FlowKind::RealNvp,
    ];

    #[test]
    fn flows_of_all_kinds_are_described_by_their_configuration() {
        for kind in KINDS {
            let config = FlowConfig::new(kind)
                .with_num_layers(3)
                .with_hidden_dims(&[5, 7])
                .with_context_dim(2);
            let read: FlowConfig = from_value(to_value(&config).unwrap()).unwrap();
            assert_eq!(read, config);
            let flow = read.init(4, &Device::flex()).unwrap();
            assert_eq!(flow.config(), &config);
            assert_eq!((flow.dim(), flow.context_dim()), (4, Some(2)));
        }
        assert_eq!(to_value(FlowKind::RealNvp).unwrap(), json!("real_nvp"));
    }

    #[test]
    fn sizes_out_of_range_are_rejected_by_name() {
        let device = Device::flex();
        let base = FlowConfig::new(FlowKind::Maf);
        let message = |config: FlowConfig, dim| {
            let error = config.init(dim, &device).map(|flow| flow.dim());
            error.unwrap_err().to_string()
        };
        assert!(message(base.clone(), 0).contains("`dim` is 0"));
        assert!(message(base.clone().with_num_layers(0), 2).contains("`num_layers` is 0"));
        assert!(message(base.clone().with_hidden_dims(&[]), 2).contains("`hidden_dims` is []"));
        let wide = base.clone().with_hidden_dims(&[4096, 4096]);
        assert!(message(wide.with_num_layers(100), 2).contains("weights"));
        let steep = FlowConfig {
            max_log_scale: f64::NAN,
            ..base
        };
        assert!(message(steep, 2).contains("`max_log_scale` is NaN"));
        let coupling = FlowConfig::new(FlowKind::RealNvp);
        assert!(message(coupling, 1).contains("`dim` is 1"));
    }

    /// A density that a flow makes of the standard normal density integrates to 1 over the plane.
    #[test]
    fn densities_integrate_to_one() {
        use crate::prior::{FlowPrior, Prior};
        use aigc_core::testing::values;
        let device = Device::flex();
        let (half, step) = (8.0f32, 0.1f32);
        let side = (2.0 * half / step).round() as usize;
        let at = |k: usize| (k as f32 + 0.5) * step - half;
        let points: Vec<f32> = (0..side * side)
            .flat_map(|k| [at(k / side), at(k % side)])
            .collect();
        let points = burn::tensor::TensorData::new(points, [side * side, 2]);
        let points = Tensor::<2>::from_data(points, &device);
        for kind in KINDS {
            let config = FlowConfig {
                activation: Activation::Tanh,
                ..FlowConfig::new(kind)
            };
            let flow = config
                .with_num_layers(2)
                .with_hidden_dims(&[8])
                .init(2, &device)
                .unwrap();
            let flow = testing::perturbed(flow, 0.3, 5);
            let prior = FlowPrior::new(flow).unwrap();
            let densities = values(prior.log_prob(points.clone()));
            let sum: f64 = densities.iter().map(|l| f64::from(*l).exp()).sum();
            let integral = sum * f64::from(step).powi(2);
            assert!((integral - 1.0).abs() < 0.01, "{kind:?}: {integral}");
        }
    }
}
