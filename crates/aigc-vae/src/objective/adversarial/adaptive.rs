//! The adaptive weight of the adversarial term (VQGAN, Esser et al. 2021,
//! <https://arxiv.org/abs/2012.09841>, eq. 7).

use super::{ReconstructionLoss, judge::Decoded};
use crate::Vae;
use aigc_core::{
    Result,
    params::{ParamMapper, ParamVisitor, map_params, visit_params},
};
use burn::{
    module::{Module, Param},
    tensor::{Gradients, Tensor},
};

/// Number added to the norm in the denominator of the adaptive weight, and largest ratio.
const ADAPTIVE: [f64; 2] = [1e-4, 1e4];

/// A function of decoded samples, replaced by its value and its gradient: a backward pass through
/// [`term`](Self::term) does not pass the function again.
pub(super) struct Linearized<const D: usize> {
    x: Tensor<D>,
    /// The value, `[1]`, off the graph.
    pub(super) value: Tensor<1>,
    /// The gradient with respect to `x`, off the graph.
    pub(super) gradient: Tensor<D>,
}

impl<const D: usize> Linearized<D> {
    pub(super) fn new(
        x: Tensor<D>,
        function: impl FnOnce(Tensor<D>) -> Result<Tensor<1>>,
    ) -> Result<Self> {
        let point = x.clone().detach().require_grad();
        let value = function(point.clone())?;
        let gradient = match value.is_tracked() {
            true => point.grad(&value.backward()),
            // A function that ignores the samples.
            false => None,
        };
        Ok(Self {
            gradient: gradient.map_or_else(|| x.zeros_like(), Tensor::from_inner),
            value: value.detach(),
            x,
        })
    }

    /// The value, with the gradient of the function.
    pub(super) fn term(self) -> Tensor<1> {
        let product = (self.x * self.gradient).sum();
        product.clone() - product.detach() + self.value
    }
}

impl ReconstructionLoss {
    /// The ratio `λ` of [`AdversarialWeight::Adaptive`](super::AdversarialWeight::Adaptive), `[1]`,
    /// for the samples `x`. `gradients` are those of the perceptual terms with respect to the
    /// reconstructions, and of the adversarial term with respect to all decoded samples.
    pub(super) fn adaptive_weight<V: Vae<X, Z>, const X: usize, const Z: usize>(
        self,
        vae: &V,
        last_layer: &str,
        x: &Tensor<X>,
        decoded: &Decoded<X, Z>,
        gradients: [&Tensor<X>; 2],
    ) -> Tensor<1> {
        let only = &mut Only(last_layer);
        let vae = map_params(vae.clone().no_grad(), only);
        let [of_similarity, of_adversarial] = gradients.map(Tensor::clone);
        let rows = x.dims()[0];
        let z = decoded.z.clone().detach();
        let condition = decoded.condition.narrow(0, rows);
        let likelihood = vae.decode_with(z.clone().narrow(0, 0, rows), &condition);
        let mean = likelihood.mean();
        let reconstruction = self.compare(&likelihood, &mean, x) + (mean * of_similarity).sum();
        let reconstruction = norm_of_gradient(&vae, last_layer, reconstruction);
        let mean = vae.decode_with(z, &decoded.condition).mean();
        let adversarial = norm_of_gradient(&vae, last_layer, (mean * of_adversarial).sum());
        let [epsilon, largest] = ADAPTIVE;
        (reconstruction / (adversarial + epsilon)).clamp_max(largest)
    }
}

/// The norm of the gradient of `loss` with respect to the parameter at `path`, `[1]`.
fn norm_of_gradient<M: Module>(model: &M, path: &str, loss: Tensor<1>) -> Tensor<1> {
    let mut norm = Norm {
        path,
        gradients: loss.is_tracked().then(|| loss.backward()),
        norm: None,
    };
    visit_params(model, &mut norm);
    match norm.norm {
        Some(norm) => Tensor::from_inner(norm),
        None => loss.zeros_like().detach(),
    }
}

struct Norm<'a> {
    path: &'a str,
    gradients: Option<Gradients>,
    norm: Option<Tensor<1>>,
}

impl ParamVisitor for Norm<'_> {
    fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        if path != self.path {
            return;
        }
        let gradients = self.gradients.as_ref();
        let gradient = gradients.and_then(|gradients| param.val().grad(gradients));
        self.norm = gradient.map(|gradient| (gradient.clone() * gradient).sum().sqrt());
    }
}

/// Sets the gradient of the parameter with this path.
struct Only<'a>(&'a str);

impl ParamMapper for Only<'_> {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match path == self.0 {
            true => param.set_require_grad(true),
            false => param,
        }
    }
}

/// The paths of all parameters.
#[derive(Default)]
pub(super) struct Paths(pub(super) Vec<String>);

impl ParamVisitor for Paths {
    fn visit<const D: usize>(&mut self, path: &str, _param: &Param<Tensor<D>>) {
        self.0.push(path.to_string());
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::{assert_close, values};
    use burn::tensor::Device;

    #[test]
    fn linearized_function_keeps_value_and_gradient() {
        let device = Device::flex().autodiff();
        let x = Tensor::<2>::from_floats([[0.5, -2.0]], &device).require_grad();
        let cube = |x: Tensor<2>| Ok((x.clone() * x.clone() * x).sum());
        let linear = Linearized::new(x.clone() * 2.0, cube).unwrap();
        let term = linear.term() * 3.0;
        assert_close(&values(term.clone()), &[3.0 * (1.0 - 64.0)], 1e-4);
        let gradients = term.backward();
        // 3·3·(2x)²·2.
        assert_close(&values(x.grad(&gradients).unwrap()), &[18.0, 288.0], 1e-4);
        let constant = |_| Ok(Tensor::<1>::from_floats([7.0], &device));
        let linear = Linearized::new(x, constant).unwrap();
        assert_eq!(values(linear.gradient), [0.0, 0.0]);
    }
}
