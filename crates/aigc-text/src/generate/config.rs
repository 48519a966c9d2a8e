//! How a text is generated: the options of transformers' `generate`, under their names.

use super::{
    penalties::{
        ExponentialDecayLengthPenalty, Force, FrequencyPenalty, InfNanRemove, NoRepeatNgram,
        RepetitionPenalty, SequenceBias, Suppress,
    },
    processor::{GenerationState, LogitsProcessor, Processors, log_softmax},
    warpers::{EpsilonCutoff, EtaCutoff, MinP, Temperature, TopH, TopK, TopP, TypicalP},
};
use crate::models::Gpt2Config;
use aigc_core::{Error, Result, json};
use serde::{Deserialize, Deserializer, Serialize};
use std::path::Path;

/// Rows of a prompt: every two of them are compared.
const MOST_ROWS: usize = 1 << 12;

/// One token, or several.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIds {
    /// One.
    One(u32),
    /// Several.
    Several(Vec<u32>),
}

impl TokenIds {
    /// As a list.
    pub fn list(&self) -> Vec<u32> {
        match self {
            TokenIds::One(token) => vec![*token],
            TokenIds::Several(tokens) => tokens.clone(),
        }
    }
}

/// When beam search ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value", into = "serde_json::Value")]
pub enum EarlyStopping {
    /// When no running beam, judged at its present length, can beat the worst of the finished.
    #[default]
    Heuristic,
    /// When there are as many finished as beams.
    Always,
    /// When no running beam can, however long it becomes.
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

/// Options of generation, named and meant as transformers' `GenerationConfig`, whose files it
/// reads.
///
/// As there, warpers (`temperature` to `eta_cutoff`) do nothing unless
/// [`do_sample`](Self::do_sample) is set, lengths without `new` count the prompt, and tokens end a
/// text only where [`eos_token_id`](Self::eos_token_id) names them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct GenerationConfig {
    /// The longest text, prompt included; 20 new tokens where neither this nor the next is given.
    pub max_length: Option<usize>,
    /// The most new tokens; goes before `max_length`.
    pub max_new_tokens: Option<usize>,
    /// The shortest text, prompt included.
    pub min_length: usize,
    /// The fewest new tokens.
    pub min_new_tokens: Option<usize>,
    /// When beam search ends.
    pub early_stopping: EarlyStopping,
    /// Seconds after which to stop.
    pub max_time: Option<f64>,
    /// Texts that end a text.
    #[serde(deserialize_with = "one_or_several")]
    pub stop_strings: Vec<String>,

    /// Whether tokens are drawn by their probabilities, instead of the best being taken.
    pub do_sample: bool,
    /// Beams of each prompt.
    pub num_beams: usize,
    /// Groups that beams are divided into.
    pub num_beam_groups: usize,
    /// What a token loses for each group that has chosen it before in this step.
    pub diversity_penalty: f64,
    /// How much contrastive search minds likeness; searched so where given.
    pub penalty_alpha: Option<f64>,
    /// Texts to give for each prompt.
    pub num_return_sequences: usize,

    /// Divides the logits.
    pub temperature: f64,
    /// How many of the best to draw from; 0 for all.
    pub top_k: usize,
    /// Probability that the best to draw from have together.
    pub top_p: f64,
    /// Least probability, as a share of the best one's.
    pub min_p: Option<f64>,
    /// Share of the entropy that the best to draw from have.
    pub top_h: Option<f64>,
    /// Probability that the most typical have together.
    pub typical_p: f64,
    /// Least probability.
    pub epsilon_cutoff: f64,
    /// Least probability, by the entropy.
    pub eta_cutoff: f64,
    /// Whether scores are normalised again after all processors.
    pub renormalize_logits: bool,

    /// Divides scores of tokens that the text has.
    pub repetition_penalty: f64,
    /// What a token loses for each time it was generated.
    pub frequency_penalty: f64,
    /// What a token that was generated loses.
    pub presence_penalty: f64,
    /// Power of the length by which the score of a beam is divided.
    pub length_penalty: f64,
    /// Length of sequences of tokens that do not come twice; 0 for any.
    pub no_repeat_ngram_size: usize,
    /// Sequences that must not be generated.
    pub bad_words_ids: Vec<Vec<u32>>,
    /// Sequences that must be, each one or one of several.
    pub force_words_ids: Vec<WordConstraint>,
    /// What is added to the score of a sequence's last token.
    pub sequence_bias: Vec<(Vec<u32>, f32)>,
    /// Tokens that are never generated.
    pub suppress_tokens: Vec<u32>,
    /// Tokens that are not generated first.
    pub begin_suppress_tokens: Vec<u32>,
    /// The token behind a prompt of one token.
    pub forced_bos_token_id: Option<u32>,
    /// The token at the greatest length.
    pub forced_eos_token_id: Option<TokenIds>,
    /// Whether numbers that are none become zero.
    pub remove_invalid_values: bool,
    /// From how many new tokens on the end becomes more likely, and by which factor for each.
    pub exponential_decay_length_penalty: Option<(usize, f64)>,

