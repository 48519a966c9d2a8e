//! Decoding of tokens one at a time.

use super::Tokenizer;

/// Decodes tokens one at a time. A character is returned once all its bytes are known.
pub struct DecodeStream<'a> {
    tokenizer: &'a dyn Tokenizer,
    held: Vec<u8>,
}

impl<'a> DecodeStream<'a> {
    /// A stream without tokens.
    pub fn new(tokenizer: &'a dyn Tokenizer) -> Self {
        Self {
            tokenizer,
            held: Vec::new(),
        }
    }

    /// Adds a token and returns the text that is complete now; may be empty.
    pub fn step(&mut self, token: u32) -> String {
        self.held.extend(self.tokenizer.token_bytes(token));
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.held) {
                Ok(rest) => {
                    text.push_str(rest);
                    self.held.clear();
                    return text;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    text.push_str(&String::from_utf8_lossy(&self.held[..valid]));
                    // Without an error length, the rest may be the beginning of a character.
                    let Some(wrong) = error.error_len() else {
                        self.held.drain(..valid);
                        return text;
                    };
                    text.push('\u{fffd}');
                    self.held.drain(..valid + wrong);
                }
            }
        }
    }

    /// The incomplete rest, as `U+FFFD`; may be empty.
    pub fn finish(self) -> String {
        String::from_utf8_lossy(&self.held).into_owned()
    }
}
