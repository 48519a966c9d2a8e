//! Processors, which change the logits of the next token.

use aigc_core::Result;

/// A sequence during generation.
#[derive(Clone, Copy, Debug)]
pub struct GenerationState<'a> {
    /// All tokens of the sequence, without padding.
    pub tokens: &'a [u32],
    /// Number of tokens of the prompt.
    pub prompt_len: usize,
    /// Index of the prompt.
    pub prompt_index: usize,
    /// Number of padding tokens before the prompt; as in transformers, options of lengths count
    /// them.
    pub padding: usize,
}

impl GenerationState<'_> {
    /// The length as options such as `max_length` count it, including padding.
    pub fn len(&self) -> usize {
        self.padding + self.tokens.len()
    }

    /// Whether the sequence has neither tokens nor padding.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Number of tokens after the prompt.
    pub fn new_tokens(&self) -> usize {
        self.tokens.len() - self.prompt_len
    }
}

/// Changes the scores of the next token: logits, or log-probabilities in beam search.
pub trait LogitsProcessor: Send {
    /// Changes the scores of the next token, one number per token of the vocabulary; minus infinity
    /// forbids a token.
    ///
    /// # Errors
    /// If the processor allows no token.
    fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()>;
}

impl<F: FnMut(GenerationState<'_>, &mut [f32]) -> Result<()> + Send> LogitsProcessor for F {
    fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        self(state, scores)
    }
}

/// A list of processors that run in order.
#[derive(Default)]
pub(crate) struct Processors(pub Vec<Box<dyn LogitsProcessor>>);

impl Processors {
    pub(crate) fn process(&mut self, state: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        self.0
            .iter_mut()
            .try_for_each(|processor| processor.process(state, scores))
    }
}

/// Probabilities of `scores`.
pub(crate) fn softmax(scores: &[f32]) -> Vec<f32> {
    let log_sum = log_sum_exp(scores);
    scores.iter().map(|score| (score - log_sum).exp()).collect()
}

/// `ln Σ exp(score)`, in 64 bits.
pub(crate) fn log_sum_exp(scores: &[f32]) -> f32 {
    let top = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if !top.is_finite() {
        return top;
    }
    let sum: f64 = scores
        .iter()
        .map(|score| f64::from(score - top).exp())
        .sum();
    top + sum.ln() as f32
}

/// Converts scores to log-probabilities.
pub(crate) fn log_softmax(scores: &mut [f32]) {
    let log_sum = log_sum_exp(scores);
    scores.iter_mut().for_each(|score| *score -= log_sum);
}

/// Indices of the `k` largest scores, largest first; of equal scores, the first one first.
pub(crate) fn top_k(scores: &[f32], k: usize) -> Vec<usize> {
    if k == 0 {
        return Vec::new();
    }
    let by_score = |a: &usize, b: &usize| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b));
    // Candidates, reduced to `k` whenever there are twice as many.
    let mut best: Vec<usize> = Vec::with_capacity(2 * k.min(scores.len()));
    let mut least = None;
    for (i, score) in scores.iter().enumerate() {
        if least.is_some_and(|least| *score <= least) {
            continue;
        }
        best.push(i);
        if best.len() == 2 * k {
            best.select_nth_unstable_by(k - 1, by_score);
            best.truncate(k);
            least = Some(scores[best[k - 1]]);
        }
    }
    best.sort_unstable_by(by_score);
    best.truncate(k);
    best
}

/// Index of the largest score; the first one of equal scores.
pub(crate) fn argmax(scores: &[f32]) -> Option<usize> {
    let better = |best: Option<usize>, i: usize| {
        if scores[i] > best.map_or(f32::NEG_INFINITY, |best| scores[best]) {
            Some(i)
        } else {
            best
        }
    };
    (0..scores.len()).fold(None, better)
}
