//! Perplexity of texts under a model.

use crate::{
    models::CausalLm,
    tokens::{host, ids, in_vocabulary},
};
use aigc_core::{Error, Result, ops};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Number of positions whose logits are computed at once.
const PIECE: usize = 128;

/// `−ln p` of the tokens of a text, and derived measures.
#[derive(Clone, Debug, PartialEq)]
pub struct Perplexity {
    /// `−ln p` of every token except the first of the text; if windows do not overlap, except the
    /// first of each window.
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

    /// Perplexity, the exponential of the [`loss`](Self::loss).
    pub fn perplexity(&self) -> f64 {
        self.loss().exp()
    }

    /// Bits per character for a text with this number of characters.
    pub fn bits_per_character(&self, characters: usize) -> f64 {
        self.loss() * self.token_nll.len() as f64 / std::f64::consts::LN_2 / characters as f64
    }
}

/// Evaluates how well `model` predicts `tokens`, in windows of the size of its context that begin
/// `stride` tokens apart. Only tokens not scored by an earlier window are scored, so each has at
/// least `context − stride` tokens of context.
///
/// # Errors
/// [`Error::InvalidArgument`] for fewer than two tokens, a token outside the vocabulary, or a
/// stride of 0 or above the context.
pub fn perplexity<M: CausalLm>(model: &M, tokens: &[u32], stride: usize) -> Result<Perplexity> {
    let context = model.max_position_embeddings();
    if stride == 0 || stride > context {
        return Err(Error::argument(
            "stride",
            stride,
            format!("1 to {context}, the model's context"),
        ));
    }
    if context < 2 {
        return Err(Error::argument(
            "context",
            context,
            "at least 2: the first token is not predicted",
        ));
    }
    if tokens.len() < 2 {
        return Err(Error::argument(
            "tokens",
            tokens.len(),
            "at least 2: the first is not predicted",
        ));
    }
    in_vocabulary(
        tokens.iter().copied(),
        model.vocab_size(),
        |token, expected| Error::argument("tokens", token, expected),
    )?;
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

/// `−ln p` of the tokens after the first `1 + known` of a window.
fn token_nats<M: CausalLm>(model: &M, window: &[u32], known: usize, device: &Device) -> Vec<f32> {
    let inputs = &window[..window.len() - 1];
    let mut cache = model.new_cache(1, inputs.len());
    let hidden = model.forward_cached(ids(inputs, 1, device), &mut *cache);
    // Computed in pieces: the logits of all positions would take the most memory.
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
