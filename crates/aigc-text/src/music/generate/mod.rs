//! Generation of codes, frame by frame.

mod sampling;

pub use sampling::MultiStreamSampling;

use super::{Condition, MultiStreamLm};
use crate::generate::{FinishReason, GenerationConfig, GenerationMode, LogitsProcessor};
use aigc_core::{
    CancelToken, Error, Result,
    check::{ensure, ensure_argument},
};
use burn::tensor::{Device, Int, Tensor, TensorData};
use sampling::Start;

/// Called with the codes of a frame, for each sample those of all codebooks.
type Streamer<'a> = Box<dyn FnMut(&[Vec<u32>]) -> Result<()> + 'a>;

/// The codes of sounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedCodes {
    /// For each sample and codebook the codes of all frames, those of a beginning too.
    pub codes: Vec<Vec<Vec<u32>>>,
    /// Why generation ended: [`Length`](FinishReason::Length) or
    /// [`Cancelled`](FinishReason::Cancelled).
    pub finish_reason: FinishReason,
}

impl GeneratedCodes {
    /// Number of frames.
    pub fn frames(&self) -> usize {
        let first = self.codes.first().and_then(|sample| sample.first());
        first.map_or(0, Vec::len)
    }

    /// The codes on a device, `[batch, codebooks, frames]`, as codecs take them.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there are no frames, because generation was cancelled.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor<3, Int>> {
        let frames = self.frames();
        ensure_argument(frames > 0, "frames", frames, "at least one frame of codes")?;
        let codebooks = self.codes[0].len();
        let values = self.codes.iter().flatten().flatten();
        let values: Vec<i32> = values.map(|code| *code as i32).collect();
        let shape = [self.codes.len(), codebooks, frames];
        Ok(Tensor::from_data(TensorData::new(values, shape), device))
    }
}

/// Generates codes with a model of several streams, by greedy search or sampling.
///
/// The options are those of [`TextGenerator`](crate::TextGenerator) that generate one sequence
/// token by token; processors see the codes of one codebook of one sample. Lengths are in steps of
/// the delay pattern: [`DelayPattern::steps`](super::DelayPattern::steps) gives those of a number
/// of frames.
pub struct MultiStreamGenerator<'a, M> {
    model: &'a M,
    config: GenerationConfig,
    guidance_scale: Option<f64>,
    beginning: Vec<Vec<Vec<u32>>>,
    custom: Vec<Box<dyn LogitsProcessor>>,
    streamer: Option<Streamer<'a>>,
    cancel: CancelToken,
    seed: u64,
    device: Device,
}

impl<'a, M: MultiStreamLm> MultiStreamGenerator<'a, M> {
    /// A generator with these options, on the device of the model, without guidance.
    ///
    /// # Errors
    /// [`Error::Config`] for options that are out of range, or that do not generate one sequence of
    /// a given length token by token.
    pub fn new(model: &'a M, config: GenerationConfig) -> Result<Self> {
        config.validate(model.vocab_size())?;
        refuse_others(&config)?;
        let device = model.devices().into_iter().next().unwrap_or_default();
        Ok(Self {
            model,
            config,
            guidance_scale: None,
            beginning: vec![],
            custom: vec![],
            streamer: None,
            cancel: CancelToken::new(),
            seed: 0,
            device,
        })
    }

    /// Sets the scale of classifier-free guidance (Ho and Salimans 2022,
    /// <https://arxiv.org/abs/2207.12598>): logits become
    /// `conditional·scale + unconditional·(1 − scale)`. The batch of the model is then twice as
    /// large. A scale of 1, or of a request without a condition, has no effect.
    ///
    /// # Errors
    /// [`Error::Config`] for a scale below 1, or one that is not finite.
    pub fn with_guidance_scale(mut self, scale: f64) -> Result<Self> {
        let holds = scale >= 1.0 && scale.is_finite();
        ensure(
            holds,
            "guidance_scale",
            scale,
            "a finite number, at least 1",
        )?;
        self.guidance_scale = Some(scale).filter(|scale| *scale > 1.0);
        Ok(self)
    }

    /// Sets the seed of sampling. A seed gives the same codes on every backend, up to differences
    /// of the logits.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets codes that the sounds begin with, such as those of a sound to be continued: for each
    /// sample and codebook those of all frames.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for another number of codebooks, codebooks of different lengths,
    /// or codes that the model does not have.
    pub fn with_beginning(mut self, codes: Vec<Vec<Vec<u32>>>) -> Result<Self> {
        let (codebooks, vocabulary) = (self.model.num_codebooks(), self.model.vocab_size());
        let frames = codes.first().and_then(|sample| sample.first());
        let frames = frames.map_or(0, Vec::len);
        for sample in &codes {
            let fits = sample.len() == codebooks;
            let fits = fits && sample.iter().all(|stream| stream.len() == frames);
            let lengths: Vec<usize> = sample.iter().map(Vec::len).collect();
            let expected = format!("{frames} codes in each of {codebooks} codebooks");
            let found = format!("of lengths {lengths:?}");
            ensure_argument(fits, "codes", found, &expected)?;
        }
        let mut all = codes.iter().flatten().flatten();
        if let Some(code) = all.find(|code| **code as usize >= vocabulary) {
            let expected = format!("below {vocabulary}, the model's vocab_size");
            return Err(Error::argument("codes", code, expected));
        }
        self.beginning = codes;
        Ok(self)
    }

