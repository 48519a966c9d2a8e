//! A custom model and a custom objective, trained and sampled with aigc's public items only.
#![forbid(unsafe_code)]

use aigc_core::{
    Result,
    data::{Image, ImageBatch, ImageShape, SampleShape},
    nn::{Activation, Linear, LinearConfig},
    train::{LossOutput, Objective, StepContext},
};
use aigc_vae::{DiagonalGaussian, Likelihood, LikelihoodKind, Vae, elbo};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};

/// A two-dimensional linear VAE for 4×4 images.
#[derive(Module, Debug)]
pub struct TinyVae {
    encoder: Linear,
    decoder: Linear,
}

pub const SHAPE: ImageShape = ImageShape::new(1, 4, 4);

impl TinyVae {
    pub fn new(device: &Device) -> Self {
        Self {
            encoder: LinearConfig::new(16, 4).init(device),
            decoder: LinearConfig::new(2, 16).init(device),
        }
    }
}

impl Vae for TinyVae {
    type Posterior = DiagonalGaussian;

    fn encode(&self, x: Tensor<4>) -> DiagonalGaussian {
        let both = self
            .encoder
            .forward(Activation::Identity.forward(x.flatten::<2>(1, 3)));
        DiagonalGaussian {
            mean: both.clone().narrow(1, 0, 2),
            logvar: both.narrow(1, 2, 2),
        }
    }

    fn decode(&self, z: Tensor<2>) -> Likelihood {
        let output = self.decoder.forward(z);
        let batch = output.dims()[0];
        Likelihood::new(LikelihoodKind::Bernoulli, output.reshape([batch, 1, 4, 4]))
    }

    fn latent_shape(&self) -> SampleShape {
        SampleShape::new(&[2])
    }

    fn sample_shape(&self) -> SampleShape {
        SHAPE.into()
    }
}

/// The importance-weighted bound with two draws (Burda et al. 2016), which the crate does not have.
pub struct TwoDraws;

impl Objective for TwoDraws {
    type Model = TinyVae;
    type Batch = ImageBatch;

    fn losses(
        &mut self,
        model: &TinyVae,
        batch: &ImageBatch,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let x = batch.to_tensor(&context.device);
        let posterior = model.encode(x.clone());
        let prior = DiagonalGaussian {
            mean: posterior.mean.zeros_like(),
            logvar: posterior.mean.zeros_like(),
        };
        let mut weight = || {
            let z = posterior.sample(&mut context.rng);
            let reconstruction = model.decode(z.clone()).log_prob(x.clone());
            reconstruction + prior.log_prob(z.clone()) - posterior.log_prob(z)
        };
        let (a, b) = (weight(), weight());
        let high = a.clone().max_pair(b.clone()).detach();
        let bound = high.clone() + (((a - high.clone()).exp() + (b - high).exp()) / 2.0).log();
        let kl = elbo(x.clone(), &posterior, &model.decode(posterior.mode()))
            .kl
            .mean();
        Ok(LossOutput::new(-bound.mean()).with_metric("kl", kl))
    }
}

/// Images that are bright above or below.
pub fn halves() -> Vec<Image> {
    let image = |top: bool| Image {
        shape: SHAPE,
        pixels: (0..16)
            .map(|i| if (i < 8) == top { 250 } else { 5 })
            .collect(),
        label: Some(u32::from(top)),
    };
    (0..64).map(|i| image(i % 2 == 0)).collect()
}
