//! Models with another prior.

use crate::{Condition, ConditionKind, Likelihood, Vae, VaeOutput, prior::ModelPrior};
use aigc_core::{Result, data::SampleShape, encoder::Posterior, rng::Rng};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::{Device, Tensor},
};

/// A VAE of latent vectors with another prior, in place of the standard normal distribution. Model
/// and prior are trained together as one module; a prior learned after the model is only used for
/// sampling and for bounds of the likelihood.
///
/// The divergence is estimated by `log q(z|x) − log p(z)` at the latents that are decoded.
///
/// ```
/// # use aigc_core::{data::ImageShape, device::device};
/// # use aigc_vae::{MlpVaeConfig, Vae, VampPriorConfig, WithPrior};
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let model = MlpVaeConfig::new(ImageShape::new(1, 8, 8)).init(&device)?;
/// let prior = VampPriorConfig::new(50).init::<4>(model.sample_shape(), &device)?;
/// let model = WithPrior::new(model, prior)?;
/// # let _ = model; Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct WithPrior<V, P> {
    /// The model.
    pub model: V,
    /// The prior of its latents.
    pub prior: P,
}

impl<V, P> WithPrior<V, P> {
    /// Gives `model` this prior.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) if the prior does not fit the model.
    pub fn new<const X: usize>(model: V, prior: P) -> Result<Self>
    where
        V: Vae<X, 2>,
        P: ModelPrior<V, X>,
    {
        prior.check_model(&model)?;
        Ok(Self { model, prior })
    }
}

