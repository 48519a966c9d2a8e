//! GPT-2's byte-level byte-pair encoding (Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>;
//! Radford et al. 2019), by the `tokenizers` crate.

use super::{
    Tokenizer,
    settings::{self, Settings},
};
use aigc_core::{DataFault, Error, Result, checkpoint::write_atomic, fs::read_text};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    path::Path,
};
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, PreTokenizerWrapper,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeBuilder, BpeTrainer, Merges, Vocab},
    },
    pre_tokenizers::byte_level::ByteLevel,
};

/// Limit on the size of a vocabulary.
const MOST_TOKENS: usize = 1 << 24;

/// The token at the beginning and end of GPT-2's training texts.
const END_OF_TEXT: &str = "<|endoftext|>";

/// File names of vocabulary and merges, of transformers and of OpenAI.
const PAIRS: [[&str; 2]; 2] = [["vocab.json", "merges.txt"], ["encoder.json", "vocab.bpe"]];
const WHOLE: &str = "tokenizer.json";

/// Byte-level byte-pair encoding. Every text can be encoded, and is decoded to the same bytes.
pub struct BpeTokenizer {
    inner: tokenizers::Tokenizer,
    /// The bytes of every token.
    bytes: Vec<Vec<u8>>,
    special: HashSet<u32>,
    /// Token added before a prompt.
    bos: Option<u32>,
    /// Token added after a prompt.
    eos: Option<u32>,
    eos_token_id: Option<u32>,
}

impl BpeTokenizer {
    /// Opens the tokenizer in a directory: `tokenizer.json`, or `vocab.json` and `merges.txt`, or
    /// `encoder.json` and `vocab.bpe`, with added tokens and options from `added_tokens.json`,
    /// `special_tokens_map.json` and `tokenizer_config.json`.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no such file, or a file is broken or that of another kind of
    /// tokenizer.
    pub fn from_pretrained(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let settings = Settings::read(dir)?;
        let whole = dir.join(WHOLE);
        if whole.is_file() {
            let text = read_text(&whole)?;
            // The crate panics if a part of the file is not JSON, or a SentencePiece table is
            // broken.
            let mut json: Value =
                serde_json::from_str(&text).map_err(|error| decode(&whole, error))?;
            if json["normalizer"].to_string().contains("\"Precompiled\"") {
                return Err(mismatch(
                    &whole,
                    "has SentencePiece's table of characters, which byte-level tokenizers do not use",
                ));
            }
            check_merges(&json["model"], &whole)?;
            let text = match settings.add_prefix_space {
                Some(add) if set_prefix_space(&mut json["pre_tokenizer"], add) => json.to_string(),
                _ => text,
            };
            let inner = text
                .parse()
                .map_err(|error: tokenizers::Error| decode(&whole, error))?;
            return Self::new(inner, settings, &whole);
        }
        let is_there = |names: &[&str; 2]| names.iter().all(|name| dir.join(name).is_file());
        let Some([vocabulary, merges]) = PAIRS.into_iter().find(is_there) else {
            let reason = format!(
                "no {WHOLE}, {} and {}, or {} and {}",
                PAIRS[0][0], PAIRS[0][1], PAIRS[1][0], PAIRS[1][1]
            );
            return Err(Error::data(dir, DataFault::Empty(reason)));
        };
        Self::from_pair(&dir.join(vocabulary), &dir.join(merges), settings)
    }

    /// Opens a vocabulary file and its merges.
    ///
    /// # Errors
    /// [`Error::Data`] if one of them is broken.
    pub fn from_files(vocabulary: impl AsRef<Path>, merges: impl AsRef<Path>) -> Result<Self> {
        Self::from_pair(vocabulary.as_ref(), merges.as_ref(), Settings::default())
    }

    fn from_pair(vocabulary: &Path, merges: &Path, settings: Settings) -> Result<Self> {
        let [tokens, lines] = [read_text(vocabulary)?, read_text(merges)?];
        let tokens: Value =
            serde_json::from_str(&tokens).map_err(|error| decode(vocabulary, error))?;
        let lines: Vec<&str> = lines
            .lines()
            .filter(|line| !line.starts_with("#version"))
            .collect();
        check_merges(
            &serde_json::json!({ "vocab": tokens, "merges": lines }),
            merges,
        )?;
        let tokens: HashMap<String, u32> =
            serde_json::from_value(tokens).map_err(|error| decode(vocabulary, error))?;
        let pair = |(i, line): (usize, &&str)| match line.split(' ').collect::<Vec<_>>()[..] {
            [first, second] => Ok((first.to_string(), second.to_string())),
            _ => Err(decode(
                merges,
                format!("merge {} is {line:?}, expected two tokens", i + 1),
            )),
        };
        let pairs = lines.iter().enumerate().map(pair);
        let model = BpeBuilder::new()
            .vocab_and_merges(
                tokens.into_iter().collect::<Vocab>(),
                pairs.collect::<Result<Merges>>()?,
            )
            .build()
            .map_err(|error| {
                decode(
                    vocabulary,
                    format!("{error}; with the merges of {}", merges.display()),
                )
            })?;
        let prefix = settings.add_prefix_space.unwrap_or(false);
        Self::new(byte_level(model, prefix), settings, vocabulary)
    }

