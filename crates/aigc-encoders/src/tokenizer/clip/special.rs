//! Special and added tokens of CLIP's tokenizer, by transformers' rules.
//!
//! Several files may define them. `added_tokens_decoder` of `tokenizer_config.json` excludes all
//! others; without it, `special_tokens_map.json` replaces fields of `tokenizer_config.json`, and
//! `added_tokens.json` and `tokenizer.json` add tokens. A token that was already added gets the
//! properties of the one that is added last.

use crate::tokenizer::files::{
    self, CONFIG, SPECIAL, WHOLE, added_tokens, content, decoder, object, token,
};
use aigc_core::Result;
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::Path};
use tokenizers::AddedToken;

pub(super) const START_OF_TEXT: &str = "<|startoftext|>";
pub(super) const END_OF_TEXT: &str = "<|endoftext|>";

/// Fields that name special tokens, in transformers' order.
const NAMED: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

/// Special and added tokens.
#[derive(Debug)]
pub(super) struct SpecialTokens {
    /// Tokens to add, in this order; where a file has it, with the id that the token must get.
    pub(super) tokens: Vec<(Option<u32>, AddedToken)>,
    pub(super) bos: String,
    pub(super) eos: String,
    pub(super) unk: String,
    pub(super) pad: String,
    /// Number of tokens that prompts are padded or cut to.
    pub(super) max_length: Option<usize>,
}

impl SpecialTokens {
    /// The tokens that the files of a directory define. `whole` is the content of
    /// `tokenizer.json`, if there is one.
    ///
    /// # Errors
    /// `Error::Data` naming a broken file.
    pub(super) fn read(dir: &Path, whole: Option<&Value>) -> Result<Self> {
        let path = dir.join(CONFIG);
        let mut fields = object(&path)?;
        if let Some(added) = decoder(&path, &fields)? {
            return Ok(Self::new(&fields, added));
        }
        fields.extend(object(&dir.join(SPECIAL))?);
        let added = read_added(dir, &fields, whole)?;
        Ok(Self::new(&fields, added))
    }

    fn new(fields: &Map<String, Value>, added: BTreeMap<u32, AddedToken>) -> Self {
        let known = |content: &str| added.values().any(|token| token.content == content);
        let mut others: Vec<AddedToken> = vec![];
        let mut add = |value: &Value| {
            let mut token = token(value, true)?;
            token.special = true;
            if !known(&token.content) && !others.contains(&token) {
                others.push(token);
            }
            Some(())
        };
        let mut names = BTreeMap::new();
        for field in NAMED {
            let default: Value = match field {
                "bos_token" => START_OF_TEXT.into(),
                "eos_token" | "unk_token" | "pad_token" => END_OF_TEXT.into(),
                _ => Value::Null,
            };
            let value = fields.get(field).unwrap_or(&default);
            let value = if value.is_null() { &default } else { value };
            if let Some(content) = content(value) {
                names.insert(field, content.to_owned());
                add(value);
            }
        }
        for field in ["extra_special_tokens", "additional_special_tokens"] {
            let tokens = fields.get(field).and_then(Value::as_array);
            tokens.into_iter().flatten().for_each(|value| {
                add(value);
            });
        }
        let added = added.into_iter().map(|(id, token)| (Some(id), token));
        let others = others.into_iter().map(|token| (None, token));
        let mut named = |field: &str| names.remove(field).expect("has a default");
        // transformers writes a number of 31 digits where there is no limit.
        let max_length = fields.get("model_max_length").and_then(Value::as_u64);
        Self {
            tokens: added.chain(others).collect(),
            bos: named("bos_token"),
            eos: named("eos_token"),
            unk: named("unk_token"),
            pad: named("pad_token"),
            max_length: max_length.and_then(|length| usize::try_from(length).ok()),
        }
    }

    /// CLIP's tokens for a vocabulary that was given in memory.
    pub(super) fn defaults() -> Self {
        Self::new(&Map::new(), BTreeMap::new())
    }
}