    /// The token that begins a text; used for an empty prompt.
    pub bos_token_id: Option<u32>,
    /// The tokens that end a text.
    pub eos_token_id: Option<TokenIds>,
    /// The token that fills up shorter rows.
    pub pad_token_id: Option<u32>,

    /// Tokens that an assisting model proposes at a time.
    pub num_assistant_tokens: usize,
    /// Tokens proposed at a time where the text's end stood in it before; looked up so where given.
    pub prompt_lookup_num_tokens: Option<usize>,
    /// The longest end that is looked up.
    pub max_matching_ngram_size: usize,

    /// Whether scores of the chosen tokens are kept.
    pub output_scores: bool,
}

/// A list, of which one may stand alone.
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

/// Which way a text is generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GenerationMode {
    /// Token by token: the best, or one drawn.
    Sample,
    /// Several beams, the best of which are kept.
    Beam,
    /// Several groups of beams that avoid each other's tokens.
    GroupBeam,
    /// Beams that have to hold given sequences.
    ConstrainedBeam,
    /// The best by probability and by unlikeness to the text before.
    Contrastive,
}

impl GenerationConfig {
    /// Options from the fields of a `generation_config.json`; the others have defaults. Also gives
    /// the fields that are not known, and are ignored.
    ///
    /// # Errors
    /// [`Error::Config`] names a field with a value that cannot be one of its.
    pub fn from_json(text: &str) -> Result<(Self, Vec<String>)> {
        let mut fields = json::parse_object(text)?;
        // Python's way of leaving a field out.
        fields.retain(|_, value| !value.is_null());
        json::from_map_with_defaults(&fields)
    }

    /// The options of a model's folder: those of its `generation_config.json`, or where there is
    /// none, with the special tokens of its `config.json`, as transformers has it. Also gives
    /// fields that are not known.
    ///
    /// # Errors
    /// As [`from_json`](Self::from_json), naming the file; [`Error::Io`] if one cannot be read.
    pub fn open(folder: impl AsRef<Path>) -> Result<(Self, Vec<String>)> {
        let own = folder.as_ref().join("generation_config.json");
        if own.is_file() {
            return json::read_file(&own, Self::from_json);
        }
        let (model, _) =
            json::read_file(&folder.as_ref().join("config.json"), Gpt2Config::from_json)?;
        let Gpt2Config {
            bos_token_id,
            eos_token_id,
            pad_token_id,
            ..
        } = model;
        Ok((
            Self {
                bos_token_id,
                eos_token_id,
                pad_token_id,
                ..Self::default()
            },
            Vec::new(),
        ))
    }

    /// Which way a text is generated by these options.
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

    /// Tokens that end a text.
    pub fn eos_token_ids(&self) -> Vec<u32> {
        self.eos_token_id
            .as_ref()
            .map(TokenIds::list)
            .unwrap_or_default()
    }

    /// The token that fills up shorter rows.
    pub fn pad_token(&self) -> u32 {
        self.pad_token_id
            .or_else(|| self.eos_token_ids().first().copied())
            .unwrap_or(0)
    }

    /// The longest text for prompts of `prompt` tokens.
    pub fn max_total_length(&self, prompt: usize) -> usize {
        match (self.max_new_tokens, self.max_length) {
            (Some(new), _) => prompt.saturating_add(new),
            (None, Some(length)) => length,
            (None, None) => prompt + 20,
        }
    }

    /// Fails unless every option is in its range, and none contradicts another. `vocabulary`:
    /// number of tokens.
    ///
    /// # Errors
    /// [`Error::Config`] names the field, and what to change.
    pub fn validate(&self, vocabulary: usize) -> Result<()> {
        self.ranges()?;
        self.contradictions()?;
        self.tokens(vocabulary)
    }