    /// Trains a vocabulary of `size` tokens on texts: all bytes, then the most frequent pairs.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `size` is too small for all bytes and the end-of-text token.
    pub fn train<S: AsRef<str> + Send>(
        texts: impl Iterator<Item = S> + Send,
        size: usize,
    ) -> Result<Self> {
        if !(257..=MOST_TOKENS).contains(&size) {
            let expected = format!("257 (all bytes, and the end of a text) to {MOST_TOKENS}");
            return Err(Error::argument("size", size, expected));
        }
        let end = AddedToken::from(END_OF_TEXT, true);
        let mut trainer: TrainerWrapper = BpeTrainer::builder()
            .vocab_size(size)
            .special_tokens(vec![end])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build()
            .into();
        let mut inner = byte_level(BPE::default(), false);
        inner
            .train(&mut trainer, texts)
            .map_err(|error| Error::argument("texts", error, "texts to train on"))?;
        Self::new(inner, Settings::default(), Path::new(WHOLE))
    }

    fn new(mut inner: tokenizers::Tokenizer, settings: Settings, path: &Path) -> Result<Self> {
        if !matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(mismatch(path, "not a byte-level tokenizer, as GPT-2's is"));
        }
        // As in transformers, truncation and padding are applied only if a call requests them.
        inner
            .with_padding(None)
            .with_truncation(None)
            .map_err(|error| decode(path, error))?;
        settings.add_tokens(&mut inner)?;
        if inner.token_to_id(END_OF_TEXT).is_some() {
            let added = inner.add_special_tokens([AddedToken::from(END_OF_TEXT, true)]);
            added.map_err(|error| decode(path, error))?;
        }
        let added = inner.get_added_tokens_decoder();
        let tokens = inner.get_vocab(true);
        let size = tokens.values().max().map_or(0, |last| *last as usize + 1);
        // There may be gaps, but a large id in a file must not cost gigabytes.
        if size > 2 * tokens.len() + (1 << 16) {
            let reason = format!("token {} of a vocabulary of {}", size - 1, tokens.len());
            return Err(mismatch(path, reason));
        }
        let alphabet = alphabet();
        let bytes = |token: u32| {
            let Some(text) = inner.id_to_token(token) else {
                return Some(Vec::new());
            };
            if added.contains_key(&token) {
                Some(text.into_bytes())
            } else {
                text.chars().map(|c| alphabet.get(&c).copied()).collect()
            }
        };
        let bytes: Option<Vec<Vec<u8>>> = (0..size as u32).map(bytes).collect();
        let Some(bytes) = bytes else {
            return Err(mismatch(path, "tokens with characters that encode no byte"));
        };
        let special = added
            .into_iter()
            .filter(|(_, added)| added.special)
            .map(|(token, _)| token)
            .collect();
        let id = |name: &Option<String>| inner.token_to_id(name.as_deref().unwrap_or(END_OF_TEXT));
        let around = |wanted: bool, field: &str, name: &Option<String>| match (wanted, id(name)) {
            (false, _) => Ok(None),
            (true, Some(token)) => Ok(Some(token)),
            (true, None) => {
                let reason = format!("{field} is true, but the tokenizer has no such token");
                Err(mismatch(&settings.path, reason))
            }
        };
        Ok(Self {
            bos: around(settings.add_bos_token, "add_bos_token", &settings.bos_token)?,
            eos: around(settings.add_eos_token, "add_eos_token", &settings.eos_token)?,
            eos_token_id: id(&settings.eos_token),
            inner,
            bytes,
            special,
        })
    }
}

fn mismatch(path: &Path, reason: impl Into<String>) -> Error {
    Error::data(path, DataFault::Mismatch(reason.into()))
}

