//! Where a single sound is written.

use aigc_core::{Error, Result};
use aigc_examples::RunOptions;
use std::path::PathBuf;

/// The file of `--out`, or `default`. Pictures and reports are written beside it under the same
/// name with other endings.
///
/// # Errors
/// [`Error::InvalidArgument`] unless its name ends in `.wav`: it would be overwritten.
pub fn wav_path(options: &RunOptions, default: &str) -> Result<PathBuf> {
    let path = options.out.clone().unwrap_or_else(|| default.into());
    match path.extension() {
        Some(ending) if ending.eq_ignore_ascii_case("wav") => Ok(path),
        _ => {
            let expected = "a file whose name ends in `.wav`";
            Err(Error::argument("--out", path.display(), expected))
        }
    }
}
