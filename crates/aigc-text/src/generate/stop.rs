//! Conditions that end a sequence.

use super::config::GenerationConfig;
use crate::tokenizer::Tokenizer;
use aigc_core::{CancelToken, Error, Result};
use std::time::{Duration, Instant};

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// A token of `eos_token_id` was generated.
    Eos,
    /// A string of `stop_strings` was generated.
    StopString,
    /// The maximum length was reached.
    Length,
    /// The time limit `max_time` was reached.
    MaxTime,
    /// The [`CancelToken`] was cancelled.
    Cancelled,
}

/// Conditions that end sequences.
pub(crate) struct Stopping<'a> {
    eos: Vec<u32>,
    strings: Vec<String>,
    tokenizer: Option<&'a dyn Tokenizer>,
    /// Maximum length, including padding.
    pub longest: usize,
    until: Option<Instant>,
    cancel: CancelToken,
}

impl<'a> Stopping<'a> {
    /// The conditions of `config`.
    ///
    /// # Errors
    /// [`Error::Config`] for `stop_strings` without a tokenizer.
    pub(crate) fn new(
        config: &GenerationConfig,
        longest: usize,
        tokenizer: Option<&'a dyn Tokenizer>,
        cancel: CancelToken,
    ) -> Result<Self> {
        if !config.stop_strings.is_empty() && tokenizer.is_none() {
            let expected = "empty, or a tokenizer set with with_tokenizer";
            return Err(Error::config(
                "stop_strings",
                format!("{:?}", config.stop_strings),
                expected,
            ));
        }
        // A time beyond the range of the clock is no limit.
        let until = config.max_time.and_then(|seconds| {
            Duration::try_from_secs_f64(seconds)
                .ok()
                .and_then(|time| Instant::now().checked_add(time))
        });
        let strings = config.stop_strings.clone();
        Ok(Self {
            eos: config.eos_token_ids(),
            strings,
            tokenizer,
            longest,
            until,
            cancel,
        })
    }

    /// Why a sequence ends with its last token; `None` if it continues. `padding` counts as length.
    pub(crate) fn ends(&self, tokens: &[u32], padding: usize) -> Option<FinishReason> {
        if tokens.last().is_some_and(|token| self.eos.contains(token)) {
            return Some(FinishReason::Eos);
        }
        if self.has_stop_string(tokens) {
            return Some(FinishReason::StopString);
        }
        if padding + tokens.len() >= self.longest {
            return Some(FinishReason::Length);
        }
        self.interrupted()
    }

    /// Why all sequences end now; `None` if they continue.
    pub(crate) fn interrupted(&self) -> Option<FinishReason> {
        if self.cancel.is_cancelled() {
            Some(FinishReason::Cancelled)
        } else {
            self.until
                .filter(|until| Instant::now() >= *until)
                .map(|_| FinishReason::MaxTime)
        }
    }

    /// Whether a stop string ends within the text of the last token.
    fn has_stop_string(&self, tokens: &[u32]) -> bool {
        let (Some(tokenizer), Some(longest)) =
            (self.tokenizer, self.strings.iter().map(String::len).max())
        else {
            return false;
        };
        // A token has at least one byte.
        let tail = &tokens[tokens.len().saturating_sub(longest + 1)..];
        let Some((_, before)) = tail.split_last() else {
            return false;
        };
        let (text, before) = (tokenizer.decode(tail), tokenizer.decode(before));
        let known = before.trim_end_matches('\u{fffd}').len();
        self.strings.iter().any(|stop| {
            text.rmatch_indices(stop)
                .next()
                .is_some_and(|(at, _)| at + stop.len() > known)
        })
    }
}
