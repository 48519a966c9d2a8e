//! The objective of a variational autoencoder.

use crate::{KlWeight, Vae, check_batch, elbo};
use aigc_core::{
    Result,
    data::{ImageBatch, SampleBatch},
    encoder::Posterior,
    train::{LossOutput, Objective, StepContext},
};
use std::marker::PhantomData;

/// Minimises `−E_q[log p(x|z)] + β·KL(q(z|x) ‖ p(z))` and the [auxiliary
/// terms](Vae::auxiliary_losses) of a [`Vae`].
#[derive(Debug)]
pub struct VaeObjective<V, B = ImageBatch, const X: usize = 4, const Z: usize = 2>
where
    V: Vae<X, Z>,
{
    /// Weight of the divergence.
    pub beta: KlWeight,
    /// Posteriors of the batches since the last update, of models with a codebook.
    posteriors: Vec<V::Posterior>,
    batch: PhantomData<fn(B)>,
}

impl<V: Vae<X, Z>, B, const X: usize, const Z: usize> VaeObjective<V, B, X, Z> {
    /// An objective with this weight of the divergence.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) if the weight is out of range.
    pub fn new(beta: KlWeight) -> Result<Self> {
        beta.validate()?;
        Ok(Self {
            beta,
            posteriors: Vec::new(),
            batch: PhantomData,
        })
    }
}

