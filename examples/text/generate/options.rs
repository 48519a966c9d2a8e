//! Options of generation, as in transformers' `generate`.

use aigc_text::{
    GenerationConfig, GrammarConstraint, Tokenizer,
    generate::{EarlyStopping, WordConstraint},
    tokenizer::read_text,
};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Options of generation. Options that are not given have the value in the model's
/// `generation_config.json`, or transformers' default.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct GenerationOptions {
    /// Maximum number of tokens, including the prompt.
    #[arg(long)]
    max_length: Option<usize>,
    /// Maximum number of new tokens.
    #[arg(long)]
    max_new_tokens: Option<usize>,
    #[arg(long)]
    min_length: Option<usize>,
    #[arg(long)]
    min_new_tokens: Option<usize>,
    /// Time limit in seconds.
    #[arg(long, value_parser = finite)]
    max_time: Option<f64>,
    /// String that ends the generation; may be given several times.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,

    /// Sample tokens from their probabilities instead of taking the most likely one.
    #[arg(long)]
    do_sample: bool,
    #[arg(long)]
    num_beams: Option<usize>,
    #[arg(long)]
    num_beam_groups: Option<usize>,
    #[arg(long, value_parser = finite)]
    diversity_penalty: Option<f64>,
    /// Contrastive search, with `--top-k`.
    #[arg(long, value_parser = finite)]
    penalty_alpha: Option<f64>,
    #[arg(long)]
    num_return_sequences: Option<usize>,
    #[arg(long, value_enum)]
    early_stopping: Option<Early>,

    #[arg(long, value_parser = finite)]
    temperature: Option<f64>,
    #[arg(long)]
    top_k: Option<usize>,
    #[arg(long, value_parser = finite)]
    top_p: Option<f64>,
    #[arg(long, value_parser = finite)]
    min_p: Option<f64>,
    #[arg(long, value_parser = finite)]
    top_h: Option<f64>,
    #[arg(long, value_parser = finite)]
    typical_p: Option<f64>,
    #[arg(long, value_parser = finite)]
    epsilon_cutoff: Option<f64>,
    #[arg(long, value_parser = finite)]
    eta_cutoff: Option<f64>,

    #[arg(long, value_parser = finite)]
    repetition_penalty: Option<f64>,
    #[arg(long, value_parser = finite)]
    frequency_penalty: Option<f64>,
    #[arg(long, value_parser = finite)]
    presence_penalty: Option<f64>,
    #[arg(long, value_parser = finite)]
    length_penalty: Option<f64>,
    #[arg(long)]
    no_repeat_ngram_size: Option<usize>,
    /// Text that must not be generated; may be given several times.
    #[arg(long, value_name = "TEXT")]
    bad_words: Vec<String>,
    /// Text that must be generated, with beams; may be given several times.
    #[arg(long, value_name = "TEXT")]
    force_words: Vec<String>,
    /// Bias added to the score of a text, such as " rain=-2".
    #[arg(long, value_name = "TEXT=BIAS")]
    sequence_bias: Vec<String>,
    /// Generate only text that matches a regular expression.
    #[arg(long, value_name = "PATTERN", conflicts_with = "json_schema")]
    regex: Option<String>,
    /// Generate only JSON that matches the schema in a file.
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,
    /// Number of tokens to propose at a time by prompt lookup.
    #[arg(long)]
    prompt_lookup_num_tokens: Option<usize>,
    /// Number of tokens that `--assistant` proposes at a time.
    #[arg(long)]
    num_assistant_tokens: Option<usize>,
    /// Any option by its name in `generation_config.json`, such as "suppress_tokens=[198]".
    #[arg(long, value_name = "NAME=JSON")]
    set: Vec<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Early {
    /// When there are as many finished sequences as beams.
    True,
    /// When no beam is likely to become better.
    False,
    /// When no beam can become better.
    Never,
}

