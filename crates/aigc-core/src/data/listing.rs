//! Lists of files in a directory and its subdirectories.

use super::entries;
use crate::{Error, Result};
use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

/// The files below `dir` whose names have one of the extensions, in the order of their names.
/// Hidden files and directories are left out. Links to directories are followed, each directory
/// once.
///
/// # Errors
/// [`Error::Io`] if a directory cannot be read.
pub(super) fn files_below(dir: &Path, extensions: &[&str]) -> Result<Vec<PathBuf>> {
    let mut files = vec![];
    add(dir, extensions, &mut files, &mut HashSet::new())?;
    Ok(files)
}

/// Adds the files of a directory that has not been visited.
fn add(
    dir: &Path,
    extensions: &[&str],
    files: &mut Vec<PathBuf>,
    visited: &mut HashSet<PathBuf>,
) -> Result<()> {
    if !visited.insert(dir.canonicalize().map_err(Error::io(dir))?) {
        return Ok(());
    }
    for path in entries(dir)? {
        if is_hidden(&path) {
            continue;
        }
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            add(&path, extensions, files, visited)?;
        } else if extensions.contains(&ending.to_lowercase().as_str()) {
            files.push(path);
        }
    }
    Ok(())
}

/// Whether a name begins with a dot, or is that of the copies that macOS puts into archives.
pub(super) fn is_hidden(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with('.') || name.eq_ignore_ascii_case("__macosx")
}
