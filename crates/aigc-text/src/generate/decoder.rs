//! A model with its cache, for several sequences at once.

use crate::{
    cache::Cache,
    models::CausalLm,
    tokens::{host, ids},
};
use aigc_core::ops;
use burn::tensor::{Device, Int, Tensor, TensorData};

/// A model, and the cache of its earlier tokens.
#[derive(Debug)]
pub(crate) struct Decoder<'a, M> {
    pub model: &'a M,
    pub cache: Box<dyn Cache>,
    pub device: Device,
}

/// Converts logits `[batch, n]` to log-probabilities on the host.
pub(crate) fn log_probabilities(scores: Tensor<2>) -> Vec<f32> {
    let ([rows, n], device) = (scores.dims(), scores.device());
    let mut host_scores = host(scores.clone());
    // For any allowed token, −ln p is the logarithm of the sum minus the token's logit.
    let possible = |row: &[f32]| row.iter().position(|score| score.is_finite()).unwrap_or(0);
    let tokens: Vec<usize> = host_scores.chunks_exact(n).map(possible).collect();
    let targets: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    let nats = host(ops::cross_entropy(
        scores,
        Tensor::<1, Int>::from_data(TensorData::new(targets, [rows]), &device),
    ));
    for ((scores, nats), token) in host_scores.chunks_exact_mut(n).zip(nats).zip(tokens) {
        let log_sum = nats + scores[token];
        scores.iter_mut().for_each(|score| *score -= log_sum);
    }
    host_scores
}

impl<'a, M: CausalLm> Decoder<'a, M> {
    /// A decoder with an empty cache of `capacity` tokens.
    pub(crate) fn new(model: &'a M, rows: usize, capacity: usize, device: Device) -> Self {
        Self {
            model,
            cache: model.new_cache(rows, capacity),
            device,
        }
    }

    /// Processes the prompts, padded on the left with `pad`; returns the hidden state of the last
    /// token of each, `[batch, 1, width]`.
    pub(crate) fn begin(&mut self, prompts: &[Vec<u32>], pad: u32) -> Tensor<3> {
        let hidden = self.begin_all(prompts, pad);
        last(hidden)
    }

    /// [`begin`](Self::begin), but returns the hidden states of all tokens.
    pub(crate) fn begin_all(&mut self, prompts: &[Vec<u32>], pad: u32) -> Tensor<3> {
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let padding: Vec<usize> = prompts
            .iter()
            .map(|prompt| longest - prompt.len())
            .collect();
        self.cache.set_left_padding(&padding);
        let row =
            |(prompt, padding): (&Vec<u32>, &usize)| [vec![pad; *padding], prompt.clone()].concat();
        let tokens: Vec<u32> = prompts.iter().zip(&padding).flat_map(row).collect();
        self.model
            .forward_cached(ids(&tokens, prompts.len(), &self.device), &mut *self.cache)
    }

    /// Processes one token per sequence; returns logits of the next token, `[batch, vocabulary]`.
    pub(crate) fn next(&mut self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let hidden = self.model.forward_cached(tokens, &mut *self.cache);
        self.scores(hidden)
    }

    /// Logits of the next token from the hidden state of the last one, `[batch, 1, width]`.
    pub(crate) fn scores(&self, hidden: Tensor<3>) -> Tensor<2> {
        let [rows, ..] = hidden.dims();
        self.model
            .lm_head(hidden)
            .reshape([rows, self.model.vocab_size()])
    }
}

/// The hidden state of the last token of each sequence.
pub(crate) fn last(hidden: Tensor<3>) -> Tensor<3> {
    let [_, time, _] = hidden.dims();
    hidden.narrow(1, time - 1, 1)
}
