//! Files of T5's tokenizer.

use super::model_proto::{ModelProto, PieceKind};
use crate::tokenizer::files::{
    CONFIG, SPECIAL, WHOLE, added_tokens, broken, content, decoder, mismatch, object, read_added,
};
use aigc_core::{DataFault, Error, Result, checkpoint::write_atomic, json};
use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};
use tokenizers::{AddedToken, Tokenizer};

const SPIECE: &str = "spiece.model";

/// Limit on the size of a model file, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// Limit on the number of tokens.
const MOST_TOKENS: usize = 1 << 21;
/// Tokens that mark gaps in texts for training, `<extra_id_0>` and so on.
pub(super) const EXTRA_IDS: usize = 100;
const EXTRA_ID: &str = "<extra_id_";

/// What the files of a tokenizer contain.
pub(super) struct Parts {
    /// The file of the vocabulary.
    pub(super) path: PathBuf,
    pub(super) pieces: Vec<(String, f64)>,
    pub(super) unk_id: usize,
    /// Whether characters that no piece has become bytes.
    pub(super) byte_fallback: bool,
    pub(super) charsmap: Option<Vec<u8>>,
    /// Tokens that are found in a text before it is divided into pieces.
    pub(super) added: Vec<(u32, AddedToken)>,
    pub(super) extra: Extra,
}

/// What is only written again.
#[derive(Clone)]
pub(super) struct Extra {
    pub(super) eos_token: String,
    pub(super) pad_token: String,
    unk_token: String,
    pub(super) model_max_length: Option<usize>,
    /// The content of `spiece.model`.
    spiece: Option<Vec<u8>>,
}

/// The vocabulary of a file.
struct Vocabulary {
    pieces: Vec<(String, f64)>,
    unk_id: usize,
    byte_fallback: bool,
    charsmap: Option<Vec<u8>>,
    added: BTreeMap<u32, AddedToken>,
    spiece: Option<Vec<u8>>,
}

/// Reads the files in a directory.
pub(super) fn read(dir: &Path) -> Result<Parts> {
    let config = dir.join(CONFIG);
    let (config_fields, special_fields) = (object(&config)?, object(&dir.join(SPECIAL))?);
    let whole = dir.join(WHOLE);
    let (path, mut vocabulary) = if whole.is_file() {
        let vocabulary = from_json(&whole)?;
        (whole, vocabulary)
    } else if dir.join(SPIECE).is_file() {
        let path = dir.join(SPIECE);
        let extra_ids = match config_fields.get("extra_ids") {
            None => EXTRA_IDS,
            Some(value) => value
                .as_u64()
                .and_then(|count| usize::try_from(count).ok())
                .filter(|count| *count <= 1 << 16)
                .ok_or_else(|| mismatch(&config, format!("extra_ids is {value}")))?,
        };
        let vocabulary = from_spiece(&path, extra_ids)?;
        (path, vocabulary)
    } else {
        let reason = format!("no {WHOLE} and no {SPIECE}");
        return Err(Error::data(dir, DataFault::Empty(reason)));
    };
    for (content, id) in read_added(dir)? {
        vocabulary.added.insert(id, special_token(&content));
    }
    let added = decoder(&config, &config_fields)?;
    vocabulary.added.extend(added.unwrap_or_default());
    parts(path, vocabulary, &[config_fields, special_fields])
}

/// Reads a `spiece.model`, without further files.
pub(super) fn read_spiece(path: &Path, extra_ids: usize) -> Result<Parts> {
    parts(path.into(), from_spiece(path, extra_ids)?, &[])
}

