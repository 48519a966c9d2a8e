//! Training of a codec against a discriminator.

use super::{
    AdversarialCodecConfig, Parts, Pass, TrainableCodec,
    balancer::Term,
    check_wave,
    point::{Judge, Point},
};
use aigc_core::{
    Error, Result,
    adversarial::{SampleDiscriminator, Verdict},
    data::{SampleBatch, SampleShape},
    train::{LossOutput, Objective, Phase, StepContext},
};
use burn::{
    module::{Module, ModuleDisplay},
    tensor::Tensor,
};
use serde_json::Value;
use std::marker::PhantomData;

/// Least mean size of features that a difference is divided by.
const LEAST_FEATURE: f64 = 1e-6;

/// A codec and the discriminator of its sounds, as one module to train.
#[derive(Module, Debug)]
pub struct AdversarialCodec<M: Module, C: Module> {
    /// The codec.
    pub codec: M,
    /// The network that distinguishes sounds from decoded ones.
    pub discriminator: C,
}

/// Trains a codec `M` and a discriminator `C` of decoded sounds against each other, on the sounds
/// of batches `B` (Défossez et al. 2022, <https://arxiv.org/abs/2210.13438>, §3.4).
///
/// A step has the phases `codec` and `discriminator` on the same batch. The codec has the terms of
/// a [`CodecObjective`](super::CodecObjective), the adversarial one, and the difference of the
/// discriminator's features: for each layer, the mean absolute difference divided by the mean size
/// of the features of the sound, averaged over layers. The discriminator is trained on the sounds
/// that the codec's phase decoded. If `C` consists of several discriminators, their losses and
/// metrics are averaged over them, each of which is a mean over its own patches.
///
/// Metrics of `codec`: those of [`CodecObjective`](super::CodecObjective), `adversarial` and
/// `features`. Metrics of `discriminator`: `real` and `fake` (mean logits), `accuracy`.
#[derive(Debug)]
pub struct AdversarialCodecObjective<M, C, B> {
    config: AdversarialCodecConfig,
    parts: Parts,
    /// Decoded sounds and the sounds of the codec's phase, for each accumulated batch.
    decoded: Vec<Option<[Tensor<3>; 2]>>,
    types: PhantomData<fn(M, C, B)>,
}

/// Index of the codec's phase.
const CODEC_PHASE: usize = 0;

impl<M, C, B> AdversarialCodecObjective<M, C, B>
where
    M: TrainableCodec,
    C: SampleDiscriminator<3>,
    B: SampleBatch<3>,
{
    /// The objective with this configuration, checked against the networks of `model`.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of range, or mels of another sample rate;
    /// [`Error::Unsupported`] for a discriminator with classes.
    pub fn new(config: AdversarialCodecConfig, model: &AdversarialCodec<M, C>) -> Result<Self> {
        config.validate()?;
        if model.discriminator.num_classes().is_some() {
            let by = "AdversarialCodecObjective";
            return Err(Error::unsupported("a discriminator with classes", by, ""));
        }
        Ok(Self {
            parts: Parts::new(config.loss.clone(), &model.codec)?,
            config,
            decoded: vec![],
            types: PhantomData,
        })
    }

    /// Configuration of the objective.
    pub fn config(&self) -> &AdversarialCodecConfig {
        &self.config
    }

    fn codec_losses(
        &mut self,
        model: &AdversarialCodec<M, C>,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let wave = batch.normalized(&context.device);
        let Pass {
            decoded,
            wave,
            quantizer,
        } = self.parts.pass(&model.codec, wave, context)?;
        // Before the first step with a discriminator too: an error should not come late.
        let shape = SampleShape::of_batch(&wave);
        model.discriminator.check_sample(shape)?;
        // Gradients flow through the discriminator, but not to its weights.
        let discriminator = model.discriminator.clone().no_grad();
        let judge = |x: Tensor<3>| discriminator.verdicts(x, None);
        let mut terms = self.parts.loss.terms(wave.clone());
        let mut kept = None;
        if context.step >= self.config.start_step {
            kept = Some([wave.clone(), decoded.clone().detach()]);
            terms.extend(self.judged(&judge, wave));
        }
        let slot = context.micro_batch;
        self.decoded.resize(self.decoded.len().max(slot + 1), None);
        self.decoded[slot] = kept;
        let (loss, values) = self.parts.loss.combine(decoded, &judge, terms)?;
        Ok(quantizer.with(loss, values))
    }

    /// The terms of the discriminator, which `judge` is a pass of.
    fn judged<'a>(&self, judge: Judge<'a>, wave: Tensor<3>) -> Vec<Term<'a>> {
        let loss = self.config.adversarial;
        let adversarial = move |at: &Point<'_>| {
            let logits = at.verdicts().iter().map(|of| of.logits.clone());
            Ok(mean(logits.map(|logits| loss.generator_loss(logits))))
        };
        let mut terms: Vec<Term<'a>> = vec![(
            "adversarial",
            self.config.adversarial_weight,
            Box::new(adversarial),
        )];
        let weight = self.config.feature_weight;
        if weight > 0.0 {
            let features = move |at: &Point<'_>| {
                relative_difference(at.verdicts(), &judge(wave)).ok_or_else(|| {
                    let expected = "0: the discriminator has no features";
                    Error::config("feature_weight", weight, expected)
                })
            };
            terms.push(("features", weight, Box::new(features)));
        }
        terms
    }

    fn discriminator_losses(
        &mut self,
        model: &AdversarialCodec<M, C>,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        if context.step < self.config.start_step {
            // A loss that no weight has a gradient of.
            let constant = Tensor::<1>::zeros([1], &context.device).require_grad();
            return Ok(LossOutput::new(constant * 1.0));
        }
        let slot = self.decoded.get_mut(context.micro_batch);
        let [real, fake] = match slot.and_then(Option::take) {
            Some(pair) => pair,
            None => {
                let wave = batch.normalized(&context.device);
                let codec = model.codec.clone().no_grad();
                check_wave(&wave, codec.channels(), codec.least_samples())?;
                let decoded = codec
                    .reconstruct(wave.clone(), &mut context.rng)
                    .wave
                    .detach();
                let time = decoded.dims()[2].min(wave.dims()[2]);
                let wave = wave.narrow(2, 0, time);
                let shape = SampleShape::of_batch(&wave);
                model.discriminator.check_sample(shape)?;
                [wave, decoded.narrow(2, 0, time)]
            }
        };
        let [real, fake] = [real, fake].map(|x| model.discriminator.verdicts(x, None));
        let loss = self.config.adversarial;
        let over = |f: &dyn Fn(Tensor<2>, Tensor<2>) -> Tensor<1>| {
            let pairs = real.iter().zip(&fake);
            mean(pairs.map(|(real, fake)| f(real.logits.clone(), fake.logits.clone())))
        };
        let total = over(&|real, fake| loss.discriminator_loss(real, fake));
        Ok(LossOutput::new(total)
            .with_metric("real", over(&|real, _| real.detach().mean()))
            .with_metric("fake", over(&|_, fake| fake.detach().mean()))
            .with_metric("accuracy", over(&|real, fake| loss.accuracy(real, fake))))
    }
}

