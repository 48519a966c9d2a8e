//! The options of generation, named as those of transformers' `generate`.

use crate::{fields, tokens::TokenIds};
use aigc_core::{Result, json, weights::Loaded};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::path::Path;

/// Fields of transformers that do not change which tokens are generated, here or at this value.
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
    /// When no running beam, scored at its present length, is better than the worst finished one.
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
/// files it reads.
///
/// As there, warpers (`temperature` to `eta_cutoff`) do nothing unless
/// [`do_sample`](Self::do_sample) is set, lengths without `new` count the prompt, and tokens end a
/// text only where [`eos_token_id`](Self::eos_token_id) names them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// The greatest length, prompt included; 20 new tokens if neither this nor `max_new_tokens` is
    /// given.
    pub max_length: Option<usize>,
    /// The greatest number of new tokens; overrides `max_length`.
    pub max_new_tokens: Option<usize>,
    /// The smallest length, prompt included.
    pub min_length: usize,
    /// The smallest number of new tokens.
    pub min_new_tokens: Option<usize>,
    /// When beam search ends.
    pub early_stopping: EarlyStopping,
    /// Seconds after which generation stops.
    pub max_time: Option<f64>,
    /// Strings that end a sequence when they are generated.
    #[serde(deserialize_with = "one_or_several")]
    pub stop_strings: Vec<String>,

    /// Whether tokens are drawn by their probabilities; otherwise the most likely one is taken.
    pub do_sample: bool,
    /// Number of beams for each prompt; 1 for no beam search.
    pub num_beams: usize,
    /// Groups that the beams are divided into.
    pub num_beam_groups: usize,
    /// Subtracted from the score of a token for each earlier group that chose it in this step.
    pub diversity_penalty: f64,
    /// Weight of the similarity to earlier tokens in contrastive search; enables that search.
    pub penalty_alpha: Option<f64>,
    /// Number of sequences to return for each prompt.
    pub num_return_sequences: usize,

    /// Divides the logits.
    pub temperature: f64,
    /// Number of most likely tokens to draw from; 0 for all.
    pub top_k: usize,
    /// Total probability of the most likely tokens to draw from.
    pub top_p: f64,
    /// Smallest probability to draw from, as a fraction of the largest one.
    pub min_p: Option<f64>,
    /// Fraction of the entropy that the tokens to draw from may have.
    pub top_h: Option<f64>,
    /// Total probability of the most typical tokens to draw from.
    pub typical_p: f64,
    /// Smallest probability to draw from.
    pub epsilon_cutoff: f64,
    /// Smallest probability to draw from, relative to the entropy.
    pub eta_cutoff: f64,
    /// Whether scores are normalised again after all processors.
    pub renormalize_logits: bool,

    /// Divides the scores of tokens that the sequence contains.
    pub repetition_penalty: f64,
    /// Subtracted from the score of a token for each time it was generated.
    pub frequency_penalty: f64,
    /// Subtracted from the score of every token that was generated.
    pub presence_penalty: f64,
    /// Exponent of the length that the score of a beam is divided by.
    pub length_penalty: f64,
    /// Length of n-grams that are not repeated; 0 to allow all.
    pub no_repeat_ngram_size: usize,
    /// Sequences that must not be generated.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Sequences that must be generated: each one, or one of several.
    pub force_words_ids: Vec<WordConstraint>,
    /// Added to the score of the last token of a sequence.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Tokens that are never generated.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not generated as the first new token.
    pub begin_suppress_tokens: Vec<u32>,
    /// The second token, behind a prompt of one token.
    pub forced_bos_token_id: Option<u32>,
    /// The token at the greatest length.
    pub forced_eos_token_id: Option<TokenIds>,
    /// Whether NaN scores are replaced by zero and infinite ones by the largest finite number.
    pub remove_invalid_values: bool,
    /// Number of new tokens after which ending becomes more likely, and the factor for each further
    /// one.
    pub exponential_decay_length_penalty: Option<(usize, f64)>,

    /// The token that begins a sequence; used for an empty prompt.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a sequence.
    pub eos_token_id: Option<TokenIds>,
    /// The token that pads shorter prompts of a batch.
    pub pad_token_id: Option<u32>,

    /// Tokens that an assistant model proposes at a time.
    pub num_assistant_tokens: usize,
    /// Tokens proposed at a time by looking up the end of the sequence in it; enables prompt lookup.
    pub prompt_lookup_num_tokens: Option<usize>,
    /// Length of the longest end that is looked up.
    pub max_matching_ngram_size: usize,

    /// Whether log-probabilities of the generated tokens are returned.
    pub output_scores: bool,
}

