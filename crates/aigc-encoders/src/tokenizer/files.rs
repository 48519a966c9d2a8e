//! Files of transformers' tokenizers, as far as those of CLIP and T5 are alike.

use aigc_core::{DataFault, Error, Result, json};
use serde_json::{Map, Value};
use std::{collections::BTreeMap, path::Path};
use tokenizers::AddedToken;

/// The whole tokenizer in one file.
pub(super) const WHOLE: &str = "tokenizer.json";
pub(super) const CONFIG: &str = "tokenizer_config.json";
pub(super) const SPECIAL: &str = "special_tokens_map.json";
/// Added tokens of older versions of transformers.
pub(super) const ADDED: &str = "added_tokens.json";

/// An error of a file with the wrong content.
pub(super) fn mismatch(path: &Path, reason: impl Into<String>) -> Error {
    Error::data(path, DataFault::Mismatch(reason.into()))
}

/// An error of a broken file.
pub(super) fn broken(path: &Path, reason: impl ToString) -> Error {
    Error::data(path, DataFault::Decode(reason.to_string()))
}

/// The fields of a JSON file; empty if there is no such file.
pub(super) fn object(path: &Path) -> Result<Map<String, Value>> {
    match path.is_file() {
        true => json::read_file(path, json::parse_object),
        false => Ok(Map::new()),
    }
}

/// The text of a token, which is a string or an object.
pub(super) fn content(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value["content"].as_str())
}

/// A token: its text, or an object with its properties. `special` is for those that do not say
/// whether they are.
pub(super) fn token(value: &Value, special: bool) -> Option<AddedToken> {
    let on = |name: &str| value[name].as_bool();
    let special = on("special").unwrap_or(special);
    let token = AddedToken::from(content(value)?, special)
        .single_word(on("single_word").unwrap_or(false))
        .lstrip(on("lstrip").unwrap_or(false))
        .rstrip(on("rstrip").unwrap_or(false));
    Some(match on("normalized") {
        Some(normalized) => token.normalized(normalized),
        None => token,
    })
}

/// Tokens and ids of `added_tokens.json`; none if there is no such file.
pub(super) fn read_added(dir: &Path) -> Result<Vec<(String, u32)>> {
    let path = dir.join(ADDED);
    let entry = |(text, value): (String, Value)| match id(&value) {
        Some(id) => Ok((text, id)),
        None => {
            let reason = format!("the added token {text:?} has the id {value}");
            Err(mismatch(&path, reason))
        }
    };
    object(&path)?.into_iter().map(entry).collect()
}

/// The tokens of `added_tokens_decoder` in the fields of the `tokenizer_config.json` at `path`, if
/// it has any.
pub(super) fn decoder(
    path: &Path,
    fields: &Map<String, Value>,
) -> Result<Option<BTreeMap<u32, AddedToken>>> {
    let Some(entries) = fields
        .get("added_tokens_decoder")
        .and_then(Value::as_object)
    else {
        return Ok(None);
    };
    let entry = |(id, value): (&String, &Value)| {
        let parsed = id.parse().ok().zip(token(value, false));
        parsed.ok_or_else(|| {
            let reason = format!("added_tokens_decoder has the entry {id:?}: {value}");
            mismatch(path, reason)
        })
    };
    entries.iter().map(entry).collect::<Result<_>>().map(Some)
}

/// The tokens of `added_tokens` in the `tokenizer.json` at `path`.
pub(super) fn added_tokens(path: &Path, tokens: &Value) -> Result<BTreeMap<u32, AddedToken>> {
    let entry = |value: &Value| {
        let parsed = id(&value["id"]).zip(token(value, false));
        parsed.ok_or_else(|| mismatch(path, format!("added_tokens has the entry {value}")))
    };
    tokens.as_array().into_iter().flatten().map(entry).collect()
}

/// Fails unless added tokens have the ids that their files say.
pub(super) fn check_ids<'a>(
    path: &Path,
    tokenizer: &tokenizers::Tokenizer,
    tokens: impl IntoIterator<Item = (u32, &'a AddedToken)>,
) -> Result<()> {
    for (id, token) in tokens {
        let (content, found) = (&token.content, tokenizer.token_to_id(&token.content));
        if found != Some(id) {
            let found = found.map_or("none".into(), |found| found.to_string());
            let reason = format!(
                "the added token {content:?} has the id {id}, but behind this vocabulary it would \
                 be {found}"
            );
            return Err(mismatch(path, reason));
        }
    }
    Ok(())
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
