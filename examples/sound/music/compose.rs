//! New pieces of a trained model.

use crate::{
    model::NoteLm,
    notation::{Cursor, Notation},
};
use aigc_core::{CancelToken, Error, Result, check::ensure_argument, music::VOICES, rng::Rng};
use aigc_examples::Progress;
use aigc_text::{
    CausalLm, FinishReason, GenerationConfig, GenerationState, LogitsProcessor, TextGenerator,
    generate::TokenIds,
};
use clap::Args;

/// Pieces that are written at once.
const BATCH: usize = 32;

/// How notes are drawn.
#[derive(Clone, Debug, Args)]
pub(crate) struct SamplingOptions {
    /// Divisor of the logits; below 1, pieces are plainer. 1 by default, also for --model.
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    pub(crate) temperature: Option<f64>,
    /// Total probability of the most likely notes to draw from; 0.98 by default, 1 for --model.
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    pub(crate) top_p: Option<f64>,
    /// Number of most likely notes to draw from, 0 for all; 0 by default, 250 for --model.
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
}

/// What pieces are to be written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commission {
    /// Number of pieces.
    pub(crate) pieces: usize,
    /// Steps before which a chorale does not end.
    pub(crate) least_steps: usize,
    /// Most tokens of a piece.
    pub(crate) most_tokens: usize,
    /// Seed of all of them, of which those of batches and of windows are derived.
    pub(crate) seed: u64,
}

/// Pieces without start and end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Composed {
    pub(crate) pieces: Vec<Vec<u32>>,
    /// How many of them the model ended itself.
    pub(crate) ended: usize,
}

/// Allows only tokens that may come next in a piece.
#[derive(Clone, Copy, Debug)]
struct Grammar {
    notation: Notation,
    /// Complete steps before the first token.
    steps: usize,
    least_steps: usize,
}

impl LogitsProcessor for Grammar {
    fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let mut cursor = Cursor::new(self.notation, self.steps);
        for token in state.tokens.iter().skip(1) {
            cursor.push(*token);
        }
        for (token, score) in scores.iter_mut().enumerate() {
            if !cursor.allows(token as u32, self.least_steps) {
                *score = f32::NEG_INFINITY;
            }
        }
        Ok(())
    }
}

impl SamplingOptions {
    /// Fails unless every option is in its range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the option.
    pub(crate) fn check(&self, notation: Notation) -> Result<()> {
        let config = self.config(notation.start_token(), 2);
        config.validate(notation.vocab_size())
    }

    fn config(&self, start: u32, max_length: usize) -> GenerationConfig {
        GenerationConfig {
            max_length: Some(max_length),
            do_sample: true,
            temperature: self.temperature.unwrap_or(1.0),
            top_p: self.top_p.unwrap_or(0.98),
            top_k: self.top_k.unwrap_or(0),
            eos_token_id: Some(TokenIds::One(start)),
            pad_token_id: Some(start),
            ..GenerationConfig::default()
        }
    }
}

/// Writes pieces. The same seed gives the same pieces.
///
/// # Errors
/// [`Error::Config`] for options out of range; [`Error::Cancelled`] if `stop` is cancelled.
pub(crate) fn compose(
    model: &NoteLm,
    commission: Commission,
    options: &SamplingOptions,
    stop: &CancelToken,
) -> Result<Composed> {
    let progress = Progress::new("new pieces", commission.pieces, stop);
    let mut all = Composed::default();
    for first in (0..commission.pieces).step_by(BATCH) {
        let count = BATCH.min(commission.pieces - first);
        let seed = Rng::stream(commission.seed, "new pieces", first as u64).next_u64();
        let commission = Commission { seed, ..commission };
        let found = several(model, count, commission, options, stop)?;
        all.pieces.extend(found.pieces);
        all.ended += found.ended;
        progress.add(count)?;
    }
    Ok(all)
}

/// Writes `count` pieces side by side. Where a piece is longer than the model's context, the second
/// half of what there is becomes the beginning of the next window.
fn several(
    model: &NoteLm,
    count: usize,
    commission: Commission,
    options: &SamplingOptions,
    stop: &CancelToken,
) -> Result<Composed> {
    let (context, notation) = (model.max_position_embeddings(), model.config().notation);
    let start = notation.start_token();
    let mut rows = vec![vec![start]; count];
    let mut running: Vec<usize> = (0..count).collect();
    let most = commission.most_tokens + 1;
    ensure_argument(most > 1, "most_tokens", most - 1, "at least 1")?;
    let mut first = 0;
    while !running.is_empty() {
        let prompts: Vec<Vec<u32>> = running.iter().map(|r| rows[*r][first..].to_vec()).collect();
        let grammar = Grammar {
            notation,
            // Only fours of voices have windows that begin later.
            steps: first / VOICES,
            least_steps: commission.least_steps,
        };
        let config = options.config(start, context.min(most - first));
        let drawn = TextGenerator::new(model, config)?
            .with_seed(Rng::stream(commission.seed, "window of pieces", first as u64).next_u64())
            .with_cancel(stop.clone())
            .with_logits_processor(grammar)
            .generate(&prompts)?;
        if stop.is_cancelled() {
            return Err(Error::cancelled("writing new pieces"));
        }
        let mut left = vec![];
        for (row, sequence) in running.into_iter().zip(drawn) {
            rows[row].truncate(first);
            rows[row].extend(&sequence.tokens);
            if sequence.finish_reason != Some(FinishReason::Eos) {
                left.push(row);
            }
        }
        running = left;
        let len = first + context.min(most - first);
        let next = notation.period().map(|period| {
            let second_half = len.saturating_sub(context / 2);
            second_half.next_multiple_of(period)
        });
        match next.filter(|next| *next > first && *next < len && len < most) {
            Some(next) => first = next,
            None => break,
        }
    }
    let mut composed = Composed::default();
    for mut row in rows {
        if row.len() > 1 && row.last() == Some(&start) {
            row.pop();
            composed.ended += 1;
        }
        row.remove(0);
        composed.pieces.push(row);
    }
    Ok(composed)
}
