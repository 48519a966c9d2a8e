//! Options and added tokens of a tokenizer, in files besides its vocabulary.

use aigc_core::{DataFault, Error, Result, fs::read_text};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};
use tokenizers::AddedToken;

pub(super) const CONFIG: &str = "tokenizer_config.json";
const SPECIAL: &str = "special_tokens_map.json";
/// Added tokens of older versions of transformers.
const ADDED: &str = "added_tokens.json";

/// Fields that name special tokens, in transformers' order.
const ATTRIBUTES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// The settings in `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`.
#[derive(Default)]
pub(super) struct Settings {
    /// Path of `tokenizer_config.json`.
    pub path: PathBuf,
    pub add_prefix_space: Option<bool>,
    pub add_bos_token: bool,
    pub add_eos_token: bool,
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    /// Added tokens by id.
    added: BTreeMap<u32, AddedToken>,
    /// Special tokens; those without an id are added after all others.
    special: Vec<AddedToken>,
}

impl Settings {
    /// Reads those of the files that are in `dir`.
    ///
    /// # Errors
    /// [`Error::Data`] naming a broken file.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let [config, special, added] = [CONFIG, SPECIAL, ADDED].map(|name| dir.join(name));
        let mut settings = Self {
            path: config.clone(),
            ..Self::default()
        };
        let (config, special) = (object(&config)?, object(&special)?);
        let on = |name: &str| config.get(name).and_then(Value::as_bool);
        settings.add_prefix_space = on("add_prefix_space");
        settings.add_bos_token = on("add_bos_token").unwrap_or(false);
        settings.add_eos_token = on("add_eos_token").unwrap_or(false);
        for field in ATTRIBUTES {
            let token = [&config, &special]
                .into_iter()
                .find_map(|fields| fields.get(field).and_then(|value| token(value, true)));
            let name = token.as_ref().map(|token| token.content.clone());
            match field {
                "bos_token" => settings.bos_token = name,
                "eos_token" => settings.eos_token = name,
                _ => {}
            }
            settings.special.extend(token);
        }
        for fields in [&config, &special] {
            for field in ["additional_special_tokens", "extra_special_tokens"] {
                let tokens = fields.get(field).and_then(Value::as_array);
                let tokens = tokens.into_iter().flatten();
                settings
                    .special
                    .extend(tokens.filter_map(|value| token(value, true)));
            }
        }
        for (content, id) in object(&added)? {
            let wrong = || {
                data(
                    &added,
                    format!("the added token {content:?} has the id {id}"),
                )
            };
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let is_special = settings
                .special
                .iter()
                .any(|token| token.content == content);
            settings
                .added
                .insert(id.ok_or_else(wrong)?, AddedToken::from(content, is_special));
        }
        let decoder = config
            .get("added_tokens_decoder")
            .and_then(Value::as_object);
        for (id, value) in decoder.into_iter().flatten() {
            let wrong = || {
                let reason = format!("added_tokens_decoder has the entry {id:?}: {value}");
                data(&settings.path, reason)
            };
            let token = token(value, false).ok_or_else(wrong)?;
            settings
                .added
                .insert(id.parse().map_err(|_| wrong())?, token);
        }
        Ok(settings)
    }

    /// Adds tokens that the tokenizer does not have, and marks special ones.
    ///
    /// # Errors
    /// [`Error::Data`] if a token would get another id than the file specifies.
    pub(super) fn add_tokens(&self, inner: &mut tokenizers::Tokenizer) -> Result<()> {
        for (id, token) in &self.added {
            let content = token.content.clone();
            add(inner, token).map_err(|error| data(&self.path, error.to_string()))?;
            let found = inner.token_to_id(&content);
            if found != Some(*id) {
                let found = found.map_or("none".into(), |found| found.to_string());
                let reason = format!(
                    "the added token {content:?} has the id {id}, but behind this vocabulary it \
                     would be {found}"
                );
                return Err(data(&self.path, reason));
            }
        }
        for token in &self.special {
            let is_known = inner
                .get_added_tokens_decoder()
                .values()
                .any(|known| known.content == token.content && known.special);
            if !is_known {
                add(inner, token).map_err(|error| data(&self.path, error.to_string()))?;
            }
        }
        Ok(())
    }
}

fn add(inner: &mut tokenizers::Tokenizer, token: &AddedToken) -> tokenizers::Result<usize> {
    match token.special {
        true => inner.add_special_tokens([token.clone()]),
        false => inner.add_tokens([token.clone()]),
    }
}

fn data(path: &Path, reason: String) -> Error {
    Error::data(path, DataFault::Mismatch(reason))
}

/// The fields of a JSON file; empty if there is no such file.
fn object(path: &Path) -> Result<Map<String, Value>> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    match serde_json::from_str(&read_text(path)?) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(data(path, "not a JSON object".into())),
        Err(error) => Err(Error::data(path, DataFault::Decode(error.to_string()))),
    }
}

/// Reads a token: its text, or an object with its options.
fn token(value: &Value, is_special: bool) -> Option<AddedToken> {
    let content = value.as_str().or_else(|| value["content"].as_str())?;
    let on = |name: &str| value[name].as_bool();
    let special = on("special").unwrap_or(is_special);
    let token = AddedToken::from(content, special)
        .single_word(on("single_word").unwrap_or(false))
        .lstrip(on("lstrip").unwrap_or(false))
        .rstrip(on("rstrip").unwrap_or(false));
    Some(match on("normalized") {
        Some(normalized) => token.normalized(normalized),
        None => token,
    })
}