impl<V, B, const X: usize, const Z: usize> Objective for VaeObjective<V, B, X, Z>
where
    V: Vae<X, Z> + 'static,
    B: SampleBatch<X>,
{
    type Model = V;
    type Batch = B;

    fn losses(&mut self, model: &V, batch: &B, context: &mut StepContext) -> Result<LossOutput> {
        check_batch(model, batch)?;
        let x = batch.to_tensor(&context.device);
        let posterior = model.encode(x.clone());
        let z = posterior.sample(&mut context.rng);
        let likelihood = model.decode(z);
        let bound = elbo(x, &posterior, &likelihood);
        let loss = bound.loss(self.beta.at_step(context.step));
        let auxiliary = model.auxiliary_losses(&posterior);
        self.posteriors.extend(model.codebook_posterior(posterior));
        let loss = auxiliary
            .iter()
            .fold(loss, |loss, (_, term)| loss + term.clone());
        let output = LossOutput::new(loss)
            .with_metric("reconstruction", -bound.log_likelihood.mean())
            .with_metric("kl", bound.kl.mean());
        Ok(auxiliary.into_iter().fold(output, |output, (name, term)| {
            output.with_metric(name, term)
        }))
    }

    fn after_update(&mut self, model: V, _phase: usize) -> Result<V> {
        Ok(model.update_codebook(&std::mem::take(&mut self.posteriors)))
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{Likelihood, LikelihoodKind};
    use aigc_core::{
        checkpoint::RunDir,
        data::{DataLoader, DataLoaderConfig, InMemory, SampleShape},
        nn::{Linear, LinearConfig},
        rng::Rng,
        train::{Event, Trainer, TrainerConfig},
    };
    use burn::{
        module::{Module, Param},
        tensor::{Device, Tensor, TensorData},
    };

    const CODES: usize = 4;

    /// A model of two-dimensional samples with a codebook, whose codes follow the means of the
    /// latents assigned to them.
    #[derive(Module, Debug)]
    struct Quantising {
        encoder: Linear,
        decoder: Linear,
        codes: Param<Tensor<2>>,
    }

    /// The posterior: the nearest codes in place of the encoder's outputs.
    #[derive(Clone, Debug)]
    struct Quantised {
        encoded: Tensor<2>,
        one_hot: Tensor<2>,
        codes: Tensor<2>,
    }

    impl Posterior<2> for Quantised {
        /// Straight-through estimator: the value of the code, and the gradient of the encoder's
        /// output.
        fn sample(&self, _rng: &mut Rng) -> Tensor<2> {
            self.encoded.clone() + (self.codes.clone() - self.encoded.clone()).detach()
        }

        fn mode(&self) -> Tensor<2> {
            self.codes.clone()
        }

        fn kl(&self) -> Tensor<1> {
            let batch = self.encoded.dims()[0];
            Tensor::full([batch], (CODES as f64).ln(), &self.encoded.device())
        }
    }

    impl Vae<2, 2> for Quantising {
        type Posterior = Quantised;

        fn encode(&self, x: Tensor<2>) -> Quantised {
            let encoded = self.encoder.forward(x);
            let codes = self.codes.val();
            let distance = (encoded.clone() - codes.clone().transpose()).abs();
            let nearest = distance.argmin(1).squeeze_dim::<1>(1);
            let one_hot = Tensor::eye(CODES, &encoded.device()).select(0, nearest);
            Quantised {
                codes: one_hot.clone().matmul(codes),
                encoded,
                one_hot,
            }
        }

        fn decode(&self, z: Tensor<2>) -> Likelihood<2> {
            Likelihood::new(LikelihoodKind::Gaussian(0.5), self.decoder.forward(z))
        }

        fn latent_shape(&self) -> SampleShape {
            SampleShape::new(&[1])
        }

        fn sample_shape(&self) -> SampleShape {
            SampleShape::new(&[2])
        }

        fn auxiliary_losses(&self, posterior: &Quantised) -> Vec<(&'static str, Tensor<1>)> {
            let gap = posterior.encoded.clone() - posterior.codes.clone().detach();
            vec![("commitment", (gap.clone() * gap).mean() * 0.25)]
        }

        fn codebook_posterior(&self, posterior: Quantised) -> Option<Quantised> {
            Some(Quantised {
                encoded: posterior.encoded.inner(),
                one_hot: posterior.one_hot.inner(),
                codes: posterior.codes.inner(),
            })
        }

        fn update_codebook(mut self, posteriors: &[Quantised]) -> Self {
            for posterior in posteriors {
                let assigned = posterior.one_hot.clone();
                let count = assigned.clone().sum_dim(0).transpose();
                let sums = assigned.transpose().matmul(posterior.encoded.clone());
                let used = count.clone().greater_elem(0.5);
                self.codes = self.codes.map(|codes| {
                    let old = codes.inner();
                    let mean = sums / count.clamp_min(1.0);
                    let moved = old.clone() * 0.9 + mean * 0.1;
                    Tensor::from_inner(old.mask_where(used, moved))
                });
            }
            self
        }
    }

    struct Series(Vec<[f32; 2]>);

    impl SampleBatch<2> for Series {
        fn to_tensor(&self, device: &Device) -> Tensor<2> {
            Tensor::from_data(TensorData::new(self.0.concat(), [self.0.len(), 2]), device)
        }

        fn len(&self) -> usize {
            self.0.len()
        }

        fn sample_shape(&self) -> SampleShape {
            SampleShape::new(&[2])
        }
    }

    #[test]
    fn quantised_posterior_trains_with_codebook_updates() {
        let device = Device::flex();
        let codes = TensorData::new(vec![-1.5f32, -0.5, 0.5, 1.5], [CODES, 1]);
        let model = Quantising {
            encoder: LinearConfig::new(2, 1).init(&device),
            decoder: LinearConfig::new(1, 2).init(&device),
            codes: Param::from_tensor(Tensor::from_data(codes, &device)).no_grad(),
        };
        let before: Vec<f32> = model.codes.val().into_data().iter().collect();
        let points = (0..64).map(|i| match i % 2 {
            0 => [1.0, 1.0],
            _ => [-1.0, -1.0],
        });
        let config = DataLoaderConfig {
            batch_size: 16,
            num_workers: 0,
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(InMemory(points.collect()), Series, config).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let mut reports = Vec::new();
        let trained = Trainer::new(TrainerConfig {
            learning_rate: 2e-2,
            ..TrainerConfig::new(150)
        })
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                reports.push(report.losses.clone());
            }
        })
        .fit(
            VaeObjective::new(KlWeight::default()).unwrap(),
            model,
            &loader,
            &run,
        )
        .unwrap();
        let value = |step: usize, name: &str| {
            let found = reports[step].iter().find(|(n, _)| n == name);
            found
                .unwrap_or_else(|| panic!("{name}: {:?}", reports[step]))
                .1
        };
        let sum = value(0, "reconstruction") + value(0, "kl") + value(0, "commitment");
        assert!((value(0, "loss") - sum).abs() < 1e-5, "{:?}", reports[0]);
        assert!((value(0, "kl") - (CODES as f64).ln()).abs() < 1e-6);
        let last = reports.len() - 1;
        // Both points are reconstructed exactly: `½·2·ln(2π·σ²)` per sample.
        let best = (2.0 * std::f64::consts::PI * 0.25).ln();
        let reconstruction = value(last, "reconstruction");
        assert!(reconstruction < best + 0.3, "{reconstruction} {best}");
        let after: Vec<f32> = trained.model.codes.val().into_data().iter().collect();
        assert!(before != after, "{after:?}");
    }
}
