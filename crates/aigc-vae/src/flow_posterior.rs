//! Gaussian posteriors transformed by a flow.

use crate::{
    DiagonalGaussian,
    flow::{AnyFlow, Flow},
    standard_normal_log_prob,
};
use aigc_core::{Result, encoder::Posterior, rng::Rng};
use burn::tensor::Tensor;

/// A posterior of latent vectors `z = f(z₀)`, where `z₀` has normal distributions with independent
/// dimensions and `f` is a normalising flow (Rezende and Mohamed 2015,
/// <https://arxiv.org/abs/1505.05770>; Kingma et al. 2016, <https://arxiv.org/abs/1606.04934>).
#[derive(Clone, Debug)]
pub struct FlowPosterior<F = AnyFlow> {
    /// Distribution of `z₀`.
    pub base: DiagonalGaussian,
    /// The flow.
    pub flow: F,
    /// Context of the flow, `[batch, context_dim]`, if it has one.
    pub context: Option<Tensor<2>>,
}

impl<F: Flow> FlowPosterior<F> {
    /// The log-density `log q(z) = log q₀(f⁻¹(z)) + log |det ∂f⁻¹/∂z|` in nats. Latents drawn with
    /// [`sample_with_log_prob`](Posterior::sample_with_log_prob) have their log-density already,
    /// without an inverse.
    ///
    /// # Shapes
    /// - z: `[batch, dim]`
    /// - output: `[batch]`
    ///
    /// # Errors
    /// If the flow has no inverse; those of this crate have one.
    pub fn log_prob(&self, z: Tensor<2>) -> Result<Tensor<1>> {
        let (base, log_det) = self.flow.inverse(z, self.context.as_ref())?;
        Ok(self.base.log_prob(base) + log_det)
    }
}

impl<F: Flow> Posterior<2> for FlowPosterior<F> {
    fn sample(&self, rng: &mut Rng) -> Tensor<2> {
        let base = self.base.sample(rng);
        self.flow.forward(base, self.context.as_ref()).0
    }

    /// By the change of variables: `log q(z) = log q₀(z₀) − log |det ∂f/∂z₀|` (Rezende and Mohamed
    /// 2015, eq. 7).
    fn sample_with_log_prob(&self, rng: &mut Rng) -> (Tensor<2>, Tensor<1>) {
        let (base, log_prob) = self.base.sample_with_log_prob(rng);
        let (z, log_det) = self.flow.forward(base, self.context.as_ref());
        (z, log_prob - log_det)
    }

    /// The image of the mean of `z₀`, a typical latent. The most probable one has no closed form.
    fn mode(&self) -> Tensor<2> {
        self.flow.forward(self.base.mode(), self.context.as_ref()).0
    }

    /// The divergence has no closed form. This is `log q(z) − log p(z)` of one latent per sample,
    /// with `p` the standard normal density: an unbiased estimate, always with the same noise.
    /// [`FlowPosteriorVae`](crate::FlowPosteriorVae) estimates it with the latents that it decodes.
    fn kl(&self) -> Tensor<1> {
        let mut rng = Rng::stream(0, "flow posterior", 0);
        let (z, log_prob) = self.sample_with_log_prob(&mut rng);
        log_prob - standard_normal_log_prob(z)
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::flow::{
        FlowConfig, FlowKind,
        testing::{perturbed, rows},
    };
    use aigc_core::testing::{assert_close, values};
    use burn::tensor::Device;

    const KINDS: [FlowKind; 4] = [
        FlowKind::Planar,
        FlowKind::Maf,
        FlowKind::Iaf,
        FlowKind::RealNvp,
    ];

    fn posterior(kind: FlowKind, batch: usize) -> FlowPosterior {
        let config = FlowConfig::new(kind)
            .with_num_layers(2)
            .with_hidden_dims(&[8])
            .with_context_dim(2);
        let flow = config.init(2, &Device::flex()).unwrap();
        let row = |values: &[f64]| rows(values, 2).repeat_dim(0, batch);
        FlowPosterior {
            base: DiagonalGaussian {
                mean: row(&[0.4, -0.3]),
                logvar: row(&[-0.5, 0.3]),
            },
            flow: perturbed(flow, 0.4, 12),
            context: Some(row(&[1.0, -1.0])),
        }
    }

    #[test]
    fn density_of_a_draw_is_the_density_at_the_draw() {
        for kind in KINDS {
            let posterior = posterior(kind, 5);
            let (z, log_prob) = posterior.sample_with_log_prob(&mut Rng::new(1));
            assert_close(
                &values(posterior.sample(&mut Rng::new(1))),
                &values(z.clone()),
                0.0,
            );
            let at = posterior.log_prob(z).unwrap();
            assert_close(&values(log_prob), &values(at), 2e-3);
        }
    }

    /// The mean of `p(z)/q(z)` under `q` is 1 for any density `p`; here `p` is a normal density
    /// narrower than `q`, so that the ratio is bounded.
    #[test]
    fn importance_weights_have_mean_one() {
        let n = 20_000;
        for kind in KINDS {
            let posterior = posterior(kind, n);
            let (z, log_prob) = posterior.sample_with_log_prob(&mut Rng::new(2));
            let centre = posterior.mode().narrow(0, 0, 1);
            let narrow = DiagonalGaussian {
                mean: centre.clone(),
                logvar: centre.zeros_like() - 3.0,
            };
            let ratios = values((narrow.log_prob(z) - log_prob).exp());
            let moment = |power: i32| {
                let sum: f64 = ratios.iter().map(|r| f64::from(*r).powi(power)).sum();
                sum / n as f64
            };
            let (mean, square) = (moment(1), moment(2));
            let error = ((square - mean * mean) / n as f64).sqrt();
            assert!((mean - 1.0).abs() < 5.0 * error, "{kind:?} {mean} {error}");
            assert!(error < 0.1, "{kind:?} {error}");
        }
    }

    #[test]
    fn divergence_is_an_estimate_with_fixed_noise() {
        let posterior = posterior(FlowKind::Iaf, 4_000);
        let kl = values(posterior.kl());
        assert_eq!(kl, values(posterior.kl()));
        let (z, log_prob) = posterior.sample_with_log_prob(&mut Rng::new(3));
        let other = values(log_prob - standard_normal_log_prob(z));
        let mean = |x: &[f32]| x.iter().map(|v| f64::from(*v)).sum::<f64>() / x.len() as f64;
        let variance = |x: &[f32]| {
            let centre = mean(x);
            let squares = x.iter().map(|v| (f64::from(*v) - centre).powi(2));
            squares.sum::<f64>() / x.len() as f64
        };
        let error = ((variance(&kl) + variance(&other)) / 4_000.0).sqrt();
        let (a, b) = (mean(&kl), mean(&other));
        assert!((a - b).abs() < 5.0 * error, "{a} {b} {error}");
        assert!(a > 0.0);
    }
}
