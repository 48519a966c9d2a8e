//! Generation of token sequences from prompts.
//!
//! ```text
//! prompts → CausalLm → logits → LogitsProcessors → argmax or sample → next token → … → Stopping
//! ```
//!
//! | file | content |
//! |---|---|
//! | `config`, `validate` | the options of transformers' `generate`, and their checks |
//! | `processor`, `penalties`, `warpers`, `processors` | processors of the logits |
//! | `sample` | greedy search and sampling |
//! | `beam`, `constrained` | beam search, diverse and constrained |
//! | `contrastive` | contrastive search |
//! | `pattern` | sequences that match a regular expression or a JSON schema |
//! | `assisted` | speculative decoding with an assistant model or prompt lookup |
//! | `stop` | conditions that end a sequence |

mod assisted;
mod beam;
mod config;
mod constrained;
mod contrastive;
mod decoder;
mod pattern;
mod penalties;
mod processor;
mod processors;
mod sample;
mod stop;
mod validate;
mod warpers;

pub use crate::tokens::TokenIds;
pub use config::{EarlyStopping, GenerationConfig, GenerationMode, WordConstraint};
pub use pattern::GrammarConstraint;
pub use penalties::{
    ExponentialDecayLengthPenalty, FrequencyPenalty, InfNanRemove, NoRepeatNgram,
    RepetitionPenalty, SequenceBias,
};
pub use processor::{GenerationState, LogitsProcessor};
pub use stop::FinishReason;
pub use warpers::{EpsilonCutoff, EtaCutoff, MinP, Temperature, TopH, TopK, TopP, TypicalP};

use crate::{models::CausalLm, tokenizer::Tokenizer, tokens::in_vocabulary};
use aigc_core::{CancelToken, Error, Result, rng::Rng};
use assisted::{Assistant, Assisted, PromptLookup, Propose};
use beam::BeamSearch;
use burn::tensor::Device;
use constrained::Constraints;
use contrastive::Contrastive;
use decoder::Decoder;
pub(crate) use processor::{Processors, argmax, softmax};
use sample::{Choice, Sampling};
pub(crate) use sample::{draw, nothing_left};
use stop::Stopping;

/// A generated sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedSequence {
    /// Index of its prompt.
    pub prompt_index: usize,
    /// All tokens: the prompt, the new ones, and the token that ended the sequence, if any.
    pub tokens: Vec<u32>,
    /// Number of tokens of the prompt.
    pub prompt_len: usize,
    /// Sum of the log-probabilities of the new tokens, divided by a power of the length; only with
    /// beams.
    pub score: Option<f32>,
    /// Log-probability of every new token after all processors; only with beams, or if
    /// `output_scores` is set.
    pub scores: Vec<f32>,
    /// Why the sequence ended; `None` during generation.
    pub finish_reason: Option<FinishReason>,
}

impl GeneratedSequence {
    fn new(prompt_index: usize, prompt: &[u32]) -> Self {
        Self {
            prompt_index,
            tokens: prompt.to_vec(),
            prompt_len: prompt.len(),
            score: None,
            scores: Vec::new(),
            finish_reason: None,
        }
    }

    /// The new tokens.
    pub fn new_tokens(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }
}

type Streamer<'a> = Box<dyn FnMut(&[Option<u32>]) + 'a>;

/// Generates sequences with a model.
///
/// ```no_run
/// # use aigc_text::{CausalLm, GenerationConfig, TextGenerator, Tokenizer};
/// # fn example(model: &impl CausalLm, tokenizer: &dyn Tokenizer) -> aigc_core::Result<()> {
/// let config = GenerationConfig {
///     max_length: Some(50),
///     num_beams: 5,
///     no_repeat_ngram_size: 2,
///     ..Default::default()
/// };
/// let prompt = tokenizer.encode("The quick brown fox jumps over the lazy")?;
/// let texts = TextGenerator::new(model, config)?.generate(&[prompt])?;
/// println!("{}", tokenizer.decode(&texts[0].tokens));
/// # Ok(()) }
/// ```
pub struct TextGenerator<'a, M> {
    model: &'a M,
    config: GenerationConfig,
    allowed: Vec<Box<dyn LogitsProcessor>>,
    custom: Vec<Box<dyn LogitsProcessor>>,
    tokenizer: Option<&'a dyn Tokenizer>,
    proposer: Option<Box<dyn Propose + 'a>>,
    streamer: Option<Streamer<'a>>,
    cancel: CancelToken,
    seed: u64,
    device: Device,
}