    fn ranges(&self) -> Result<()> {
        let within = |field: &str, value: f64, holds: bool, expected: &str| {
            if holds {
                Ok(())
            } else {
                Err(Error::config(field, value, expected))
            }
        };
        let positive = [
            ("temperature", self.temperature),
            ("repetition_penalty", self.repetition_penalty),
            ("max_time", self.max_time.unwrap_or(1.0)),
            (
                "exponential_decay_length_penalty",
                self.exponential_decay_length_penalty
                    .map_or(1.0, |(_, factor)| factor),
            ),
        ];
        // What only draws is not looked at where nothing is drawn, as in transformers.
        for (field, value) in positive
            .into_iter()
            .filter(|(field, _)| self.do_sample || *field != "temperature")
        {
            let expected = if field == "temperature" {
                "above 0; for the best tokens, do_sample = false"
            } else {
                "above 0"
            };
            within(field, value, value > 0.0 && value.is_finite(), expected)?;
        }
        for (field, value) in [("top_p", self.top_p), ("typical_p", self.typical_p)] {
            within(
                field,
                value,
                value > 0.0 && value <= 1.0,
                "above 0, at most 1",
            )?;
        }
        let shares = [
            ("min_p", self.min_p),
            ("top_h", self.top_h),
            ("epsilon_cutoff", Some(self.epsilon_cutoff)),
            ("eta_cutoff", Some(self.eta_cutoff)),
            ("penalty_alpha", self.penalty_alpha),
        ];
        for (field, value) in shares {
            let value = value.unwrap_or(0.0);
            within(field, value, (0.0..=1.0).contains(&value), "from 0 to 1")?;
        }
        let finite = [
            ("length_penalty", self.length_penalty),
            ("diversity_penalty", self.diversity_penalty),
            ("frequency_penalty", self.frequency_penalty),
            ("presence_penalty", self.presence_penalty),
        ];
        for (field, value) in finite {
            within(field, value, value.is_finite(), "a number")?;
        }
        let counts = [
            ("num_beams", self.num_beams),
            ("num_beam_groups", self.num_beam_groups),
            ("num_return_sequences", self.num_return_sequences),
            ("num_assistant_tokens", self.num_assistant_tokens),
            (
                "prompt_lookup_num_tokens",
                self.prompt_lookup_num_tokens.unwrap_or(1),
            ),
            ("max_matching_ngram_size", self.max_matching_ngram_size),
            ("max_new_tokens", self.max_new_tokens.unwrap_or(1)),
            ("max_length", self.max_length.unwrap_or(1)),
        ];
        if let Some((field, n)) = counts.iter().find(|(_, n)| *n == 0) {
            return Err(Error::config(*field, n, "at least 1"));
        }
        json::check_ranges(&[
            ("num_beams", self.num_beams, MOST_ROWS),
            ("num_return_sequences", self.num_return_sequences, MOST_ROWS),
        ])
    }

    fn contradictions(&self) -> Result<()> {
        let wrong = |field: &str, value: String, expected: String| {
            Err(Error::config(field, value, expected))
        };
        if let Some(longest) = self
            .max_length
            .filter(|longest| self.max_new_tokens.is_none() && *longest < self.min_length)
        {
            return wrong(
                "min_length",
                self.min_length.to_string(),
                format!("at most max_length, {longest}"),
            );
        }
        if let (Some(least), Some(most)) = (self.min_new_tokens, self.max_new_tokens)
            && least > most
        {
            return wrong(
                "min_new_tokens",
                least.to_string(),
                format!("at most max_new_tokens, {most}"),
            );
        }
        if self.num_beams > 1 && self.num_return_sequences > self.num_beams {
            let expected = format!("at most num_beams, {}", self.num_beams);
            return wrong(
                "num_return_sequences",
                self.num_return_sequences.to_string(),
                expected,
            );
        }
        if self.num_beams == 1 && self.num_return_sequences > 1 && !self.do_sample {
            let expected =
                "1, since the best text is only one; or do_sample = true, or as many beams".into();
            return wrong(
                "num_return_sequences",
                self.num_return_sequences.to_string(),
                expected,
            );
        }
        if !self.num_beams.is_multiple_of(self.num_beam_groups) {
            let expected = format!("a divisor of num_beams, {}", self.num_beams);
            return wrong(
                "num_beam_groups",
                self.num_beam_groups.to_string(),
                expected,
            );
        }
        let grouped = self.num_beam_groups > 1;
        if grouped && self.do_sample {
            return wrong(
                "do_sample",
                "true".into(),
                "false, since groups of beams are not drawn".into(),
            );
        }
        if !grouped && self.diversity_penalty != 0.0 {
            let expected = "0, since it parts groups; or num_beam_groups above 1".into();
            return wrong(
                "diversity_penalty",
                self.diversity_penalty.to_string(),
                expected,
            );
        }
        if self.penalty_alpha.is_some() {
            if self.do_sample || self.num_beams > 1 || self.num_return_sequences > 1 {
                let expected = "none, with do_sample, num_beams or num_return_sequences".into();
                return wrong(
                    "penalty_alpha",
                    format!("{:?}", self.penalty_alpha),
                    expected,
                );
            }
            if !(2..=MOST_ROWS).contains(&self.top_k) {
                let expected = format!("2 to {MOST_ROWS}, to choose from by penalty_alpha");
                return wrong("top_k", self.top_k.to_string(), expected);
            }
        }
        if !self.force_words_ids.is_empty() && (self.num_beams == 1 || self.do_sample || grouped) {
            let expected = format!(
                "above 1 without do_sample and groups, for {} forced words",
                self.force_words_ids.len()
            );
            return wrong("num_beams", self.num_beams.to_string(), expected);
        }
        if self.prompt_lookup_num_tokens.is_some()
            && self.generation_mode() != GenerationMode::Sample
        {
            let expected = "none, with beams or contrastive search".into();
            return wrong(
                "prompt_lookup_num_tokens",
                format!("{:?}", self.prompt_lookup_num_tokens),
                expected,
            );
        }
        if self.exponential_decay_length_penalty.is_some() && self.eos_token_id.is_none() {
            let expected =
                "a token whose score is to grow, for exponential_decay_length_penalty".into();
            return wrong("eos_token_id", "none".into(), expected);
        }
        if self.stop_strings.iter().any(String::is_empty) {
            return wrong(
                "stop_strings",
                "\"\"".into(),
                "texts of a character at least".into(),
            );
        }
        Ok(())
    }

