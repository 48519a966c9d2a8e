//! Tables in the documentation that commands fill.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// `path` where it is absolute, else from the root of the repository: cargo runs benches in their
/// package's folder.
pub fn from_root(path: &Path) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// Puts `text` between the two markers `<!-- name -->` of a page, whose path is taken [from the
/// root](from_root).
///
/// # Errors
/// If the page cannot be read or written, or has not exactly two such markers.
pub fn write_between(path: &Path, name: &str, text: &str) -> Result<()> {
    let (path, marker) = (&from_root(path), format!("<!-- {name} -->"));
    let page = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parts: Vec<&str> = page.split(&marker).collect();
    let [before, _, after] = parts[..] else {
        bail!("{} needs two markers {marker}", path.display())
    };
    std::fs::write(
        path,
        format!("{before}{marker}\n{}\n{marker}{after}", text.trim_end()),
    )
    .with_context(|| path.display().to_string())
}
