//! Options of generation, with the names of transformers' `generate`.

use crate::{fields, tokens::TokenIds};
use aigc_core::{Result, json, weights::Loaded};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::path::Path;

/// Whether an option of transformers has no effect on the generated tokens, at all or with this
/// value.
fn is_inert(name: &str, value: &Value) -> bool {
    const BOOKKEEPING: &[&str] = &[
        "cache_config",
        "cache_implementation",
        "is_assistant",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "return_dict_in_generate",
        "return_legacy_cache",
        "transformers_version",
        "use_cache",
        "use_model_defaults",
    ];
    let is_neutral = match name {
        "guidance_scale" | "encoder_repetition_penalty" => value.as_f64() == Some(1.0),
        _ => match value {
            Value::Bool(on) => !on,
            Value::Number(_) => value.as_f64() == Some(0.0),
            Value::Array(items) => items.is_empty(),
            Value::Object(items) => items.is_empty(),
            _ => false,
        },
    };
    BOOKKEEPING.contains(&name) || is_neutral
}

/// When beam search ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum EarlyStopping {
    /// When no running beam, scored at its current length, is better than the worst finished one.
    #[default]
    Heuristic,
    /// When there are as many finished sequences as beams.
    Always,
    /// When no running beam can become better, however long it grows.
    Never,
}

impl TryFrom<serde_json::Value> for EarlyStopping {
    type Error = String;

    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        match value {
            serde_json::Value::Bool(false) => Ok(Self::Heuristic),
            serde_json::Value::Bool(true) => Ok(Self::Always),
            serde_json::Value::String(text) if text == "never" => Ok(Self::Never),
            other => Err(format!(
                "{other}, which is none of false, true and \"never\""
            )),
        }
    }
}

impl From<EarlyStopping> for serde_json::Value {
    fn from(stopping: EarlyStopping) -> Self {
        match stopping {
            EarlyStopping::Heuristic => false.into(),
            EarlyStopping::Always => true.into(),
            EarlyStopping::Never => "never".into(),
        }
    }
}

/// Options of generation, with the names and meanings of transformers' `GenerationConfig`, whose
/// files can be read.
///
/// As in transformers, warpers (`temperature` to `eta_cutoff`) have no effect unless
/// [`do_sample`](Self::do_sample) is set, lengths without `new` include the prompt, and tokens end
/// a sequence only if [`eos_token_id`](Self::eos_token_id) contains them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// Maximum length, including the prompt; if neither this nor `max_new_tokens` is set, 20 new
    /// tokens.
    pub max_length: Option<usize>,
    /// Maximum number of new tokens; overrides `max_length`.
    pub max_new_tokens: Option<usize>,
    /// Minimum length, including the prompt.
    pub min_length: usize,
    /// Minimum number of new tokens.
    pub min_new_tokens: Option<usize>,
    /// When beam search ends.
    pub early_stopping: EarlyStopping,
    /// Time limit in seconds.
    pub max_time: Option<f64>,
    /// Strings that end a sequence when they are generated.
    #[serde(deserialize_with = "one_or_several")]
    pub stop_strings: Vec<String>,

    /// Whether tokens are sampled from their probabilities; otherwise the most likely one is taken.
    pub do_sample: bool,
    /// Number of beams per prompt; 1 for no beam search.
    pub num_beams: usize,
    /// Number of groups that the beams are divided into, for diverse beam search.
    pub num_beam_groups: usize,
    /// Subtracted from the score of a token for each earlier group that chose it in the same step.
    pub diversity_penalty: f64,
    /// Weight of the similarity to earlier tokens in contrastive search; enables contrastive
    /// search.
    pub penalty_alpha: Option<f64>,
    /// Number of sequences to return for each prompt.
    pub num_return_sequences: usize,

    /// Divisor of the logits.
    pub temperature: f64,
    /// Number of most likely tokens to sample from; 0 for all.
    pub top_k: usize,
    /// Total probability of the most likely tokens to sample from.
    pub top_p: f64,
    /// Minimum probability of tokens to sample from, as a fraction of the largest probability.
    pub min_p: Option<f64>,
    /// Fraction of the entropy that the tokens to sample from may have.
    pub top_h: Option<f64>,
    /// Total probability of the most typical tokens to sample from.
    pub typical_p: f64,
    /// Minimum probability of tokens to sample from.
    pub epsilon_cutoff: f64,
    /// Minimum probability of tokens to sample from, relative to the entropy.
    pub eta_cutoff: f64,
    /// Whether scores are normalised again after all processors.
    pub renormalize_logits: bool,

    /// Factor by which the scores of tokens in the sequence are reduced.
    pub repetition_penalty: f64,
    /// Subtracted from the score of a token once per generated occurrence.
    pub frequency_penalty: f64,
    /// Subtracted from the score of every token that was generated.
    pub presence_penalty: f64,
    /// Exponent of the length that the score of a beam is divided by.
    pub length_penalty: f64,
    /// Length of the n-grams that must not repeat; 0 to allow all.
    pub no_repeat_ngram_size: usize,
    /// Token sequences that must not be generated.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Token sequences that must be generated.
    pub force_words_ids: Vec<WordConstraint>,
    /// Added to the score of the last token of a token sequence.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Tokens that are never generated.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not generated as the first new token.
    pub begin_suppress_tokens: Vec<u32>,
    /// The second token of a sequence, after a prompt of one token.
    pub forced_bos_token_id: Option<u32>,
    /// The last token of a sequence of maximum length.
    pub forced_eos_token_id: Option<TokenIds>,
    /// Whether NaN scores are replaced by zero, and infinite ones by the largest finite number.
    pub remove_invalid_values: bool,
    /// Number of new tokens after which the end becomes more likely, and the factor per further
    /// token.
    pub exponential_decay_length_penalty: Option<(usize, f64)>,

    /// The token that begins a sequence; it replaces an empty prompt.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a sequence.
    pub eos_token_id: Option<TokenIds>,
    /// The token that pads shorter prompts of a batch.
    pub pad_token_id: Option<u32>,

    /// Number of tokens that an assistant model proposes at a time.
    pub num_assistant_tokens: usize,
    /// Number of tokens that prompt lookup proposes at a time; enables prompt lookup.
    pub prompt_lookup_num_tokens: Option<usize>,
    /// Length of the longest end of the sequence that prompt lookup searches for.
    pub max_matching_ngram_size: usize,

    /// Whether log-probabilities of the generated tokens are returned.
    pub output_scores: bool,
}

