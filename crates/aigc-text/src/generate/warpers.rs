//! Warpers, which restrict the tokens that are sampled. Each keeps at least `min_tokens_to_keep`.

use super::processor::{
    GenerationState, LogitsProcessor, log_softmax, log_sum_exp, softmax, top_k,
};
use aigc_core::Result;

/// Forbids tokens for which `keep` is false.
fn only(scores: &mut [f32], keep: impl Fn(usize) -> bool) {
    (0..scores.len())
        .filter(|i| !keep(*i))
        .for_each(|i| scores[i] = f32::NEG_INFINITY);
}

/// Divides scores by the temperature.
#[derive(Clone, Copy, Debug)]
pub struct Temperature(pub f64);

impl LogitsProcessor for Temperature {
    fn process(&mut self, _: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let temperature = self.0 as f32;
        scores.iter_mut().for_each(|score| *score /= temperature);
        Ok(())
    }
}

/// Keeps the `k` most likely tokens (Fan et al. 2018, <https://arxiv.org/abs/1805.04833>), and
/// others with the score of the last of them.
#[derive(Clone, Copy, Debug)]
pub struct TopK {
    /// Number of tokens.
    pub k: usize,
    /// Minimum number of tokens to keep.
    pub min_tokens_to_keep: usize,
}

impl LogitsProcessor for TopK {
    fn process(&mut self, _: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let k = self.k.max(self.min_tokens_to_keep).clamp(1, scores.len());
        let mut sorted = scores.to_vec();
        let (_, last, _) = sorted.select_nth_unstable_by(k - 1, |a, b| b.total_cmp(a));
        let last = *last;
        scores
            .iter_mut()
            .filter(|score| **score < last)
            .for_each(|score| *score = f32::NEG_INFINITY);
        Ok(())
    }
}

/// Keeps the most likely tokens whose probabilities add up to `p` (nucleus sampling, Holtzman et
/// al. 2020, <https://arxiv.org/abs/1904.09751>).
#[derive(Clone, Copy, Debug)]
pub struct TopP {
    /// Total probability.
    pub p: f64,
    /// Minimum number of tokens to keep.
    pub min_tokens_to_keep: usize,
}

impl LogitsProcessor for TopP {
    fn process(&mut self, _: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        // Summed from the least likely token: the removed tokens have at most 1 − p together.
        let order = top_k(scores, scores.len());
        let probabilities = softmax(scores);
        let mut sum = 0.0;
        for i in order[self.min_tokens_to_keep.min(order.len())..]
            .iter()
            .rev()
        {
            sum += f64::from(probabilities[*i]);
            if sum > 1.0 - self.p {
                break;
            }
            scores[*i] = f32::NEG_INFINITY;
        }
        Ok(())
    }
}

/// Keeps tokens with at least `min_p` times the largest probability (Nguyen et al. 2024,
/// <https://arxiv.org/abs/2407.01082>).
#[derive(Clone, Copy, Debug)]
pub struct MinP {
    /// Fraction of the largest probability.
    pub min_p: f64,
    /// Minimum number of tokens to keep.
    pub min_tokens_to_keep: usize,
}

impl LogitsProcessor for MinP {
    fn process(&mut self, _: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let probabilities = softmax(scores);
        let least = self.min_p as f32 * probabilities.iter().copied().fold(0.0, f32::max);
        let best = top_k(&probabilities, self.min_tokens_to_keep);
        only(scores, |i| probabilities[i] >= least || best.contains(&i));
        Ok(())
    }
}

/// Keeps the tokens whose surprisal is closest to the entropy, up to a total probability of `p`
/// (locally typical sampling, Meister et al. 2023, <https://arxiv.org/abs/2202.00666>).
#[derive(Clone, Copy, Debug)]
pub struct TypicalP {
    /// Total probability.
    pub p: f64,
    /// Minimum number of tokens to keep.
    pub min_tokens_to_keep: usize,
}