impl<M, C, B> Objective for AdversarialCodecObjective<M, C, B>
where
    M: TrainableCodec + ModuleDisplay + 'static,
    C: SampleDiscriminator<3> + 'static,
    B: SampleBatch<3>,
{
    type Model = AdversarialCodec<M, C>;
    type Batch = B;

    fn phases(&self) -> Vec<Phase> {
        vec![
            Phase::new("codec").for_field("codec"),
            Phase::new("discriminator")
                .for_field("discriminator")
                .reuse_batch(),
        ]
    }

    /// # Errors
    /// [`Error::InvalidArgument`] for sounds of another number of channels, or too few samples for
    /// the codec, a mel or the discriminator; [`Error::Config`] for a `feature_weight` with a
    /// discriminator without features.
    fn losses(
        &mut self,
        model: &AdversarialCodec<M, C>,
        batch: &B,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        match context.phase {
            CODEC_PHASE => self.codec_losses(model, batch, context),
            _ => self.discriminator_losses(model, batch, context),
        }
    }

    fn after_update(
        &mut self,
        model: AdversarialCodec<M, C>,
        phase: usize,
    ) -> Result<AdversarialCodec<M, C>> {
        if phase != CODEC_PHASE {
            return Ok(model);
        }
        let updates = std::mem::take(&mut self.parts.updates);
        Ok(AdversarialCodec {
            codec: model.codec.update_codebooks(&updates),
            ..model
        })
    }

    fn state(&self) -> Value {
        self.parts.state()
    }

    fn load_state(&mut self, state: Value) -> Result<()> {
        self.parts.load_state(state)
    }
}

/// The mean of numbers `[1]`, one for each discriminator.
///
/// # Panics
/// If there are none.
fn mean(of_each: impl Iterator<Item = Tensor<1>>) -> Tensor<1> {
    Tensor::cat(of_each.collect(), 0).mean()
}

/// The mean over the layers of all discriminators of `mean|x − y| / mean|y|`, `[1]`; `None` without
/// layers.
fn relative_difference(found: &[Verdict], expected: &[Verdict]) -> Option<Tensor<1>> {
    let layers = |verdicts: &[Verdict]| -> Vec<Tensor<2>> {
        let each = verdicts.iter();
        each.flat_map(|of| of.features.iter().cloned()).collect()
    };
    let layers = layers(found).into_iter().zip(layers(expected));
    let layers = layers.map(|(x, y)| {
        let y = y.detach();
        let size = y.clone().abs().mean().clamp_min(LEAST_FEATURE);
        (x - y).abs().mean() / size
    });
    let layers: Vec<Tensor<1>> = layers.collect();
    (!layers.is_empty()).then(|| Tensor::cat(layers, 0).mean())
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use aigc_core::testing::{assert_close, values};
    use burn::tensor::Device;

    /// Each layer counts alike, whatever the size of its features.
    #[test]
    fn differences_are_relative_to_the_features_of_the_sound() {
        let device = Device::flex().autodiff();
        let layer = |values: [f32; 2]| Tensor::<2>::from_floats([values], &device);
        let found = layer([1.0, 5.0]).require_grad();
        let expected = layer([2.0, 2.0]).require_grad();
        let verdict = |features: Vec<Tensor<2>>| Verdict {
            logits: layer([0.0, 0.0]),
            features,
        };
        // Of one discriminator with both layers, and of two with one each.
        let distance = relative_difference(
            &[verdict(vec![found.clone(), layer([100.0, 0.0])])],
            &[
                verdict(vec![expected.clone()]),
                verdict(vec![layer([300.0, -100.0])]),
            ],
        );
        // (1 + 3) / (2 + 2), and (200 + 100) / (300 + 100).
        let distance = distance.unwrap();
        assert_close(&values(distance.clone()), &[0.5 * (1.0 + 0.75)], 1e-6);
        let gradients = distance.backward();
        assert_close(
            &values(found.grad(&gradients).unwrap()),
            &[-0.125, 0.125],
            1e-6,
        );
        assert!(expected.grad(&gradients).is_none());
        assert!(relative_difference(&[verdict(vec![])], &[verdict(vec![])]).is_none());
    }
}
