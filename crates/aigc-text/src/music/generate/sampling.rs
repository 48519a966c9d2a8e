//! Sampling, step by step.

use super::GeneratedCodes;
use crate::{
    generate::{FinishReason, GenerationState, Processors, argmax, draw, nothing_left, softmax},
    music::{Condition, DelayPattern, MultiStreamLm, StreamCache},
    tokens::{host, ids},
};
use aigc_core::{CancelToken, Result, rng::Rng};
use burn::tensor::{Device, Int, Tensor};

/// What a generator begins with.
pub(super) struct Start<'a, M> {
    pub(super) model: &'a M,
    pub(super) processors: Processors,
    /// Seed of sampling; `None` for greedy search.
    pub(super) seed: Option<u64>,
    /// Scale of guidance, with a condition only.
    pub(super) guidance_scale: Option<f64>,
    pub(super) condition: Option<Condition>,
    /// All frames, those of the beginning too.
    pub(super) frames: usize,
    pub(super) pattern: DelayPattern,
    /// For each sample and codebook, the codes that are given.
    pub(super) beginning: Vec<Vec<Vec<u32>>>,
    pub(super) cancel: CancelToken,
    pub(super) device: Device,
}

/// Generates codes: an iterator over new frames, each with the codes of all samples and codebooks.
pub struct MultiStreamSampling<'a, M> {
    model: &'a M,
    processors: Processors,
    /// A random stream for each sample and codebook; `None` for greedy search.
    draws: Option<Vec<Rng>>,
    guidance_scale: Option<f64>,
    frames: usize,
    pattern: DelayPattern,
    cancel: CancelToken,
    device: Device,
    cache: StreamCache,
    /// Codes so far, for each sample and codebook in turn.
    streams: Vec<Vec<u32>>,
    batch_size: usize,
    /// Number of frames that were given.
    given: usize,
    /// The next step; those before it are in the cache, or in `input`.
    step: usize,
    /// Tokens that the model has not seen, `[batch, codebooks, steps]`.
    input: Tensor<3, Int>,
    finish_reason: Option<FinishReason>,
}

impl<'a, M: MultiStreamLm> MultiStreamSampling<'a, M> {
    pub(super) fn new(start: Start<'a, M>) -> Self {
        let Start {
            model,
            processors,
            seed,
            guidance_scale,
            condition,
            frames,
            pattern,
            beginning,
            cancel,
            device,
        } = start;
        let batch_size = beginning.len();
        let streams: Vec<Vec<u32>> = beginning.into_iter().flatten().collect();
        let given = streams.first().map_or(0, Vec::len);
        let stream = |seed: u64| -> Vec<Rng> {
            let rng = |index: usize| Rng::stream(seed, "generate", index as u64);
            (0..streams.len()).map(rng).collect()
        };
        let draws = seed.map(stream);
        let (rows, condition) = match guidance_scale {
            Some(_) => (2 * batch_size, condition.map(Condition::with_null)),
            None => (batch_size, condition),
        };
        let cache = model.new_cache(rows, pattern.steps(frames), condition.as_ref());
        // Steps that the given frames determine, after the first one, whose places are empty.
        let known: Vec<u32> = streams
            .iter()
            .enumerate()
            .flat_map(|(index, codes)| {
                let codebook = index % pattern.num_codebooks();
                let delay = pattern.delays()[codebook];
                let place = move |step: usize| step.checked_sub(delay).map(|frame| codes[frame]);
                let pad = model.pad_token_id();
                let steps = (0..given).map(move |step| place(step).unwrap_or(pad));
                std::iter::once(pad).chain(steps)
            })
            .collect();
        let input = ids(&known, batch_size, &device);
        let input = input.reshape([batch_size, pattern.num_codebooks(), given + 1]);
        Self {
            model,
            processors,
            draws,
            guidance_scale,
            frames,
            pattern,
            cancel,
            device,
            cache,
            streams,
            batch_size,
            given,
            step: given,
            input,
            finish_reason: None,
        }
    }

    /// Number of frames at the end, those of a beginning too.
    pub fn num_frames(&self) -> usize {
        self.frames
    }

    /// Why generation ended; `None` if it has not.
    pub fn finish_reason(&self) -> Option<FinishReason> {
        self.finish_reason
    }