impl<'a, M: CausalLm> TextGenerator<'a, M> {
    /// A generator with these options, on the device of the model.
    ///
    /// # Errors
    /// [`Error::Config`] for options that are out of range or contradict each other.
    pub fn new(model: &'a M, config: GenerationConfig) -> Result<Self> {
        config.validate(model.vocab_size())?;
        let config = config.for_vocabulary(model.vocab_size());
        let device = model.devices().into_iter().next().unwrap_or_default();
        Ok(Self {
            model,
            config,
            allowed: Vec::new(),
            custom: Vec::new(),
            tokenizer: None,
            proposer: None,
            streamer: None,
            cancel: CancelToken::new(),
            seed: 0,
            device,
        })
    }

    /// Sets the seed of sampling. A seed gives the same tokens on every backend, up to differences
    /// of the logits.
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Sets the tokenizer, which `stop_strings` require.
    pub fn with_tokenizer(mut self, tokenizer: &'a dyn Tokenizer) -> Self {
        self.tokenizer = Some(tokenizer);
        self
    }

    /// Adds a custom processor, which runs after those of the options and before warpers.
    ///
    /// Its effect must depend only on the [`GenerationState`], because sequences are cut back and
    /// continued in any order.
    pub fn with_logits_processor(mut self, processor: impl LogitsProcessor + 'static) -> Self {
        self.custom.push(Box::new(processor));
        self
    }

    /// Allows only the tokens that `allowed` returns for a sequence, besides forced ones
    /// (`forced_eos_token_id`).
    pub fn with_prefix_allowed_tokens_fn(
        mut self,
        mut allowed: impl FnMut(GenerationState<'_>) -> Vec<u32> + Send + 'static,
    ) -> Self {
        self.allowed.push(Box::new(
            move |state: GenerationState<'_>, scores: &mut [f32]| {
                let tokens = allowed(state);
                let kept: Vec<_> = tokens
                    .iter()
                    .map(|token| scores.get(*token as usize).copied())
                    .collect();
                if kept.iter().all(Option::is_none) {
                    let expected = "at least one token of the vocabulary";
                    return Err(Error::argument(
                        "prefix_allowed_tokens_fn",
                        format!("{tokens:?}"),
                        expected,
                    ));
                }
                scores.fill(f32::NEG_INFINITY);
                for (token, score) in tokens.iter().zip(kept) {
                    if let Some(score) = score {
                        scores[*token as usize] = score;
                    }
                }
                Ok(())
            },
        ));
        self
    }

    /// Sets a smaller model with the same vocabulary that proposes `num_assistant_tokens` at a time
    /// (speculative decoding: Leviathan et al. 2023, <https://arxiv.org/abs/2211.17192>).
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if its vocabulary has another size.
    pub fn with_assistant_model<A: CausalLm>(mut self, assistant: &'a A) -> Result<Self> {
        let (ours, theirs) = (self.model.vocab_size(), assistant.vocab_size());
        if ours != theirs {
            return Err(Error::argument(
                "assistant",
                format!("a model with {theirs} tokens"),
                format!("a model with {ours} tokens, as the main model"),
            ));
        }
        self.proposer = Some(Box::new(Assistant::new(assistant, self.device.clone())));
        Ok(self)
    }

    /// Calls `streamer` with the new token of each sequence (`None` for those that have ended) as
    /// soon as it is chosen. With beams, tokens are not known before the end, so
    /// [`generate`](Self::generate) fails.
    pub fn with_streamer(mut self, streamer: impl FnMut(&[Option<u32>]) + 'a) -> Self {
        self.streamer = Some(Box::new(streamer));
        self
    }

