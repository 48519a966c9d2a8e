//! Speculative decoding: a faster method proposes several tokens at a time, and the model verifies
//! them. Sequences are equal to those of the model alone, or have the same distribution (Leviathan
//! et al. 2023, <https://arxiv.org/abs/2211.17192>).

use super::{
    GeneratedSequence,
    decoder::Decoder,
    processor::{GenerationState, Processors, argmax, log_softmax, softmax},
    sample::{draw, nothing_left, uniform},
    stop::Stopping,
};
use crate::{
    models::CausalLm,
    tokens::{host, ids},
};
use aigc_core::{Result, rng::Rng};
use burn::tensor::Device;

/// Proposed tokens.
pub(crate) struct Proposal {
    pub tokens: Vec<u32>,
    /// The distribution from which each token was drawn; `None` if it was not drawn.
    pub drawn_from: Vec<Option<Vec<f32>>>,
}

/// Proposes continuations of a sequence.
pub(crate) trait Propose {
    /// Proposes at most `most` tokens. `draws` is given if tokens are sampled.
    fn propose(
        &mut self,
        row: GenerationState<'_>,
        most: usize,
        processors: &mut Processors,
        draws: Option<&mut Rng>,
    ) -> Result<Proposal>;
}

/// A smaller model with the same vocabulary.
pub(crate) struct Assistant<'a, M> {
    decoder: Decoder<'a, M>,
    /// The tokens in its cache.
    cached: Vec<u32>,
}

impl<'a, M: CausalLm> Assistant<'a, M> {
    pub(crate) fn new(model: &'a M, device: Device) -> Self {
        Self {
            decoder: Decoder::new(model, 1, 0, device),
            cached: Vec::new(),
        }
    }
}

impl<M: CausalLm> Propose for Assistant<'_, M> {
    fn propose(
        &mut self,
        row: GenerationState<'_>,
        most: usize,
        processors: &mut Processors,
        mut draws: Option<&mut Rng>,
    ) -> Result<Proposal> {
        let (vocabulary, context) = (
            self.decoder.model.vocab_size(),
            self.decoder.model.max_position_embeddings(),
        );
        let mut tokens = row.tokens.to_vec();
        let mut proposal = Proposal {
            tokens: Vec::new(),
            drawn_from: Vec::new(),
        };
        let same = self
            .cached
            .iter()
            .zip(&tokens)
            .take_while(|(a, b)| a == b)
            .count()
            .min(tokens.len() - 1);
        self.cached.truncate(same);
        self.decoder.cache.crop(same);
        while proposal.tokens.len() < most && tokens.len() <= context {
            let news = &tokens[self.cached.len()..];
            let hidden = self
                .decoder
                .model
                .forward_cached(ids(news, 1, &self.decoder.device), &mut *self.decoder.cache);
            self.cached.extend(news);
            let mut scores = host(self.decoder.scores(super::decoder::last(hidden)));
            processors.process(
                GenerationState {
                    tokens: &tokens,
                    ..row
                },
                &mut scores,
            )?;
            debug_assert_eq!(scores.len(), vocabulary);
            let (token, from) = match draws.as_deref_mut() {
                Some(rng) => {
                    let probabilities = softmax(&scores);
                    let Some(token) = draw(&probabilities, rng) else {
                        break;
                    };
                    (token, Some(probabilities))
                }
                None => match argmax(&scores) {
                    Some(token) => (token, None),
                    None => break,
                },
            };
            tokens.push(token as u32);
            proposal.tokens.push(token as u32);
            proposal.drawn_from.push(from);
        }
        Ok(proposal)
    }
}

/// Proposes the tokens that followed an earlier occurrence of the end of the sequence (prompt
/// lookup, Saxena 2023, <https://github.com/apoorvumang/prompt-lookup-decoding>).
#[derive(Clone, Copy, Debug)]
pub(crate) struct PromptLookup {
    /// Length of the longest end that is looked up.
    pub longest: usize,
}

