//! Contrastive search: of the likeliest tokens the one whose state is least like those before (Su et al. 2022,
//! <https://arxiv.org/abs/2202.06417>).

use super::{
    Sequence,
    decoder::{Decoder, host, ids, last},
    processor::{Processors, Row, softmax, top_k},
    stop::Stopping,
};
use crate::models::CausalLm;
use aigc_core::Result;
use burn::tensor::{Int, Tensor, TensorData};

/// Contrastive search over several prompts at once.
pub(crate) struct Contrastive<'a, M> {
    pub decoder: Decoder<'a, M>,
    pub processors: Processors,
    pub stopping: Stopping<'a>,
    /// How many of the likeliest.
    pub k: usize,
    /// How much likeness counts.
    pub alpha: f32,
    pub pad: u32,
}

impl<M: CausalLm> Contrastive<'_, M> {
    pub(crate) fn run(mut self, prompts: &[Vec<u32>], mut tell: impl FnMut(&[Option<u32>])) -> Result<Vec<Sequence>> {
        let (vocabulary, items) = (self.decoder.model.vocabulary(), prompts.len());
        let k = self.k.min(vocabulary);
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let padding: Vec<usize> = prompts.iter().map(|prompt| longest - prompt.len()).collect();
        let mut rows: Vec<Sequence> = prompts.iter().enumerate().map(|(i, prompt)| Sequence::of(i, prompt)).collect();
        let hidden = self.decoder.begin_all(prompts, self.pad);
        let mut scores = host(self.decoder.scores(last(hidden.clone())));
        let mut before = unit(hidden);
        self.decoder.cache.repeat(k);
        loop {
            let mut candidates: Vec<Vec<u32>> = Vec::with_capacity(items);
            let mut likely: Vec<Vec<f32>> = Vec::with_capacity(items);
            for (i, row) in rows.iter().enumerate() {
                if row.ending.is_some() {
                    candidates.push(vec![self.pad; k]);
                    likely.push(vec![0.0; k]);
                    continue;
                }
                let scores = &mut scores[i * vocabulary..][..vocabulary];
                let state = Row { tokens: &row.tokens, prompt: row.prompt, item: i, padding: padding[i] };
                self.processors.process(state, scores)?;
                let probabilities = softmax(scores);
                let best = top_k(&probabilities, k);
                likely.push(best.iter().map(|token| probabilities[*token]).collect());
                candidates.push(best.into_iter().map(|token| token as u32).collect());
            }
            let hidden = self
                .decoder
                .model
                .hidden(ids(&candidates.concat(), items * k, &self.decoder.device), &mut self.decoder.cache);
            let [.., width] = hidden.dims();
            // How alike each candidate's state is to that of each token before it.
            let states = unit(hidden.clone()).reshape([items, k, width]);
            let alike = host(states.clone().matmul(before.clone().transpose()));
            let [_, length, _] = before.dims();
            let choose = |i: usize| {
                let value = |c: usize| {
                    let seen = &alike[(i * k + c) * length..][padding[i]..length];
                    let most = seen.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    (1.0 - self.alpha) * likely[i][c] - self.alpha * most
                };
                (1..k).fold(0, |best, c| if value(c) > value(best) { c } else { best })
            };
            let chosen: Vec<usize> = (0..items).map(choose).collect();
            let mut told = vec![None; items];
            for (i, row) in rows.iter_mut().enumerate().filter(|(_, row)| row.ending.is_none()) {
                let token = candidates[i][chosen[i]];
                told[i] = Some(token);
                row.tokens.push(token);
                row.ending = self.stopping.ends(&row.tokens, padding[i]);
            }
            tell(&told);
            if rows.iter().all(|row| row.ending.is_some()) {
                return Ok(rows);
            }
            let parents: Vec<usize> = (0..items * k).map(|row| row / k * k + chosen[row / k]).collect();
            self.decoder.cache.reorder(&parents);
            let kept: Vec<i32> = chosen.iter().enumerate().map(|(i, c)| (i * k + c) as i32).collect();
            let kept = Tensor::<1, Int>::from_data(TensorData::new(kept, [items]), &self.decoder.device);
            scores = host(self.decoder.scores(hidden.select(0, kept.clone())));
            let state = states.reshape([items * k, 1, width]).select(0, kept);
            before = Tensor::cat(vec![before, state], 1);
        }
    }
}

/// Every vector at length one.
fn unit(hidden: Tensor<3>) -> Tensor<3> {
    let length = hidden.clone().square().sum_dim(2).sqrt().clamp_min(1e-12);
    hidden / length
}
