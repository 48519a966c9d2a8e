//! Symbols of speech: the tokenizer of VITS, and lexicons.

mod config;
mod lexicon;
#[cfg(test)]
mod tests;
mod tokens;

pub use config::VitsTokenizerConfig;
pub use lexicon::Lexicon;
pub use tokens::{UnknownCharacters, VitsTokenBatch, VitsTokens};

use aigc_core::{Error, Result, check::ensure, json};
use std::{collections::BTreeSet, path::Path};

/// File of the symbols' ids.
const VOCAB: &str = "vocab.json";
/// File of the other settings.
const CONFIG: &str = "tokenizer_config.json";

/// Turns texts into symbols, as transformers' `VitsTokenizer` does: letter by letter, with a blank
/// between letters, or by a [lexicon](Self::with_lexicon).
///
/// ```
/// use aigc_vae::speech::{UnknownCharacters, VitsTokenizer};
///
/// # fn main() -> aigc_core::Result<()> {
/// let tokenizer = VitsTokenizer::from_texts(&["one", "two"])?;
/// assert_eq!(tokenizer.encode("Two")?.len(), 7);
/// let error = tokenizer.encode("six").unwrap_err().to_string();
/// assert!(error.contains("'s', 'i', 'x'"));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct VitsTokenizer {
    config: VitsTokenizerConfig,
    unknown: UnknownCharacters,
    lexicon: Option<Lexicon>,
}

impl VitsTokenizer {
    /// A tokenizer of a configuration.
    ///
    /// # Errors
    /// [`Error::Config`] if there are no symbols, two have the same id, an id is beyond 2²⁰, or the
    /// symbol of padding is missing.
    pub fn new(config: VitsTokenizerConfig) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            config,
            unknown: UnknownCharacters::default(),
            lexicon: None,
        })
    }

    /// A tokenizer of the letters of texts in lower case, and of spaces, for a voice of one's own.
    ///
    /// # Errors
    /// [`Error::Config`] if the texts have no letters.
    pub fn from_texts(texts: &[impl AsRef<str>]) -> Result<Self> {
        let letters: BTreeSet<char> = texts
            .iter()
            .flat_map(|text| text.as_ref().chars())
            .flat_map(char::to_lowercase)
            .filter(|c| !c.is_whitespace())
            .collect();
        ensure(!letters.is_empty(), "vocab", "empty", "texts with letters")?;
        let config = VitsTokenizerConfig::default();
        let first = [config.pad_token.clone(), " ".into()];
        let symbols = first
            .into_iter()
            .chain(letters.into_iter().map(String::from));
        let vocab = symbols.zip(0u32..).collect();
        Self::new(VitsTokenizerConfig { vocab, ..config })
    }

    /// Opens `vocab.json` and `tokenizer_config.json` of a voice's directory. Without the second
    /// file, transformers' defaults hold, by which texts are phonemes of a lexicon.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Data`] naming the file.
    pub fn from_pretrained(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let mut config = match dir.join(CONFIG) {
            path if path.exists() => json::read_file(&path, VitsTokenizerConfig::from_json)?,
            _ => VitsTokenizerConfig {
                phonemize: true,
                ..VitsTokenizerConfig::default()
            },
        };
        let read = |text: &str| {
            config.set_vocab(text)?;
            Self::new(config)
        };
        json::read_file(&dir.join(VOCAB), read)
    }

    /// Writes `vocab.json` and `tokenizer_config.json`, which transformers opens.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let (vocab, config) = self.config.to_json();
        aigc_core::fs::write_atomic(&dir.join(VOCAB), vocab.as_bytes())?;
        aigc_core::fs::write_atomic(&dir.join(CONFIG), config.as_bytes())
    }

    /// Sets what to do about characters that the voice does not know.
    pub fn with_unknown(self, unknown: UnknownCharacters) -> Self {
        Self { unknown, ..self }
    }

    /// Spells the words of a lexicon by its symbols; other words stay letters.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the first word with a symbol that the voice does not know.
    pub fn with_lexicon(self, lexicon: Lexicon) -> Result<Self> {
        for (word, symbols) in lexicon.words() {
            let unknown = symbols
                .iter()
                .find(|symbol| self.config.id(symbol).is_none());
            if let Some(symbol) = unknown {
                let value = format!("`{symbol}` in the word `{word}`");
                return Err(Error::argument("lexicon", value, "symbols of the voice"));
            }
        }
        Ok(Self {
            lexicon: Some(lexicon),
            ..self
        })
    }

    /// The settings.
    pub fn config(&self) -> &VitsTokenizerConfig {
        &self.config
    }

    /// Number of symbols: one more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.config
            .vocab
            .values()
            .max()
            .map_or(0, |id| *id as usize + 1)
    }

    /// The symbols of a text.
    ///
    /// # Errors
    /// As [`encode_with_report`](Self::encode_with_report).
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.encode_with_report(text)?.ids)
    }

    /// The symbols of a text, and the characters that the voice does not know.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming all characters that the voice does not know, if that is
    /// not [allowed](UnknownCharacters::Replace); [`Error::Unsupported`] if the voice needs the
    /// phonemes of a word that no lexicon has, or letters of the Latin alphabet.
    pub fn encode_with_report(&self, text: &str) -> Result<VitsTokens> {
        let mut symbols = Symbols {
            tokenizer: self,
            ids: vec![],
            unknown: vec![],
        };
        let text = self.config.normalized(text);
        match &self.lexicon {
            Some(lexicon) => symbols.words(&text, lexicon)?,
            None if self.config.phonemize => return Err(no_phonemes("")),
            None => {
                self.check_alphabet(&text)?;
                symbols.letters(&text);
                if self.config.normalize {
                    symbols.trim();
                }
            }
        }
        let Symbols { ids, unknown, .. } = symbols;
        if self.unknown == UnknownCharacters::Fail && !unknown.is_empty() {
            let names: Vec<String> = unknown.iter().map(|c| format!("{c:?}")).collect();
            let expected = "characters that the voice knows, or `UnknownCharacters::Replace`";
            return Err(Error::argument("text", names.join(", "), expected));
        }
        let ids = match self.config.add_blank {
            true => {
                let pairs = ids.into_iter().flat_map(|id| [id, 0]);
                std::iter::once(0).chain(pairs).collect()
            }
            false => ids,
        };
        Ok(VitsTokens { ids, unknown })
    }

    /// Whether the ids of a text have a symbol to speak: an empty text is a single blank if there
    /// are blanks, and has no ids otherwise.
    pub fn has_symbols(&self, ids: &[u32]) -> bool {
        ids.len() > usize::from(self.config.add_blank)
    }

    /// The symbols of several texts, padded at their ends.
    ///
    /// # Errors
    /// As [`encode`](Self::encode); [`Error::InvalidArgument`] naming a text without ids. With
    /// blanks, an empty text is one blank, as in transformers.
    pub fn encode_batch(&self, texts: &[impl AsRef<str>]) -> Result<VitsTokenBatch> {
        let mut batch = VitsTokenBatch {
            ids: vec![],
            lengths: vec![],
            unknown: vec![],
        };
        for (index, text) in texts.iter().enumerate() {
            let VitsTokens { ids, unknown } = self.encode_with_report(text.as_ref())?;
            if ids.is_empty() {
                let value = format!("without symbols: text {index}");
                return Err(Error::argument("texts", value, "at least one symbol each"));
            }
            batch.lengths.push(ids.len());
            batch.ids.push(ids);
            for c in unknown {
                if !batch.unknown.contains(&c) {
                    batch.unknown.push(c);
                }
            }
        }
        let (longest, pad) = (batch.lengths.iter().max(), self.config.pad_id());
        if let Some(longest) = longest {
            batch
                .ids
                .iter_mut()
                .for_each(|ids| ids.resize(*longest, pad));
        }
        Ok(batch)
    }

    /// Fails for a text of another alphabet than that of the voice's training.
    fn check_alphabet(&self, text: &str) -> Result<()> {
        let foreign = text.chars().find(|c| !c.is_ascii());
        match foreign.filter(|_| self.config.is_uroman) {
            Some(foreign) if self.unknown == UnknownCharacters::Fail => Err(Error::unsupported(
                format!("the character {foreign:?}"),
                "a voice of romanised text",
                "romanise the text before, as by uroman",
            )),
            _ => Ok(()),
        }
    }
}

