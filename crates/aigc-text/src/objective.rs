//! Training of causal language models with the loss of the next token.

use crate::{models::CausalLm, tokens::host, windows::TokenDataset};
use aigc_core::{
    Error, Result,
    data::Dataset,
    ops,
    train::{LossOutput, Objective, StepContext},
};
use burn::tensor::{Int, Tensor, TensorData};
use std::marker::PhantomData;

/// A batch of token sequences of the same length: inputs, and one more token as the last target.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenBatch {
    tokens: Vec<i32>,
    batch_size: usize,
}

impl TokenBatch {
    /// Collates windows of tokens into a batch, for a [`DataLoader`](aigc_core::data::DataLoader).
    ///
    /// # Panics
    /// If the windows have different lengths.
    pub fn collate(windows: Vec<Vec<u32>>) -> Self {
        let n = windows.first().map_or(0, Vec::len);
        assert!(
            windows.iter().all(|window| window.len() == n),
            "windows of the same length"
        );
        let tokens = windows
            .iter()
            .flatten()
            .map(|token| *token as i32)
            .collect();
        Self {
            tokens,
            batch_size: windows.len(),
        }
    }

    /// Batch size.
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// Number of input tokens per sequence.
    pub fn seq_len(&self) -> usize {
        (self.tokens.len() / self.batch_size.max(1)).saturating_sub(1)
    }

    /// Inputs, `[batch, seq_len]`, and the next token after each, `[batch·seq_len]`.
    fn parts(&self, device: &burn::tensor::Device) -> (Tensor<2, Int>, Tensor<1, Int>) {
        let (rows, n) = (self.batch_size, self.seq_len());
        let part = |from: usize| -> Vec<i32> {
            self.tokens
                .chunks_exact(n + 1)
                .flat_map(|row| &row[from..from + n])
                .copied()
                .collect()
        };
        let inputs = Tensor::from_data(TensorData::new(part(0), [rows, n]), device);
        (
            inputs,
            Tensor::from_data(TensorData::new(part(1), [rows * n]), device),
        )
    }
}

/// The mean of `−ln p(next token)` over a batch, `[1]`.
///
/// # Errors
/// [`Error::InvalidArgument`] for sequences longer than the model's context, or tokens outside its
/// vocabulary.
pub fn next_token_loss<M: CausalLm>(
    model: &M,
    batch: &TokenBatch,
    device: &burn::tensor::Device,
) -> Result<Tensor<1>> {
    let (context, vocabulary) = (model.max_position_embeddings(), model.vocab_size());
    if batch.seq_len() == 0 || batch.seq_len() > context {
        return Err(Error::argument(
            "seq_len",
            batch.seq_len(),
            format!("1 to {context}, the model's context"),
        ));
    }
    let unknown = batch
        .tokens
        .iter()
        .find(|token| !(0..vocabulary as i64).contains(&i64::from(**token)));
    if let Some(token) = unknown {
        return Err(Error::argument(
            "token",
            token,
            format!("below {vocabulary}, the model's vocab_size"),
        ));
    }
    let (inputs, targets) = batch.parts(device);
    let logits = model.forward(inputs);
    let [rows, n, _] = logits.dims();
    Ok(ops::cross_entropy(logits.reshape([rows * n, vocabulary]), targets).mean())
}

/// The mean of `−ln p(next token)` over all `windows`, computed in batches of `batch`. Windows that
/// begin `block_size` apart cover a text, except for an end that is too short for a window.
///
/// # Errors
/// As [`next_token_loss`], and errors of reading the windows.
pub fn evaluate_loss<M: CausalLm>(model: &M, windows: &TokenDataset, batch: usize) -> Result<f64> {
    let device = model.devices().into_iter().next().unwrap_or_default();
    let mut sum = 0.0;
    let all: Vec<usize> = (0..windows.len()).collect();
    for some in all.chunks(batch.max(1)) {
        let rows = some
            .iter()
            .map(|index| windows.get(*index))
            .collect::<Result<_>>()?;
        let loss = next_token_loss(model, &TokenBatch::collate(rows), &device)?;
        sum += f64::from(host(loss)[0]) * some.len() as f64;
    }
    Ok(sum / all.len() as f64)
}

/// The objective of a [`CausalLm`]: cross-entropy of the next token in a [`TokenBatch`].
#[derive(Clone, Copy, Debug)]
pub struct CausalLmObjective<M>(PhantomData<fn() -> M>);

impl<M> CausalLmObjective<M> {
    /// An objective; it has no settings.
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<M> Default for CausalLmObjective<M> {
    fn default() -> Self {
        Self::new()
    }
}

impl<M: CausalLm + 'static> Objective for CausalLmObjective<M> {
    type Model = M;
    type Batch = TokenBatch;

    fn losses(
        &mut self,
        model: &M,
        batch: &TokenBatch,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        Ok(LossOutput::new(next_token_loss(
            model,
            batch,
            &context.device,
        )?))
    }
}
