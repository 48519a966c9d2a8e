//! Training and evaluation of a [`NoteLm`].

use crate::{
    model::NoteLm,
    windows::{NoteBatch, NoteTensors, Window, evaluation_windows},
};
use aigc_core::{
    CancelToken, Result,
    burn::{module::Module, tensor::Tensor},
    ops,
    train::{LossOutput, Objective, StepContext},
};
use aigc_examples::Progress;
use aigc_text::CausalLm;

/// Windows that are evaluated at once.
const BATCH: usize = 16;

/// Sum of `−ln p(next token)` over the targets that count, `[1]`.
fn nats(model: &NoteLm, batch: &NoteTensors) -> Tensor<1> {
    let logits = model.forward_at(batch.inputs.clone(), &batch.places);
    let [rows, time, _] = logits.dims();
    let logits = logits.reshape([rows * time, model.vocab_size()]);
    (ops::cross_entropy(logits, batch.targets.clone()) * batch.weights.clone()).sum()
}

/// The mean of `−ln p(next token)` over the notes of a [`NoteBatch`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoteObjective;

impl Objective for NoteObjective {
    type Model = NoteLm;
    type Batch = NoteBatch;

    fn losses(
        &mut self,
        model: &NoteLm,
        batch: &NoteBatch,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let batch = batch.to_tensors(&context.device);
        let loss = nats(model, &batch) / batch.count.max(1) as f64;
        Ok(LossOutput::new(loss))
    }
}

/// Sum of `−ln p` of all tokens of the pieces, which have start and end; the ends do not count.
/// Windows begin about `stride` tokens apart.
///
/// # Errors
/// [`Error::Cancelled`](aigc_core::Error::Cancelled) if `stop` is cancelled.
pub(crate) fn total_nats(
    model: &NoteLm,
    pieces: &[Vec<u32>],
    stride: usize,
    stop: &CancelToken,
) -> Result<f64> {
    let device = model.devices().into_iter().next().unwrap_or_default();
    let config = model.config();
    let windows = evaluation_windows(config.notation, pieces, config.n_positions, stride);
    let progress = Progress::new("evaluation", windows.len(), stop);
    let mut sum = 0.0;
    for some in windows.chunks(BATCH) {
        let some: Vec<Window> = some.to_vec();
        let (count, batch) = (some.len(), NoteBatch::collate(some).to_tensors(&device));
        let value: f32 = nats(model, &batch).into_scalar();
        sum += f64::from(value);
        progress.add(count)?;
    }
    Ok(sum)
}
