//! Configuration files of diffusers: fields that are missing have defaults, fields that are not known are named.

use aigc_core::{DataFault, Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::path::Path;

/// The fields of a file's text.
pub(crate) fn object(text: &str) -> Result<Map<String, Value>> {
    match serde_json::from_str(&quote_infinities(text)) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(Error::config("JSON", "no object", "an object of fields")),
        Err(error) => Err(Error::config("JSON", error, "an object of fields")),
    }
}

/// A network's configuration, and the fields that are not known. `fixed`: fields that change the network in ways that are not
/// made here, and what they have to be.
pub(crate) fn network<S: Serialize + DeserializeOwned + Default>(
    text: &str,
    class: &str,
    fixed: &[(&str, &str)],
) -> Result<(S, Vec<String>)> {
    let mut given = object(text)?;
    if let Some(other) = given.get("_class_name").filter(|name| *name != class) {
        return Err(Error::config("_class_name", other, class));
    }
    for (field, value) in fixed {
        let only: Value = serde_json::from_str(value).expect("written here");
        if let Some(other) = given.remove(*field).filter(|other| *other != only) {
            return Err(Error::config(*field, other, *value));
        }
    }
    read(&given)
}

/// Fields that are 1 at least, and so much at most.
pub(crate) fn within(fields: &[(&str, usize, usize)]) -> Result<()> {
    match fields.iter().find(|(_, n, most)| !(1..=*most).contains(n)) {
        Some((field, n, most)) => Err(Error::config(*field, n, format!("1 to {most}"))),
        None => Ok(()),
    }
}

/// Lists that have an entry for each level.
///
/// The first level also holds sines and cosines of the time, whose frequencies are `freq_shift` of their number apart.
pub(crate) fn levels(channels: &[usize], lists: &[(&str, usize)], freq_shift: f64) -> Result<()> {
    let levels = channels.len();
    within(&[("block_out_channels", channels[0], 1 << 14)])?;
    if !channels[0].is_multiple_of(2) {
        return Err(Error::config("block_out_channels", channels[0], "an even first number, for sines and cosines"));
    }
    let most = channels[0] / 2;
    if freq_shift.is_nan() || freq_shift >= most as f64 {
        return Err(Error::config(
            "freq_shift",
            freq_shift,
            format!("less than {most}, half the first block's channels"),
        ));
    }
    match lists.iter().find(|(_, n)| *n != levels) {
        Some((field, n)) => {
            Err(Error::config(*field, format!("{n} blocks"), format!("{levels}, as block_out_channels")))
        }
        None => Ok(()),
    }
}

/// Fields that divide a number of channels.
pub(crate) fn divides(channels: usize, fields: &[(&str, usize)]) -> Result<()> {
    match fields.iter().find(|(_, n)| *n == 0 || !channels.is_multiple_of(*n)) {
        Some((field, n)) => Err(Error::config(*field, n, format!("a divisor of {channels} channels"))),
        None => Ok(()),
    }
}

/// Reads a file; errors name it.
pub(crate) fn open<T>(path: &Path, read: impl FnOnce(&str) -> Result<T>) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source })?;
    let wrong = |error: Error| Error::Data { path: path.into(), fault: DataFault::Mismatch(error.to_string()) };
    read(&text).map_err(wrong)
}

pub(crate) fn fields<S: Serialize>(scheduler: &S) -> Map<String, Value> {
    match serde_json::to_value(scheduler).expect("plain values") {
        Value::Object(fields) => fields,
        _ => unreachable!("structs"),
    }
}

/// The default with each given field in place of its own; and the fields that it does not have.
pub(crate) fn read<S: Serialize + DeserializeOwned + Default>(given: &Map<String, Value>) -> Result<(S, Vec<String>)> {
    let mut all = fields(&S::default());
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
            return Err(Error::config(name, value, format!("something like {default} ({error})")));
        }
    }
    Ok((serde_json::from_value(all.into()).expect("was just read"), ignored))
}

/// Python writes infinities as bare words.
fn quote_infinities(text: &str) -> String {
    let mut parts: Vec<String> = text.split('"').map(str::to_owned).collect();
    // Outside of strings are the parts with even numbers; field names and values here have no quotes inside.
    for part in parts.iter_mut().step_by(2) {
        *part = part.replace("-Infinity", "\u{0}-Infinity\u{0}");
    }
    parts.join("\"").replace('\u{0}', "\"")
}
