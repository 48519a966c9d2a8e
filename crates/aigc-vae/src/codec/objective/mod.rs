//! Training of codecs.
//!
//! | file | content |
//! |---|---|
//! | `config` | the terms of the loss and their weights |
//! | `loss` | the terms that compare sounds |
//! | `point` | decoded sounds, and what discriminators make of them |
//! | `balancer` | weights of gradients |
//! | `usage` | the use of codebooks |
//! | `adversarial` | training against a discriminator |

mod adversarial;
mod balancer;
mod config;
mod loss;
mod point;
#[cfg(all(test, feature = "flex"))]
mod tests;
mod usage;

pub use adversarial::{AdversarialCodec, AdversarialCodecObjective};
pub use config::{AdversarialCodecConfig, CodecLossConfig};
pub use usage::CodecUsage;

use super::codes::check_wave;
use crate::QuantizerOutput;
use aigc_core::{
    Error, Result,
    audio::AudioCodec,
    data::SampleBatch,
    rng::Rng,
    train::{LossOutput, Objective, StepContext},
};
use balancer::Named;
use burn::{
    module::Module,
    tensor::{Int, Tensor},
};
use loss::CodecLoss;
use serde_json::{Value, json};
use std::marker::PhantomData;

/// A codec that can be trained: [`EncodecModel`](super::EncodecModel),
/// [`DacModel`](super::DacModel), or one of your own.
pub trait TrainableCodec: AudioCodec + Module {
    /// Encodes, quantises and decodes sounds with gradients, with dropout of codebooks where the
    /// codec has it.
    ///
    /// # Shapes
    /// - wave: `[batch, channels, time]`
    ///
    /// # Panics
    /// For another number of channels, or fewer than [`least_samples`](Self::least_samples).
    fn reconstruct(&self, wave: Tensor<3>, rng: &mut Rng) -> Reconstruction;

    /// Called after an update of the weights with [`Reconstruction::update`] of its batches;
    /// returns the codec to continue with. By default it is unchanged.
    fn update_codebooks(self, outputs: &[QuantizerOutput]) -> Self {
        let _ = outputs;
        self
    }

    /// Samples of the shortest sound that can be encoded, by default 1.
    fn least_samples(&self) -> usize {
        1
    }
}

/// One pass of a batch through a codec.
#[derive(Clone, Debug)]
pub struct Reconstruction {
    /// Decoded sounds, `[batch, channels, time]`, of about the length of the inputs.
    pub wave: Tensor<3>,
    /// Codes of all codebooks, `[batch, codebooks, frames]`.
    pub codes: Tensor<3, Int>,
    /// Losses of the quantiser by name, each `[1]`: means over the values of the batch, summed over
    /// codebooks, with the weights of the codec's configuration if it has some.
    pub losses: Vec<(&'static str, Tensor<1>)>,
    /// What [`TrainableCodec::update_codebooks`] needs, of a codec whose codes follow moving
    /// averages.
    pub update: Option<QuantizerOutput>,
}

/// Trains a codec `M` on the sounds of batches `B` to reproduce them: samples and log-mels are
/// compared ([`CodecLossConfig`]), and the quantiser's losses are added.
///
/// The metrics are the terms without the weights of the objective, `l1`, `mel`, `commitment` (and
/// `codebook`), and the use of every codebook ([`CodecUsage`]). If the use of a codebook falls
/// below a half, there is an alert of the kind `codebook_usage`.
///
/// A batch has sounds of one length; silence that fills shorter ones is learned as well.
#[derive(Debug)]
pub struct CodecObjective<M, B> {
    parts: Parts,
    types: PhantomData<fn(M, B)>,
}

impl<M: TrainableCodec, B: SampleBatch<3>> CodecObjective<M, B> {
    /// The objective with this configuration, checked against the codec.
    ///
    /// # Errors
    /// [`Error::Config`] for a value out of range, or mels of another sample rate.
    pub fn new(config: CodecLossConfig, codec: &M) -> Result<Self> {
        Ok(Self {
            parts: Parts::new(config, codec)?,
            types: PhantomData,
        })
    }