impl<V, P, const X: usize> Vae<X, 2> for WithPrior<V, P>
where
    V: Vae<X, 2> + ModuleDisplay,
    P: ModelPrior<V, X>,
{
    type Posterior = V::Posterior;

    fn encode(&self, x: Tensor<X>) -> V::Posterior {
        self.model.encode(x)
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

    fn has_deterministic_posterior(&self) -> bool {
        self.model.has_deterministic_posterior()
    }

    fn condition_kind(&self) -> ConditionKind {
        self.model.condition_kind()
    }

    fn encode_with(&self, x: Tensor<X>, condition: &Condition) -> V::Posterior {
        self.model.encode_with(x, condition)
    }

    fn decode_with(&self, z: Tensor<2>, condition: &Condition) -> Likelihood<X> {
        self.model.decode_with(z, condition)
    }

    /// The divergence is `log q(z|x) − log p(z)` at the drawn latents, as one group.
    fn forward(
        &self,
        x: Tensor<X>,
        condition: &Condition,
        rng: &mut Rng,
    ) -> VaeOutput<V::Posterior, X, 2> {
        let posterior = self.model.encode_with(x, condition);
        let (z, log_prob) = posterior.sample_with_log_prob(rng);
        VaeOutput {
            likelihood: self.model.decode_with(z.clone(), condition),
            kl: vec![log_prob - self.prior.log_prob_with(&self.model, z.clone(), condition)],
            posterior,
            z,
        }
    }

    /// The divergence from the model's own prior `p₀`, plus `log p₀(z) − log p(z)`: an unbiased
    /// estimate at latents that were drawn before. Where the model's divergence is
    /// `log q(z|x) − log p₀(z)`, it is `log q(z|x) − log p(z)`, as in [`forward`](Vae::forward);
    /// where it is in closed form, the estimate has less variance.
    fn kl(&self, posterior: &V::Posterior, z: Tensor<2>, condition: &Condition) -> Vec<Tensor<1>> {
        let own = self.model.prior_log_prob(z.clone(), condition);
        let difference = own - (self.prior).log_prob_with(&self.model, z.clone(), condition);
        let groups = self.model.kl(posterior, z, condition);
        vec![groups.into_iter().fold(difference, |sum, kl| sum + kl)]
    }

    fn prior_log_prob(&self, z: Tensor<2>, condition: &Condition) -> Tensor<1> {
        self.prior.log_prob_with(&self.model, z, condition)
    }

    fn auxiliary_losses(&self, posterior: &V::Posterior) -> Vec<(&'static str, Tensor<1>)> {
        self.model.auxiliary_losses(posterior)
    }

    fn codebook_posterior(&self, posterior: V::Posterior) -> Option<V::Posterior> {
        self.model.codebook_posterior(posterior)
    }

    fn update_codebook(self, posteriors: &[V::Posterior]) -> Self {
        Self {
            model: self.model.update_codebook(posteriors),
            prior: self.prior,
        }
    }

    fn sample_prior(
        &self,
        n: usize,
        condition: &Condition,
        temperature: f64,
        rng: &mut Rng,
        device: &Device,
    ) -> Tensor<2> {
        let prior = &self.prior;
        prior.sample_with(&self.model, n, condition, temperature, rng, device)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        DiagonalGaussian, FlowPosteriorVae, MlpVae, MlpVaeConfig,
        flow::{FlowConfig, FlowKind, testing::perturbed},
        prior::{GaussianMixtureConfig, Prior, StandardNormal, VampPriorConfig},
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

    fn model() -> MlpVae {
        let config = MlpVaeConfig {
            hidden_dim: 8,
            latent_dim: 3,
            activation: Activation::Tanh,
            ..MlpVaeConfig::new(ImageShape::new(1, 2, 2))
        };
        config.init(&Device::flex()).unwrap().init_weights(4)
    }

    /// The mean over many draws of the estimate with the standard normal prior is the divergence in
    /// closed form, and the estimate of `kl` at given latents is exactly that.
    #[test]
    fn estimated_divergence_has_the_mean_of_the_closed_form() {
        let (n, device) = (20_000, Device::flex());
        let model = WithPrior::new(model(), StandardNormal::new(3).unwrap()).unwrap();
        let x = Rng::new(0).uniform([1, 1, 2, 2], 0.0, 1.0, &device);
        let x = x.repeat_dim(0, n);
        let none = Condition::none();
        let output = model.forward(x, &none, &mut Rng::new(3));
        let estimates = values(output.kl[0].clone());
        let closed = f64::from(values(output.posterior.kl())[0]);
        let mean = estimates.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
        let squares = estimates.iter().map(|x| (f64::from(*x) - mean).powi(2));
        let error = 5.0 * squares.sum::<f64>().sqrt() / n as f64;
        assert!((mean - closed).abs() < error, "{mean} {closed} {error}");
        let at_latents = values(model.kl(&output.posterior, output.z, &none)[0].clone());
        assert!(
            at_latents
                .iter()
                .all(|kl| (f64::from(*kl) - closed).abs() < 1e-4)
        );
    }

    /// For any prior the estimates of `forward` and `kl` differ by
    /// `log q(z|x) − log p₀(z) − KL(q ‖ p₀)`.
    #[test]
    fn forward_compares_the_drawn_latents_with_the_prior() {
        let device = Device::flex();
        let prior = GaussianMixtureConfig::new(4).init(3, &device).unwrap();
        let model = WithPrior::new(model(), prior.init_weights(1)).unwrap();
        let x = Rng::new(0).uniform([6, 1, 2, 2], 0.0, 1.0, &device);
        let none = Condition::none();
        let output = model.forward(x, &none, &mut Rng::new(3));
        let q: &DiagonalGaussian = &output.posterior;
        let z = output.z.clone();
        let log_q = q.log_prob(z.clone());
        let expected = values(log_q.clone() - model.prior.log_prob(z.clone()));
        assert_close(&values(output.kl[0].clone()), &expected, 1e-5);
        assert_close(
            &values(model.prior_log_prob(z.clone(), &none)),
            &values(model.prior.log_prob(z.clone())),
            0.0,
        );
        let control = log_q - standard_normal_log_prob(z.clone()) - q.kl();
        let at_latents = model.kl(q, z, &none)[0].clone() + control;
        assert_close(&values(at_latents), &expected, 1e-4);
        let drawn = model.sample_prior(9, &none, 0.5, &mut Rng::new(1), &device);
        let expected = model.prior.sample(9, 0.5, &mut Rng::new(1), &device);
        assert_close(&values(drawn), &values(expected), 0.0);
    }

    /// A prior over the latents after a flow.
    #[test]
    fn priors_compose_with_flow_posteriors() {
        let device = Device::flex();
        let flow = FlowConfig::new(FlowKind::RealNvp).with_num_layers(2);
        let flow = perturbed(flow.init(3, &device).unwrap(), 0.2, 1);
        let prior = GaussianMixtureConfig::new(2).init(3, &device).unwrap();
        let inner = FlowPosteriorVae::new(model(), flow).unwrap();
        let model = WithPrior::new(inner, prior.init_weights(1)).unwrap();
        let x = Rng::new(0).uniform([4, 1, 2, 2], 0.0, 1.0, &device);
        let none = Condition::none();
        let output = model.forward(x, &none, &mut Rng::new(3));
        let at_latents = model.kl(&output.posterior, output.z.clone(), &none);
        let found = values(output.kl[0].clone());
        assert_close(&values(at_latents[0].clone()), &found, 2e-3);
    }

    /// The bound has gradients in the weights of the model and of the prior.
    #[test]
    fn bound_trains_the_prior() {
        let device = Device::flex();
        let prior = VampPriorConfig {
            mean: 0.5,
            std: 0.1,
            ..VampPriorConfig::new(5)
        };
        let shape = SampleShape::new(&[1, 2, 2]);
        let prior = prior.init::<4>(shape, &device).unwrap().init_weights(2);
        let vae = WithPrior::new(model(), prior).unwrap().train();
        let x = Rng::new(0).uniform([6, 1, 2, 2], 0.0, 1.0, &device.autodiff());
        let output = vae.forward(x.clone(), &Condition::none(), &mut Rng::new(3));
        let gradients = output.elbo(x).loss(1.0).backward();
        struct Found<'a>(&'a Gradients, Vec<String>);
        impl ParamVisitor for Found<'_> {
            fn visit<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
                let gradient = param.val().grad(self.0);
                let size = gradient.map(|g| g.abs().sum().into_scalar::<f32>());
                if size.is_some_and(|size| size > 0.0) {
                    self.1.push(path.to_string());
                }
            }
        }
        let mut found = Found(&gradients, Vec::new());
        visit_params(&vae, &mut found);
        let has = |path: &str| found.1.iter().any(|found| found == path);
        assert!(has("prior.pseudo_inputs"), "{:?}", found.1);
        assert!(
            has("model.encoder.weight") && has("model.output.weight"),
            "{:?}",
            found.1
        );
    }

    #[test]
    fn priors_of_other_dimensions_are_rejected() {
        let prior = StandardNormal::new(5).unwrap();
        let message = WithPrior::new(model(), prior).unwrap_err().to_string();
        assert!(
            message.contains("`prior.dim` is 5, expected 3"),
            "{message}"
        );
    }
}
