//! Processors that look at what the text has said, or at how long it is.

use super::processor::{GenerationState, LogitsProcessor};
use aigc_core::Result;
use std::collections::{HashMap, HashSet};

/// Scores of tokens that the text holds are divided by the penalty where positive and multiplied
/// where negative (Keskar et al. 2019, <https://arxiv.org/abs/1909.05858>).
#[derive(Clone, Copy, Debug)]
pub struct RepetitionPenalty(pub f64);

impl LogitsProcessor for RepetitionPenalty {
    fn process(&mut self, row: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let penalty = self.0 as f32;
        let held: HashSet<u32> = row.tokens.iter().copied().collect();
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

/// Subtracts from the score of every new token `frequency` for each time it stands in the text, and
/// `presence` once.
#[derive(Clone, Copy, Debug)]
pub struct FrequencyPenalty {
    /// For each time.
    pub frequency: f64,
    /// Once.
    pub presence: f64,
}

impl LogitsProcessor for FrequencyPenalty {
    fn process(&mut self, row: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let mut counts: HashMap<u32, usize> = HashMap::new();
        row.tokens[row.prompt_len..]
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

/// No `n` tokens in a row come twice (Paulus et al. 2017, <https://arxiv.org/abs/1705.04304>).
#[derive(Clone, Copy, Debug)]
pub struct NoRepeatNgram(pub usize);

impl LogitsProcessor for NoRepeatNgram {
    fn process(&mut self, row: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let (n, tokens) = (self.0, row.tokens);
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

/// Adds to the score of a sequence's last token, where the text ends with what stands before it.
#[derive(Clone, Debug)]
pub struct SequenceBias(pub Vec<(Vec<u32>, f32)>);

impl LogitsProcessor for SequenceBias {
    fn process(&mut self, row: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        for (sequence, bias) in &self.0 {
            if let Some((last, before)) = sequence.split_last()
                && row.tokens.ends_with(before)
                && let Some(score) = scores.get_mut(*last as usize)
            {
                *score += bias;
            }
        }
        Ok(())
    }
}

/// Forbids tokens as long as `while_` holds of the text.
pub(crate) struct Suppress<F> {
    pub tokens: Vec<u32>,
    pub while_: F,
}

impl<F: Fn(GenerationState<'_>) -> bool + Send> LogitsProcessor for Suppress<F> {
    fn process(&mut self, row: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        if (self.while_)(row) {
            set(scores, &self.tokens, f32::NEG_INFINITY);
        }
        Ok(())
    }
}

/// Forces one of the tokens where `when` holds of the text.
pub(crate) struct Force<F> {
    pub tokens: Vec<u32>,
    pub when: F,
}

impl<F: Fn(GenerationState<'_>) -> bool + Send> LogitsProcessor for Force<F> {
    fn process(&mut self, row: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        if (self.when)(row) {
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

/// From `start` new tokens on, the score of ending grows by `factor` to the power of the number of
/// tokens since, less one, times its size.
#[derive(Clone, Debug)]
pub struct ExponentialDecayLengthPenalty {
    /// New tokens that are free.
    pub start: usize,
    /// How much more likely each makes the end.
    pub factor: f64,
    /// Tokens that end a text.
    pub eos: Vec<u32>,
}

impl LogitsProcessor for ExponentialDecayLengthPenalty {
    fn process(&mut self, row: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let since = row.new_tokens().saturating_sub(self.start);
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

/// Numbers that are none become zero, infinite ones the largest and smallest there are.
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