impl LogitsProcessor for TypicalP {
    fn process(&mut self, _: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let mut logs = scores.to_vec();
        log_softmax(&mut logs);
        let entropy = entropy(&logs);
        let away: Vec<f32> = logs.iter().map(|log| (-log - entropy).abs()).collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|a, b| away[*a].total_cmp(&away[*b]));
        let mut sum = 0.0;
        let below = |i: &&usize| {
            sum += f64::from(logs[**i].exp());
            sum < self.p
        };
        let last = order.iter().take_while(below).count().min(order.len() - 1);
        let furthest = away[order[last]];
        let kept = &order[..self.min_tokens_to_keep.min(order.len())];
        only(scores, |i| away[i] <= furthest || kept.contains(&i));
        Ok(())
    }
}

/// Entropy of a distribution of log-probabilities.
fn entropy(logs: &[f32]) -> f32 {
    logs.iter()
        .filter(|log| log.is_finite())
        .map(|log| -f64::from(log.exp()) * f64::from(*log))
        .sum::<f64>() as f32
}

/// Keeps tokens with at least the probability `least`, and the `keep` most likely ones.
fn at_least(scores: &mut [f32], probabilities: &[f32], least: f32, keep: usize) {
    let best = top_k(scores, keep.max(1));
    let last = best.last().map_or(f32::INFINITY, |i| scores[*i]);
    (0..scores.len())
        .filter(|i| probabilities[*i] < least && scores[*i] < last)
        .collect::<Vec<_>>()
        .into_iter()
        .for_each(|i| scores[i] = f32::NEG_INFINITY);
}

/// Keeps tokens with at least the probability `epsilon` (Hewitt et al. 2022,
/// <https://arxiv.org/abs/2210.15191>).
#[derive(Clone, Copy, Debug)]
pub struct EpsilonCutoff {
    /// Minimum probability.
    pub epsilon: f64,
    /// Minimum number of tokens to keep.
    pub min_tokens_to_keep: usize,
}

impl LogitsProcessor for EpsilonCutoff {
    fn process(&mut self, _: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let probabilities = softmax(scores);
        at_least(
            scores,
            &probabilities,
            self.epsilon as f32,
            self.min_tokens_to_keep,
        );
        Ok(())
    }
}

/// Keeps tokens with at least the probability `min(ε, √ε·exp(−entropy))` (Hewitt et al. 2022).
#[derive(Clone, Copy, Debug)]
pub struct EtaCutoff {
    /// `ε`.
    pub epsilon: f64,
    /// Minimum number of tokens to keep.
    pub min_tokens_to_keep: usize,
}

impl LogitsProcessor for EtaCutoff {
    fn process(&mut self, _: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let mut logs = scores.to_vec();
        log_softmax(&mut logs);
        let entropy = f64::from(entropy(&logs));
        let least = self.epsilon.min(self.epsilon.sqrt() * (-entropy).exp());
        let probabilities: Vec<f32> = logs.iter().map(|log| log.exp()).collect();
        at_least(
            scores,
            &probabilities,
            least as f32,
            self.min_tokens_to_keep,
        );
        Ok(())
    }
}

/// Keeps the most likely of the first hundred tokens whose terms of the entropy add up to the
/// fraction `top_h` of the entropy (Potraghloo et al. 2025, <https://arxiv.org/abs/2509.02510>).
#[derive(Clone, Copy, Debug)]
pub struct TopH {
    /// Fraction of the entropy.
    pub top_h: f64,
}

impl LogitsProcessor for TopH {
    fn process(&mut self, _: GenerationState<'_>, scores: &mut [f32]) -> Result<()> {
        let best = top_k(scores, 100);
        let among: Vec<f32> = best.iter().map(|i| scores[*i]).collect();
        let log_sum = log_sum_exp(&among);
        let term = |score: &f32| {
            let log = f64::from(score - log_sum);
            if log.is_finite() {
                -log.exp() * log
            } else {
                0.0
            }
        };
        let terms: Vec<f64> = among.iter().map(term).collect();
        let most = terms.iter().sum::<f64>() * self.top_h;
        let mut sum = 0.0;
        let below = |term: &&f64| {
            sum += **term;
            sum <= most
        };
        let count = terms.iter().take_while(below).count().max(1);
        let mut keep = best[..count].to_vec();
        keep.sort_unstable();
        only(scores, |i| keep.binary_search(&i).is_ok());
        Ok(())
    }
}
