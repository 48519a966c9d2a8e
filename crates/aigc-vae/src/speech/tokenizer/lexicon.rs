//! Lexicons: how words are spoken.

use aigc_core::{DataFault, Error, Result, fs::read_text};
use std::{collections::BTreeMap, path::Path};

/// Words and the symbols they are spoken with.
///
/// A file has a line `word symbol symbol …` for every word. Empty lines are skipped. Words have no
/// upper and lower case; of several lines of a word, the first counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lexicon {
    words: BTreeMap<String, Vec<String>>,
}

impl Lexicon {
    /// Reads a lexicon.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read; [`Error::Data`] naming the file and the line of a
    /// word without symbols, or if there are no words.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::parse(&read_text(path)?).map_err(|fault| Error::data(path, fault))
    }

    /// A lexicon of a text, such as the content of a file.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the line of a word without symbols, or if there are no
    /// words.
    pub fn from_text(text: &str) -> Result<Self> {
        Self::parse(text)
            .map_err(|fault| Error::argument("lexicon", fault, "lines of a word and its symbols"))
    }

    fn parse(text: &str) -> Result<Self, DataFault> {
        let mut words = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let mut parts = line.split_whitespace();
            let Some(word) = parts.next() else { continue };
            let symbols: Vec<String> = parts.map(str::to_owned).collect();
            if symbols.is_empty() {
                let reason = format!("line {}: the word `{word}` has no symbols", index + 1);
                return Err(DataFault::Mismatch(reason));
            }
            words.entry(word.to_lowercase()).or_insert(symbols);
        }
        match words.is_empty() {
            true => Err(DataFault::Empty("no words".into())),
            false => Ok(Self { words }),
        }
    }

    /// The symbols of a word.
    pub fn get(&self, word: &str) -> Option<&[String]> {
        self.words.get(&word.to_lowercase()).map(Vec::as_slice)
    }

    /// All words and their symbols, in alphabetical order.
    pub fn words(&self) -> impl Iterator<Item = (&str, &[String])> {
        let words = self.words.iter();
        words.map(|(word, symbols)| (word.as_str(), symbols.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_file_and_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("words.txt");
        std::fs::write(&path, "\u{feff}one w ah n\r\n\r\nTwo t uw\n").unwrap();
        let lexicon = Lexicon::read(&path).unwrap();
        assert_eq!(lexicon.get("ONE").unwrap(), ["w", "ah", "n"]);
        assert_eq!(lexicon.get("two").unwrap(), ["t", "uw"]);
        assert_eq!(lexicon.words().count(), 2);
        std::fs::write(&path, "one w ah n\ntwo\n").unwrap();
        let message = Lexicon::read(&path).unwrap_err().to_string();
        assert!(
            message.contains("words.txt") && message.contains("line 2"),
            "{message}"
        );
        let message = Lexicon::from_text("\n").unwrap_err().to_string();
        assert!(message.contains("no words"), "{message}");
    }
}
