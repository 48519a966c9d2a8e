//! Affine coupling layers.

use super::{Flow, FlowConfig, FlowKind, bounded, check_context, row_sums};
use aigc_core::{
    Result,
    check::ensure,
    nn::{Initializer, Linear, LinearConfig},
};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// Affine coupling layers (real NVP, Dinh et al. 2017, <https://arxiv.org/abs/1605.08803>). Each
/// layer keeps one half of the dimensions, `x_a`, and maps the other: `y_b = x_b·exp(s) + t`, where
/// the log scale `s` and the shift `t` are functions of `x_a` (§3.2), computed by one network. The
/// halves alternate from layer to layer, so at least two layers are needed to change all
/// dimensions. Both directions take one pass.
#[derive(Module, Debug)]
pub struct RealNvp {
    layers: Vec<Coupling>,
    dim: usize,
    #[module(skip)]
    config: FlowConfig,
}

/// The network of one layer.
#[derive(Module, Debug)]
struct Coupling {
    layers: Vec<Linear>,
    /// Whether the second half is kept instead of the first.
    keeps_second: bool,
}

impl RealNvp {
    /// Creates a flow of vectors of `dim` dimensions on `device`, of this configuration whatever
    /// its kind.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) for values out of range; there must be at least
    /// 2 dimensions.
    pub fn new(config: &FlowConfig, dim: usize, device: &Device) -> Result<Self> {
        let config = config.of_kind(FlowKind::RealNvp);
        config.validate(dim)?;
        ensure(dim >= 2, "dim", dim, "at least 2, for a coupling layer")?;
        let first = dim - dim / 2;
        let coupling = |layer: usize| {
            let keeps_second = layer % 2 == 1;
            let kept = match keeps_second {
                true => dim - first,
                false => first,
            };
            let widths: Vec<usize> = std::iter::once(kept + config.context_dim.unwrap_or(0))
                .chain(config.hidden_dims.iter().copied())
                .chain([2 * (dim - kept)])
                .collect();
            let last = widths.len() - 2;
            let linear = |(index, pair): (usize, &[usize])| {
                let initializer = match index == last {
                    true => Initializer::ZEROS,
                    false => Initializer::PYTORCH,
                };
                LinearConfig::new(pair[0], pair[1])
                    .with_initializer(initializer)
                    .init(device)
            };
            Coupling {
                layers: widths.windows(2).enumerate().map(linear).collect(),
                keeps_second,
            }
        };
        Ok(Self {
            layers: (0..config.num_layers).map(coupling).collect(),
            dim,
            config,
        })
    }

    /// Configuration of the flow.
    pub fn config(&self) -> &FlowConfig {
        &self.config
    }

    /// Splits a vector in the part that a layer keeps and the part that it maps.
    fn split(&self, layer: &Coupling, x: Tensor<2>) -> [Tensor<2>; 2] {
        let first = self.dim - self.dim / 2;
        let halves = [
            x.clone().narrow(1, 0, first),
            x.narrow(1, first, self.dim - first),
        ];
        let [a, b] = halves;
        if layer.keeps_second { [b, a] } else { [a, b] }
    }

    /// Joins the two parts again.
    fn join(layer: &Coupling, kept: Tensor<2>, mapped: Tensor<2>) -> Tensor<2> {
        let halves = match layer.keeps_second {
            true => vec![mapped, kept],
            false => vec![kept, mapped],
        };
        Tensor::cat(halves, 1)
    }

    /// Shift and log scale of the mapped part.
    fn shift_and_log_scale(
        &self,
        layer: &Coupling,
        kept: Tensor<2>,
        context: Option<&Tensor<2>>,
    ) -> [Tensor<2>; 2] {
        let mut x = match context {
            Some(context) => Tensor::cat(vec![kept, context.clone()], 1),
            None => kept,
        };
        for (index, linear) in layer.layers.iter().enumerate() {
            x = linear.forward(x);
            if index + 1 < layer.layers.len() {
                x = self.config.activation.forward(x);
            }
        }
        let width = x.dims()[1] / 2;
        let scale = x.clone().narrow(1, width, width);
        [
            x.narrow(1, 0, width),
            bounded(scale, self.config.max_log_scale),
        ]
    }
}

impl Flow for RealNvp {
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
            let [kept, mapped] = self.split(layer, x);
            let [shift, log_scale] = self.shift_and_log_scale(layer, kept.clone(), context);
            x = Self::join(layer, kept, mapped * log_scale.clone().exp() + shift);
            log_det = log_det + row_sums(log_scale);
        }
        (x, log_det)
    }

    fn inverse(&self, y: Tensor<2>, context: Option<&Tensor<2>>) -> Result<(Tensor<2>, Tensor<1>)> {
        check_context(self.config.context_dim, context);
        let mut log_det = Tensor::<1>::zeros([y.dims()[0]], &y.device());
        let mut y = y;
        for layer in self.layers.iter().rev() {
            let [kept, mapped] = self.split(layer, y);
            let [shift, log_scale] = self.shift_and_log_scale(layer, kept.clone(), context);
            let negated = -log_scale;
            y = Self::join(layer, kept, (mapped - shift) * negated.clone().exp());
            log_det = log_det + row_sums(negated);
        }
        Ok((y, log_det))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::flow::testing::{check_flow, jacobian, perturbed, rows};
    use aigc_core::{nn::Activation, testing::values};

    fn flow(dim: usize, layers: usize, context: Option<usize>) -> RealNvp {
        let config = FlowConfig {
            activation: Activation::Tanh,
            context_dim: context,
            ..FlowConfig::new(FlowKind::RealNvp)
        };
        let config = config.with_num_layers(layers).with_hidden_dims(&[10]);
        let flow = RealNvp::new(&config, dim, &Device::flex()).unwrap();
        perturbed(flow, 0.4, 6)
    }

    #[test]
    fn log_determinants_and_inverses_are_exact() {
        check_flow(&flow(2, 2, None));
        check_flow(&flow(5, 4, None));
        check_flow(&flow(3, 3, Some(2)));
    }

    /// The first layer keeps the first half, and two layers change every dimension.
    #[test]
    fn halves_alternate() {
        let x = [0.2, -0.6, 0.9];
        let changed = |layers| {
            let flow = flow(3, layers, None);
            let y = values(flow.forward(rows(&x, 3), None).0);
            let near = |(y, x): (f32, &f64)| (f64::from(y) - x).abs() > 1e-4;
            y.into_iter().zip(&x).map(near).collect::<Vec<_>>()
        };
        assert_eq!(changed(1), [false, false, true]);
        assert_eq!(changed(2), [true, true, true]);
        let flow = flow(3, 1, None);
        let jacobian = jacobian(&x, |near| flow.forward(near, None).0);
        // The mapped dimension depends on both kept ones.
        assert!(jacobian[6].abs() > 1e-3 && jacobian[7].abs() > 1e-3);
    }
}
