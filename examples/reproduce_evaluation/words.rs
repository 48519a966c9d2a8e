//! Sentences of random words.

use aigc_core::{Error, Result, fs::read_text, rng::Rng};
use std::path::Path;

/// Number of invented words.
const INVENTED: usize = 20_000;
const CONSONANTS: &[u8] = b"bcdfghjklmnprstvwz";
const VOWELS: &[u8] = b"aeiou";

/// Words to make sentences of.
#[derive(Debug)]
pub(crate) struct Words {
    words: Vec<String>,
    /// Frequent words come first, and are drawn more often; words of a text are drawn evenly, as
    /// they repeat in it.
    invented: bool,
}

impl Words {
    /// All words of a text, so that their frequencies are those of the text.
    ///
    /// # Errors
    /// Errors of reading; [`Error::InvalidArgument`] for fewer than 1,000 words.
    pub(crate) fn of_text(path: &Path) -> Result<Self> {
        let text = read_text(path)?;
        let words: Vec<String> = text.split_whitespace().map(str::to_string).collect();
        if words.len() < 1000 {
            let found = format!("{} with {} words", path.display(), words.len());
            return Err(Error::argument("--text", found, "a text of at least 1,000"));
        }
        Ok(Self {
            words,
            invented: false,
        })
    }

    /// Invented words of one to four syllables.
    pub(crate) fn invented(rng: &mut Rng) -> Self {
        let word = |_| {
            let syllables = 1 + rng.random_index(4);
            let mut word = String::new();
            for _ in 0..syllables {
                let consonant = CONSONANTS[rng.random_index(CONSONANTS.len())];
                word.push(char::from(consonant));
                word.push(char::from(VOWELS[rng.random_index(VOWELS.len())]));
            }
            word
        };
        Self {
            words: (0..INVENTED).map(word).collect(),
            invented: true,
        }
    }

    /// A random word.
    pub(crate) fn draw(&self, rng: &mut Rng) -> &str {
        let mut index = rng.random_index(self.words.len());
        if self.invented {
            // The smaller of two draws.
            index = index.min(rng.random_index(self.words.len()));
        }
        &self.words[index]
    }

    /// A sentence of 10 to 24 words.
    pub(crate) fn sentence(&self, rng: &mut Rng) -> String {
        let count = 10 + rng.random_index(15);
        let words: Vec<&str> = (0..count).map(|_| self.draw(rng)).collect();
        words.join(" ") + "."
    }

    /// A sentence with one of its words replaced.
    pub(crate) fn varied(&self, sentence: &str, rng: &mut Rng) -> String {
        let mut words: Vec<&str> = sentence.split(' ').collect();
        let place = rng.random_index(words.len());
        words[place] = self.draw(rng);
        words.join(" ")
    }
}
