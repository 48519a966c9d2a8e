//! Texts from prompts.
//!
//! ```text
//! prompts → CausalLm → scores → LogitsProcessors → the best, or drawn → next token → … → Stopping
//! ```
//!
//! | file | what |
//! |---|---|
//! | `config` | the options of transformers' `generate` |
//! | `processor`, `penalties`, `warpers` | what changes scores |
//! | `sample` | one token after the other |
//! | `beam`, `constrained` | several texts, the best of which are kept |
//! | `contrastive` | the likely token that is least like the text |
//! | `pattern`, `schema`, `script` | texts that match a regular expression, or are JSON of a schema |
//! | `assisted` | several tokens at a time, checked afterwards |
//! | `stop` | when a text has ended |

mod assisted;
mod beam;
mod config;
mod constrained;
mod contrastive;
mod decoder;
mod pattern;
mod penalties;
mod processor;
mod sample;
mod stop;
mod warpers;

pub use config::{EarlyStopping, GenerationConfig, GenerationMode, TokenIds, WordConstraint};
pub use pattern::GrammarConstraint;
pub use penalties::{
    ExponentialDecayLengthPenalty, FrequencyPenalty, InfNanRemove, NoRepeatNgram,
    RepetitionPenalty, SequenceBias,
};
pub use processor::{GenerationState, LogitsProcessor};
pub use stop::FinishReason;
pub use warpers::{EpsilonCutoff, EtaCutoff, MinP, Temperature, TopH, TopK, TopP, TypicalP};

use crate::{models::CausalLm, tokenizer::Tokenizer};
use aigc_core::{CancelToken, Error, Result, rng::Rng};
use assisted::{Assistant, Assisted, PromptLookup, Propose};
use beam::BeamSearch;
use burn::tensor::Device;
pub(crate) use config::in_vocabulary;
use constrained::Constraints;
use contrastive::Contrastive;
use decoder::Decoder;
pub(crate) use decoder::{host, ids};
use sample::{Choice, Sampling};
use stop::Stopping;

/// A generated text.
#[derive(Clone, Debug, PartialEq)]
pub struct GeneratedSequence {
    /// Which of the prompts it goes on from.
    pub prompt_index: usize,
    /// All its tokens: the prompt, what was generated, and the token that ended it if one did.
    pub tokens: Vec<u32>,
    /// How many of them are the prompt.
    pub prompt_len: usize,
    /// Sum of the logarithms of its tokens' probabilities by its length's power; of beams only.
    pub score: Option<f32>,
    /// Logarithm of every new token's probability after all processors; of beams, and where
    /// `output_scores` is set.
    pub scores: Vec<f32>,
    /// Why it ends; nothing while it goes on.
    pub finish_reason: Option<FinishReason>,
}

impl GeneratedSequence {
    fn of(item: usize, prompt: &[u32]) -> Self {
        Self {
            prompt_index: item,
            tokens: prompt.to_vec(),
            prompt_len: prompt.len(),
            score: None,
            scores: Vec::new(),
            finish_reason: None,
        }
    }

    /// What was generated.
    pub fn new_tokens(&self) -> &[u32] {
        &self.tokens[self.prompt_len..]
    }
}

type Listener<'a> = Box<dyn FnMut(&[Option<u32>]) + 'a>;

/// Generates texts with a model.
///
/// ```no_run
/// # use aigc_text::{CausalLm, GenerationConfig, TextGenerator, Tokenizer};
/// # fn example(model: &impl CausalLm, tokenizer: &dyn Tokenizer) -> aigc_core::Result<()> {
/// let config = GenerationConfig { max_length: Some(50), num_beams: 5, no_repeat_ngram_size: 2, ..Default::default() };
/// let prompt = tokenizer.encode("The quick brown fox jumps over the lazy")?;
/// let texts = TextGenerator::new(model, config)?.generate(&[prompt])?;
/// println!("{}", tokenizer.decode(&texts[0].tokens));
/// # Ok(()) }
/// ```
pub struct TextGenerator<'a, M> {
    model: &'a M,
    config: GenerationConfig,
    allowed: Vec<Box<dyn LogitsProcessor>>,
    own: Vec<Box<dyn LogitsProcessor>>,
    tokenizer: Option<&'a dyn Tokenizer>,
    helper: Option<Box<dyn Propose + 'a>>,
    listener: Option<Listener<'a>>,
    flag: CancelToken,
    seed: u64,
    device: Device,
}

