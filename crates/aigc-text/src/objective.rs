//! Learning to say the next token.

use crate::{models::CausalLm, windows::TokenDataset};
use aigc_core::{
    Error, Result,
    data::Dataset,
    ops,
    train::{LossOutput, Objective, StepContext},
};
use burn::tensor::{Int, Tensor, TensorData};
use std::marker::PhantomData;

/// Rows of tokens, all of one length, each with one more than the model sees.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenBatch {
    tokens: Vec<i32>,
    rows: usize,
}

impl TokenBatch {
    /// Puts windows together, for a [`DataLoader`](aigc_core::data::DataLoader).
    ///
    /// # Panics
    /// If they are of different lengths.
    pub fn collate(windows: Vec<Vec<u32>>) -> Self {
        let n = windows.first().map_or(0, Vec::len);
        assert!(
            windows.iter().all(|window| window.len() == n),
            "windows of one length"
        );
        let tokens = windows
            .iter()
            .flatten()
            .map(|token| *token as i32)
            .collect();
        Self {
            tokens,
            rows: windows.len(),
        }
    }

    /// Number of rows.
    pub fn batch_size(&self) -> usize {
        self.rows
    }

    /// Tokens of a row that the model sees.
    pub fn seq_len(&self) -> usize {
        (self.tokens.len() / self.rows.max(1)).saturating_sub(1)
    }

    /// What the model sees, `[rows, length]`, and the token behind each, `[rows·length]`.
    fn parts(&self, device: &burn::tensor::Device) -> (Tensor<2, Int>, Tensor<1, Int>) {
        let (rows, n) = (self.rows, self.seq_len());
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

/// The mean of `−ln p(next token)` over a batch.
///
/// # Errors
/// [`Error::Config`] for windows longer than the model's context, or tokens that it does not have.
pub fn next_token_loss<M: CausalLm>(
    model: &M,
    batch: &TokenBatch,
    device: &burn::tensor::Device,
) -> Result<Tensor<1>> {
    let (context, vocabulary) = (model.max_position_embeddings(), model.vocab_size());
    if batch.seq_len() == 0 || batch.seq_len() > context {
        return Err(Error::config(
            "length",
            batch.seq_len(),
            format!("1 to {context}, the model's context"),
        ));
    }
    let unknown = batch
        .tokens
        .iter()
        .find(|token| !(0..vocabulary as i64).contains(&i64::from(**token)));
    if let Some(token) = unknown {
        return Err(Error::config(
            "token",
            token,
            format!("below {vocabulary}, the model's number of tokens"),
        ));
    }
    let (inputs, targets) = batch.parts(device);
    let logits = model.forward(inputs);
    let [rows, n, _] = logits.dims();
    Ok(ops::cross_entropy(logits.reshape([rows * n, vocabulary]), targets).mean())
}

/// The mean of `−ln p(next token)` over all `windows`, `batch` at a time: of a whole text where
/// they are as far apart as they are long, but for what is too short for a window at its end.
///
/// # Errors
/// As [`next_token_loss`]; and what reading the windows reports.
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
        sum += f64::from(crate::generate::host(loss)[0]) * some.len() as f64;
    }
    Ok(sum / all.len() as f64)
}

/// Training a [`CausalLm`] to say the next token of [`TokenBatch`]es.
#[derive(Clone, Copy, Debug)]
pub struct CausalLmObjective<M>(PhantomData<fn() -> M>);

impl<M> CausalLmObjective<M> {
    /// The objective; it has no settings.
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
