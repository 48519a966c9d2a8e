//! Beam search: of all continuations of several sequences, the best are kept.
//!
//! Scores, lengths and ends of sequences follow transformers' vectorised beam search; entries that
//! it masks by −10⁹ are omitted. Diverse groups: Vijayakumar et al. 2016,
//! <https://arxiv.org/abs/1610.02424>.

use super::{
    GeneratedSequence,
    config::{EarlyStopping, GenerationConfig},
    constrained::{Constraints, Progress},
    decoder::{Decoder, log_probabilities},
    processor::{GenerationState, Processors, top_k},
    sample::{nothing_left, uniform},
    stop::{FinishReason, Stopping},
};
use crate::{models::CausalLm, tokens::ids};
use aigc_core::{Error, Result, rng::Rng};

/// A sequence that has not ended.
#[derive(Clone, Debug)]
struct Beam {
    tokens: Vec<u32>,
    /// Sum of the log-probabilities of the new tokens.
    score: f32,
    /// Log-probability of each new token.
    scores: Vec<f32>,
    /// Index of the beam in the cache.
    row: usize,
    progress: Progress,
}

/// A continuation of a beam.
#[derive(Clone, Debug)]
struct Candidate {
    beam: usize,
    token: u32,
    score: f32,
}

/// Beams that compete with each other.
struct Group {
    /// Indices of the beams in the cache.
    rows: std::ops::Range<usize>,
    running: Vec<Beam>,
    /// Finished sequences, best first.
    finished: Vec<GeneratedSequence>,
    done: bool,
}

/// A prompt and its groups of beams.
struct Item {
    prompt: Prompt,
    groups: Vec<Group>,
    rng: Rng,
}

/// Index, length and padding of a prompt.
#[derive(Clone, Copy, Debug)]
struct Prompt {
    item: usize,
    length: usize,
    padding: usize,
}

/// Parents and tokens of the next step.
struct Next {
    parents: Vec<usize>,
    tokens: Vec<u32>,
}

/// Beam search over several prompts at once.
pub(crate) struct BeamSearch<'a, M> {
    pub decoder: Decoder<'a, M>,
    pub processors: Processors,
    pub stopping: Stopping<'a>,
    pub config: &'a GenerationConfig,
    pub constraints: Constraints,
    pub seed: u64,
}