/// A text as it is turned into symbols.
struct Symbols<'a> {
    tokenizer: &'a VitsTokenizer,
    ids: Vec<u32>,
    unknown: Vec<char>,
}

impl Symbols<'_> {
    fn letters(&mut self, text: &str) {
        let config = &self.tokenizer.config;
        let mut buffer = [0; 4];
        for c in text.chars() {
            if let Some(id) = config.id(c.encode_utf8(&mut buffer)) {
                self.ids.push(id);
                continue;
            }
            if !self.unknown.contains(&c) {
                self.unknown.push(c);
            }
            if !config.normalize {
                self.ids.extend(config.id(&config.unk_token));
            }
        }
    }

    /// Removes spaces at both ends.
    fn trim(&mut self) {
        let Some(space) = self.tokenizer.config.id(" ") else {
            return;
        };
        let end = self.ids.iter().rposition(|id| *id != space);
        self.ids.truncate(end.map_or(0, |end| end + 1));
        let start = self.ids.iter().take_while(|id| **id == space).count();
        self.ids.drain(..start);
    }

    fn words(&mut self, text: &str, lexicon: &Lexicon) -> Result<()> {
        let config = &self.tokenizer.config;
        for (index, word) in text.split_whitespace().enumerate() {
            if index > 0 {
                self.ids.extend(config.id(" "));
            }
            let is_letter = |c: char| c.is_alphanumeric();
            let start = word.find(is_letter).unwrap_or(word.len());
            let end = word.rfind(is_letter).map_or(start, |end| {
                end + word[end..].chars().next().map_or(0, char::len_utf8)
            });
            let (before, rest) = word.split_at(start);
            let (core, after) = rest.split_at(end - start);
            self.letters(before);
            match lexicon.get(core) {
                Some(symbols) => {
                    let ids = symbols.iter().filter_map(|symbol| config.id(symbol));
                    self.ids.extend(ids);
                }
                None if config.phonemize && !core.is_empty() => return Err(no_phonemes(core)),
                None => {
                    self.tokenizer.check_alphabet(core)?;
                    self.letters(core);
                }
            }
            self.letters(after);
        }
        Ok(())
    }
}

fn no_phonemes(word: &str) -> Error {
    let feature = match word {
        "" => "a text without the phonemes of its words".into(),
        word => format!("the word `{word}`, which the lexicon does not have,"),
    };
    let hint = "give a lexicon with `with_lexicon`: a line `word p1 p2 …` for every word";
    Error::unsupported(feature, "a voice of phonemes", hint)
}