/// Sets `add_prefix_space` of a byte-level pre-tokenizer; returns whether that changed it.
fn set_prefix_space(pre_tokenizer: &mut Value, add: bool) -> bool {
    if let Some(parts) = pre_tokenizer["pretokenizers"].as_array_mut() {
        let mut is_changed = false;
        for part in parts {
            is_changed |= set_prefix_space(part, add);
        }
        return is_changed;
    }
    let is_changed =
        pre_tokenizer["type"] == "ByteLevel" && pre_tokenizer["add_prefix_space"] != add;
    if is_changed {
        pre_tokenizer["add_prefix_space"] = add.into();
    }
    is_changed
}

/// Fails for a model on which the crate panics: merges without a token in the vocabulary, and
/// prefixes or suffixes of subwords, which byte-level vocabularies do not have.
fn check_merges(model: &Value, path: &Path) -> Result<()> {
    let wrong = |reason: String| Err(mismatch(path, reason));
    for field in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[field].as_str().is_some_and(|mark| !mark.is_empty()) {
            return wrong(format!(
                "{field} is {}, but byte-level tokens do not have it",
                model[field]
            ));
        }
    }
    let Some(tokens) = model["vocab"].as_object() else {
        return Ok(());
    };
    for merge in model["merges"].as_array().into_iter().flatten() {
        let merged = match merge {
            Value::String(pair) => pair.replace(' ', ""),
            pair => pair
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .collect(),
        };
        if !merged.is_empty() && !tokens.contains_key(&merged) {
            return wrong(format!(
                "the merge {merge} gives no token of the vocabulary"
            ));
        }
    }
    Ok(())
}

fn byte_level(model: BPE, add_prefix_space: bool) -> tokenizers::Tokenizer {
    let mut inner = tokenizers::Tokenizer::new(ModelWrapper::BPE(model));
    let level = ByteLevel::new(add_prefix_space, true, true);
    inner.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(level)));
    inner.with_decoder(Some(DecoderWrapper::ByteLevel(level)));
    inner
}

fn decode(path: &Path, reason: impl ToString) -> Error {
    Error::data(path, DataFault::Decode(reason.to_string()))
}

/// The byte that each character of a byte-level vocabulary encodes: itself if it is printable, the
/// other bytes from U+0100 on.
fn alphabet() -> HashMap<char, u8> {
    let printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let (plain, others): (Vec<u8>, Vec<u8>) = (0..=255).partition(printable);
    let moved = others
        .into_iter()
        .enumerate()
        .map(|(i, byte)| (char::from_u32(256 + i as u32).expect("a letter"), byte));
    plain
        .into_iter()
        .map(|byte| (char::from(byte), byte))
        .chain(moved)
        .collect()
}

fn refused(error: tokenizers::Error) -> Error {
    Error::argument("text", error, "text that the tokenizer can encode")
}

impl Tokenizer for BpeTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding.map_err(refused)?;
        Ok(encoding.get_ids().to_vec())
    }

    fn encode_prompt(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, true).map_err(refused)?;
        let mut tokens = encoding.get_ids().to_vec();
        if self.bos.is_some() && tokens.first() != self.bos.as_ref() {
            tokens.splice(..0, self.bos);
        }
        if self.eos.is_some() && tokens.last() != self.eos.as_ref() {
            tokens.extend(self.eos);
        }
        Ok(tokens)
    }

    fn eos_token_id(&self) -> Option<u32> {
        self.eos_token_id
    }

    fn token_bytes(&self, token: u32) -> Vec<u8> {
        self.bytes.get(token as usize).cloned().unwrap_or_default()
    }

    fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    fn is_special(&self, token: u32) -> bool {
        self.special.contains(&token)
    }

    fn save_pretrained(&self, dir: &Path) -> Result<()> {
        let path = dir.join(WHOLE);
        let text = self
            .inner
            .to_string(false)
            .map_err(|error| decode(&path, error))?;
        write_atomic(&path, text.as_bytes())?;
        // Settings for which tokenizer.json has no field.
        let id = |token: Option<u32>| token.and_then(|token| self.inner.id_to_token(token));
        if self.bos.is_some() || self.eos.is_some() {
            let fields = serde_json::json!({
                "tokenizer_class": "GPT2Tokenizer",
                "add_bos_token": self.bos.is_some(),
                "add_eos_token": self.eos.is_some(),
                "bos_token": id(self.bos),
                "eos_token": id(self.eos.or(self.eos_token_id)),
            });
            let text = serde_json::to_string_pretty(&fields).expect("plain values");
            write_atomic(&dir.join(settings::CONFIG), text.as_bytes())?;
        }
        Ok(())
    }
}