/// Adds the special tokens that `settings` name to a vocabulary.
fn parts(path: PathBuf, vocabulary: Vocabulary, settings: &[Map<String, Value>]) -> Result<Parts> {
    let Vocabulary {
        pieces,
        unk_id,
        byte_fallback,
        charsmap,
        mut added,
        spiece,
    } = vocabulary;
    let Some((unk_token, _)) = pieces.get(unk_id) else {
        let reason = format!("unk_id is {unk_id}, of {} pieces", pieces.len());
        return Err(mismatch(&path, reason));
    };
    let given = |field: &'static str| {
        let fields = settings.iter();
        fields.filter_map(move |fields| fields.get(field))
    };
    let name = |field: &'static str, default: &str| {
        given(field).find_map(content).unwrap_or(default).to_owned()
    };
    let extra = Extra {
        eos_token: name("eos_token", "</s>"),
        pad_token: name("pad_token", "<pad>"),
        unk_token: unk_token.clone(),
        // Files say 10³⁰ for texts of any length.
        model_max_length: given("model_max_length")
            .find_map(Value::as_u64)
            .and_then(|length| usize::try_from(length).ok())
            .filter(|length| (1..=1 << 20).contains(length)),
        spiece,
    };
    let mut special = vec![&extra.pad_token, &extra.eos_token, &extra.unk_token];
    special.extend(
        pieces
            .iter()
            .map(|(text, _)| text)
            .filter(|text| text.starts_with(EXTRA_ID)),
    );
    let listed: Vec<String> = given("additional_special_tokens")
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|value| content(value).map(str::to_owned))
        .collect();
    special.extend(&listed);
    let ids: HashMap<&str, u32> = (0..)
        .zip(&pieces)
        .map(|(id, (text, _))| (text.as_str(), id))
        .collect();
    let is_known = |added: &BTreeMap<u32, AddedToken>, name: &str| {
        added.values().any(|token| token.content == name)
    };
    for name in special {
        match ids.get(name.as_str()) {
            Some(id) => {
                added.entry(*id).or_insert_with(|| special_token(name));
            }
            None if is_known(&added, name) => {}
            // Behind all others.
            None => {
                let last = added
                    .keys()
                    .next_back()
                    .map_or(0, |id| id.saturating_add(1));
                added.insert(last.max(pieces.len() as u32), special_token(name));
            }
        }
    }
    Ok(Parts {
        path,
        added: added.into_iter().collect(),
        pieces,
        unk_id,
        byte_fallback,
        charsmap,
        extra,
    })
}

/// The vocabulary of a SentencePiece model.
fn from_spiece(path: &Path, extra_ids: usize) -> Result<Vocabulary> {
    let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
    if size > MAX_BYTES {
        let reason = format!("{size} bytes, expected a model of at most {MAX_BYTES}");
        return Err(mismatch(path, reason));
    }
    let file = std::fs::read(path).map_err(Error::io(path))?;
    let model = ModelProto::read(&file).map_err(|reason| broken(path, reason))?;
    let (Some(trainer), Some(normalizer)) = (model.trainer, model.normalizer) else {
        return Err(mismatch(
            path,
            "no trainer_spec and normalizer_spec; truncated?",
        ));
    };
    if trainer.model_type != 1 {
        let reason = format!("model_type is {}, expected 1 (unigram)", trainer.model_type);
        return Err(mismatch(path, reason));
    }
    let unk_id = usize::try_from(trainer.unk_id)
        .map_err(|_| mismatch(path, format!("unk_id is {}", trainer.unk_id)))?;
    let mut added = BTreeMap::new();
    for (id, piece) in (0..).zip(&model.pieces) {
        match piece.kind {
            PieceKind::Control => {
                added.insert(id, special_token(piece.text));
            }
            PieceKind::UserDefined => {
                added.insert(id, AddedToken::from(piece.text, false).normalized(false));
            }
            PieceKind::Normal | PieceKind::Unknown => {}
        }
    }
    let pieces = model.pieces.iter();
    let pieces = pieces.map(|piece| (piece.text.to_owned(), f64::from(piece.score)));
    let extra = (0..extra_ids).rev();
    let extra = extra.map(|i| (format!("{EXTRA_ID}{i}>"), 0.0));
    let charsmap = normalizer.precompiled_charsmap;
    Ok(Vocabulary {
        pieces: pieces.chain(extra).collect(),
        unk_id,
        byte_fallback: trainer.byte_fallback,
        charsmap: (!charsmap.is_empty()).then(|| charsmap.to_vec()),
        added,
        spiece: Some(file),
    })
}