/// Reads a list of strings, or a single string.
fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a string or a list of strings")]
    enum Texts {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Texts::deserialize(from)? {
        Texts::One(text) => vec![text],
        Texts::Several(texts) => texts,
    })
}

/// A token sequence that must be generated, or several of which one must be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WordConstraint {
    /// This sequence.
    Phrasal(Vec<u32>),
    /// One of these sequences.
    Disjunctive(Vec<Vec<u32>>),
}

impl Default for GenerationConfig {
    fn default() -> Self {
        Self {
            max_length: None,
            max_new_tokens: None,
            min_length: 0,
            min_new_tokens: None,
            early_stopping: EarlyStopping::Heuristic,
            max_time: None,
            stop_strings: Vec::new(),
            do_sample: false,
            num_beams: 1,
            num_beam_groups: 1,
            diversity_penalty: 0.0,
            penalty_alpha: None,
            num_return_sequences: 1,
            temperature: 1.0,
            top_k: 50,
            top_p: 1.0,
            min_p: None,
            top_h: None,
            typical_p: 1.0,
            epsilon_cutoff: 0.0,
            eta_cutoff: 0.0,
            renormalize_logits: false,
            repetition_penalty: 1.0,
            frequency_penalty: 0.0,
            presence_penalty: 0.0,
            length_penalty: 1.0,
            no_repeat_ngram_size: 0,
            bad_words_ids: Vec::new(),
            force_words_ids: Vec::new(),
            sequence_bias: Vec::new(),
            suppress_tokens: Vec::new(),
            begin_suppress_tokens: Vec::new(),
            forced_bos_token_id: None,
            forced_eos_token_id: None,
            remove_invalid_values: false,
            exponential_decay_length_penalty: None,
            bos_token_id: None,
            eos_token_id: None,
            pad_token_id: None,
            num_assistant_tokens: 20,
            prompt_lookup_num_tokens: None,
            max_matching_ngram_size: 2,
            output_scores: false,
        }
    }
}

/// Algorithm of generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenerationMode {
    /// Token by token: greedy search or sampling.
    Sample,
    /// Beam search.
    Beam,
    /// Diverse beam search: groups of beams with a penalty on tokens of earlier groups.
    GroupBeam,
    /// Beam search for sequences that contain forced phrases.
    ConstrainedBeam,
    /// Contrastive search: likely tokens that are dissimilar to earlier ones.
    Contrastive,
}