impl<'a, M: CausalLm> TextGenerator<'a, M> {
    /// A generator with these options, on the model's device.
    ///
    /// # Errors
    /// [`Error::Config`] for options out of range, or that contradict each other.
    pub fn new(model: &'a M, config: GenerationConfig) -> Result<Self> {
        config.validate(model.vocab_size())?;
        let device = model.devices().into_iter().next().unwrap_or_default();
        Ok(Self {
            model,
            config,
            allowed: Vec::new(),
            own: Vec::new(),
            tokenizer: None,
            helper: None,
            listener: None,
            flag: CancelToken::new(),
            seed: 0,
            device,
        })
    }

    /// The seed of what is drawn: one seed, one text, on every backend whose scores agree.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Reads what `stop_strings` look for.
    pub fn tokenizer(mut self, tokenizer: &'a dyn Tokenizer) -> Self {
        self.tokenizer = Some(tokenizer);
        self
    }

    /// Adds a processor of one's own, behind those of the options and before warpers.
    ///
    /// What it does has to follow from the [`GenerationState`] alone: texts are taken back and gone
    /// on with in any order.
    pub fn with_logits_processor(mut self, processor: impl LogitsProcessor + 'static) -> Self {
        self.own.push(Box::new(processor));
        self
    }

    /// Allows only the tokens that `allowed` gives for a text; forced ones (`forced_eos_token_id`)
    /// come all the same.
    pub fn with_prefix_allowed_tokens_fn(
        mut self,
        mut allowed: impl FnMut(GenerationState<'_>) -> Vec<u32> + Send + 'static,
    ) -> Self {
        self.allowed.push(Box::new(
            move |row: GenerationState<'_>, scores: &mut [f32]| {
                let tokens = allowed(row);
                let kept: Vec<_> = tokens
                    .iter()
                    .map(|token| scores.get(*token as usize).copied())
                    .collect();
                if kept.iter().all(Option::is_none) {
                    let expected = "a token of the vocabulary at least";
                    return Err(Error::config(
                        "allowed_tokens",
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

    /// Lets `assistant`, a smaller model with the same tokens, propose `num_assistant_tokens` at a
    /// time.
    ///
    /// # Errors
    /// [`Error::Config`] if it has other tokens.
    pub fn with_assistant_model<A: CausalLm>(mut self, assistant: &'a A) -> Result<Self> {
        let (ours, theirs) = (self.model.vocab_size(), assistant.vocab_size());
        if ours != theirs {
            return Err(Error::config(
                "assistant",
                format!("a model of {theirs} tokens"),
                format!("one of {ours}"),
            ));
        }
        self.helper = Some(Box::new(Assistant::new(assistant, self.device.clone())));
        Ok(self)
    }

    /// Is called with the new token of each row (nothing where it has ended) as soon as it is
    /// known.
    ///
    /// # Errors
    /// [`Error::Config`] with beams, whose tokens are not known before the end.
    pub fn with_streamer(mut self, listener: impl FnMut(&[Option<u32>]) + 'a) -> Result<Self> {
        self.streams()?;
        self.listener = Some(Box::new(listener));
        Ok(self)
    }

    /// Ends with the token during which `flag` is raised.
    pub fn with_cancel(mut self, flag: CancelToken) -> Self {
        self.flag = flag;
        self
    }

    fn streams(&self) -> Result<()> {
        match self.config.generation_mode() {
            GenerationMode::Sample | GenerationMode::Contrastive => Ok(()),
            _ => {
                let expected = "1 for a stream: the tokens of beams are not known before their end";
                Err(Error::config("num_beams", self.config.num_beams, expected))
            }
        }
    }

    /// Texts that go on from the prompts: `num_return_sequences` of each (fewer where fewer hold
    /// the forced words), those of a prompt side by side, the best first.
    ///
    /// # Errors
    /// [`Error::Config`] for a prompt that is empty, too long or of tokens that there are not, and
    /// where options leave no token to go on with.
    pub fn generate(self, prompts: &[Vec<u32>]) -> Result<Vec<GeneratedSequence>> {
        let (prompts, limit) = self.prompts(prompts)?;
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let Self {
            model,
            config,
            allowed,
            own,
            tokenizer,
            helper,
            mut listener,
            flag,
            seed,
            device,
        } = self;
        let stopping = Stopping::new(&config, limit, tokenizer, flag)?;
        let processors = config.processors(limit, allowed, own);
        let decoder = Decoder::new(model, prompts.len(), limit, device);
        let mut tell = |tokens: &[Option<u32>]| {
            if let Some(listener) = &mut listener {
                listener(tokens);
            }
        };
        if let (Some(n), true) = (config.prompt_lookup_num_tokens, helper.is_some()) {
            return Err(Error::config(
                "prompt_lookup_num_tokens",
                n,
                "none, with an assistant",
            ));
        }
        let lookup = config.prompt_lookup_num_tokens.map(|_| PromptLookup {
            longest: config.max_matching_ngram_size,
        });
        let helper = helper.or(lookup.map(|lookup| Box::new(lookup) as Box<dyn Propose>));
        if let Some(helper) = helper {
            let is_one = |field: &str, n: usize| match n {
                1 => Ok(()),
                _ => Err(Error::config(field, n, "1, where tokens are proposed")),
            };
            is_one("prompts", prompts.len())?;
            is_one("num_return_sequences", config.num_return_sequences)?;
            if config.generation_mode() != GenerationMode::Sample {
                let expected = "no beams and no penalty_alpha, where tokens are proposed";
                return Err(Error::config(
                    "strategy",
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
                helper,
                most,
                draws,
                keep_scores,
            };
            return Ok(vec![
                assisted.run(&prompts[0], |token| tell(&[Some(token)]))?,
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
                    tell(&tokens);
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
                .run(&prompts, tell)
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

    /// The tokens behind one prompt, each as soon as it is known.
    ///
    /// # Errors
    /// As [`generate`](Self::generate); and [`Error::Config`] for options that do not go token by
    /// token.
    pub fn stream(self, prompt: &[u32]) -> Result<impl Iterator<Item = Result<u32>> + use<'a, M>> {
        let proposed = self.helper.is_some() || self.config.prompt_lookup_num_tokens.is_some();
        let is_plain = self.config.generation_mode() == GenerationMode::Sample && !proposed;
        if !is_plain || self.config.num_return_sequences > 1 {
            self.streams()?;
            let expected = "one text, token by token: no contrastive search, no assistant, no prompt lookup, num_return_sequences 1";
            return Err(Error::config(
                "stream",
                format!("{:?}", self.config.generation_mode()),
                expected,
            ));
        }
        let (prompts, limit) = self.prompts(&[prompt.to_vec()])?;
        let Self {
            model,
            config,
            allowed,
            own,
            tokenizer,
            flag,
            seed,
            device,
            ..
        } = self;
        let stopping = Stopping::new(&config, limit, tokenizer, flag)?;
        let processors = config.processors(limit, allowed, own);
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

    /// The prompts, an empty one as the token that begins a text, and how long texts may become,
    /// padding included.
    fn prompts(&self, prompts: &[Vec<u32>]) -> Result<(Vec<Vec<u32>>, usize)> {
        let vocabulary = self.model.vocab_size();
        // Nobody asks what follows the last token, but contrastive search, which looks at its
        // state.
        let most = self.model.max_position_embeddings()
            - usize::from(self.config.generation_mode() == GenerationMode::Contrastive);
        // An empty prompt becomes a token.
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
                return Err(Error::config(
                    field(),
                    "empty",
                    "a token at least, or a bos_token_id to begin with",
                ));
            }
            in_vocabulary(&field(), prompt.iter().copied(), vocabulary)?;
            if prompt.len() > most {
                let expected =
                    format!("at most {most}, for the model's context; cut its beginning off");
                return Err(Error::config(
                    field(),
                    format!("{} tokens", prompt.len()),
                    expected,
                ));
            }
            if prompt.len() >= limit {
                let expected = format!(
                    "fewer than max_length, {limit}, which counts the prompt; or set max_new_tokens"
                );
                return Err(Error::config(
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