impl Propose for PromptLookup {
    fn propose(
        &mut self,
        row: GenerationState<'_>,
        most: usize,
        _: &mut Processors,
        _: Option<&mut Rng>,
    ) -> Result<Proposal> {
        let text = row.tokens;
        let found = (1..=self.longest.min(text.len().saturating_sub(1)))
            .rev()
            .find_map(|n| {
                let end = &text[text.len() - n..];
                text[..text.len() - 1]
                    .windows(n)
                    .position(|window| window == end)
                    .map(|at| at + n)
            });
        let tokens: Vec<u32> = found.map_or(Vec::new(), |at| {
            text[at..].iter().copied().take(most).collect()
        });
        let drawn_from = vec![None; tokens.len()];
        Ok(Proposal { tokens, drawn_from })
    }
}

/// Generation with a method that proposes tokens.
pub(crate) struct Assisted<'a, M> {
    pub decoder: Decoder<'a, M>,
    pub processors: Processors,
    pub stopping: Stopping<'a>,
    pub proposer: Box<dyn Propose + 'a>,
    /// Maximum number of tokens to propose at a time.
    pub most: usize,
    pub draws: Option<Rng>,
    pub keep_scores: bool,
}

impl<M: CausalLm> Assisted<'_, M> {
    pub(crate) fn run(
        mut self,
        prompt: &[u32],
        mut on_token: impl FnMut(u32),
    ) -> Result<GeneratedSequence> {
        let vocabulary = self.decoder.model.vocab_size();
        let mut text = GeneratedSequence::new(0, prompt);
        loop {
            let row = GenerationState {
                tokens: &text.tokens,
                prompt_len: text.prompt_len,
                prompt_index: 0,
                padding: 0,
            };
            // The model adds one token after the accepted ones.
            let most = self.most.min(self.stopping.longest - text.tokens.len() - 1);
            let proposal =
                self.proposer
                    .propose(row, most, &mut self.processors, self.draws.as_mut())?;
            let known = self.decoder.cache.len();
            let news = [&text.tokens[known..], &proposal.tokens].concat();
            let hidden = self.decoder.model.forward_cached(
                ids(&news, 1, &self.decoder.device),
                &mut *self.decoder.cache,
            );
            let checked = proposal.tokens.len() + 1;
            let scores = host(self.decoder.model.lm_head(hidden.narrow(
                1,
                news.len() - checked,
                checked,
            )));
            for (i, scores) in scores.chunks_exact(vocabulary).enumerate() {
                let mut scores = scores.to_vec();
                let row = GenerationState {
                    tokens: &text.tokens,
                    prompt_len: text.prompt_len,
                    prompt_index: 0,
                    padding: 0,
                };
                self.processors.process(row, &mut scores)?;
                let proposed = proposal
                    .tokens
                    .get(i)
                    .map(|token| (*token, proposal.drawn_from[i].as_deref()));
                let (token, is_right) = self.check(&scores, proposed)?;
                if self.keep_scores {
                    log_softmax(&mut scores);
                    text.scores.push(scores[token as usize]);
                }
                text.tokens.push(token);
                text.finish_reason = self.stopping.ends(&text.tokens, 0);
                on_token(token);
                if text.finish_reason.is_some() {
                    return Ok(text);
                }
                if !is_right {
                    break;
                }
            }
            self.decoder.cache.crop(text.tokens.len() - 1);
        }
    }

    /// The next token by the model's logits, and whether it equals the proposed one.
    fn check(
        &mut self,
        scores: &[f32],
        proposed: Option<(u32, Option<&[f32]>)>,
    ) -> Result<(u32, bool)> {
        let Some(rng) = &mut self.draws else {
            let best = argmax(scores).ok_or_else(nothing_left)? as u32;
            return Ok((best, proposed.is_some_and(|(token, _)| token == best)));
        };
        let mut ours = softmax(scores);
        let Some((token, theirs)) = proposed else {
            return Ok((draw(&ours, rng).ok_or_else(nothing_left)? as u32, false));
        };
        let at = token as usize;
        let share = theirs.map_or(ours[at], |theirs| ours[at] / theirs[at]);
        if uniform(rng) < f64::from(share) {
            return Ok((token, true));
        }
        // The part of the model's distribution that is not covered by the proposals.
        match theirs {
            Some(theirs) => ours
                .iter_mut()
                .zip(theirs)
                .for_each(|(ours, theirs)| *ours = (*ours - theirs).max(0.0)),
            None => ours[at] = 0.0,
        }
        let token = draw(&ours, rng)
            .or_else(|| draw(&softmax(scores), rng))
            .ok_or_else(nothing_left)?;
        Ok((token as u32, false))
    }
}
