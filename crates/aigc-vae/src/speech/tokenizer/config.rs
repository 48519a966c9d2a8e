//! Settings of a tokenizer.

use aigc_core::{Error, Result, check::ensure, json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Limit on ids, which are rows of a table.
const MAX_ID: u32 = 1 << 20;

/// Settings of a [`VitsTokenizer`](super::VitsTokenizer). The fields are those of transformers'
/// `tokenizer_config.json`, and the vocabulary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VitsTokenizerConfig {
    /// Ids of the symbols.
    pub vocab: BTreeMap<String, u32>,
    /// Whether the symbol with id 0 stands before, between and after symbols.
    pub add_blank: bool,
    /// Whether texts are turned to lower case, but for symbols in upper case, and characters
    /// without a symbol are left out.
    pub normalize: bool,
    /// Whether the symbols are phonemes, so that words need a lexicon.
    pub phonemize: bool,
    /// Whether texts have to be in the Latin alphabet, as by the program uroman.
    pub is_uroman: bool,
    /// Language of the voice, as a code of three letters.
    pub language: Option<String>,
    /// The symbol of padding.
    pub pad_token: String,
    /// The symbol of unknown characters.
    pub unk_token: String,
}

impl Default for VitsTokenizerConfig {
    fn default() -> Self {
        Self {
            vocab: BTreeMap::new(),
            add_blank: true,
            normalize: true,
            phonemize: false,
            is_uroman: false,
            language: None,
            pad_token: "<pad>".into(),
            unk_token: "<unk>".into(),
        }
    }
}

impl VitsTokenizerConfig {
    /// The settings in a `tokenizer_config.json`, without the vocabulary. Fields that it does not
    /// have are those of transformers, by which texts are phonemes.
    pub(super) fn from_json(text: &str) -> Result<Self> {
        let mut given = json::parse_object(text)?;
        given.remove("vocab");
        for token in ["pad_token", "unk_token"] {
            // Older files have the token with its settings.
            let content = match given.get(token) {
                Some(Value::Object(fields)) => fields.get("content").cloned(),
                _ => None,
            };
            if let Some(content) = content {
                given.insert(token.into(), content);
            }
            if given.get(token).is_some_and(Value::is_null) {
                given.remove(token);
            }
        }
        given.entry("phonemize").or_insert(true.into());
        Ok(json::from_map_with_defaults::<Self>(&given)?.into_inner())
    }

    /// Sets the vocabulary in a `vocab.json`.
    pub(super) fn set_vocab(&mut self, text: &str) -> Result<()> {
        self.vocab.clear();
        for (symbol, id) in json::parse_object(text)? {
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let Some(number) = number else {
                let expected = format!("0 to {MAX_ID}");
                return Err(Error::config(symbol, id, expected));
            };
            self.vocab.insert(symbol, number);
        }
        Ok(())
    }

    /// The texts of `vocab.json` and `tokenizer_config.json`.
    pub(super) fn to_json(&self) -> (String, String) {
        let mut fields: Map<String, Value> = json::to_map(self);
        let vocab = fields.remove("vocab").unwrap_or_default();
        fields.insert("tokenizer_class".into(), "VitsTokenizer".into());
        let text = |value: &Value| serde_json::to_string_pretty(value).expect("plain values");
        (text(&vocab), text(&fields.into()))
    }

    /// Fails unless there are symbols with different ids, and one for padding.
    ///
    /// # Errors
    /// [`Error::Config`] naming the symbol.
    pub fn validate(&self) -> Result<()> {
        let mut symbols = BTreeMap::new();
        for (symbol, id) in &self.vocab {
            ensure(*id <= MAX_ID, symbol, id, &format!("0 to {MAX_ID}"))?;
            if let Some(other) = symbols.insert(*id, symbol) {
                let value = format!("{id} for `{symbol}` and `{other}`");
                return Err(Error::config("vocab", value, "an id for every symbol"));
            }
        }
        let pad = &self.pad_token;
        ensure(
            self.vocab.contains_key(pad),
            "pad_token",
            pad,
            "a symbol of the vocabulary",
        )
    }

    /// Id of a symbol.
    pub(super) fn id(&self, symbol: &str) -> Option<u32> {
        self.vocab.get(symbol).copied()
    }

    pub(super) fn pad_id(&self) -> u32 {
        self.id(&self.pad_token).unwrap_or(0)
    }

    /// A text in lower case, but for symbols in upper case, if texts are normalised.
    pub(super) fn normalized(&self, text: &str) -> String {
        let mut normal = String::with_capacity(text.len());
        let mut buffer = [0; 4];
        for c in text.chars() {
            if !self.normalize || self.id(c.encode_utf8(&mut buffer)).is_some() {
                normal.push(c);
            } else {
                normal.extend(c.to_lowercase());
            }
        }
        match self.language.as_deref() {
            // Older Romanian texts have a cedilla in place of a comma, and voices were trained on
            // them. Replaced after the change of case, so that the upper case letter is too.
            Some("ron") => normal.replace('ț', "ţ"),
            _ => normal,
        }
    }
}