    /// Stops after the token during which `cancel` is cancelled.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    fn streams(&self) -> Result<()> {
        match self.config.generation_mode() {
            GenerationMode::Sample | GenerationMode::Contrastive => Ok(()),
            _ => {
                let expected =
                    "1 for streaming, because the tokens of beams are known only at the end";
                Err(Error::config("num_beams", self.config.num_beams, expected))
            }
        }
    }

    /// Generates `num_return_sequences` continuations of each prompt (fewer if fewer contain the
    /// forced phrases). The result has the sequences of a prompt next to each other, best first.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a prompt that is empty, too long or has unknown tokens;
    /// [`Error::Config`] for options that exclude each other or leave no token to continue with.
    pub fn generate(self, prompts: &[Vec<u32>]) -> Result<Vec<GeneratedSequence>> {
        if self.streamer.is_some() {
            self.streams()?;
        }
        let (prompts, limit) = self.prompts(prompts)?;
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let Self {
            model,
            config,
            allowed,
            custom,
            tokenizer,
            proposer,
            mut streamer,
            cancel,
            seed,
            device,
        } = self;
        let stopping = Stopping::new(&config, limit, tokenizer, cancel)?;
        let processors = config.processors(limit, allowed, custom);
        let decoder = Decoder::new(model, prompts.len(), limit, device);
        let mut stream = |tokens: &[Option<u32>]| {
            if let Some(streamer) = &mut streamer {
                streamer(tokens);
            }
        };
        if let (Some(n), true) = (config.prompt_lookup_num_tokens, proposer.is_some()) {
            return Err(Error::config(
                "prompt_lookup_num_tokens",
                n,
                "not set, with an assistant model",
            ));
        }
        let lookup = config.prompt_lookup_num_tokens.map(|_| PromptLookup {
            longest: config.max_matching_ngram_size,
        });
        let proposer = proposer.or(lookup.map(|lookup| Box::new(lookup) as Box<dyn Propose>));
        if let Some(proposer) = proposer {
            let is_one = |field: &str, n: usize| match n {
                1 => Ok(()),
                _ => Err(Error::config(field, n, "1 for assisted generation")),
            };
            is_one("prompts", prompts.len())?;
            is_one("num_return_sequences", config.num_return_sequences)?;
            if config.generation_mode() != GenerationMode::Sample {
                let expected = "Sample for assisted generation: no beams and no penalty_alpha";
                return Err(Error::config(
                    "generation_mode",
                    format!("{:?}", config.generation_mode()),
                    expected,
                ));
            }
            let most = config
                .prompt_lookup_num_tokens
                .unwrap_or(config.num_assistant_tokens);
            let draws = config.do_sample.then(|| Rng::stream(seed, "generate", 0));
            let keep_scores = config.output_scores;
            let assisted = Assisted {
                decoder,
                processors,
                stopping,
                proposer,
                most,
                draws,
                keep_scores,
            };
            return Ok(vec![
                assisted.run(&prompts[0], |token| stream(&[Some(token)]))?,
            ]);
        }
        match config.generation_mode() {
            GenerationMode::Sample => {
                let choice = Choice {
                    seed: config.do_sample.then_some(seed),
                    times: config.num_return_sequences,
                    keep_scores: config.output_scores,
                    pad: config.pad_token(),
                };
                let mut sampling = Sampling::new(decoder, &prompts, processors, stopping, choice);
                while let Some(tokens) = sampling.step()? {
                    stream(&tokens);
                }
                Ok(sampling.sequences())
            }
            GenerationMode::Contrastive => {
                let (k, alpha, pad) = (
                    config.top_k,
                    config.penalty_alpha.unwrap_or(0.0) as f32,
                    config.pad_token(),
                );
                Contrastive {
                    decoder,
                    processors,
                    stopping,
                    k,
                    alpha,
                    pad,
                }
                .run(&prompts, stream)
            }
            GenerationMode::Beam | GenerationMode::GroupBeam | GenerationMode::ConstrainedBeam => {
                let constraints = Constraints::new(&config.force_words_ids);
                BeamSearch {
                    decoder,
                    processors,
                    stopping,
                    config: &config,
                    constraints,
                    seed,
                }
                .run(&prompts)
            }
        }
    }

    /// Generates one sequence, and yields each token as soon as it is chosen.
    ///
    /// # Errors
    /// As [`generate`](Self::generate); [`Error::Config`] for options that do not generate token by
    /// token.
    pub fn stream(self, prompt: &[u32]) -> Result<impl Iterator<Item = Result<u32>> + use<'a, M>> {
        let proposed = self.proposer.is_some() || self.config.prompt_lookup_num_tokens.is_some();
        let is_plain = self.config.generation_mode() == GenerationMode::Sample && !proposed;
        if !is_plain || self.config.num_return_sequences > 1 {
            self.streams()?;
            let expected = "Sample with one sequence: no contrastive search, no assistant, no prompt \
                            lookup, num_return_sequences 1";
            return Err(Error::config(
                "generation_mode of a stream",
                format!("{:?}", self.config.generation_mode()),
                expected,
            ));
        }
        let (prompts, limit) = self.prompts(&[prompt.to_vec()])?;
        let Self {
            model,
            config,
            allowed,
            custom,
            tokenizer,
            cancel,
            seed,
            device,
            ..
        } = self;
        let stopping = Stopping::new(&config, limit, tokenizer, cancel)?;
        let processors = config.processors(limit, allowed, custom);
        let choice = Choice {
            seed: config.do_sample.then_some(seed),
            times: 1,
            keep_scores: config.output_scores,
            pad: config.pad_token(),
        };
        let decoder = Decoder::new(model, 1, limit, device);
        let mut sampling = Sampling::new(decoder, &prompts, processors, stopping, choice);
        Ok(std::iter::from_fn(move || {
            sampling
                .step()
                .map(|tokens| tokens.and_then(|tokens| tokens[0]))
                .transpose()
        }))
    }

    /// The prompts, with `bos_token_id` in place of an empty one, and the maximum length, including
    /// padding.
    fn prompts(&self, prompts: &[Vec<u32>]) -> Result<(Vec<Vec<u32>>, usize)> {
        let vocabulary = self.model.vocab_size();
        // The last token needs no position, except in contrastive search, which uses its hidden
        // state.
        let most = self.model.max_position_embeddings()
            - usize::from(self.config.generation_mode() == GenerationMode::Contrastive);
        // An empty prompt becomes one token.
        let longest = prompts
            .iter()
            .map(|prompt| prompt.len().max(1))
            .max()
            .unwrap_or(1);
        let limit = self.config.max_total_length(longest);
        let check = |(i, prompt): (usize, &Vec<u32>)| {
            let field = || {
                if prompts.len() == 1 {
                    "prompt".to_string()
                } else {
                    format!("prompts[{i}]")
                }
            };
            let prompt = match self.config.bos_token_id {
                Some(bos) if prompt.is_empty() => vec![bos],
                _ => prompt.clone(),
            };
            if prompt.is_empty() {
                let expected = "at least one token, or a bos_token_id of the model's vocabulary";
                return Err(Error::argument(field(), "empty", expected));
            }
            in_vocabulary(prompt.iter().copied(), vocabulary, |token, expected| {
                Error::argument(field(), token, expected)
            })?;
            if prompt.len() > most {
                let expected = format!("at most {most}, the model's context; shorten the prompt");
                return Err(Error::argument(
                    field(),
                    format!("{} tokens", prompt.len()),
                    expected,
                ));
            }
            if prompt.len() >= limit {
                let expected = format!(
                    "fewer than max_length, {limit}, which counts the prompt; or set max_new_tokens"
                );
                return Err(Error::argument(
                    field(),
                    format!("{} tokens", prompt.len()),
                    expected,
                ));
            }
            Ok(prompt)
        };
        let checked = prompts
            .iter()
            .enumerate()
            .map(check)
            .collect::<Result<_>>()?;
        let limit = limit.min(most + 1);
        let least = [
            ("min_length", self.config.min_length, limit),
            (
                "min_new_tokens",
                self.config.min_new_tokens.unwrap_or(0),
                limit.saturating_sub(longest),
            ),
        ];
        match least.into_iter().find(|(_, least, most)| least > most) {
            Some((field, least, most)) if !prompts.is_empty() => {
                let expected = format!(
                    "at most {most}, by max_length, max_new_tokens and the model's context"
                );
                Err(Error::config(field, least, expected))
            }
            _ => Ok((checked, limit)),
        }
    }
}