/// The vocabulary of a `tokenizer.json`. Its other parts are those of every T5.
fn from_json(path: &Path) -> Result<Vocabulary> {
    let fields = json::read_file(path, json::parse_object)?;
    let field = |name: &str| fields.get(name).unwrap_or(&Value::Null);
    let model = field("model");
    if model["type"] != "Unigram" {
        let reason = format!("model.type is {}, expected \"Unigram\"", model["type"]);
        return Err(mismatch(path, reason));
    }
    let byte_fallback = match &model["byte_fallback"] {
        Value::Null => false,
        Value::Bool(byte_fallback) => *byte_fallback,
        other => return Err(mismatch(path, format!("model.byte_fallback is {other}"))),
    };
    let list = model["vocab"].as_array().map_or(&[][..], |list| list);
    if list.len() > MOST_TOKENS {
        let reason = format!("{} tokens, expected at most {MOST_TOKENS}", list.len());
        return Err(mismatch(path, reason));
    }
    let piece = |(id, entry): (usize, &Value)| {
        let text = entry[0].as_str().filter(|text| !text.is_empty());
        let score = entry[1].as_f64().filter(|score| score.is_finite());
        text.zip(score)
            .map(|(text, score)| (text.to_owned(), score))
            .ok_or_else(|| mismatch(path, format!("entry {id} of model.vocab is {entry}")))
    };
    let pieces = list.iter().enumerate().map(piece).collect::<Result<_>>()?;
    let unk_id = model["unk_id"]
        .as_u64()
        .and_then(|id| usize::try_from(id).ok());
    let unk_id =
        unk_id.ok_or_else(|| mismatch(path, format!("model.unk_id is {}", model["unk_id"])))?;
    let normalizer = field("normalizer");
    let mut normalizers = vec![normalizer];
    normalizers.extend(normalizer["normalizers"].as_array().into_iter().flatten());
    let table = normalizers
        .iter()
        .find(|part| part["type"] == "Precompiled");
    let table = table.and_then(|part| part["precompiled_charsmap"].as_str());
    let decode = |text| {
        let decoded = BASE64_STANDARD.decode(text);
        decoded.map_err(|error| broken(path, format!("precompiled_charsmap: {error}")))
    };
    Ok(Vocabulary {
        pieces,
        unk_id,
        byte_fallback,
        charsmap: table.map(decode).transpose()?,
        added: added_tokens(path, field("added_tokens"))?,
        spiece: None,
    })
}

/// Writes the files of a tokenizer.
pub(super) fn write(dir: &Path, inner: &Tokenizer, extra: &Extra) -> Result<()> {
    std::fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let path = dir.join(WHOLE);
    let text = inner
        .to_string(true)
        .map_err(|error| broken(&path, error))?;
    write_atomic(&path, text.as_bytes())?;
    let special = inner.get_added_tokens_decoder();
    let mut special: Vec<(u32, String)> = special
        .into_iter()
        .filter(|(_, token)| token.content.starts_with(EXTRA_ID))
        .map(|(id, token)| (id, token.content))
        .collect();
    special.sort();
    let special: Vec<String> = special.into_iter().rev().map(|(_, name)| name).collect();
    let mut fields = Map::new();
    fields.insert("tokenizer_class".into(), "T5Tokenizer".into());
    fields.insert("eos_token".into(), extra.eos_token.clone().into());
    fields.insert("pad_token".into(), extra.pad_token.clone().into());
    fields.insert("unk_token".into(), extra.unk_token.clone().into());
    fields.insert("extra_ids".into(), special.len().into());
    fields.insert("additional_special_tokens".into(), special.into());
    if let Some(length) = extra.model_max_length {
        fields.insert("model_max_length".into(), length.into());
    }
    let text = serde_json::to_string_pretty(&fields).expect("plain values");
    write_atomic(&dir.join(CONFIG), text.as_bytes())?;
    match &extra.spiece {
        Some(file) => write_atomic(&dir.join(SPIECE), file),
        None => Ok(()),
    }
}

fn special_token(content: &str) -> AddedToken {
    AddedToken::from(content, true).normalized(false)
}