    /// Adds a custom processor, which runs after those of the options and before warpers. Its
    /// effect must depend only on the [`GenerationState`](crate::GenerationState): the codes of one
    /// codebook of one sample.
    pub fn with_logits_processor(mut self, processor: impl LogitsProcessor + 'static) -> Self {
        self.custom.push(Box::new(processor));
        self
    }

    /// Calls `streamer` with the codes of each new frame, as soon as those of all codebooks are
    /// chosen: for each sample, the code of every codebook. An error ends
    /// [`generate`](Self::generate).
    pub fn with_streamer(mut self, streamer: impl FnMut(&[Vec<u32>]) -> Result<()> + 'a) -> Self {
        self.streamer = Some(Box::new(streamer));
        self
    }

    /// Stops after the step during which `cancel` is cancelled.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Generates the codes of `batch_size` sounds.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the condition or the beginning is of another number of
    /// samples, there is no room for a frame, or there are more steps than the model has positions;
    /// [`Error::Config`] if options or weights leave no code to continue with; those of the
    /// streamer.
    pub fn generate(
        mut self,
        batch_size: usize,
        condition: Option<&Condition>,
    ) -> Result<GeneratedCodes> {
        let mut streamer = self.streamer.take();
        let mut sampling = self.stream(batch_size, condition)?;
        for frame in sampling.by_ref() {
            let frame = frame?;
            if let Some(streamer) = &mut streamer {
                streamer(&frame)?;
            }
        }
        Ok(sampling.into_codes())
    }

    /// Generates the codes of `batch_size` sounds, and yields those of each new frame as soon as
    /// they are chosen: for each sample, the code of every codebook.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn stream(
        self,
        batch_size: usize,
        condition: Option<&Condition>,
    ) -> Result<MultiStreamSampling<'a, M>> {
        ensure_argument(batch_size > 0, "batch_size", batch_size, "at least 1")?;
        let same = |argument: &str, found: usize| {
            let expected = format!("{batch_size}, the batch_size");
            ensure_argument(found == batch_size, argument, found, &expected)
        };
        if let Some(condition) = condition {
            same("samples of the condition", condition.batch_size())?;
        }
        let beginning = if self.beginning.is_empty() {
            vec![vec![vec![]; self.model.num_codebooks()]; batch_size]
        } else {
            self.beginning
        };
        same("samples of the beginning", beginning.len())?;
        let pattern = self.model.delay_pattern();
        let given = beginning[0].first().map_or(0, Vec::len);
        // The first step is one of empty places.
        let total = self.config.max_total_length(given + 1);
        let steps = total.saturating_sub(1);
        let least = pattern.steps(given + 1);
        let expected = format!("at least {}, for one new frame", least - given);
        let new = steps.saturating_sub(given);
        ensure_argument(steps >= least, "max_new_tokens", new, &expected)?;
        let positions = self.model.max_position_embeddings();
        let expected = format!(
            "at most {}, the positions of the model",
            positions.saturating_sub(given)
        );
        ensure_argument(steps <= positions, "max_new_tokens", new, &expected)?;
        let processors = self.config.processors(total, vec![], self.custom);
        Ok(MultiStreamSampling::new(Start {
            model: self.model,
            processors,
            seed: self.config.do_sample.then_some(self.seed),
            guidance_scale: self.guidance_scale.filter(|_| condition.is_some()),
            condition: condition.cloned(),
            frames: pattern.frames(steps),
            pattern,
            beginning,
            cancel: self.cancel,
            device: self.device,
        }))
    }
}

impl<M> std::fmt::Debug for MultiStreamGenerator<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MultiStreamGenerator")
            .field("config", &self.config)
            .field("guidance_scale", &self.guidance_scale)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Fails for options of sequences that end by themselves, and of other algorithms.
fn refuse_others(config: &GenerationConfig) -> Result<()> {
    let mode = config.generation_mode();
    ensure(
        mode == GenerationMode::Sample,
        "generation_mode",
        format!("{mode:?}"),
        "Sample: no beams and no penalty_alpha",
    )?;
    let n = config.num_return_sequences;
    ensure(
        n == 1,
        "num_return_sequences",
        n,
        "1: the batch size is an argument of generate",
    )?;
    let lookup = config.prompt_lookup_num_tokens;
    for (field, is_unset) in [
        ("prompt_lookup_num_tokens", lookup.is_none()),
        ("max_time", config.max_time.is_none()),
        ("stop_strings", config.stop_strings.is_empty()),
        ("eos_token_id", config.eos_token_id.is_none()),
        ("forced_bos_token_id", config.forced_bos_token_id.is_none()),
        ("forced_eos_token_id", config.forced_eos_token_id.is_none()),
    ] {
        let expected = "not set: streams of codes have no text, and a given length";
        ensure(is_unset, field, "set", expected)?;
    }
    Ok(())
}
