//! How well a model foretells texts.

use crate::{
    generate::{host, ids},
    models::CausalLm,
};
use aigc_core::{Error, Result, ops};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Places whose scores are computed at once.
const PIECE: usize = 128;

/// `−ln p` of tokens, and what follows from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Perplexity {
    /// `−ln p` of every token but the first of the text; where windows do not overlap, but the
    /// first of each.
    pub token_nll: Vec<f32>,
}

impl Perplexity {
    /// Mean of `−ln p`.
    pub fn loss(&self) -> f64 {
        self.token_nll
            .iter()
            .map(|nats| f64::from(*nats))
            .sum::<f64>()
            / self.token_nll.len() as f64
    }

    /// `exp` of the mean.
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }

    /// Bits per character of a text of so many.
    pub fn bits_per_character(&self, characters: usize) -> f64 {
        self.loss() * self.token_nll.len() as f64 / std::f64::consts::LN_2 / characters as f64
    }
}

/// How well `model` foretells `tokens`: in windows of its context, each `stride` tokens behind the
/// one before; of every window only tokens that none before has judged count, so that each is told
/// at least `context − stride` before it.
///
/// # Errors
/// [`Error::Config`] for fewer than two tokens, one that the model does not have, or a stride of 0
/// or above the context.
pub fn perplexity<M: CausalLm>(model: &M, tokens: &[u32], stride: usize) -> Result<Perplexity> {
    let context = model.max_position_embeddings();
    if stride == 0 || stride > context {
        return Err(Error::config(
            "stride",
            stride,
            format!("1 to {context}, the model's context"),
        ));
    }
    if context < 2 {
        return Err(Error::config(
            "context",
            context,
            "at least 2: the first token is foretold by nothing",
        ));
    }
    if tokens.len() < 2 {
        return Err(Error::config(
            "tokens",
            tokens.len(),
            "at least 2: the first is foretold by nothing",
        ));
    }
    crate::generate::in_vocabulary("token", tokens.iter().copied(), model.vocab_size())?;
    let device = model.devices().into_iter().next().unwrap_or_default();
    let (mut nats, mut done) = (Vec::with_capacity(tokens.len() - 1), 0);
    for start in (0..tokens.len() - 1).step_by(stride) {
        let end = (start + context).min(tokens.len());
        nats.extend(token_nats(
            model,
            &tokens[start..end],
            usize::saturating_sub(done, start + 1),
            &device,
        ));
        done = end;
        if end == tokens.len() {
            break;
        }
    }
    Ok(Perplexity { token_nll: nats })
}

/// `−ln p` of the tokens behind the first `1 + known` of a window.
fn token_nats<M: CausalLm>(model: &M, window: &[u32], known: usize, device: &Device) -> Vec<f32> {
    let inputs = &window[..window.len() - 1];
    let mut cache = model.new_cache(1, inputs.len());
    let hidden = model.forward_cached(ids(inputs, 1, device), &mut cache);
    // A piece at a time: scores of all tokens at every place are the largest thing here.
    let pieces = (known..inputs.len()).step_by(PIECE).flat_map(|first| {
        let count = PIECE.min(inputs.len() - first);
        let logits = model.lm_head(hidden.clone().narrow(1, first, count));
        let targets: Vec<i32> = window[first + 1..][..count]
            .iter()
            .map(|token| *token as i32)
            .collect();
        let targets = Tensor::<1, Int>::from_data(TensorData::new(targets, [count]), device);
        host(ops::cross_entropy(
            logits.reshape([count, model.vocab_size()]),
            targets,
        ))
    });
    pieces.collect()
}