/// A list, or a single string.
fn one_or_several<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a text or a list of texts")]
    enum Texts {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Texts::deserialize(from)? {
        Texts::One(text) => vec![text],
        Texts::Several(texts) => texts,
    })
}

/// A sequence that must be generated, or several one of which must.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum WordConstraint {
    /// This.
    Phrasal(Vec<u32>),
    /// One of these.
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

/// The algorithm of generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenerationMode {
    /// Token by token: the most likely one, or one drawn.
    Sample,
    /// Beam search.
    Beam,
    /// Diverse beam search: groups of beams that avoid each other's tokens.
    GroupBeam,
    /// Beam search for sequences that contain given ones.
    ConstrainedBeam,
    /// Contrastive search: likely tokens that are dissimilar to the sequence before.
    Contrastive,
}

impl GenerationConfig {
    /// Reads the fields of a `generation_config.json`; missing ones have defaults. The report lists
    /// fields that are unknown and have no effect.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names a field whose value is invalid.
    pub fn from_json(text: &str) -> Result<Loaded<Self>> {
        let mut fields = fields::parse(text)?;
        // Python's way of leaving a field out.
        fields.retain(|_, value| !value.is_null());
        let (config, unused): (Self, _) = json::from_map_with_defaults(&fields)?;
        let unused = unused
            .into_iter()
            .filter(|name| !is_inert(name, &fields[name.as_str()]))
            .collect();
        Ok(Loaded::new(config).with_unused_fields(unused))
    }

    /// The options of a model's directory: those of its `generation_config.json`; without such a
    /// file the options and special tokens in its `config.json`, where older versions of
    /// transformers keep them. The report lists fields that have no effect.
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

    /// The options among the fields of a model's `config.json`.
    fn from_model_config(text: &str) -> Result<Loaded<Self>> {
        let mut fields = fields::parse(text)?;
        // Defaults of transformers' GPT2Config, which leaves them out of its files.
        let is_gpt2 = fields.get("model_type").is_none_or(|kind| kind == "gpt2");
        let vocab_size = fields.get("vocab_size").map_or(Some(50257), Value::as_u64);
        if is_gpt2 && vocab_size.is_some_and(|n| n > 50256) {
            for name in ["bos_token_id", "eos_token_id"] {
                fields.entry(name).or_insert_with(|| 50256.into());
            }
        }
        let known = json::to_map(&Self::default());
        fields.retain(|name, value| known.contains_key(name) && !value.is_null());
        let (config, _): (Self, _) = json::from_map_with_defaults(&fields)?;
        Ok(Loaded::new(config))
    }

    /// Names of options that are set but have no effect, since nothing is drawn (`do_sample` is
    /// false).
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

    /// The algorithm that these options select.
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

    /// Tokens that end a sequence, each once.
    pub fn eos_token_ids(&self) -> Vec<u32> {
        let mut all = Vec::new();
        for token in self.eos_token_id.iter().flat_map(TokenIds::list) {
            if !all.contains(&token) {
                all.push(token);
            }
        }
        all
    }

    /// The token that pads shorter prompts of a batch: `pad_token_id`, else the first that ends a
    /// sequence, else 0.
    pub fn pad_token(&self) -> u32 {
        self.pad_token_id
            .or_else(|| self.eos_token_ids().first().copied())
            .unwrap_or(0)
    }

    /// The same options for a model of `vocab_size` tokens: special tokens that it does not have
    /// count as none.
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

    /// The greatest length of a sequence, for prompts of `prompt` tokens.
    pub fn max_total_length(&self, prompt: usize) -> usize {
        match (self.max_new_tokens, self.max_length) {
            (Some(new), _) => prompt.saturating_add(new),
            (None, Some(length)) => length,
            (None, None) => prompt + 20,
        }
    }
}
