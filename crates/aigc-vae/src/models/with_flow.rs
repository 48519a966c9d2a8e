//! Models whose posterior is transformed by a flow.

use crate::{
    Condition, ConditionKind, DiagonalGaussian, FlowPosterior, Likelihood, Vae, VaeOutput,
    flow::{AnyFlow, Flow, check_dim},
};
use aigc_core::{Error, Result, data::SampleShape, encoder::Posterior, rng::Rng};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Device, Tensor},
};

/// A VAE with Gaussian posteriors, and a flow that transforms its latents (Rezende and Mohamed
/// 2015, <https://arxiv.org/abs/1505.05770>). Encoder, decoder and flow are trained together as one
/// module.
///
/// The context of a flow with context is the encoder's output, `(μ, log σ²)` side by side.
///
/// ```
/// # use aigc_core::{data::ImageShape, device::device};
/// # use aigc_vae::{FlowConfig, FlowKind, FlowPosteriorVae, MlpVaeConfig};
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let config = MlpVaeConfig::new(ImageShape::new(1, 8, 8));
/// let flow = FlowConfig::new(FlowKind::Iaf).with_context_dim(2 * config.latent_dim);
/// let flow = flow.init(config.latent_dim, &device)?;
/// let model = FlowPosteriorVae::new(config.init(&device)?, flow)?;
/// # let _ = model; Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct FlowPosteriorVae<V, F = AnyFlow> {
    /// The model.
    pub model: V,
    /// The flow of its latents.
    pub flow: F,
}

impl<V, F: Flow> FlowPosteriorVae<V, F> {
    /// Transforms the latents of `model` by `flow`.
    ///
    /// # Errors
    /// [`Error::Config`] unless the flow has as many dimensions as the latents, and no context or
    /// one of twice as many dimensions.
    pub fn new<const X: usize>(model: V, flow: F) -> Result<Self>
    where
        V: Vae<X, 2, Posterior = DiagonalGaussian>,
    {
        let latent_dim = model.latent_dim();
        check_dim(&flow, latent_dim)?;
        match flow.context_dim() {
            Some(width) if width != 2 * latent_dim => Err(Error::config(
                "flow.context_dim",
                width,
                format!("none, or {}: mean and log variance", 2 * latent_dim),
            )),
            _ => Ok(Self { model, flow }),
        }
    }

    /// The posterior with this distribution before the flow.
    fn transform(&self, base: DiagonalGaussian) -> FlowPosterior<F> {
        let context = self
            .flow
            .context_dim()
            .map(|_| Tensor::cat(vec![base.mean.clone(), base.logvar.clone()], 1));
        FlowPosterior {
            base,
            flow: self.flow.clone(),
            context,
        }
    }
}