impl GenerationConfig {
    /// Reads the fields of a `generation_config.json`; missing ones have defaults. The report lists
    /// unknown fields, which have no effect.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names a field whose value is invalid.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = fields::parse(text)?;
        // Python writes null for fields that are not set.
        fields.retain(|_, value| !value.is_null());
        let mut loaded: Loaded<Self> = json::from_map_with_defaults(&fields)?;
        loaded
            .unused_fields
            .retain(|name| !is_inert(name, &fields[name.as_str()]));
        Ok(loaded)
    }

    /// Reads the options in a model's directory: `generation_config.json`, or if it is missing, the
    /// options and special tokens in `config.json`, where older versions of transformers write
    /// them. The report lists fields that have no effect.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json), naming the file;
    /// [`Error::Io`](aigc_core::Error::Io) if it cannot be read.
    pub fn from_pretrained(dir: impl AsRef<Path>) -> Result<Loaded<Self>> {
        let own = dir.as_ref().join("generation_config.json");
        if own.is_file() {
            return json::read_file(&own, Self::from_json);
        }
        json::read_file(&dir.as_ref().join("config.json"), Self::from_model_config)
    }

    /// Reads the options among the fields of a model's `config.json`.
    fn from_model_config(text: &str) -> Result<Loaded<Self>> {
        let mut fields = fields::parse(text)?;
        // Defaults of transformers' GPT2Config, which are not written to files.
        let is_gpt2 = fields.get("model_type").is_none_or(|kind| kind == "gpt2");
        let vocab_size = fields.get("vocab_size").map_or(Some(50257), Value::as_u64);
        if is_gpt2 && vocab_size.is_some_and(|n| n > 50256) {
            for name in ["bos_token_id", "eos_token_id"] {
                fields.entry(name).or_insert_with(|| 50256.into());
            }
        }
        let known = json::to_map(&Self::default());
        fields.retain(|name, value| known.contains_key(name) && !value.is_null());
        json::from_map_with_defaults(&fields)
    }

    /// Names of options that are set but have no effect, because tokens are not sampled
    /// (`do_sample` is false).
    pub fn inactive_options(&self) -> Vec<&'static str> {
        let usual = Self::default();
        let set = [
            ("temperature", self.temperature != usual.temperature),
            (
                "top_k",
                self.top_k != usual.top_k && self.penalty_alpha.is_none(),
            ),
            ("top_p", self.top_p != usual.top_p),
            ("min_p", self.min_p.is_some()),
            ("top_h", self.top_h.is_some()),
            ("typical_p", self.typical_p != usual.typical_p),
            (
                "epsilon_cutoff",
                self.epsilon_cutoff != usual.epsilon_cutoff,
            ),
            ("eta_cutoff", self.eta_cutoff != usual.eta_cutoff),
        ];
        let inactive = set.into_iter().filter(|(_, set)| *set && !self.do_sample);
        inactive.map(|(name, _)| name).collect()
    }

    /// The algorithm selected by the options.
    pub fn generation_mode(&self) -> GenerationMode {
        if self.penalty_alpha.is_some() {
            GenerationMode::Contrastive
        } else if !self.force_words_ids.is_empty() {
            GenerationMode::ConstrainedBeam
        } else if self.num_beam_groups > 1 {
            GenerationMode::GroupBeam
        } else if self.num_beams > 1 {
            GenerationMode::Beam
        } else {
            GenerationMode::Sample
        }
    }

    /// Tokens that end a sequence, without duplicates.
    pub fn eos_token_ids(&self) -> Vec<u32> {
        let mut all = Vec::new();
        for token in self.eos_token_id.iter().flat_map(TokenIds::list) {
            if !all.contains(&token) {
                all.push(token);
            }
        }
        all
    }

    /// The token that pads shorter prompts of a batch: `pad_token_id`, else the first token of
    /// `eos_token_id`, else 0.
    pub fn pad_token(&self) -> u32 {
        self.pad_token_id
            .or_else(|| self.eos_token_ids().first().copied())
            .unwrap_or(0)
    }

    /// The same options for a model of `vocab_size` tokens: special tokens outside the vocabulary
    /// are removed.
    pub(crate) fn for_vocabulary(mut self, vocab_size: usize) -> Self {
        let has = |token: &u32| (*token as usize) < vocab_size;
        self.bos_token_id = self.bos_token_id.filter(has);
        let pad = self.pad_token_id.filter(has);
        self.pad_token_id = pad.or_else(|| self.eos_token_ids().into_iter().find(has));
        if self.pad_token_id.is_none() && self.eos_token_id.is_some() {
            self.pad_token_id = Some(0);
        }
        self
    }

    /// Maximum length of a sequence with a prompt of `prompt` tokens.
    pub fn max_total_length(&self, prompt: usize) -> usize {
        match (self.max_new_tokens, self.max_length) {
            (Some(new), _) => prompt.saturating_add(new),
            (None, Some(length)) => length,
            (None, None) => prompt + 20,
        }
    }
}
