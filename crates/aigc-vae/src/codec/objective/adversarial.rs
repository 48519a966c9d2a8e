//! Training of a codec against a discriminator.

use super::{AdversarialCodecConfig, Parts, Pass, TrainableCodec, balancer::Term};
use aigc_core::{
    Error, Result,
    adversarial::SampleDiscriminator,
    data::SampleBatch,
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
/// that the codec's phase decoded.
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
        let wave = batch.to_tensor(&context.device);
        let Pass {
            decoded,
            wave,
            quantizer,
        } = self.parts.pass(&model.codec, wave, context)?;
        let mut terms = self.parts.loss.terms(wave.clone());
        let mut kept = None;
        if context.step >= self.config.start_step {
            kept = Some([wave.clone(), decoded.clone().detach()]);
            // Gradients flow through the discriminator, but not to its weights.
            let judge = model.discriminator.clone().no_grad();
            terms.extend(self.judged(judge, wave));
        }
        let slot = context.micro_batch;
        self.decoded.resize(self.decoded.len().max(slot + 1), None);
        self.decoded[slot] = kept;
        let (loss, values) = self.parts.loss.combine(decoded, terms)?;
        Ok(quantizer.with(loss, values))
    }

    /// The terms of the discriminator.
    fn judged<'a>(&self, judge: C, wave: Tensor<3>) -> Vec<Term<'a>>
    where
        C: 'a,
    {
        let loss = self.config.adversarial;
        let other = judge.clone();
        let adversarial =
            move |decoded: Tensor<3>| Ok(loss.generator_loss(judge.logits(decoded, None)));
        let mut terms: Vec<Term<'a>> = vec![(
            "adversarial",
            self.config.adversarial_weight,
            Box::new(adversarial),
        )];
        let weight = self.config.feature_weight;
        if weight > 0.0 {
            let features = move |decoded: Tensor<3>| {
                let found = other.features(decoded, None);
                relative_difference(found, other.features(wave, None)).ok_or_else(|| {
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
                let wave = batch.to_tensor(&context.device);
                let codec = model.codec.clone().no_grad();
                let decoded = codec
                    .reconstruct(wave.clone(), &mut context.rng)
                    .wave
                    .detach();
                let time = decoded.dims()[2].min(wave.dims()[2]);
                [wave.narrow(2, 0, time), decoded.narrow(2, 0, time)]
            }
        };
        let [real, fake] = [real, fake].map(|x| model.discriminator.logits(x, None));
        let loss = self.config.adversarial;
        let total = loss.discriminator_loss(real.clone(), fake.clone());
        Ok(LossOutput::new(total)
            .with_metric("real", real.clone().detach().mean())
            .with_metric("fake", fake.clone().detach().mean())
            .with_metric("accuracy", loss.accuracy(real, fake)))
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
    /// the codec or a mel; [`Error::Config`] for a `feature_weight` with a discriminator without
    /// features.
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

/// The mean over layers of `mean|x − y| / mean|y|`, `[1]`; `None` without layers.
fn relative_difference(found: Vec<Tensor<2>>, expected: Vec<Tensor<2>>) -> Option<Tensor<1>> {
    let layers = found.into_iter().zip(expected).map(|(x, y)| {
        let y = y.detach();
        let size = y.clone().abs().mean().clamp_min(LEAST_FEATURE);
        (x - y).abs().mean() / size
    });
    let layers: Vec<Tensor<1>> = layers.collect();
    (!layers.is_empty()).then(|| Tensor::cat(layers, 0).mean())
}
