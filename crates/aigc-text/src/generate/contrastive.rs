//! Contrastive search: of the most likely tokens, the one whose hidden state is least similar to
//! those of earlier tokens (Su et al. 2022, <https://arxiv.org/abs/2202.06417>).

use super::{
    GeneratedSequence,
    decoder::{Decoder, last},
    processor::{GenerationState, Processors, softmax, top_k},
    sample::nothing_left,
    stop::Stopping,
};
use crate::{
    models::CausalLm,
    tokens::{host, ids},
};
use aigc_core::Result;
use burn::tensor::{Int, Tensor, TensorData};

/// Contrastive search over several prompts at once.
pub(crate) struct Contrastive<'a, M> {
    pub decoder: Decoder<'a, M>,
    pub processors: Processors,
    pub stopping: Stopping<'a>,
    /// Number of candidates.
    pub k: usize,
    /// Weight of the similarity.
    pub alpha: f32,
    pub pad: u32,
}

impl<M: CausalLm> Contrastive<'_, M> {
    pub(crate) fn run(
        mut self,
        prompts: &[Vec<u32>],
        mut on_tokens: impl FnMut(&[Option<u32>]),
    ) -> Result<Vec<GeneratedSequence>> {
        let (vocabulary, items) = (self.decoder.model.vocab_size(), prompts.len());
        let k = self.k.min(vocabulary);
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let padding: Vec<usize> = prompts
            .iter()
            .map(|prompt| longest - prompt.len())
            .collect();
        let mut rows: Vec<GeneratedSequence> = prompts
            .iter()
            .enumerate()
            .map(|(i, prompt)| GeneratedSequence::new(i, prompt))
            .collect();
        let hidden = self.decoder.begin_all(prompts, self.pad);
        let mut scores = host(self.decoder.scores(last(hidden.clone())));
        let mut before = unit(hidden);
        self.decoder.cache.repeat_interleave(k);
        loop {
            let mut candidates: Vec<Vec<u32>> = Vec::with_capacity(items);
            let mut likely: Vec<Vec<f32>> = Vec::with_capacity(items);
            for (i, row) in rows.iter().enumerate() {
                if row.finish_reason.is_some() {
                    candidates.push(vec![self.pad; k]);
                    likely.push(vec![0.0; k]);
                    continue;
                }
                let scores = &mut scores[i * vocabulary..][..vocabulary];
                let state = GenerationState {
                    tokens: &row.tokens,
                    prompt_len: row.prompt_len,
                    prompt_index: i,
                    padding: padding[i],
                };
                self.processors.process(state, scores)?;
                let probabilities = softmax(scores);
                let best = top_k(&probabilities, k);
                if !best.iter().any(|token| probabilities[*token] > 0.0) {
                    return Err(nothing_left());
                }
                likely.push(best.iter().map(|token| probabilities[*token]).collect());
                candidates.push(best.into_iter().map(|token| token as u32).collect());
            }
            let hidden = self.decoder.model.forward_cached(
                ids(&candidates.concat(), items * k, &self.decoder.device),
                &mut *self.decoder.cache,
            );
            let [.., width] = hidden.dims();
            // Cosine similarity of each candidate's hidden state to that of every earlier token.
            let states = unit(hidden.clone()).reshape([items, k, width]);
            let alike = host(states.clone().matmul(before.clone().transpose()));
            let [_, length, _] = before.dims();
            let choose = |i: usize| {
                let value = |c: usize| {
                    let seen = &alike[(i * k + c) * length..][padding[i]..length];
                    let most = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    (1.0 - self.alpha) * likely[i][c] - self.alpha * most
                };
                // Fewer than `k` candidates may be allowed, and none for a sequence that has ended.
                let allowed = (0..k).filter(|c| likely[i][*c] > 0.0);
                allowed
                    .reduce(|best, c| if value(c) > value(best) { c } else { best })
                    .unwrap_or(0)
            };
            let chosen: Vec<usize> = (0..items).map(choose).collect();
            let mut new_tokens = vec![None; items];
            for (i, row) in rows
                .iter_mut()
                .enumerate()
                .filter(|(_, row)| row.finish_reason.is_none())
            {
                let token = candidates[i][chosen[i]];
                new_tokens[i] = Some(token);
                row.tokens.push(token);
                row.finish_reason = self.stopping.ends(&row.tokens, padding[i]);
            }
            on_tokens(&new_tokens);
            if rows.iter().all(|row| row.finish_reason.is_some()) {
                return Ok(rows);
            }
            let parents: Vec<usize> = (0..items * k)
                .map(|row| row / k * k + chosen[row / k])
                .collect();
            self.decoder.cache.reorder(&parents);
            let kept: Vec<i32> = chosen
                .iter()
                .enumerate()
                .map(|(i, c)| (i * k + c) as i32)
                .collect();
            let kept =
                Tensor::<1, Int>::from_data(TensorData::new(kept, [items]), &self.decoder.device);
            scores = host(self.decoder.scores(hidden.select(0, kept.clone())));
            let state = states.reshape([items * k, 1, width]).select(0, kept);
            before = Tensor::cat(vec![before, state], 1);
        }
    }
}

/// Normalises vectors to length one.
fn unit(hidden: Tensor<3>) -> Tensor<3> {
    let length = hidden.clone().square().sum_dim(2).sqrt().clamp_min(1e-12);
    hidden / length
}

#[cfg(test)]
mod tests {
    use crate::{GenerationConfig, Gpt2Config, TextGenerator};
    use aigc_core::{device::device, rng::InitWeights};

    #[test]
    fn contrastive_search_obeys_suppressed_tokens() {
        let config = Gpt2Config {
            vocab_size: 20,
            n_positions: 32,
            n_embd: 16,
            n_layer: 1,
            n_head: 2,
            ..Default::default()
        };
        let config = Gpt2Config {
            bos_token_id: None,
            eos_token_id: None,
            initializer_range: 0.4,
            ..config
        };
        let model = config
            .init(&device("flex").unwrap())
            .unwrap()
            .init_weights(1);
        // Only the similarity counts, and fewer tokens are allowed than there are candidates.
        let generate = |forbidden: std::ops::Range<u32>| {
            let config = GenerationConfig {
                penalty_alpha: Some(1.0),
                top_k: 6,
                suppress_tokens: forbidden.collect(),
                ..GenerationConfig::default()
            };
            TextGenerator::new(&model, config)
                .unwrap()
                .generate(&[vec![3, 4, 5], vec![7]])
        };
        for text in generate(0..18).unwrap() {
            assert!(
                text.new_tokens().iter().all(|token| *token >= 18),
                "{text:?}"
            );
        }
        let error = generate(0..20).unwrap_err().to_string();
        assert!(error.contains("no token with a probability"), "{error}");
    }
}