impl<M: CausalLm> BeamSearch<'_, M> {
    /// Generates the best sequences of every prompt.
    pub(crate) fn run(mut self, prompts: &[Vec<u32>]) -> Result<Vec<GeneratedSequence>> {
        let config = self.config;
        let (beams, groups) = (config.num_beams, config.num_beam_groups);
        let (size, pad) = (beams / groups, config.pad_token());
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let progress = self.constraints.start();
        let first = |prompt: &Vec<u32>, row| Beam {
            tokens: prompt.clone(),
            score: 0.0,
            scores: Vec::new(),
            row,
            progress: progress.clone(),
        };
        let group = |prompt: &Vec<u32>, start: usize| Group {
            rows: start..start + size,
            running: vec![first(prompt, start)],
            finished: Vec::new(),
            done: false,
        };
        let item = |(i, prompt): (usize, &Vec<u32>)| Item {
            prompt: Prompt {
                item: i,
                length: prompt.len(),
                padding: longest - prompt.len(),
            },
            groups: (0..groups)
                .map(|g| group(prompt, i * beams + g * size))
                .collect(),
            rng: Rng::stream(self.seed, "beams", i as u64),
        };
        let mut items: Vec<Item> = prompts.iter().enumerate().map(item).collect();
        let vocabulary = self.decoder.model.vocab_size();
        // Each prompt is computed once for all its beams.
        let hidden = self.decoder.begin(prompts, pad);
        let prompt_scores = log_probabilities(self.decoder.scores(hidden));
        let repeat = |scores: &[f32]| scores.repeat(beams);
        let mut scores: Vec<f32> = prompt_scores
            .chunks_exact(vocabulary)
            .flat_map(repeat)
            .collect();
        drop(prompt_scores);
        self.decoder.cache.repeat_interleave(beams);
        let rows = items.len() * beams;
        for new in 1.. {
            let mut next = Next {
                parents: (0..rows).collect(),
                tokens: vec![pad; rows],
            };
            for item in &mut items {
                self.step(item, new, &mut scores, &mut next)?;
            }
            if items
                .iter()
                .flat_map(|item| &item.groups)
                .all(|group| group.done)
            {
                break;
            }
            self.decoder.cache.reorder(&next.parents);
            scores = log_probabilities(self.decoder.next(ids(
                &next.tokens,
                rows,
                &self.decoder.device,
            )));
        }
        let best = items
            .into_iter()
            .map(|item| self.best(item))
            .collect::<Result<Vec<_>>>()?;
        Ok(best.concat())
    }

    /// Extends every group of an item by one token, the `new`th.
    fn step(
        &mut self,
        item: &mut Item,
        new: usize,
        scores: &mut [f32],
        next: &mut Next,
    ) -> Result<()> {
        let vocabulary = self.decoder.model.vocab_size();
        let Item {
            prompt,
            groups,
            rng,
        } = item;
        // Tokens that earlier groups chose in this step.
        let mut taken: Vec<u32> = Vec::new();
        for group in groups.iter_mut().filter(|group| !group.done) {
            for beam in &group.running {
                let scores = &mut scores[beam.row * vocabulary..][..vocabulary];
                taken.iter().for_each(|token| {
                    scores[*token as usize] -= self.config.diversity_penalty as f32
                });
                let Prompt {
                    item,
                    length,
                    padding,
                } = *prompt;
                let row = GenerationState {
                    tokens: &beam.tokens,
                    prompt_len: length,
                    prompt_index: item,
                    padding,
                };
                self.processors.process(row, scores)?;
            }
            let candidates = self.candidates(group, scores, rng);
            if candidates.is_empty() && group.finished.is_empty() {
                return Err(nothing_left());
            }
            self.choose(*prompt, group, new, candidates, scores);
            let chosen = |beam: &Beam| beam.tokens[beam.tokens.len() - 1];
            taken.extend(group.running.iter().map(chosen));
            place(group, &mut next.parents);
            group
                .running
                .iter()
                .for_each(|beam| next.tokens[beam.row] = chosen(beam));
        }
        Ok(())
    }

    /// Continuations, best first: enough to continue all beams if most continuations end.
    fn candidates(&self, group: &Group, scores: &[f32], rng: &mut Rng) -> Vec<Candidate> {
        let vocabulary = self.decoder.model.vocab_size();
        let count = (1 + self.config.eos_token_ids().len()).max(2) * group.rows.len();
        let of = |beam: usize| &scores[group.running[beam].row * vocabulary..][..vocabulary];
        let candidate = |beam: usize, token: usize| Candidate {
            beam,
            token: token as u32,
            score: group.running[beam].score + of(beam)[token],
        };
        let mut all: Vec<Candidate> = Vec::new();
        for beam in 0..group.running.len() {
            let best = match self.config.do_sample {
                false => top_k(of(beam), count),
                true => (0..vocabulary).collect(),
            };
            all.extend(best.into_iter().map(|token| candidate(beam, token)));
        }
        all.retain(|candidate| candidate.score > f32::NEG_INFINITY);
        if self.config.do_sample {
            // Drawn without replacement: the largest scores after adding noise (Kool et al. 2019,
            // https://arxiv.org/abs/1903.06059).
            let noise = |u: f64| -(-(u.ln())).ln();
            let keys: Vec<f32> = all
                .iter()
                .map(|c| (f64::from(c.score) + noise(uniform(rng))) as f32)
                .collect();
            all = top_k(&keys, count)
                .into_iter()
                .map(|drawn| all[drawn].clone())
                .collect();
        }
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        all.truncate(count);
        // Tokens that advance a forced phrase are always candidates.
        for (beam, running) in group.running.iter().enumerate() {
            for token in self.constraints.advancing(&running.progress) {
                let forced = candidate(beam, token as usize);
                let known = all
                    .iter()
                    .any(|other| other.beam == beam && other.token == token);
                if !known && forced.score > f32::NEG_INFINITY {
                    all.push(forced);
                }
            }
        }
        all
    }

    /// Adds continuations that end to the finished sequences, and keeps the best others running.
    fn choose(
        &self,
        prompt: Prompt,
        group: &mut Group,
        new: usize,
        candidates: Vec<Candidate>,
        scores: &[f32],
    ) {
        let (config, constraints, size) = (self.config, &self.constraints, group.rows.len());
        let Prompt {
            item,
            length,
            padding,
        } = prompt;
        let vocabulary = self.decoder.model.vocab_size();
        let is_full = group.finished.len() == size;
        let takes = !(is_full && config.early_stopping == EarlyStopping::Always);
        let penalty = |length: usize| (length as f64).powf(config.length_penalty) as f32;
        let mut running: Vec<Beam> = Vec::new();
        let mut finished: Vec<GeneratedSequence> = Vec::new();
        for (rank, Candidate { beam, token, score }) in candidates.into_iter().enumerate() {
            let from = &group.running[beam];
            let tokens = [&from.tokens[..], &[token]].concat();
            let gained = scores[from.row * vocabulary + token as usize];
            let scores = [&from.scores[..], &[gained]].concat();
            let progress = constraints.after(&from.progress, token);
            let met = constraints.are_met(&progress);
            match self.stopping.ends(&tokens, padding) {
                // A sequence may not end before it contains all forced phrases.
                Some(FinishReason::Eos | FinishReason::StopString) if !met => (),
                Some(ending) if rank < size || !constraints.is_empty() => {
                    if takes && (met || ending != FinishReason::Length) {
                        let score = Some(score / penalty(new));
                        finished.push(GeneratedSequence {
                            prompt_index: item,
                            tokens,
                            prompt_len: length,
                            score,
                            scores,
                            finish_reason: Some(ending),
                        });
                    }
                }
                Some(_) => (),
                None => running.push(Beam {
                    tokens,
                    score,
                    scores,
                    row: from.row,
                    progress,
                }),
            }
        }
        group.running = constraints.spread(running, size, |beam| &beam.progress, |beam| beam.score);
        group.finished.extend(finished);
        // A stable sort: of equal scores, the first come first.
        group.finished.sort_by(|a, b| {
            b.score
                .unwrap_or_default()
                .total_cmp(&a.score.unwrap_or_default())
        });
        group.finished.truncate(size);

        let is_full = group.finished.len() == size;
        let best = group
            .running
            .iter()
            .map(|beam| beam.score)
            .fold(f32::NEG_INFINITY, f32::max);
        let longest = match config.early_stopping {
            EarlyStopping::Never if config.length_penalty > 0.0 => {
                self.stopping.longest - length - padding
            }
            _ => new,
        };
        let worst = group.finished.last().and_then(|worst| worst.score);
        let hopeless = is_full && worst.is_some_and(|worst| best / penalty(longest) <= worst);
        group.done = group.running.is_empty()
            || hopeless
            || is_full && config.early_stopping == EarlyStopping::Always;
        if group.done {
            group.running.clear();
        }
    }

    /// The best sequences of all groups of an item.
    fn best(&self, item: Item) -> Result<Vec<GeneratedSequence>> {
        let Item { prompt, groups, .. } = item;
        let mut all: Vec<GeneratedSequence> = groups
            .into_iter()
            .flat_map(|group| group.finished)
            .collect();
        all.sort_by(|a, b| {
            b.score
                .unwrap_or_default()
                .total_cmp(&a.score.unwrap_or_default())
        });
        all.truncate(self.config.num_return_sequences);
        if all.is_empty() {
            let found = format!(
                "{} for prompt {}",
                self.config.force_words_ids.len(),
                prompt.item
            );
            let expected =
                "phrases that fit into a sequence of the maximum length; see max_new_tokens";
            return Err(Error::config("force_words_ids", found, expected));
        }
        Ok(all)
    }
}

/// Assigns cache indices to the running beams: the first continuation of a beam keeps the index of
/// the beam, others get free ones.
fn place(group: &mut Group, parents: &mut [usize]) {
    let mut free: Vec<bool> = vec![true; group.rows.len()];
    let start = group.rows.start;
    let mut moved = Vec::new();
    for (i, beam) in group.running.iter().enumerate() {
        match std::mem::replace(&mut free[beam.row - start], false) {
            true => parents[beam.row] = beam.row,
            false => moved.push(i),
        }
    }
    for i in moved {
        let row = free
            .iter()
            .position(|free| *free)
            .expect("as many rows as beams");
        free[row] = false;
        parents[start + row] = group.running[i].row;
        group.running[i].row = start + row;
    }
}