    fn tokens(&self, vocabulary: usize) -> Result<()> {
        let forced = self.force_words_ids.iter().flat_map(|forced| match forced {
            WordConstraint::Phrasal(phrase) => vec![phrase],
            WordConstraint::Disjunctive(phrases) => phrases.iter().collect(),
        });
        let forced: Vec<&Vec<u32>> = forced.collect();
        let biased = self
            .sequence_bias
            .iter()
            .map(|(sequence, _)| sequence)
            .collect();
        for (field, sequences) in [
            (
                "bad_words_ids",
                self.bad_words_ids.iter().collect::<Vec<_>>(),
            ),
            ("force_words_ids", forced),
            ("sequence_bias", biased),
        ] {
            if sequences.iter().any(|sequence| sequence.is_empty()) {
                return Err(Error::config(field, "[]", "sequences of a token at least"));
            }
            in_vocabulary(field, sequences.into_iter().flatten().copied(), vocabulary)?;
        }
        let list =
            |tokens: &Option<TokenIds>| tokens.as_ref().map(TokenIds::list).unwrap_or_default();
        for (field, tokens) in [
            ("suppress_tokens", self.suppress_tokens.clone()),
            ("begin_suppress_tokens", self.begin_suppress_tokens.clone()),
            (
                "forced_bos_token_id",
                self.forced_bos_token_id.into_iter().collect(),
            ),
            ("forced_eos_token_id", list(&self.forced_eos_token_id)),
            ("bos_token_id", self.bos_token_id.into_iter().collect()),
            ("pad_token_id", self.pad_token_id.into_iter().collect()),
        ] {
            in_vocabulary(field, tokens.into_iter(), vocabulary)?;
        }
        // Those of `eos_token_id` may lie outside, as where a text has no end.
        Ok(())
    }

