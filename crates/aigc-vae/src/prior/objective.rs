//! Training of a prior after the model.

use super::{LatentBatch, Prior};
use aigc_core::{
    Error, Result,
    data::{SampleBatch, SampleShape},
    train::{LossOutput, Objective, StepContext},
};
use std::marker::PhantomData;

/// Minimises `−log p(z)`, averaged over a batch of latents: maximum likelihood of a prior on the
/// latents of a trained model, which are computed once with
/// [`encode_latents`](crate::encode_latents).
#[derive(Clone, Copy, Debug)]
pub struct PriorObjective<P, B = LatentBatch> {
    types: PhantomData<fn(P, B)>,
}

impl<P, B> PriorObjective<P, B> {
    /// The objective.
    pub fn new() -> Self {
        Self { types: PhantomData }
    }
}

impl<P, B> Default for PriorObjective<P, B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<P, B> Objective for PriorObjective<P, B>
where
    P: Prior + 'static,
    B: SampleBatch<2>,
{
    type Model = P;
    type Batch = B;

    /// # Errors
    /// [`Error::Config`] unless the latents have the dimensions of the prior.
    fn losses(&mut self, prior: &P, batch: &B, context: &mut StepContext) -> Result<LossOutput> {
        if batch.sample_shape() != SampleShape::new(&[prior.dim()]) {
            let expected = format!("{}, the dimensions of the prior", prior.dim());
            return Err(Error::config("latents", batch.sample_shape(), expected));
        }
        let z = batch.to_tensor(&context.device);
        Ok(LossOutput::new(-prior.log_prob(z).mean()))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        flow::{FlowConfig, FlowKind},
        prior::{FlowPrior, collate_latents},
    };
    use aigc_core::{
        data::{DataLoader, DataLoaderConfig, InMemory},
        rng::Rng,
        testing::{temp_run, values},
        train::{Trainer, TrainerConfig},
    };
    use burn::tensor::Device;

    const NOISE: f64 = 0.3;

    /// Points near a parabola: `x ~ N(0, 1)`, `y = x² − 1 + 0.3·ε`.
    fn banana(n: usize, seed: u64) -> Vec<Vec<f32>> {
        let normals = Rng::new(seed).normal_vec(2 * n);
        let point = |pair: &[f32]| vec![pair[0], pair[0].powi(2) - 1.0 + NOISE as f32 * pair[1]];
        normals.chunks_exact(2).map(point).collect()
    }

    /// The normal distribution with the moments of the density is the best one: `x` and `y` are
    /// uncorrelated with variances 1 and 2 + 0.09, so its log-likelihood is −3.21 nats. The
    /// density's own is −1.63 nats. A flow must reach at least −2.2 nats on points that it was not
    /// trained on: more than one nat better than the Gaussian.
    #[test]
    fn flows_fit_what_a_gaussian_cannot() {
        let device = Device::flex();
        let constant = 1.0 + (2.0 * std::f64::consts::PI).ln();
        let gaussian = -constant - 0.5 * (2.0 + NOISE * NOISE).ln();
        let best = -constant - NOISE.ln();
        assert!((gaussian + 3.2065).abs() < 1e-3 && (best + 1.6339).abs() < 1e-3);
        for kind in [FlowKind::RealNvp, FlowKind::Maf] {
            let config = DataLoaderConfig {
                batch_size: 256,
                num_workers: 0,
                ..DataLoaderConfig::default()
            };
            let points = InMemory(banana(4096, 1));
            let loader = DataLoader::new(points, collate_latents, config).unwrap();
            let flow = FlowConfig::new(kind)
                .with_num_layers(3)
                .with_hidden_dims(&[32]);
            let prior = FlowPrior::new(flow.init(2, &device).unwrap()).unwrap();
            let run = temp_run().unwrap();
            let config = TrainerConfig {
                learning_rate: 1e-2,
                max_grad_norm: Some(5.0),
                ..TrainerConfig::new(300)
            };
            let trained = Trainer::new(config)
                .fit(PriorObjective::new(), prior, &loader, &run)
                .unwrap();
            let held_out = collate_latents(banana(2000, 2)).to_tensor(&device);
            let found = values(trained.model.log_prob(held_out).mean())[0];
            let found = f64::from(found);
            assert!(
                found > gaussian + 1.0,
                "{kind:?}: {found}, Gaussian {gaussian}"
            );
            // Five standard deviations of the mean: log p varies by 1 nat from point to point.
            assert!(
                found < best + 5.0 / 2000f64.sqrt(),
                "{kind:?}: {found}, best {best}"
            );
        }
    }

    #[test]
    fn latents_of_other_dimensions_are_rejected() {
        let device = Device::flex();
        let flow = FlowConfig::new(FlowKind::Maf).init(3, &device).unwrap();
        let prior = FlowPrior::new(flow).unwrap();
        let batch = collate_latents(banana(4, 1));
        let mut context = StepContext::new(0, 1, device, Rng::new(0));
        let losses = PriorObjective::new().losses(&prior, &batch, &mut context);
        let message = losses.unwrap_err().to_string();
        assert!(message.contains("`latents` is 2, expected 3"), "{message}");
    }
}
