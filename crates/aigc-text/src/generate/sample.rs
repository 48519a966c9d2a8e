//! Greedy search and sampling, token by token.

use super::{
    GeneratedSequence,
    decoder::Decoder,
    processor::{GenerationState, Processors, argmax, log_softmax, softmax},
    stop::Stopping,
};
use crate::{
    models::CausalLm,
    tokens::{host, ids},
};
use aigc_core::{Error, Result, rng::Rng};
use burn::tensor::{Int, Tensor};

/// Generates several sequences at once, one token per step.
pub(crate) struct Sampling<'a, M> {
    decoder: Decoder<'a, M>,
    processors: Processors,
    stopping: Stopping<'a>,
    rows: Vec<Growing>,
    /// Random streams of the sequences; `None` for greedy search.
    draws: Option<Vec<Rng>>,
    keep_scores: bool,
    pad: u32,
    /// Logits of the next tokens.
    scores: Option<Tensor<2>>,
}

struct Growing {
    sequence: GeneratedSequence,
    padding: usize,
}

/// Options of [`Sampling`].
pub(crate) struct Choice {
    /// Seed of sampling; `None` for greedy search.
    pub seed: Option<u64>,
    /// Number of sequences per prompt.
    pub times: usize,
    /// Whether log-probabilities of chosen tokens are kept.
    pub keep_scores: bool,
    /// The token that pads sequences.
    pub pad: u32,
}

impl<'a, M: CausalLm> Sampling<'a, M> {
    pub(crate) fn new(
        mut decoder: Decoder<'a, M>,
        prompts: &[Vec<u32>],
        processors: Processors,
        stopping: Stopping<'a>,
        choice: Choice,
    ) -> Self {
        let Choice {
            seed,
            times,
            keep_scores,
            pad,
        } = choice;
        let hidden = decoder.begin(prompts, pad);
        let scores = decoder.scores(hidden).repeat_dim(0, times);
        decoder.cache.repeat_interleave(times);
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let row = |row: usize| {
            let prompt = &prompts[row / times];
            Growing {
                sequence: GeneratedSequence::new(row / times, prompt),
                padding: longest - prompt.len(),
            }
        };
        let n = prompts.len() * times;
        let draws = seed.map(|seed| {
            (0..n)
                .map(|row| Rng::stream(seed, "generate", row as u64))
                .collect()
        });
        let rows = (0..n).map(row).collect();
        Self {
            decoder,
            processors,
            stopping,
            rows,
            draws,
            keep_scores,
            pad,
            scores: Some(scores),
        }
    }

    /// Generates the next token of every sequence that has not ended; `None` if all have ended.
    pub(crate) fn step(&mut self) -> Result<Option<Vec<Option<u32>>>> {
        let Some(scores) = self.scores.take() else {
            return Ok(None);
        };
        let plain = self.draws.is_none() && self.processors.0.is_empty() && !self.keep_scores;
        // Without processors, the argmax is computed on the device and only its index is
        // transferred.
        let (chosen, on_device) = if plain {
            let best: Tensor<2, Int> = scores.argmax(1);
            (
                best.to_data()
                    .iter::<i64>()
                    .map(|token| token as u32)
                    .collect(),
                Some(best),
            )
        } else {
            (self.choose(host(scores))?, None)
        };
        let mut new_tokens = Vec::with_capacity(self.rows.len());
        let mut all_running = true;
        for (row, token) in self.rows.iter_mut().zip(&chosen) {
            let is_running = row.sequence.finish_reason.is_none();
            new_tokens.push(is_running.then_some(*token));
            if is_running {
                row.sequence.tokens.push(*token);
                row.sequence.finish_reason = self.stopping.ends(&row.sequence.tokens, row.padding);
            }
            all_running &= row.sequence.finish_reason.is_none();
        }
        if self
            .rows
            .iter()
            .any(|row| row.sequence.finish_reason.is_none())
        {
            let next = match on_device.filter(|_| all_running) {
                Some(best) => best,
                None => {
                    let token = |(row, token): (&Growing, &u32)| {
                        if row.sequence.finish_reason.is_none() {
                            *token
                        } else {
                            self.pad
                        }
                    };
                    let tokens: Vec<u32> = self.rows.iter().zip(&chosen).map(token).collect();
                    ids(&tokens, tokens.len(), &self.decoder.device)
                }
            };
            self.scores = Some(self.decoder.next(next));
        }
        Ok(Some(new_tokens))
    }

    /// Chooses the next token of each sequence, from logits on the host.
    fn choose(&mut self, mut scores: Vec<f32>) -> Result<Vec<u32>> {
        let vocabulary = self.decoder.model.vocab_size();
        let mut chosen = Vec::with_capacity(self.rows.len());
        for (i, (row, scores)) in self
            .rows
            .iter_mut()
            .zip(scores.chunks_exact_mut(vocabulary))
            .enumerate()
        {
            if row.sequence.finish_reason.is_some() {
                chosen.push(self.pad);
                continue;
            }
            let GeneratedSequence {
                tokens,
                prompt_len: prompt,
                prompt_index: item,
                ..
            } = &row.sequence;
            let state = GenerationState {
                tokens,
                prompt_len: *prompt,
                prompt_index: *item,
                padding: row.padding,
            };
            self.processors.process(state, scores)?;
            let token = match &mut self.draws {
                Some(draws) => draw(&softmax(scores), &mut draws[i]).ok_or_else(nothing_left)?,
                None => argmax(scores).ok_or_else(nothing_left)?,
            };
            if self.keep_scores {
                log_softmax(scores);
                row.sequence.scores.push(scores[token]);
            }
            chosen.push(token as u32);
        }
        Ok(chosen)
    }

    /// The sequences so far.
    pub(crate) fn sequences(self) -> Vec<GeneratedSequence> {
        self.rows.into_iter().map(|row| row.sequence).collect()
    }
}

/// A uniform random number above 0 and below 1.
pub(crate) fn uniform(rng: &mut Rng) -> f64 {
    ((rng.next_u64() >> 12) as f64 + 0.5) / (1u64 << 52) as f64
}

/// Draws an index by its probability; `None` if all probabilities are zero.
pub(crate) fn draw(probabilities: &[f32], rng: &mut Rng) -> Option<usize> {
    let total: f64 = probabilities.iter().map(|p| f64::from(*p)).sum();
    if !(total > 0.0 && total.is_finite()) {
        return None;
    }
    let at = uniform(rng) * total;
    let mut sum = 0.0;
    let reached = probabilities.iter().position(|p| {
        sum += f64::from(*p);
        sum > at
    });
    // Rounding may leave the last sum below the total.
    reached.or_else(|| probabilities.iter().rposition(|p| *p > 0.0))
}

/// The error if every token is forbidden, or a score is NaN.
pub(crate) fn nothing_left() -> Error {
    Error::config(
        "scores",
        "no token with a probability",
        "one that no option forbids, and finite weights; see remove_invalid_values",
    )
}
