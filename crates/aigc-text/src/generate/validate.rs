//! Checks of the options of generation.

use super::config::{GenerationConfig, GenerationMode, WordConstraint};
use crate::tokens::{TokenIds, in_vocabulary};
use aigc_core::{Error, Result, check};

/// Limit on the sequences of a prompt, because each is compared with every other.
const MOST_SEQUENCES: usize = 1 << 12;

impl GenerationConfig {
    /// Fails unless every option is in its range and no options contradict each other. `vocab_size`
    /// is the number of tokens of the model.
    ///
    /// # Errors
    /// [`Error::Config`] naming the field, with what to change.
    pub fn validate(&self, vocab_size: usize) -> Result<()> {
        self.ranges()?;
        self.contradictions()?;
        self.tokens(vocab_size)
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
        // As in transformers, options of sampling are checked only if tokens are sampled.
        for (field, value) in positive {
            // Without sampling, transformers ignores the temperature, but NaN is always an error.
            if field == "temperature" && !self.do_sample && value.is_finite() {
                continue;
            }
            let expected = if field == "temperature" {
                "above 0; for the most likely tokens set do_sample = false"
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
            within(field, value, value.is_finite(), "a finite number")?;
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
        check::sizes(&[
            ("num_beams", self.num_beams, MOST_SEQUENCES),
            (
                "num_return_sequences",
                self.num_return_sequences,
                MOST_SEQUENCES,
            ),
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
                "1: greedy search finds one sequence; or set do_sample, or at least as many beams"
                    .into();
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
                "false: beams in groups are not sampled".into(),
            );
        }
        if !grouped && self.diversity_penalty != 0.0 {
            let expected = "0, or num_beam_groups above 1".into();
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
            if !(2..=MOST_SEQUENCES).contains(&self.top_k) {
                let expected = format!("2 to {MOST_SEQUENCES}, candidates of contrastive search");
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
            let expected = "a token whose score grows, for exponential_decay_length_penalty".into();
            return wrong("eos_token_id", "none".into(), expected);
        }
        if self.stop_strings.iter().any(String::is_empty) {
            return wrong(
                "stop_strings",
                "\"\"".into(),
                "strings of at least one character".into(),
            );
        }
        Ok(())
    }

    fn tokens(&self, vocab_size: usize) -> Result<()> {
        let config =
            |field: &'static str| move |token, expected| Error::config(field, token, expected);
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
                return Err(Error::config(
                    field,
                    "[]",
                    "sequences of at least one token",
                ));
            }
            in_vocabulary(
                sequences.into_iter().flatten().copied(),
                vocab_size,
                config(field),
            )?;
        }
        if let Some((_, bias)) = self.sequence_bias.iter().find(|(_, bias)| bias.is_nan()) {
            return Err(Error::config("sequence_bias", bias, "a number"));
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
        ] {
            in_vocabulary(tokens.into_iter(), vocab_size, config(field))?;
        }
        // Special tokens may be outside the vocabulary; the model then does not have them.
        Ok(())
    }
}