impl GenerationOptions {
    /// `config` with the given options applied.
    pub(crate) fn over(
        &self,
        config: GenerationConfig,
        tokenizer: &dyn Tokenizer,
    ) -> Result<GenerationConfig> {
        let encode = |texts: &[String]| {
            texts
                .iter()
                .map(|text| tokenizer.encode(text))
                .collect::<Result<Vec<_>, _>>()
        };
        let bias = |text: &String| {
            let (text, bias) = text
                .rsplit_once('=')
                .with_context(|| format!("--sequence-bias {text}: no `=`"))?;
            let value: f32 = bias
                .parse()
                .with_context(|| format!("--sequence-bias {text}={bias}: not a number"))?;
            Ok((tokenizer.encode(text)?, value))
        };
        let early = self.early_stopping.map(|early| match early {
            Early::True => EarlyStopping::Always,
            Early::False => EarlyStopping::Heuristic,
            Early::Never => EarlyStopping::Never,
        });
        // A length on the command line overrides a length of the other kind in the file.
        let lengths = match (self.max_length, self.max_new_tokens) {
            (None, None) => (config.max_length, config.max_new_tokens),
            given => given,
        };
        let config = GenerationConfig {
            max_length: lengths.0,
            max_new_tokens: lengths.1,
            min_length: self.min_length.unwrap_or(config.min_length),
            min_new_tokens: self.min_new_tokens.or(config.min_new_tokens),
            max_time: self.max_time.or(config.max_time),
            stop_strings: [config.stop_strings, self.stop.clone()].concat(),
            do_sample: self.do_sample || config.do_sample,
            num_beams: self.num_beams.unwrap_or(config.num_beams),
            num_beam_groups: self.num_beam_groups.unwrap_or(config.num_beam_groups),
            diversity_penalty: self.diversity_penalty.unwrap_or(config.diversity_penalty),
            penalty_alpha: self.penalty_alpha.or(config.penalty_alpha),
            num_return_sequences: self
                .num_return_sequences
                .unwrap_or(config.num_return_sequences),
            early_stopping: early.unwrap_or(config.early_stopping),
            temperature: self.temperature.unwrap_or(config.temperature),
            top_k: self.top_k.unwrap_or(config.top_k),
            top_p: self.top_p.unwrap_or(config.top_p),
            min_p: self.min_p.or(config.min_p),
            top_h: self.top_h.or(config.top_h),
            typical_p: self.typical_p.unwrap_or(config.typical_p),
            epsilon_cutoff: self.epsilon_cutoff.unwrap_or(config.epsilon_cutoff),
            eta_cutoff: self.eta_cutoff.unwrap_or(config.eta_cutoff),
            repetition_penalty: self.repetition_penalty.unwrap_or(config.repetition_penalty),
            frequency_penalty: self.frequency_penalty.unwrap_or(config.frequency_penalty),
            presence_penalty: self.presence_penalty.unwrap_or(config.presence_penalty),
            length_penalty: self.length_penalty.unwrap_or(config.length_penalty),
            no_repeat_ngram_size: self
                .no_repeat_ngram_size
                .unwrap_or(config.no_repeat_ngram_size),
            bad_words_ids: [config.bad_words_ids, encode(&self.bad_words)?].concat(),
            force_words_ids: encode(&self.force_words)?
                .into_iter()
                .map(WordConstraint::Phrasal)
                .chain(config.force_words_ids)
                .collect(),
            sequence_bias: self
                .sequence_bias
                .iter()
                .map(bias)
                .chain(config.sequence_bias.into_iter().map(Ok))
                .collect::<Result<_>>()?,
            prompt_lookup_num_tokens: self
                .prompt_lookup_num_tokens
                .or(config.prompt_lookup_num_tokens),
            num_assistant_tokens: self
                .num_assistant_tokens
                .unwrap_or(config.num_assistant_tokens),
            ..config
        };
        set(config, &self.set)
    }

    /// The constraint of `--regex` or `--json-schema`; tokens of `end` end a sequence.
    pub(crate) fn pattern(
        &self,
        tokenizer: &dyn Tokenizer,
        end: &[u32],
    ) -> Result<Option<GrammarConstraint>> {
        Ok(match (&self.regex, &self.json_schema) {
            (Some(expression), _) => Some(GrammarConstraint::regex(expression, tokenizer, end)?),
            (None, Some(path)) => {
                let schema = read_text(path)?;
                Some(GrammarConstraint::json_schema(&schema, tokenizer, end)?)
            }
            (None, None) => None,
        })
    }
}

/// Parses a finite number; NaN and infinities would become missing options in JSON.
fn finite(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(value) => Err(format!("{value}, expected a finite number")),
        Err(error) => Err(error.to_string()),
    }
}

/// Sets fields of `config` by their names. A length overrides a length of the other kind.
fn set(config: GenerationConfig, fields: &[String]) -> Result<GenerationConfig> {
    if fields.is_empty() {
        return Ok(config);
    }
    const LENGTHS: [&str; 2] = ["max_length", "max_new_tokens"];
    let mut all = serde_json::to_value(config)?;
    let parts = |field: &'_ String| -> Result<(String, String)> {
        let (name, value) = field
            .split_once('=')
            .with_context(|| format!("--set {field}: no `=`"))?;
        Ok((name.to_string(), value.to_string()))
    };
    let parts = fields.iter().map(parts).collect::<Result<Vec<_>>>()?;
    if parts
        .iter()
        .any(|(name, _)| LENGTHS.contains(&name.as_str()))
    {
        LENGTHS
            .iter()
            .for_each(|length| all[*length] = serde_json::Value::Null);
    }
    for ((name, value), field) in parts.iter().zip(fields) {
        let known = all
            .get_mut(name)
            .with_context(|| format!("--set {field}: there is no option {name}"))?;
        *known = serde_json::from_str(value).with_context(|| format!("--set {field}"))?;
    }
    Ok(GenerationConfig::from_json(&all.to_string())?.into_inner())
}
