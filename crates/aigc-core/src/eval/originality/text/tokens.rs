//! Texts of token ids.

use crate::{Error, Result};
use std::ops::Range;

/// A text with one character for each token, to index token ids: an n-gram of its characters is one
/// of tokens. Index it with [`TextIndexConfig`](super::TextIndexConfig) without any normalisation.
///
/// # Errors
/// [`Error::InvalidArgument`] for an id above 1,112,063, the number of Unicode's characters less
/// one.
pub fn token_text(tokens: &[u32]) -> Result<String> {
    const SURROGATES: Range<u32> = 0xd800..0xe000;
    let character = |token: &u32| {
        let skipped = if *token < SURROGATES.start {
            0
        } else {
            SURROGATES.end - SURROGATES.start
        };
        token
            .checked_add(skipped)
            .and_then(char::from_u32)
            .ok_or_else(|| Error::argument("tokens", token, "ids up to 1112063"))
    };
    tokens.iter().map(character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::originality::text::{TextIndex, TextIndexConfig};

    #[test]
    fn tokens_become_characters() {
        let text = token_text(&[0, 50_256, 60_000, 151_642, 1_112_063]).unwrap();
        assert_eq!(text.chars().count(), 5);
        assert!(token_text(&[1_112_064]).is_err());
        assert!(token_text(&[u32::MAX]).is_err());
        let config = TextIndexConfig {
            normalize_whitespace: false,
            ..TextIndexConfig::default()
        };
        let training = token_text(&[7, 60_000, 50_256, 9]).unwrap();
        let index = TextIndex::from_texts(&[training], &config).unwrap();
        let generated = token_text(&[1, 60_000, 50_256, 2]).unwrap();
        assert_eq!(index.spans(&generated, 2).unwrap()[0].characters, 2);
    }
}
