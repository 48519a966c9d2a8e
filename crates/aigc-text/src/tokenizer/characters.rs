//! Tokenizer with one token per character.

use super::Tokenizer;
use aigc_core::{DataFault, Error, Result, checkpoint::write_atomic, fs::read_text};
use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

/// The file of a character tokenizer.
pub(super) const FILE: &str = "characters.json";

/// One token per character, in the order of code points.
#[derive(Clone, Debug, PartialEq)]
pub struct CharacterTokenizer {
    characters: Vec<char>,
    tokens: HashMap<char, u32>,
}

impl CharacterTokenizer {
    /// A tokenizer for the characters of `text`.
    pub fn from_text(text: &str) -> Self {
        Self::train([text].into_iter())
    }

    /// A tokenizer for all characters of `texts`.
    pub fn train<S: AsRef<str>>(texts: impl Iterator<Item = S>) -> Self {
        let mut characters = BTreeSet::new();
        texts.for_each(|text| characters.extend(text.as_ref().chars()));
        Self::new(characters.into_iter().collect())
    }

    fn new(characters: Vec<char>) -> Self {
        let tokens = characters
            .iter()
            .enumerate()
            .map(|(token, character)| (*character, token as u32))
            .collect();
        Self { characters, tokens }
    }

    /// The characters, in the order of their tokens.
    pub fn characters(&self) -> &[char] {
        &self.characters
    }

    /// Opens the `characters.json` in a directory.
    ///
    /// # Errors
    /// [`Error::Io`] if there is no such file, [`Error::Data`] if it is broken or repeats a
    /// character.
    pub fn from_pretrained(dir: impl AsRef<Path>) -> Result<Self> {
        let path = dir.as_ref().join(FILE);
        let text = read_text(&path)?;
        let wrong = |reason: String| Error::Data {
            path: path.clone(),
            fault: DataFault::Decode(reason),
        };
        let characters: String =
            serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        let tokenizer = Self::new(characters.chars().collect());
        if tokenizer.tokens.len() < tokenizer.characters.len() || tokenizer.characters.is_empty() {
            return Err(wrong("expected a string of different characters".into()));
        }
        Ok(tokenizer)
    }
}

impl Tokenizer for CharacterTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let token = |(at, character): (usize, char)| {
            self.tokens.get(&character).copied().ok_or_else(|| {
                let known: String = self.characters.iter().take(100).collect();
                Error::argument(
                    format!("character {} of the text", at + 1),
                    format!("{character:?}"),
                    format!("one of {known:?}"),
                )
            })
        };
        text.chars().enumerate().map(token).collect()
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.characters
            .get(token as usize)
            .map(|character| character.to_string().into_bytes())
            .unwrap_or_default()
    }

    fn vocab_size(&self) -> usize {
        self.characters.len()
    }

    fn save_pretrained(&self, dir: &Path) -> Result<()> {
        let characters: String = self.characters.iter().collect();
        write_atomic(
            &dir.join(FILE),
            serde_json::to_string(&characters)
                .expect("a string")
                .as_bytes(),
        )
    }
}
