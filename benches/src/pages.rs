//! Tables in the documentation that commands fill.

use anyhow::{Context, Result, bail};
use std::path::Path;

/// Puts `text` between the two markers `<!-- name -->` of a page.
///
/// # Errors
/// If the page cannot be read or written, or has not exactly two such markers.
pub fn write_between(path: &Path, name: &str, text: &str) -> Result<()> {
    let marker = format!("<!-- {name} -->");
    let page = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let parts: Vec<&str> = page.split(&marker).collect();
    let [before, _, after] = parts[..] else { bail!("{} needs two markers {marker}", path.display()) };
    std::fs::write(path, format!("{before}{marker}\n{}\n{marker}{after}", text.trim_end()))
        .with_context(|| path.display().to_string())
}
