//! Generated tables in the documentation.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Resolves `path` relative to the root of the repository, because cargo runs benches in the
/// directory of their package.
pub fn from_root(path: &Path) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// Writes `text` between the two markers `<!-- name -->` of a file, whose path is relative to [the
/// root](from_root).
///
/// # Errors
/// If the file cannot be read or written, or does not have exactly two such markers.
pub fn write_between(path: &Path, name: &str, text: &str) -> Result<()> {
    let (path, marker) = (&from_root(path), format!("<!-- {name} -->"));
    let page = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parts: Vec<&str> = page.split(&marker).collect();
    let [before, _, after] = parts[..] else {
        bail!(
            "{} has {} markers {marker}, expected 2",
            path.display(),
            parts.len() - 1
        )
    };
    std::fs::write(
        path,
        format!("{before}{marker}\n{}\n{marker}{after}", text.trim_end()),
    )
    .with_context(|| path.display().to_string())
}