    /// The processors of these options, in transformers' order. `longest`: the greatest length;
    /// `allowed` come before forced tokens, `own` before warpers.
    pub(crate) fn processors(
        &self,
        longest: usize,
        allowed: Vec<Box<dyn LogitsProcessor>>,
        own: Vec<Box<dyn LogitsProcessor>>,
    ) -> Processors {
        let mut all: Vec<Box<dyn LogitsProcessor>> = Vec::new();
        let eos = self.eos_token_ids();
        if !self.sequence_bias.is_empty() {
            all.push(Box::new(SequenceBias(self.sequence_bias.clone())));
        }
        if self.repetition_penalty != 1.0 {
            all.push(Box::new(RepetitionPenalty(self.repetition_penalty)));
        }
        if self.frequency_penalty != 0.0 || self.presence_penalty != 0.0 {
            let (frequency, presence) = (self.frequency_penalty, self.presence_penalty);
            all.push(Box::new(FrequencyPenalty {
                frequency,
                presence,
            }));
        }
        if self.no_repeat_ngram_size > 0 {
            all.push(Box::new(NoRepeatNgram(self.no_repeat_ngram_size)));
        }
        let bad = self
            .bad_words_ids
            .iter()
            .filter(|word| !matches!(word[..], [token] if eos.contains(&token)));
        let bad: Vec<_> = bad.map(|word| (word.clone(), f32::NEG_INFINITY)).collect();
        if !bad.is_empty() {
            all.push(Box::new(SequenceBias(bad)));
        }
        if self.min_length > 0 && !eos.is_empty() {
            let least = self.min_length;
            all.push(Box::new(Suppress {
                tokens: eos.clone(),
                while_: move |row: GenerationState<'_>| row.len() < least,
            }));
        }
        if let Some(least) = self
            .min_new_tokens
            .filter(|least| *least > 0 && !eos.is_empty())
        {
            all.push(Box::new(Suppress {
                tokens: eos.clone(),
                while_: move |row: GenerationState<'_>| row.new_tokens() < least,
            }));
        }
        all.extend(allowed);
        if let Some(token) = self.forced_bos_token_id {
            all.push(Box::new(Force {
                tokens: vec![token],
                when: |row: GenerationState<'_>| row.len() == 1,
            }));
        }
        if let Some(tokens) = &self.forced_eos_token_id {
            all.push(Box::new(Force {
                tokens: tokens.list(),
                when: move |row: GenerationState<'_>| row.len() + 1 == longest,
            }));
        }
        if self.remove_invalid_values {
            all.push(Box::new(InfNanRemove));
        }
        if let Some((start, factor)) = self.exponential_decay_length_penalty {
            all.push(Box::new(ExponentialDecayLengthPenalty {
                start,
                factor,
                eos: eos.clone(),
            }));
        }
        if !self.suppress_tokens.is_empty() {
            all.push(Box::new(Suppress {
                tokens: self.suppress_tokens.clone(),
                while_: |_: GenerationState<'_>| true,
            }));
        }
        if !self.begin_suppress_tokens.is_empty() {
            let forced = self.forced_bos_token_id.is_some();
            let begins = move |row: GenerationState<'_>| {
                row.new_tokens() == usize::from(forced && row.padding + row.prompt_len == 1)
            };
            all.push(Box::new(Suppress {
                tokens: self.begin_suppress_tokens.clone(),
                while_: begins,
            }));
        }
        all.extend(own);
        if self.do_sample {
            self.warp(&mut all, eos.len());
        }
        if self.renormalize_logits {
            all.push(Box::new(|_: GenerationState<'_>, scores: &mut [f32]| {
                log_softmax(scores);
                Ok(())
            }));
        }
        Processors(all)
    }

    fn warp(&self, all: &mut Vec<Box<dyn LogitsProcessor>>, eos: usize) {
        // Beams need something to go on with where the best would all end.
        let min_tokens_to_keep = if self.num_beams > 1 {
            (eos + 1).max(2)
        } else {
            1
        };
        if self.temperature != 1.0 {
            all.push(Box::new(Temperature(self.temperature)));
        }
        if let Some(top_h) = self.top_h {
            all.push(Box::new(TopH { top_h }));
        }
        if self.top_k > 0 {
            all.push(Box::new(TopK {
                k: self.top_k,
                min_tokens_to_keep,
            }));
        }
        if self.top_p < 1.0 {
            all.push(Box::new(TopP {
                p: self.top_p,
                min_tokens_to_keep,
            }));
        }
        if let Some(min_p) = self.min_p {
            all.push(Box::new(MinP {
                min_p,
                min_tokens_to_keep,
            }));
        }
        if self.typical_p < 1.0 {
            all.push(Box::new(TypicalP {
                p: self.typical_p,
                min_tokens_to_keep,
            }));
        }
        if self.epsilon_cutoff > 0.0 && self.epsilon_cutoff < 1.0 {
            all.push(Box::new(EpsilonCutoff {
                epsilon: self.epsilon_cutoff,
                min_tokens_to_keep,
            }));
        }
        if self.eta_cutoff > 0.0 && self.eta_cutoff < 1.0 {
            all.push(Box::new(EtaCutoff {
                epsilon: self.eta_cutoff,
                min_tokens_to_keep,
            }));
        }
    }
}

/// Fails at the first token that the model does not have.
pub(crate) fn in_vocabulary(
    field: &str,
    mut tokens: impl Iterator<Item = u32>,
    vocabulary: usize,
) -> Result<()> {
    match tokens.find(|token| *token as usize >= vocabulary) {
        Some(token) => Err(Error::config(
            field,
            token,
            format!("below {vocabulary}, the model's number of tokens"),
        )),
        None => Ok(()),
    }
}
