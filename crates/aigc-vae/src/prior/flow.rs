//! Normalising flows as priors.

use super::Prior;
use crate::{
    flow::{AnyFlow, Flow},
    standard_normal_log_prob,
};
use aigc_core::{Result, check::ensure, rng::Rng};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// A standard normal distribution transformed by a flow. The density takes the flow's
/// [`inverse`](Flow::inverse), which is fast for [`RealNvp`](crate::RealNvp) and
/// [`MaskedAutoregressiveFlow`](crate::MaskedAutoregressiveFlow).
///
/// ```
/// # use aigc_core::{device::device, rng::Rng};
/// # use aigc_vae::{FlowConfig, FlowKind, FlowPrior, Prior};
/// # fn main() -> aigc_core::Result<()> {
/// let device = device("flex")?;
/// let prior = FlowPrior::new(FlowConfig::new(FlowKind::RealNvp).init(20, &device)?)?;
/// let z = prior.sample(8, 1.0, &mut Rng::new(0), &device);
/// assert_eq!(prior.log_prob(z).dims(), [8]);
/// # Ok(()) }
/// ```
#[derive(Module, Debug)]
pub struct FlowPrior<F = AnyFlow> {
    /// The flow.
    pub flow: F,
}

impl<F: Flow> FlowPrior<F> {
    /// A prior of this flow.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) if the flow has a context.
    pub fn new(flow: F) -> Result<Self> {
        ensure(
            flow.context_dim().is_none(),
            "flow.context_dim",
            flow.context_dim().unwrap_or(0),
            "none, for a prior",
        )?;
        Ok(Self { flow })
    }
}

impl<F: Flow> Prior for FlowPrior<F> {
    fn dim(&self) -> usize {
        self.flow.dim()
    }

    /// By the change of variables: `log N(f⁻¹(z)) + log |det ∂f⁻¹/∂z|`.
    ///
    /// # Panics
    /// If the flow has no inverse; those of this crate have one.
    fn log_prob(&self, z: Tensor<2>) -> Tensor<1> {
        let (x, log_det) = match self.flow.inverse(z, None) {
            Ok(inverse) => inverse,
            Err(error) => panic!("a prior needs the inverse of its flow: {error}"),
        };
        standard_normal_log_prob(x) + log_det
    }

    /// The temperature is that of the noise before the flow.
    fn sample(&self, n: usize, temperature: f64, rng: &mut Rng, device: &Device) -> Tensor<2> {
        let noise = rng.normal([n, self.flow.dim()], device) * temperature;
        self.flow.forward(noise, None).0
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::flow::{FlowConfig, FlowKind, testing::perturbed};
    use aigc_core::testing::{assert_close, values};

    /// The density of a sample is the density of its noise divided by the determinant.
    #[test]
    fn density_of_samples_is_that_of_the_noise_transformed() {
        let device = Device::flex();
        for kind in [FlowKind::RealNvp, FlowKind::Maf] {
            let flow = FlowConfig::new(kind)
                .with_num_layers(3)
                .with_hidden_dims(&[8])
                .init(3, &device)
                .unwrap();
            let prior = FlowPrior::new(perturbed(flow, 0.3, 2)).unwrap();
            let z = prior.sample(6, 1.0, &mut Rng::new(1), &device);
            let noise = Rng::new(1).normal([6, 3], &device);
            let (image, log_det) = prior.flow.forward(noise.clone(), None);
            assert_close(&values(z.clone()), &values(image), 0.0);
            let expected = values(standard_normal_log_prob(noise) - log_det);
            assert_close(&values(prior.log_prob(z)), &expected, 2e-3);
        }
    }

    #[test]
    fn flows_with_context_are_rejected() {
        let config = FlowConfig::new(FlowKind::Maf).with_context_dim(4);
        let flow = config.init(3, &Device::flex()).unwrap();
        let message = FlowPrior::new(flow).unwrap_err().to_string();
        assert!(message.contains("`flow.context_dim` is 4"), "{message}");
    }
}
