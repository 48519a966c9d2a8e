//! The tokenizer's files, in transformers' layouts.

use super::{ClipTokenizer, END_OF_WORD, special::SpecialTokens};
use crate::tokenizer::files::{CONFIG, WHOLE, broken, mismatch};
use aigc_core::{DataFault, Error, Result, checkpoint::write_atomic, fs::read_text, json};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};
use tokenizers::{AddedToken, models::bpe::Merges};

pub(super) const VOCABULARY: &str = "vocab.json";
pub(super) const MERGES: &str = "merges.txt";

impl ClipTokenizer {
    /// Opens the tokenizer in a directory: `tokenizer.json`, or `vocab.json` and `merges.txt`, with
    /// special and added tokens from `tokenizer_config.json`, `special_tokens_map.json` and
    /// `added_tokens.json`. Of `tokenizer.json`, the vocabulary, the merges and the added tokens
    /// are used, as in transformers.
    ///
    /// # Errors
    /// [`Error::Data`] if there is no such file, or a file is broken or that of another kind of
    /// tokenizer; [`Error::Io`] if a file cannot be read.
    pub fn from_pretrained(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let whole = dir.join(WHOLE);
        if whole.is_file() {
            let json = json::read_file(&whole, json::parse_object)?;
            let model = json.get("model").cloned().unwrap_or_default();
            check_kind(&model, &whole)?;
            let special = SpecialTokens::read(dir, Some(&json.into()))?;
            let vocab = vocabulary(model["vocab"].clone(), &whole)?;
            let merges = model["merges"].as_array().into_iter().flatten();
            let merges = merges.map(|merge| match merge {
                Value::String(line) => pair(line, &whole),
                other => serde_json::from_value(other.clone())
                    .map_err(|error| broken(&whole, format!("the merge {other}: {error}"))),
            });
            return Self::new(vocab, merges.collect::<Result<Merges>>()?, special, &whole);
        }
        let [vocab, merges] = [VOCABULARY, MERGES].map(|name| dir.join(name));
        if !vocab.is_file() || !merges.is_file() {
            let reason = format!("no {WHOLE}, and no {VOCABULARY} with {MERGES}");
            return Err(Error::data(dir, DataFault::Empty(reason)));
        }
        let special = SpecialTokens::read(dir, None)?;
        let tokens = json::read_file(&vocab, json::parse_object)?;
        let tokens = vocabulary(tokens.into(), &vocab)?;
        let lines = read_text(&merges)?;
        let lines = lines.lines().filter(|line| !line.starts_with("#version"));
        let pairs: Result<Merges> = lines.map(|line| pair(line, &merges)).collect();
        Self::new(tokens, pairs?, special, &merges)
    }

    /// Writes the tokenizer's files to a directory, which is created if it is missing:
    /// `vocab.json`, `merges.txt` and `tokenizer_config.json`, as transformers reads them.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    pub fn save_pretrained(&self, dir: impl AsRef<Path>) -> Result<()> {
        let dir = dir.as_ref();
        std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
        let model = serde_json::to_value(self.inner.get_model()).expect("plain values");
        let write = |name: &str, text: &str| write_atomic(&dir.join(name), text.as_bytes());
        write(VOCABULARY, &model["vocab"].to_string())?;
        let mut merges = String::from("#version: 0.2\n");
        for merge in model["merges"].as_array().into_iter().flatten() {
            let part = |at: usize| merge[at].as_str().unwrap_or_default();
            merges.push_str(&format!("{} {}\n", part(0), part(1)));
        }
        write(MERGES, &merges)?;
        let config = serde_json::to_string_pretty(&self.config()).expect("plain values");
        write(CONFIG, &config)
    }

    /// The fields of `tokenizer_config.json`.
    fn config(&self) -> Value {
        let added: BTreeMap<u32, AddedToken> =
            self.inner.get_added_tokens_decoder().into_iter().collect();
        let added: Map<String, Value> = added
            .into_iter()
            .map(|(id, token)| {
                let token = serde_json::to_value(token).expect("plain values");
                (id.to_string(), token)
            })
            .collect();
        serde_json::json!({
            "add_prefix_space": false,
            "added_tokens_decoder": added,
            "bos_token": self.bos.text,
            "do_lower_case": true,
            "eos_token": self.eos.text,
            "errors": "replace",
            "model_max_length": self.max_length,
            "pad_token": self.pad.text,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": self.unk,
        })
    }
}

/// Fails unless the model of a `tokenizer.json` is CLIP's.
fn check_kind(model: &Value, path: &Path) -> Result<()> {
    let is_bpe = model["type"].is_null() || model["type"] == "BPE";
    if is_bpe && model["end_of_word_suffix"] == END_OF_WORD {
        return Ok(());
    }
    let reason = format!(
        "not CLIP's tokenizer: the model has the type {} and the end of words {}, expected byte \
         pairs with {END_OF_WORD}",
        model["type"], model["end_of_word_suffix"]
    );
    Err(mismatch(path, reason))
}

fn vocabulary(tokens: Value, path: &Path) -> Result<HashMap<String, u32>> {
    serde_json::from_value(tokens).map_err(|error| broken(path, format!("the vocabulary: {error}")))
}

fn pair(line: &str, path: &Path) -> Result<(String, String)> {
    match line.split(' ').collect::<Vec<_>>()[..] {
        [first, second] => Ok((first.into(), second.into())),
        _ => Err(broken(
            path,
            format!("the merge {line:?}, expected two tokens"),
        )),
    }
}
