//! Texts to tokens and back.

mod byte_pair;
mod characters;
mod stream;

pub use byte_pair::BpeTokenizer;
pub use characters::CharacterTokenizer;
pub use stream::DecodeStream;

use aigc_core::{DataFault, Error, Result};
use std::path::Path;

/// Texts to tokens and back.
pub trait Tokenizer: Send + Sync {
    /// The tokens of `text`.
    ///
    /// # Errors
    /// [`Error::Config`] where there is no token for a part of it.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;

    /// What a token stands for; a character may need several. Nothing for a token that there is
    /// not.
    fn token_bytes(&self, token: u32) -> Vec<u8>;

    /// Number of tokens.
    fn vocab_size(&self) -> usize;

    /// Whether a token is a sign to the model, such as the end of a text, and no text itself.
    fn is_special(&self, token: u32) -> bool {
        let _ = token;
        false
    }

    /// The text of `tokens`; bytes that are no character become `U+FFFD`.
    fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| self.token_bytes(*token))
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes the tokenizer into `folder`, for [`from_pretrained`].
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be written.
    fn save(&self, folder: &Path) -> Result<()>;
}

/// The tokenizer that a folder holds: `tokenizer.json`, GPT-2's `vocab.json` or `encoder.json` with
/// `merges.txt` or `vocab.bpe`, or `characters.json`.
///
/// # Errors
/// [`Error::Data`] if there is none, or it is broken.
pub fn from_pretrained(folder: impl AsRef<Path>) -> Result<Box<dyn Tokenizer>> {
    let folder = folder.as_ref();
    if folder.join(characters::FILE).is_file() {
        return Ok(Box::new(CharacterTokenizer::open(folder)?));
    }
    Ok(Box::new(BpeTokenizer::open(folder)?))
}

/// Reads a text file.
///
/// # Errors
/// [`Error::Io`] if there is none, [`Error::Data`] where it is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        path: path.into(),
        source,
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count()
            + 1;
        let reason = format!("not UTF-8 from byte {at} on (line {line}); convert it first");
        Error::Data {
            path: path.into(),
            fault: DataFault::Decode(reason),
        }
    })
}
