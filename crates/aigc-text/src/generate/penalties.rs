//! Processors that depend on earlier tokens or on the length of the sequence.

use super::processor::{GenerationState, LogitsProcessor};
use aigc_core::Result;
use std::collections::{HashMap, HashSet};

/// Divides positive scores of tokens in the sequence by the penalty, and multiplies negative ones
/// by it (Keskar et al. 2019, <https://arxiv.org/abs/1909.05858>).
#[derive(Clone, Copy, Debug)]
pub struct RepetitionPenalty(pub f64);

impl LogitsProcessor for RepetitionPenalty {
    fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let penalty = self.0 as f32;
        let held: HashSet<u32> = state.tokens.iter().copied().collect();
        for token in held {
            if let Some(score) = scores.get_mut(token as usize) {
                *score = if *score < 0.0 {
                    *score * penalty
                } else {
                    *score / penalty
                };
            }
        }
        Ok(())
    }
}

/// Subtracts from the score of every generated token `frequency` per occurrence, and `presence`
/// once.
#[derive(Clone, Copy, Debug)]
pub struct FrequencyPenalty {
    /// Subtracted per occurrence.
    pub frequency: f64,
    /// Subtracted once.
    pub presence: f64,
}

impl LogitsProcessor for FrequencyPenalty {
    fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        state.tokens[state.prompt_len..]
            .iter()
            .for_each(|token| *counts.entry(*token).or_default() += 1);
        for (token, count) in counts {
            if let Some(score) = scores.get_mut(token as usize) {
                *score -= (self.frequency * count as f64 + self.presence) as f32;
            }
        }
        Ok(())
    }
}

/// Forbids that n-grams of this length occur twice (Paulus et al. 2017,
/// <https://arxiv.org/abs/1705.04304>).
#[derive(Clone, Copy, Debug)]
pub struct NoRepeatNgram(pub usize);

impl LogitsProcessor for NoRepeatNgram {
    fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let (n, tokens) = (self.0, state.tokens);
        if tokens.len() < n {
            return Ok(());
        }
        let prefix = &tokens[tokens.len() + 1 - n..];
        for ngram in tokens.windows(n).filter(|ngram| &ngram[..n - 1] == prefix) {
            if let Some(score) = scores.get_mut(ngram[n - 1] as usize) {
                *score = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }
}

/// Adds a bias to the score of the last token of a phrase if the sequence ends with the tokens
/// before it.
#[derive(Clone, Debug)]
pub struct SequenceBias(pub Vec<(Vec<u32>, f32)>);

impl LogitsProcessor for SequenceBias {
    fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        for (sequence, bias) in &self.0 {
            if let Some((last, before)) = sequence.split_last()
                && state.tokens.ends_with(before)
                && let Some(score) = scores.get_mut(*last as usize)
            {
                *score += bias;
            }
        }
        Ok(())
    }
}

/// Forbids tokens while a condition on the sequence holds.
pub(crate) struct Suppress<F> {
    pub tokens: Vec<u32>,
    pub while_: F,
}

impl<F: Fn(GenerationState<'_>) -> bool + Send> LogitsProcessor for Suppress<F> {
    fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        if (self.while_)(state) {
            set(scores, &self.tokens, f32::NEG_INFINITY);
        }
        Ok(())
    }
}

/// Allows only the given tokens when a condition on the sequence holds.
pub(crate) struct Force<F> {
    pub tokens: Vec<u32>,
    pub when: F,
}

impl<F: Fn(GenerationState<'_>) -> bool + Send> LogitsProcessor for Force<F> {
    fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        if (self.when)(state) {
            scores.fill(f32::NEG_INFINITY);
            set(scores, &self.tokens, 0.0);
        }
        Ok(())
    }
}

fn set(scores: &mut [f32], tokens: &[u32], value: f32) {
    for token in tokens {
        if let Some(score) = scores.get_mut(*token as usize) {
            *score = value;
        }
    }
}

/// Makes the end more likely: with `n` new tokens beyond `start`, `|score|·(factorⁿ − 1)` is added
/// to the scores of tokens that end the sequence.
#[derive(Clone, Debug)]
pub struct ExponentialDecayLengthPenalty {
    /// Number of new tokens without a penalty.
    pub start: usize,
    /// Growth factor per token.
    pub factor: f64,
    /// Tokens that end a sequence.
    pub eos: Vec<u32>,
}

impl LogitsProcessor for ExponentialDecayLengthPenalty {
    fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let since = state.new_tokens().saturating_sub(self.start);
        if since > 0 {
            let factor = (self.factor.powi(since as i32) - 1.0) as f32;
            for token in &self.eos {
                if let Some(score) = scores
                    .get_mut(*token as usize)
                    .filter(|score| score.is_finite())
                {
                    *score += score.abs() * factor;
                }
            }
        }
        Ok(())
    }
}

/// Replaces NaN by zero, and infinities by the largest and smallest finite numbers.
#[derive(Clone, Copy, Debug)]
pub struct InfNanRemove;

impl LogitsProcessor for InfNanRemove {
    fn process(&mut self, _: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        for score in scores {
            *score = if score.is_nan() {
                0.0
            } else {
                score.clamp(f32::MIN, f32::MAX)
            };
        }
        Ok(())
    }
}
