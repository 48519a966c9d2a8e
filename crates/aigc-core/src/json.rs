//! Configuration files of other libraries: fields that are missing have defaults, fields that are
//! not known are named.

use crate::{DataFault, Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::path::Path;

/// The fields of a file's text. Python's bare infinities become strings.
///
/// # Errors
/// [`Error::Config`] if it is no object.
pub fn parse_object(text: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(&quote_infinities(text)) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::config("JSON", "no object", "an object of fields")),
        Err(error) => Err(Error::config("JSON", error, "an object of fields")),
    }
}

/// Removes fields that change a model in ways that are not made here, given with what they have to
/// be, as JSON.
///
/// # Errors
/// [`Error::Config`] names the first that is something else.
///
/// # Panics
/// If what they have to be is no JSON.
pub fn reject_unsupported(given: &mut Map<String, Value>, fixed: &[(&str, &str)]) -> Result<()> {
    for (field, value) in fixed {
        let only: Value = serde_json::from_str(value).expect("JSON");
        if let Some(other) = given.remove(*field).filter(|other| *other != only) {
            return Err(Error::config(*field, other, *value));
        }
    }
    Ok(())
}

/// Fields that are 1 at least, and so much at most.
///
/// # Errors
/// [`Error::Config`] names the first that is not.
pub fn check_ranges(fields: &[(&str, usize, usize)]) -> Result<()> {
    match fields.iter().find(|(_, n, most)| !(1..=*most).contains(n)) {
        Some((field, n, most)) => Err(Error::config(*field, n, format!("1 to {most}"))),
        None => Ok(()),
    }
}

/// Reads a file.
///
/// # Errors
/// [`Error::Io`] if it cannot be read; [`Error::Data`] names it where `read` fails.
pub fn read_file<T>(path: &Path, read: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.into(),
        source,
    })?;
    let wrong = |error: Error| Error::Data {
        path: path.into(),
        fault: DataFault::Mismatch(error.to_string()),
    };
    read(&text).map_err(wrong)
}

/// The fields of a structure.
///
/// # Panics
/// If it is none, or JSON cannot hold it.
pub fn to_map<S: Serialize>(scheduler: &S) -> Map<String, Value> {
    match serde_json::to_value(scheduler).expect("plain values") {
        Value::Object(fields) => fields,
        _ => unreachable!("structs"),
    }
}

/// The default with each given field in place of its own; and the fields that it does not have.
/// Those that begin with `_` are passed over.
///
/// # Errors
/// [`Error::Config`] names a field with a value that cannot be one of its.
///
/// # Panics
/// If the default is no structure.
pub fn from_map_with_defaults<S: Serialize + DeserializeOwned + Default>(
    given: &Map<String, Value>,
) -> Result<(S, Vec<String>)> {
    let mut all = to_map(&S::default());
    let mut ignored = vec![];
    for (name, value) in given {
        if name.starts_with('_') {
            continue;
        }
        let Some(field) = all.get_mut(name) else {
            ignored.push(name.clone());
            continue;
        };
        let default = std::mem::replace(field, value.clone());
        // One at a time, so that the error can name it.
        if let Err(error) = serde_json::from_value::<S>(all.clone().into()) {
            return Err(Error::config(
                name,
                value,
                format!("something like {default} ({error})"),
            ));
        }
    }
    Ok((
        serde_json::from_value(all.into()).expect("was just read"),
        ignored,
    ))
}

/// Python writes infinities as bare words.
fn quote_infinities(text: &str) -> String {
    let mut parts: Vec<String> = text.split('"').map(str::to_owned).collect();
    // Outside of strings are the parts with even numbers; field names and values here have no
    // quotes inside.
    for part in parts.iter_mut().step_by(2) {
        *part = part.replace("-Infinity", "\u{0}-Infinity\u{0}");
    }
    parts.join("\"").replace('\u{0}', "\"")
}
