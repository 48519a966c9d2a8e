//! Training of models of several streams.

use super::{CodesBatch, MultiStreamLm};
use aigc_core::{
    Result,
    check::{self, ensure_argument},
    ops,
    train::{LossOutput, Objective, StepContext},
};
use burn::tensor::{Device, Tensor};
use std::marker::PhantomData;

/// The mean of `−ln p(next code)` of every codebook over a batch, `[codebooks]`. The empty places
/// of the delay pattern, and those after the end of a shorter item, do not count.
///
/// `keep` is true for the items whose condition is used; `None` uses all conditions.
///
/// # Errors
/// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for items that do not fit the
/// model or each other, or that have more steps than the model has positions.
pub fn multi_stream_loss<M: MultiStreamLm>(
    model: &M,
    batch: &CodesBatch,
    keep: Option<&[bool]>,
    device: &Device,
) -> Result<Tensor<1>> {
    let (pattern, vocabulary) = (model.delay_pattern(), model.vocab_size());
    let (steps, most) = (
        pattern.steps(batch.longest()),
        model.max_position_embeddings(),
    );
    let expected = format!(
        "at most {}, as the model has {most} positions",
        pattern.frames(most)
    );
    ensure_argument(steps <= most, "frames", batch.longest(), &expected)?;
    let places = batch.places(&pattern, vocabulary, model.pad_token_id(), device)?;
    let condition = model.encode_condition(&batch.condition_inputs(device)?)?;
    let condition = match (condition, keep) {
        (Some(condition), Some(keep)) => Some(condition.kept(keep)?),
        (condition, _) => condition,
    };
    let logits = model.forward(places.inputs, condition.as_ref());
    let [rows, codebooks, steps, _] = logits.dims();
    let logits = logits.reshape([rows * codebooks * steps, vocabulary]);
    let nats = ops::cross_entropy(logits, places.targets) * places.weights;
    let sums = nats.reshape([rows, codebooks, steps]).sum_dim(2).sum_dim(0);
    Ok(sums.reshape([codebooks]) / places.count as f64)
}

/// The objective of a [`MultiStreamLm`]: the cross-entropy of the next code, averaged over the
/// codebooks of a [`CodesBatch`] ([`multi_stream_loss`]). The metric `first_codebook` is the
/// cross-entropy of the first codebook, which has the greatest effect on the sound.
///
/// For classifier-free guidance (Ho and Salimans 2022, <https://arxiv.org/abs/2207.12598>), the
/// condition of a share of the items is dropped.
#[derive(Clone, Copy, Debug)]
pub struct MultiStreamObjective<M> {
    condition_dropout: f64,
    model: PhantomData<fn() -> M>,
}

impl<M> MultiStreamObjective<M> {
    /// An objective that drops the condition of an item with probability `condition_dropout`; 0.1
    /// is usual, 0 for generation without guidance.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) unless it is from 0 to 1.
    pub fn new(condition_dropout: f64) -> Result<Self> {
        check::fraction("condition_dropout", condition_dropout)?;
        Ok(Self {
            condition_dropout,
            model: PhantomData,
        })
    }
}

impl<M: MultiStreamLm + 'static> Objective for MultiStreamObjective<M> {
    type Model = M;
    type Batch = CodesBatch;

    fn losses(
        &mut self,
        model: &M,
        batch: &CodesBatch,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let drawn = context.rng.uniform_vec(batch.batch_size(), 0.0, 1.0);
        let keep: Vec<bool> = drawn
            .iter()
            .map(|drawn| f64::from(*drawn) >= self.condition_dropout)
            .collect();
        let losses = multi_stream_loss(model, batch, Some(&keep), &context.device)?;
        let first = losses.clone().narrow(0, 0, 1);
        Ok(LossOutput::new(losses.mean()).with_metric("first_codebook", first))
    }
}
