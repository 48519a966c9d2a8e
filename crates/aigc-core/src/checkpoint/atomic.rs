//! Files that are either the old one or the new one, never half of one.

use crate::{Error, Result};
use std::{
    fs::{self, File, OpenOptions},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// Writes `bytes` to `path` so that a crash leaves the old file or the new one.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |temporary| {
        fs::write(temporary, bytes).map_err(Error::io(temporary))
    })
}

/// Lets `write` make a file under a temporary name beside `path`, syncs it, and renames it to
/// `path`.
///
/// # Errors
/// What `write` says, or [`Error::Io`] naming the file.
pub fn write_atomic_with(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let folder = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let temporary = temporary_name(path);
    let result = write(&temporary).and_then(|()| {
        sync(&temporary)?;
        fs::rename(&temporary, path).map_err(Error::io(path))?;
        sync_folder(folder)
    });
    if result.is_err() {
        let _ = fs::remove_file(&temporary); // the first error is the one to tell
    }
    result
}

fn temporary_name(path: &Path) -> PathBuf {
    // Threads may write the same file at once.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}.{count}.tmp", std::process::id()))
}

/// Removes what killed writers left in `folder`.
pub(crate) fn sweep_temporary(folder: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if name.starts_with('.') && name.contains(".tmp") && path.is_file() {
            fs::remove_file(&path).map_err(Error::io(&path))?;
        }
    }
    Ok(())
}

/// Waits until a file's content is on disk.
pub(crate) fn sync(path: &Path) -> Result<()> {
    // Windows syncs only what is open for writing.
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.sync_all())
        .map_err(Error::io(path))
}

/// Waits until a folder's names are on disk.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    // Other systems have no such call on folders, and keep renames in order by themselves.
    if !cfg!(unix) {
        return Ok(());
    }
    File::open(folder)
        .and_then(|file| file.sync_all())
        .map_err(Error::io(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomic(&path, b"old").unwrap();
        let failed = write_atomic_with(&path, |temporary| {
            fs::write(temporary, b"half").unwrap();
            Err(Error::other("the disk is full"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write_atomic(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
    }
}
