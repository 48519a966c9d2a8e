//! When a text has ended.

use super::config::GenerationConfig;
use crate::tokenizer::Tokenizer;
use aigc_core::{CancelToken, Error, Result};
use std::time::{Duration, Instant};

/// Why a text ends where it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FinishReason {
    /// A token said so.
    Eos,
    /// A text of `stop_strings` came.
    StopString,
    /// It is as long as it may be.
    Length,
    /// The time is up.
    MaxTime,
    /// Somebody asked to stop.
    Cancelled,
}

/// What ends texts.
pub(crate) struct Stopping<'a> {
    eos: Vec<u32>,
    strings: Vec<String>,
    tokenizer: Option<&'a dyn Tokenizer>,
    /// The greatest length, padding included.
    pub longest: usize,
    until: Option<Instant>,
    flag: CancelToken,
}

impl<'a> Stopping<'a> {
    /// # Errors
    /// [`Error::Config`] if texts are to end it and there is no tokenizer.
    pub(crate) fn new(
        config: &GenerationConfig,
        longest: usize,
        tokenizer: Option<&'a dyn Tokenizer>,
        flag: CancelToken,
    ) -> Result<Self> {
        if !config.stop_strings.is_empty() && tokenizer.is_none() {
            let expected = "none, or a tokenizer given to the generator, which reads them";
            return Err(Error::config(
                "stop_strings",
                format!("{:?}", config.stop_strings),
                expected,
            ));
        }
        // More seconds than there will be are no limit.
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
            flag,
        })
    }

    /// Why a text ends with its last token, if it does; `padding` counts towards its length.
    pub(crate) fn ends(&self, tokens: &[u32], padding: usize) -> Option<FinishReason> {
        if tokens.last().is_some_and(|token| self.eos.contains(token)) {
            return Some(FinishReason::Eos);
        }
        if self.says_stop(tokens) {
            return Some(FinishReason::StopString);
        }
        if padding + tokens.len() >= self.longest {
            return Some(FinishReason::Length);
        }
        self.interrupted()
    }

    /// Why everything ends now, if it does.
    pub(crate) fn interrupted(&self) -> Option<FinishReason> {
        if self.flag.is_cancelled() {
            Some(FinishReason::Cancelled)
        } else {
            self.until
                .filter(|until| Instant::now() >= *until)
                .map(|_| FinishReason::MaxTime)
        }
    }

    /// Whether one of the strings ends in the last token's text.
    fn says_stop(&self, tokens: &[u32]) -> bool {
        let (Some(tokenizer), Some(longest)) =
            (self.tokenizer, self.strings.iter().map(String::len).max())
        else {
            return false;
        };
        // A token is a byte at least.
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
