//! Configuration files of other libraries: missing fields have defaults, unknown fields are
//! reported.

use crate::{
    DataFault, Error, Result,
    fs::{read_text, strip_bom},
    weights::Loaded,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::path::Path;

pub use crate::check::sizes as check_ranges;

/// Parses a JSON object. Python's constants `NaN`, `Infinity` and `-Infinity`, which JSON does not
/// have, become strings; [`float`](mod@float) reads them.
///
/// # Errors
/// [`Error::Json`] with line and column if the text is not JSON, or not an object.
pub fn parse_object(text: &str) -> Result<Map<String, Value>> {
    match parse(text)? {
        Value::Object(fields) => Ok(fields),
        other => Err(Error::Json(format!(
            "expected an object of fields, found {}",
            kind(&other)
        ))),
    }
}

/// Parses JSON of any kind, with Python's constants as in [`parse_object`].
pub(crate) fn parse(text: &str) -> Result<Value> {
    serde_json::from_str(&quote_constants(strip_bom(text)))
        .map_err(|error| Error::Json(format!("not JSON: {error}")))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// Removes fields of options that are not implemented. `fixed` lists each field with its only
/// supported value, as JSON.
///
/// # Errors
/// [`Error::Config`] naming the first field with another value.
///
/// # Panics
/// If a supported value is not JSON.
pub fn reject_unsupported(given: &mut Map<String, Value>, fixed: &[(&str, &str)]) -> Result<()> {
    for (field, value) in fixed {
        let only: Value = serde_json::from_str(value).expect("JSON");
        if let Some(other) = given.remove(*field).filter(|other| *other != only) {
            return Err(Error::config(*field, other, *value));
        }
    }
    Ok(())
}

/// Limit on the size of a configuration file, in bytes.
const MAX_BYTES: u64 = 64 << 20;

/// Reads a text file of at most 64 MiB, removes a byte-order mark, and parses it with `read`.
///
/// # Errors
/// As for [`read_text`]; [`Error::Data`] naming the file if it is larger or `read` fails.
pub fn read_file<T>(path: &Path, read: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    let size = std::fs::metadata(path).map_err(Error::io(path))?.len();
    if size > MAX_BYTES {
        let reason = format!("{size} bytes, expected a configuration of at most {MAX_BYTES}");
        return Err(Error::data(path, DataFault::Mismatch(reason)));
    }
    let text = read_text(path)?;
    read(&text).map_err(|error| Error::data(path, DataFault::Mismatch(error.to_string())))
}

/// The fields of a structure, as a JSON object.
///
/// # Panics
/// If `value` does not serialise to an object.
pub fn to_map<S: Serialize>(value: &S) -> Map<String, Value> {
    match serde_json::to_value(value).expect("plain values") {
        Value::Object(fields) => fields,
        _ => unreachable!("structs"),
    }
}

/// The default configuration, overridden by the given fields. The report lists given fields that
/// the configuration does not have, without those whose names begin with `_`.
///
/// # Errors
/// [`Error::Config`] naming a field with a value of the wrong type.
///
/// # Panics
/// If the default does not serialise to an object.
pub fn from_map_with_defaults<S: Serialize + DeserializeOwned + Default>(
    given: &Map<String, Value>,
) -> Result<Loaded<S>> {
    let mut all = to_map(&S::default());
    let mut unused = vec![];
    for (name, value) in given {
        if name.starts_with('_') {
            continue;
        }
        let Some(field) = all.get_mut(name) else {
            unused.push(name.clone());
            continue;
        };
        let default = std::mem::replace(field, value.clone());
        // Fields are set one at a time, so that the error can name the field.
        if let Err(error) = serde_json::from_value::<S>(all.clone().into()) {
            return Err(Error::config(
                name,
                value,
                format!("a value of the type of {default} ({error})"),
            ));
        }
    }
    let config: S = serde_json::from_value(all.into()).expect("was just read");
    Ok(Loaded::new(config).with_unused_fields(unused))
}

/// Puts Python's constants for NaN and infinities in quotes.
fn quote_constants(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut rest, mut in_string) = (text, false);
    while let Some(next) = rest.chars().next() {
        if in_string && next == '\\' {
            // The escaped character may be a quote.
            let escaped = rest.chars().nth(1).map_or(1, |c| 1 + c.len_utf8());
            out.push_str(&rest[..escaped]);
            rest = &rest[escaped..];
            continue;
        }
        let mut words = ["-Infinity", "Infinity", "NaN"].into_iter();
        let word = words.find(|word| !in_string && rest.starts_with(word));
        if let Some(word) = word {
            out.push('"');
            out.push_str(word);
            out.push('"');
            rest = &rest[word.len()..];
            continue;
        }
        in_string ^= next == '"';
        out.push(next);
        rest = &rest[next.len_utf8()..];
    }
    out
}

/// For `#[serde(with = "aigc_core::json::float")]`: a number that may be `NaN`, `Infinity` or
/// `-Infinity`, which are written as strings.
pub mod float {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes a finite number as a number, others as a string.
    ///
    /// # Errors
    /// Those of the serialiser.
    pub fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
        match *value {
            v if v.is_finite() => serializer.serialize_f64(v),
            v if v.is_nan() => serializer.serialize_str("NaN"),
            v if v > 0.0 => serializer.serialize_str("Infinity"),
            _ => serializer.serialize_str("-Infinity"),
        }
    }

    /// Reads a number, or one of the strings.
    ///
    /// # Errors
    /// If the value is neither.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Number {
            Value(f64),
            Word(String),
        }
        match Number::deserialize(deserializer)? {
            Number::Value(value) => Ok(value),
            Number::Word(word) => match word.as_str() {
                "NaN" => Ok(f64::NAN),
                "Infinity" => Ok(f64::INFINITY),
                "-Infinity" => Ok(f64::NEG_INFINITY),
                other => Err(D::Error::custom(format!(
                    "expected a number, found `{other}`"
                ))),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    struct Config {
        #[serde(with = "float")]
        low: f64,
        #[serde(with = "float")]
        high: f64,
        name: String,
    }

    #[test]
    fn parse_object_reads_python_constants() {
        let text = "\u{feff}{\"low\": -Infinity, \"high\": Infinity, \"other\": [NaN, 1e-3], \
                    \"name\": \"a \\\" NaN, -Infinity \\\\\"}";
        let fields = parse_object(text).unwrap();
        let loaded = from_map_with_defaults::<Config>(&fields).unwrap();
        let expected = Config {
            low: f64::NEG_INFINITY,
            high: f64::INFINITY,
            name: "a \" NaN, -Infinity \\".into(),
        };
        assert_eq!(loaded.value, expected);
        assert_eq!(loaded.unused_fields, ["other"]);
        let back = to_map(&Config {
            low: f64::NEG_INFINITY,
            high: 2.0,
            name: String::new(),
        });
        assert_eq!(
            (&back["low"], &back["high"]),
            (&"-Infinity".into(), &2.0.into())
        );
    }

    #[test]
    fn parse_object_names_line_and_column() {
        let error = |text: &str| parse_object(text).unwrap_err().to_string();
        assert_eq!(
            error("{\n  \"a\": ,\n}"),
            "not JSON: expected value at line 2 column 8"
        );
        assert!(error("").contains("not JSON: EOF"), "{}", error(""));
        assert_eq!(error("[1]"), "expected an object of fields, found an array");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, "\u{feff}{}").unwrap();
        assert!(read_file(&path, parse_object).unwrap().is_empty());
        std::fs::write(&path, "{").unwrap();
        let message = read_file(&path, parse_object).unwrap_err().to_string();
        assert!(message.contains("config.json: not JSON: EOF"), "{message}");
    }
}