    /// The codes of whole frames so far.
    pub fn into_codes(self) -> GeneratedCodes {
        let frames = self.complete().max(self.given);
        let codebooks = self.pattern.num_codebooks();
        let whole = |stream: &Vec<u32>| stream[..frames].to_vec();
        let samples = self.streams.chunks(codebooks);
        GeneratedCodes {
            codes: samples
                .map(|sample| sample.iter().map(whole).collect())
                .collect(),
            finish_reason: self.finish_reason.unwrap_or(FinishReason::Cancelled),
        }
    }

    /// Number of frames with codes in all codebooks.
    fn complete(&self) -> usize {
        self.pattern.frames(self.step)
    }

    /// Logits of the next step on the host, for each sample and codebook in turn.
    fn logits(&mut self) -> Vec<f32> {
        let input = match self.guidance_scale {
            Some(_) => Tensor::cat(vec![self.input.clone(), self.input.clone()], 0),
            None => self.input.clone(),
        };
        let [rows, codebooks, time] = input.dims();
        let hidden = self.model.forward_cached(input, &mut self.cache);
        let logits = self.model.lm_heads(hidden.narrow(1, time - 1, 1));
        let logits = logits.reshape([rows * codebooks, self.model.vocab_size()]);
        host(match self.guidance_scale {
            Some(scale) => {
                let half = rows * codebooks / 2;
                let unconditional = logits.clone().narrow(0, half, half);
                let conditional = logits.narrow(0, 0, half);
                unconditional.clone() + (conditional - unconditional) * scale
            }
            None => logits,
        })
    }

    /// Chooses the tokens of the next step.
    fn advance(&mut self) -> Result<()> {
        let mut logits = self.logits();
        let codebooks = self.pattern.num_codebooks();
        let mut tokens = Vec::with_capacity(self.streams.len());
        let scores = logits.chunks_exact_mut(self.model.vocab_size());
        for (index, scores) in scores.enumerate() {
            let (step, codes) = (self.step, &mut self.streams[index]);
            let place = self.pattern.frame_at(index % codebooks, step, self.frames);
            let token = match place {
                None => self.model.pad_token_id(),
                Some(frame) if frame < self.given => codes[frame],
                Some(_) => {
                    let state = GenerationState {
                        tokens: codes,
                        prompt_len: self.given,
                        prompt_index: index / codebooks,
                        padding: 0,
                    };
                    self.processors.process(state, scores)?;
                    let code = match &mut self.draws {
                        Some(draws) => draw(&softmax(scores), &mut draws[index]),
                        None => argmax(scores),
                    };
                    let code = code.ok_or_else(nothing_left)? as u32;
                    codes.push(code);
                    code
                }
            };
            tokens.push(token);
        }
        let tokens = ids(&tokens, self.batch_size, &self.device);
        self.input = tokens.reshape([self.batch_size, codebooks, 1]);
        self.step += 1;
        Ok(())
    }

    /// The codes of a frame.
    fn frame(&self, frame: usize) -> Vec<Vec<u32>> {
        let samples = self.streams.chunks(self.pattern.num_codebooks());
        let of_sample = |sample: &[Vec<u32>]| sample.iter().map(|codes| codes[frame]).collect();
        samples.map(of_sample).collect()
    }
}

impl<M: MultiStreamLm> Iterator for MultiStreamSampling<'_, M> {
    type Item = Result<Vec<Vec<u32>>>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.finish_reason.is_none() {
            if self.step == self.pattern.steps(self.frames) {
                self.finish_reason = Some(FinishReason::Length);
                break;
            }
            if self.cancel.is_cancelled() {
                self.finish_reason = Some(FinishReason::Cancelled);
                break;
            }
            if let Err(error) = self.advance() {
                self.finish_reason = Some(FinishReason::Cancelled);
                return Some(Err(error));
            }
            if let Some(frame) = self.complete().checked_sub(1)
                && frame >= self.given
            {
                return Some(Ok(self.frame(frame)));
            }
        }
        None
    }
}

impl<M> std::fmt::Debug for MultiStreamSampling<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MultiStreamSampling")
            .field("step", &self.step)
            .field("frames", &self.frames)
            .field("finish_reason", &self.finish_reason)
            .finish_non_exhaustive()
    }
}
