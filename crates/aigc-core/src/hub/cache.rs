//! Links and locks of the cache.

use crate::{Error, Result};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    path::Path,
};

/// Creates `path` as a link to `target`, the path of `blob` relative to it. If links are not
/// supported, `blob` is moved to `path`.
pub(super) fn put(
    blob: &Path,
    target: &Path,
    path: &Path,
    link: impl Fn(&Path, &Path) -> io::Result<()>,
) -> Result<()> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    // Created under a temporary name first, so that `path` always exists once it did.
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{file}.{}.tmp", std::process::id()));
    let _ = fs::remove_file(&temporary); // left by a killed process
    match link(target, &temporary) {
        Ok(()) => fs::rename(&temporary, path).map_err(Error::io(path)),
        Err(_) => fs::rename(blob, path).map_err(Error::io(path)),
    }
}

#[cfg(unix)]
pub(super) use std::os::unix::fs::symlink;
#[cfg(windows)]
pub(super) use std::os::windows::fs::symlink_file as symlink;
#[cfg(not(any(unix, windows)))]
pub(super) fn symlink(_: &Path, _: &Path) -> io::Result<()> {
    Err(ErrorKind::Unsupported.into())
}

/// Waits until no other process downloads the same file. The lock is held until it is dropped.
pub(super) fn lock(path: &Path) -> Result<File> {
    let dir = path.parent().unwrap_or(path);
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(Error::io(path))?;
    match file.lock() {
        // Some network drives do not support locks.
        Err(error) if error.kind() != ErrorKind::Unsupported => Err(Error::io(path)(error)),
        _ => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn put_moves_file_where_links_fail() {
        let dir = tempfile::tempdir().unwrap();
        let (blob, path) = (dir.path().join("blob"), dir.path().join("a/b"));
        fs::write(&blob, "content").unwrap();
        put(&blob, Path::new("../blob"), &path, |_, _| {
            Err(ErrorKind::PermissionDenied.into())
        })
        .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"content");
        assert!(!blob.exists());
    }
}
