//! JSON files of a run directory.

use crate::{Error, Result, fs::write_atomic};
use serde::{Serialize, de::DeserializeOwned};
use std::{fs, path::Path};

/// Limit on the size of a JSON file of a run directory, in bytes.
const MAX_JSON: u64 = 64 << 20;

/// Reads a JSON file of a run directory.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let size = fs::metadata(path).map_err(Error::io(path))?.len();
    if size > MAX_JSON {
        return Err(Error::checkpoint(
            path,
            format!("{size} bytes are too many for this file"),
        ));
    }
    let text = fs::read(path).map_err(Error::io(path))?;
    // An editor may have written a byte-order mark.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    serde_json::from_slice(text).map_err(|error| Error::checkpoint(path, error))
}

/// Writes an indented JSON file atomically.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let mut text =
        serde_json::to_vec_pretty(value).map_err(|error| Error::checkpoint(path, error))?;
    text.push(b'\n');
    write_atomic(path, &text)
}