    /// Configuration of the objective.
    pub fn config(&self) -> &CodecLossConfig {
        self.parts.loss.config()
    }
}

impl<M, B> Objective for CodecObjective<M, B>
where
    M: TrainableCodec + 'static,
    B: SampleBatch<3>,
{
    type Model = M;
    type Batch = B;

    /// # Errors
    /// [`Error::InvalidArgument`] for sounds of another number of channels, or too few samples for
    /// the codec or a mel.
    fn losses(&mut self, model: &M, batch: &B, context: &mut StepContext) -> Result<LossOutput> {
        let wave = batch.normalized(&context.device);
        let Pass {
            decoded,
            wave,
            quantizer,
        } = self.parts.pass(model, wave, context)?;
        let terms = self.parts.loss.terms(wave);
        let (loss, values) = self.parts.loss.combine(decoded, &|_| vec![], terms)?;
        Ok(quantizer.with(loss, values))
    }

    fn after_update(&mut self, model: M, _phase: usize) -> Result<M> {
        Ok(model.update_codebooks(&std::mem::take(&mut self.parts.updates)))
    }

    fn state(&self) -> Value {
        self.parts.state()
    }

    fn load_state(&mut self, state: Value) -> Result<()> {
        self.parts.load_state(state)
    }
}

/// What both objectives have.
#[derive(Debug)]
struct Parts {
    loss: CodecLoss,
    usage: CodecUsage,
    /// Outputs of the quantiser since the last update.
    updates: Vec<QuantizerOutput>,
}

/// One pass through a codec: sounds of one length, and what is not compared.
struct Pass {
    decoded: Tensor<3>,
    wave: Tensor<3>,
    quantizer: QuantizerTerms,
}

/// The terms of the quantiser.
struct QuantizerTerms {
    weight: f64,
    losses: Named,
    usage: Named,
}

impl Parts {
    fn new(config: CodecLossConfig, codec: &impl TrainableCodec) -> Result<Self> {
        Ok(Self {
            loss: CodecLoss::new(config, codec.sample_rate())?,
            usage: CodecUsage::new(codec.num_codebooks(), codec.codebook_size())?,
            updates: vec![],
        })
    }

    fn pass<M: TrainableCodec>(
        &mut self,
        codec: &M,
        wave: Tensor<3>,
        context: &mut StepContext,
    ) -> Result<Pass> {
        check_wave(&wave, codec.channels(), codec.least_samples())?;
        let Reconstruction {
            wave: decoded,
            codes,
            losses,
            update,
        } = codec.reconstruct(wave.clone(), &mut context.rng);
        let time = decoded.dims()[2].min(wave.dims()[2]);
        self.loss.check_length(time)?;
        self.updates.extend(update);
        let usage = self.usage.add(codes).into_iter();
        // Metrics are on the device of the loss.
        let is_autodiff = decoded.is_autodiff();
        let usage = usage.map(|(name, value)| match is_autodiff {
            true => (name, Tensor::from_inner(value)),
            false => (name, value),
        });
        let usage = usage.collect();
        if context.micro_batch == 0
            && let Some(warning) = self.usage.check(context.step)
        {
            context.alert("codebook_usage", warning);
        }
        Ok(Pass {
            decoded: decoded.narrow(2, 0, time),
            wave: wave.narrow(2, 0, time),
            quantizer: QuantizerTerms {
                weight: self.loss.config().quantizer_weight,
                losses,
                usage,
            },
        })
    }

    fn state(&self) -> Value {
        json!({"usage": self.usage.state(), "balancer": self.loss.state()})
    }

    fn load_state(&mut self, mut state: Value) -> Result<()> {
        if !state.is_object() {
            let expected = "an object with usage and balancer";
            return Err(Error::config("state.objective", state, expected));
        }
        self.usage.load_state(state["usage"].take())?;
        self.loss.load_state(state["balancer"].take())
    }
}

impl QuantizerTerms {
    /// The whole loss and all metrics.
    fn with(self, loss: Tensor<1>, values: Named) -> LossOutput {
        let mut output = LossOutput {
            loss,
            metrics: values,
        };
        for (name, term) in self.losses {
            output.loss = output.loss + term.clone() * self.weight;
            output.metrics.push((name, term));
        }
        output.metrics.extend(self.usage);
        output
    }
}
