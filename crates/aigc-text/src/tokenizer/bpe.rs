//! GPT-2's byte-level byte-pair encoding (Sennrich et al. 2016, <https://arxiv.org/abs/1508.07909>;
//! Radford et al. 2019), by the `tokenizers` crate.

use super::Tokenizer;
use aigc_core::{DataFault, Error, Result, checkpoint::write_atomic};
use serde_json::Value;
use std::{
    collections::{HashMap, HashSet},
    path::Path,
};
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, PreTokenizerWrapper,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
    },
    pre_tokenizers::byte_level::ByteLevel,
};

/// As many tokens as models may have.
const MOST_TOKENS: usize = 1 << 24;

/// The token that GPT-2 begins and ends texts with.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Names of the vocabulary and of the merges, in transformers' and in OpenAI's files.
const PAIRS: [[&str; 2]; 2] = [["vocab.json", "merges.txt"], ["encoder.json", "vocab.bpe"]];
const WHOLE: &str = "tokenizer.json";

/// Byte-level byte-pair encoding: any text has tokens, and they give it back byte for byte.
pub struct BpeTokenizer {
    inner: tokenizers::Tokenizer,
    /// What every token stands for.
    bytes: Vec<Vec<u8>>,
    special: HashSet<u32>,
}

impl BpeTokenizer {
    /// Opens what a folder holds: `tokenizer.json`, `vocab.json` and `merges.txt`, or
    /// `encoder.json` and `vocab.bpe`.
    ///
    /// # Errors
    /// [`Error::Data`] if there is none of them, or one is broken or of another kind.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let whole = folder.join(WHOLE);
        if whole.is_file() {
            let text = super::read_text(&whole)?;
            // Where a part of it is no JSON, or a table of SentencePiece is broken, the crate
            // panics.
            let json: Value = serde_json::from_str(&text).map_err(|error| decode(&whole, error))?;
            if json["normalizer"].to_string().contains("\"Precompiled\"") {
                let reason =
                    "it has SentencePiece's table of characters, which byte-level tokens do not need".to_string();
                return Err(Error::Data {
                    path: whole,
                    fault: DataFault::Mismatch(reason),
                });
            }
            check_merges(&json["model"], &whole)?;
            let inner = text
                .parse()
                .map_err(|error: tokenizers::Error| decode(&whole, error))?;
            return Self::new(inner, &whole);
        }
        let there = |names: &[&str; 2]| names.iter().all(|name| folder.join(name).is_file());
        let Some([vocabulary, merges]) = PAIRS.into_iter().find(there) else {
            let reason = format!(
                "no {WHOLE}, {} and {}, or {} and {}",
                PAIRS[0][0], PAIRS[0][1], PAIRS[1][0], PAIRS[1][1]
            );
            return Err(Error::Data {
                path: folder.into(),
                fault: DataFault::Empty(reason),
            });
        };
        Self::from_files(folder.join(vocabulary), folder.join(merges))
    }

    /// Opens a vocabulary and its merges.
    ///
    /// # Errors
    /// [`Error::Data`] if one of them is broken.
    pub fn from_files(vocabulary: impl AsRef<Path>, merges: impl AsRef<Path>) -> Result<Self> {
        let (vocabulary, merges) = (vocabulary.as_ref(), merges.as_ref());
        // The crate's errors do not name the file.
        let [tokens, pairs] = [super::read_text(vocabulary)?, super::read_text(merges)?];
        let tokens: Value =
            serde_json::from_str(&tokens).map_err(|error| decode(vocabulary, error))?;
        let pairs: Vec<&str> = pairs
            .lines()
            .filter(|line| !line.starts_with("#version"))
            .collect();
        check_merges(
            &serde_json::json!({ "vocab": tokens, "merges": pairs }),
            merges,
        )?;
        let name = |path: &Path| path.to_string_lossy().into_owned();
        let model = BPE::from_file(&name(vocabulary), &name(merges))
            .build()
            .map_err(|error| {
                decode(
                    vocabulary,
                    format!("{error}; with the merges of {}", merges.display()),
                )
            })?;
        Self::new(byte_level(model), vocabulary)
    }

    /// Learns `size` tokens from texts: bytes first, then the pairs that come most often.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no room for all bytes and the end of a text.
    pub fn train<S: AsRef<str> + Send>(
        texts: impl Iterator<Item = S> + Send,
        size: usize,
    ) -> Result<Self> {
        if !(257..=MOST_TOKENS).contains(&size) {
            let expected = format!(
                "257 to {MOST_TOKENS}: all bytes and the end of a text, and as many as there could be"
            );
            return Err(Error::config("size", size, expected));
        }
        let end = AddedToken::from(END_OF_TEXT, true);
        let mut trainer: TrainerWrapper = BpeTrainer::builder()
            .vocab_size(size)
            .special_tokens(vec![end])
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .show_progress(false)
            .build()
            .into();
        let mut inner = byte_level(BPE::default());
        inner
            .train(&mut trainer, texts)
            .map_err(|error| Error::config("texts", error, "texts to learn from"))?;
        Self::new(inner, Path::new(WHOLE))
    }

    fn new(mut inner: tokenizers::Tokenizer, path: &Path) -> Result<Self> {
        if !matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            let reason = "not a byte-level tokenizer, as GPT-2's is".to_string();
            return Err(Error::Data {
                path: path.into(),
                fault: DataFault::Mismatch(reason),
            });
        }
        // As transformers, which cuts and fills only where a call asks for it.
        inner
            .with_padding(None)
            .with_truncation(None)
            .map_err(|error| decode(path, error))?;
        if inner.token_to_id(END_OF_TEXT).is_some() {
            let added = inner.add_special_tokens([AddedToken::from(END_OF_TEXT, true)]);
            added.map_err(|error| decode(path, error))?;
        }
        let added = inner.get_added_tokens_decoder();
        let tokens = inner.get_vocab(true);
        let size = tokens.values().max().map_or(0, |last| *last as usize + 1);
        // There may be gaps, but no file is to cost gigabytes by a number in it.
        if size > 2 * tokens.len() + (1 << 16) {
            let reason = format!("token {} of a vocabulary of {}", size - 1, tokens.len());
            return Err(Error::Data {
                path: path.into(),
                fault: DataFault::Mismatch(reason),
            });
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
            let reason = "tokens with characters that stand for no byte".to_string();
            return Err(Error::Data {
                path: path.into(),
                fault: DataFault::Mismatch(reason),
            });
        };
        let special = added
            .into_iter()
            .filter(|(_, added)| added.special)
            .map(|(token, _)| token)
            .collect();
        Ok(Self {
            inner,
            bytes,
            special,
        })
    }

    /// The token that begins and ends texts, `<|endoftext|>`, where there is one.
    pub fn eos_token_id(&self) -> Option<u32> {
        self.inner.token_to_id(END_OF_TEXT)
    }
}

