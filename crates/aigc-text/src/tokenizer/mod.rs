//! Tokenizers, which convert text to tokens and back.

mod bpe;
mod characters;
mod settings;
mod stream;

pub use aigc_core::fs::read_text;
pub use bpe::BpeTokenizer;
pub use characters::CharacterTokenizer;
pub use stream::DecodeStream;

use aigc_core::Result;
use std::path::Path;

/// Converts text to tokens and back.
pub trait Tokenizer: Send + Sync {
    /// The tokens of `text`, without special tokens at its beginning and end.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) if a part of the text cannot
    /// be encoded.
    fn encode(&self, text: &str) -> Result<Vec<u32>>;

    /// The tokens of `text` as a prompt: with the special tokens that the tokenizer's files add
    /// around it (`add_bos_token`, a post-processor).
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        self.encode(text)
    }

    /// The bytes of a token, which may be part of a character; empty for an unknown token.
    fn token_bytes(&self, token: u32) -> Vec<u8>;

    /// Number of tokens.
    fn vocab_size(&self) -> usize;

    /// The token that ends a text, if there is one.
    fn eos_token_id(&self) -> Option<u32> {
        None
    }

    /// Whether a token is a control token, such as the end of a text, rather than text.
    fn is_special(&self, token: u32) -> bool {
        let _ = token;
        false
    }

    /// The text of `tokens`; invalid bytes become `U+FFFD`.
    fn decode(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens
            .iter()
            .flat_map(|token| self.token_bytes(*token))
            .collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Writes the files of the tokenizer to `dir`, for [`from_pretrained`].
    ///
    /// # Errors
    /// [`Error::Io`](aigc_core::Error::Io) if a file cannot be written.
    fn save_pretrained(&self, dir: &Path) -> Result<()>;
}

/// Opens the tokenizer in a directory: `characters.json`, `tokenizer.json`, or GPT-2's `vocab.json`
/// and `merges.txt` (`encoder.json` and `vocab.bpe`).
///
/// # Errors
/// [`Error::Data`](aigc_core::Error::Data) if there is no such file, or it is broken.
pub fn from_pretrained(dir: impl AsRef<Path>) -> Result<Box<dyn Tokenizer>> {
    let dir = dir.as_ref();
    if dir.join(characters::FILE).is_file() {
        return Ok(Box::new(CharacterTokenizer::from_pretrained(dir)?));
    }
    Ok(Box::new(BpeTokenizer::from_pretrained(dir)?))
}