/// The tokens of `added_tokens.json`, and those of `tokenizer.json`.
fn read_added(
    dir: &Path,
    fields: &Map<String, Value>,
    whole: Option<&Value>,
) -> Result<BTreeMap<u32, AddedToken>> {
    let mut added = BTreeMap::new();
    for (text, id) in files::read_added(dir)? {
        let is_named = |field: &&str| fields.get(*field).and_then(content) == Some(&text);
        let is_special = NAMED.iter().any(is_named);
        added.insert(id, AddedToken::from(text, is_special));
    }
    if let Some(whole) = whole {
        added.extend(added_tokens(&dir.join(WHOLE), &whole["added_tokens"])?);
    }
    Ok(added)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::files::ADDED;
    use serde_json::json;

    fn read(files: &[(&str, Value)], whole: Option<Value>) -> Result<SpecialTokens> {
        let dir = tempfile::tempdir().unwrap();
        for (name, value) in files {
            std::fs::write(dir.path().join(name), value.to_string()).unwrap();
        }
        SpecialTokens::read(dir.path(), whole.as_ref())
    }

    /// Text, `normalized` and `special` of the tokens to add.
    fn summary(tokens: &SpecialTokens) -> Vec<(&str, bool, bool)> {
        let tokens = tokens.tokens.iter().map(|(_, token)| token);
        tokens
            .map(|token| (token.content.as_str(), token.normalized, token.special))
            .collect()
    }

    #[test]
    fn tokens_are_those_of_transformers() {
        let (bos, eos) = (START_OF_TEXT, END_OF_TEXT);
        let none = read(&[], None).unwrap();
        assert_eq!(summary(&none), [(bos, false, true), (eos, false, true)]);
        assert_eq!((none.pad.as_str(), none.max_length), (eos, None));

        // The map replaces the fields of the configuration; the padding token, a string, is added
        // last with the properties of a string.
        let object = |content: &str| json!({"content": content, "normalized": true});
        let config = json!({"bos_token": bos, "pad_token": "!", "model_max_length": 77});
        let map = json!({"bos_token": object(bos), "eos_token": object(eos),
            "unk_token": object(eos), "pad_token": eos});
        let both = read(&[(CONFIG, config.clone()), (SPECIAL, map)], None).unwrap();
        let expected = [(bos, true, true), (eos, true, true), (eos, false, true)];
        assert_eq!(summary(&both), expected);
        assert_eq!((both.pad.as_str(), both.max_length), (eos, Some(77)));
        let alone = read(&[(CONFIG, config)], None).unwrap();
        assert_eq!(summary(&alone)[2], ("!", false, true));

        // `tokenizer.json` and `added_tokens.json` add tokens by their ids.
        let whole = json!({"added_tokens": [
            {"id": 9, "content": "<cat>", "normalized": true, "special": false},
            {"id": 8, "content": bos, "normalized": true, "special": true},
        ]});
        let added = json!({"<dog>": 10});
        let files = read(&[(ADDED, added.clone())], Some(whole.clone())).unwrap();
        let expected = [
            (bos, true, true),
            ("<cat>", true, false),
            ("<dog>", true, false),
            (eos, false, true),
        ];
        assert_eq!(summary(&files), expected);
        assert_eq!(files.tokens[0].0, Some(8));

        // The decoder excludes all others.
        let config = json!({"added_tokens_decoder": {"3": {"content": "<cat>"}}});
        let files = read(&[(CONFIG, config), (ADDED, added)], Some(whole)).unwrap();
        assert_eq!(summary(&files)[0], ("<cat>", true, false));
        assert_eq!(files.tokens.len(), 3);
    }

    #[test]
    fn broken_files_are_named() {
        let message = |name: &str, value: Value| {
            let error = read(&[(name, value)], None).unwrap_err();
            error.to_string()
        };
        let broken = message(
            CONFIG,
            json!({"added_tokens_decoder": {"x": {"content": "a"}}}),
        );
        assert!(
            broken.contains(CONFIG) && broken.contains("\"x\""),
            "{broken}"
        );
        let broken = message(ADDED, json!({"<cat>": -1}));
        assert!(broken.contains(ADDED) && broken.contains("-1"), "{broken}");
        let broken = message(SPECIAL, json!([1]));
        assert!(broken.contains(SPECIAL), "{broken}");
    }
}
