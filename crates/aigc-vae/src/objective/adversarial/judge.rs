//! What decoded samples are judged by.

use super::AdversarialVaeObjectiveConfig;
use crate::{Condition, Vae};
use aigc_core::{
    Error, Result,
    adversarial::{PerceptualDistance, SampleDiscriminator, feature_distance},
    data::ValueRange,
};
use burn::tensor::{Int, Tensor};

/// Samples that were decoded from latents: first reconstructions, then samples of the prior.
pub(super) struct Decoded<const X: usize, const Z: usize> {
    pub(super) z: Tensor<Z>,
    pub(super) condition: Condition,
    /// Means of `p(x|z)`.
    pub(super) mean: Tensor<X>,
}

impl<const X: usize, const Z: usize> Decoded<X, Z> {
    /// These samples, then as many decoded from the latents `z`.
    pub(super) fn and_prior<V: Vae<X, Z>>(self, vae: &V, z: Tensor<Z>) -> Self {
        let mean = vae.decode_with(z.clone(), &self.condition).mean();
        Self {
            z: Tensor::cat(vec![self.z, z], 0),
            condition: self.condition.repeat(2),
            mean: Tensor::cat(vec![self.mean, mean], 0),
        }
    }
}

/// What the decoded samples of a batch are judged by, besides the reconstruction loss.
pub(super) struct Judge<'a, C, const X: usize> {
    pub(super) config: &'a AdversarialVaeObjectiveConfig,
    pub(super) perceptual: Option<&'a dyn PerceptualDistance<X>>,
    /// Without gradients of its weights; `None` before the first step with a discriminator.
    pub(super) discriminator: Option<C>,
    /// The samples, normalised.
    pub(super) x: Tensor<X>,
    pub(super) class: Option<Tensor<1, Int>>,
    pub(super) range: ValueRange,
}

impl<C: SampleDiscriminator<X>, const X: usize> Judge<'_, C, X> {
    /// The weighted perceptual terms of reconstructions, by name.
    pub(super) fn similarity(&self, mean: Tensor<X>) -> Result<Vec<(&'static str, Tensor<1>)>> {
        let mut terms = Vec::new();
        let mean = self.range.normalize(mean);
        let weight = self.config.perceptual_weight;
        if let Some(distance) = self.perceptual.filter(|_| weight > 0.0) {
            let distance = distance.distance(mean.clone(), self.x.clone());
            terms.push(("perceptual", distance.mean() * weight));
        }
        let weight = self.config.feature_weight;
        if let Some(discriminator) = self.discriminator.as_ref().filter(|_| weight > 0.0) {
            let [mean, x] =
                [mean, self.x.clone()].map(|x| discriminator.features(x, self.class.clone()));
            let Some(distance) = feature_distance(mean, x) else {
                let expected = "0: the discriminator has no features";
                return Err(Error::config("feature_weight", weight, expected));
            };
            terms.push(("features", distance.mean() * weight));
        }
        Ok(terms)
    }

    /// The adversarial term of decoded samples, without its weight; 0 without a discriminator.
    pub(super) fn adversarial(&self, decoded: Tensor<X>) -> Tensor<1> {
        let decoded = self.range.normalize(decoded);
        match &self.discriminator {
            Some(discriminator) => {
                let logits = logits(discriminator, decoded, self.class.as_ref());
                self.config.loss.generator_loss(logits)
            }
            None => Tensor::zeros([1], &decoded.device()),
        }
    }
}

/// Logits of one or more samples for each class, one batch after the other.
pub(super) fn logits<C: SampleDiscriminator<X>, const X: usize>(
    discriminator: &C,
    x: Tensor<X>,
    class: Option<&Tensor<1, Int>>,
) -> Tensor<2> {
    let rows = x.dims()[0];
    let class = class.map(|class| match rows / class.dims()[0] {
        0 | 1 => class.clone(),
        copies => class.clone().repeat_dim(0, copies),
    });
    discriminator.logits(x, class)
}