/// Refuses a model of which the crate's own reader panics: merges that make no token, and marks of
/// words' insides and ends, which GPT-2's bytes do not have.
fn check_merges(model: &Value, path: &Path) -> Result<()> {
    let wrong = |reason: String| {
        Err(Error::Data {
            path: path.into(),
            fault: DataFault::Mismatch(reason),
        })
    };
    for field in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[field].as_str().is_some_and(|mark| !mark.is_empty()) {
            return wrong(format!(
                "{field} is {}, but byte-level tokens have none",
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
                "the merge {merge} makes no token of the vocabulary"
            ));
        }
    }
    Ok(())
}

fn byte_level(model: BPE) -> tokenizers::Tokenizer {
    let mut inner = tokenizers::Tokenizer::new(ModelWrapper::BPE(model));
    let level = ByteLevel::new(false, true, true);
    inner.with_pre_tokenizer(Some(PreTokenizerWrapper::ByteLevel(level)));
    inner.with_decoder(Some(DecoderWrapper::ByteLevel(level)));
    inner
}

fn decode(path: &Path, reason: impl ToString) -> Error {
    Error::Data {
        path: path.into(),
        fault: DataFault::Decode(reason.to_string()),
    }
}

/// The byte that each character of a byte-level vocabulary stands for: printable ones themselves,
/// the others those from U+0100 on.
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

impl Tokenizer for BpeTokenizer {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.inner.encode_fast(text, false);
        let encoding = encoding
            .map_err(|error| Error::config("text", error, "text that the tokenizer reads"))?;
        Ok(encoding.get_ids().to_vec())
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

    fn save(&self, folder: &Path) -> Result<()> {
        let text = self
            .inner
            .to_string(false)
            .map_err(|error| decode(&folder.join(WHOLE), error))?;
        write_atomic(&folder.join(WHOLE), text.as_bytes())
    }
}