impl<V, F, const X: usize> Vae<X, 2> for FlowPosteriorVae<V, F>
where
    V: Vae<X, 2, Posterior = DiagonalGaussian> + ModuleDisplay,
    F: Flow,
{
    type Posterior = FlowPosterior<F>;

    fn encode(&self, x: Tensor<X>) -> FlowPosterior<F> {
        self.transform(self.model.encode(x))
    }

    fn decode(&self, z: Tensor<2>) -> Likelihood<X> {
        self.model.decode(z)
    }

    fn latent_shape(&self) -> SampleShape {
        self.model.latent_shape()
    }

    fn sample_shape(&self) -> SampleShape {
        self.model.sample_shape()
    }

    fn accepts(&self, shape: SampleShape) -> bool {
        self.model.accepts(shape)
    }

    fn condition_kind(&self) -> ConditionKind {
        self.model.condition_kind()
    }

    fn encode_with(&self, x: Tensor<X>, condition: &Condition) -> FlowPosterior<F> {
        self.transform(self.model.encode_with(x, condition))
    }

    fn decode_with(&self, z: Tensor<2>, condition: &Condition) -> Likelihood<X> {
        self.model.decode_with(z, condition)
    }

    /// The divergence is `log q(z|x) − log p(z)` at the drawn latents, whose log-density under the
    /// posterior is computed with them.
    fn forward(
        &self,
        x: Tensor<X>,
        condition: &Condition,
        rng: &mut Rng,
    ) -> VaeOutput<FlowPosterior<F>, X, 2> {
        let posterior = self.transform(self.model.encode_with(x, condition));
        let (z, log_prob) = posterior.sample_with_log_prob(rng);
        VaeOutput {
            likelihood: self.model.decode_with(z.clone(), condition),
            kl: vec![log_prob - self.model.prior_log_prob(z.clone(), condition)],
            posterior,
            z,
        }
    }

    /// `log q(z|x) − log p(z)`, by the inverse of the flow; if the flow has no inverse, at latents
    /// that are drawn with fixed noise in place of `z`. [`forward`](Vae::forward) needs no inverse.
    fn kl(
        &self,
        posterior: &FlowPosterior<F>,
        z: Tensor<2>,
        condition: &Condition,
    ) -> Vec<Tensor<1>> {
        vec![match posterior.log_prob(z.clone()) {
            Ok(log_prob) => log_prob - self.model.prior_log_prob(z, condition),
            Err(_) => {
                let mut rng = Rng::stream(0, "flow posterior", 0);
                let (z, log_prob) = posterior.sample_with_log_prob(&mut rng);
                log_prob - self.model.prior_log_prob(z, condition)
            }
        }]
    }

    fn prior_log_prob(&self, z: Tensor<2>, condition: &Condition) -> Tensor<1> {
        self.model.prior_log_prob(z, condition)
    }

    fn auxiliary_losses(&self, posterior: &FlowPosterior<F>) -> Vec<(&'static str, Tensor<1>)> {
        self.model.auxiliary_losses(&posterior.base)
    }

    fn sample_prior(
        &self,
        n: usize,
        condition: &Condition,
        temperature: f64,
        rng: &mut Rng,
        device: &Device,
    ) -> Tensor<2> {
        self.model
            .sample_prior(n, condition, temperature, rng, device)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        MlpVae, MlpVaeConfig,
        flow::{FlowConfig, FlowKind, testing::perturbed},
        standard_normal_log_prob,
    };
    use aigc_core::{
        data::ImageShape,
        nn::Activation,
        params::{ParamVisitor, visit_params},
        rng::InitWeights,
        testing::{assert_close, values},
    };
    use burn::{module::Param, tensor::Gradients};

    fn model(kind: FlowKind, context: bool) -> FlowPosteriorVae<MlpVae> {
        let device = Device::flex();
        let config = MlpVaeConfig {
            hidden_dim: 8,
            latent_dim: 3,
            activation: Activation::Tanh,
            ..MlpVaeConfig::new(ImageShape::new(1, 2, 2))
        };
        let flow = FlowConfig {
            context_dim: context.then_some(6),
            ..FlowConfig::new(kind)
        };
        let flow = flow.with_num_layers(2).with_hidden_dims(&[8]);
        let flow = perturbed(flow.init(3, &device).unwrap(), 0.3, 1);
        let model = config.init(&device).unwrap().init_weights(4);
        FlowPosteriorVae::new(model, flow).unwrap()
    }

    #[test]
    fn forward_reuses_the_density_of_the_drawn_latents() {
        let device = Device::flex();
        let x = Rng::new(0).uniform([6, 1, 2, 2], 0.0, 1.0, &device);
        let none = Condition::none();
        for (kind, context) in [(FlowKind::Iaf, true), (FlowKind::Planar, false)] {
            let model = model(kind, context);
            let output = model.forward(x.clone(), &none, &mut Rng::new(5));
            let posterior = model.encode(x.clone());
            let (z, log_prob) = posterior.sample_with_log_prob(&mut Rng::new(5));
            assert_close(&values(output.z.clone()), &values(z.clone()), 0.0);
            let expected = values(log_prob - standard_normal_log_prob(z.clone()));
            assert_eq!(output.kl.len(), 1);
            assert_close(&values(output.kl[0].clone()), &expected, 1e-6);
            let by_inverse = model.kl(&output.posterior, output.z.clone(), &none);
            assert_close(&values(by_inverse[0].clone()), &expected, 2e-3);
            let elbo = output.elbo(x.clone());
            let likelihood = values(model.decode(z).log_prob(x.clone()));
            assert_close(&values(elbo.log_likelihood), &likelihood, 1e-5);
        }
    }

    /// Every weight of encoder, decoder and flow has a gradient.
    #[test]
    fn bound_trains_model_and_flow_together() {
        struct Missing<'a>(&'a Gradients, Vec<String>);
        impl ParamVisitor for Missing<'_> {
            fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
                let gradient = param.val().grad(self.0);
                let size = gradient.map(|g| g.abs().sum().into_scalar::<f32>());
                if size.is_none_or(|size| size == 0.0 || !size.is_finite()) {
                    self.1.push(path.to_string());
                }
            }
        }
        let x = Rng::new(0).uniform([6, 1, 2, 2], 0.0, 1.0, &Device::flex().autodiff());
        let model = model(FlowKind::RealNvp, true).train();
        let output = model.forward(x.clone(), &Condition::none(), &mut Rng::new(5));
        let gradients = output.elbo(x).loss(1.0).backward();
        let mut missing = Missing(&gradients, Vec::new());
        visit_params(&model, &mut missing);
        assert!(missing.1.is_empty(), "{:?}", missing.1);
    }

    #[test]
    fn flows_of_other_sizes_are_rejected() {
        let device = Device::flex();
        let config = MlpVaeConfig::new(ImageShape::new(1, 2, 2));
        let with = |flow: FlowConfig, dim| {
            let flow = flow.init(dim, &device).unwrap();
            let model = config.init(&device).unwrap();
            FlowPosteriorVae::new(model, flow).unwrap_err().to_string()
        };
        let message = with(FlowConfig::new(FlowKind::Maf), 7);
        assert!(
            message.contains("`flow.dim` is 7, expected 20"),
            "{message}"
        );
        let message = with(FlowConfig::new(FlowKind::Maf).with_context_dim(5), 20);
        assert!(message.contains("`flow.context_dim` is 5"), "{message}");
    }
}
