//! Reading text files, writing files atomically, checksums.

use crate::{DataFault, Error, Result};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// `text` without a leading byte-order mark, which editors on Windows write.
pub fn strip_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Reads a UTF-8 text file and removes a byte-order mark.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Data`] if it is a directory or not UTF-8; the
/// error names the encoding if the file has a byte-order mark of another one.
pub fn read_text(path: &Path) -> Result<String> {
    if path.is_dir() {
        let reason = "a directory, expected a text file";
        return Err(Error::data(path, DataFault::Mismatch(reason.into())));
    }
    let bytes = fs::read(path).map_err(Error::io(path))?;
    let encoding = match bytes[..] {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        _ => None,
    };
    let fault = |reason: String| Error::data(path, DataFault::Decode(reason));
    if let Some(encoding) = encoding {
        return Err(fault(format!(
            "its byte-order mark is that of {encoding}, expected UTF-8; convert the file"
        )));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(match text.strip_prefix('\u{feff}') {
            Some(rest) => rest.to_owned(),
            None => text,
        }),
        Err(error) => Err(fault(format!(
            "not UTF-8 from byte {} on; convert the file",
            error.utf8_error().valid_up_to()
        ))),
    }
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(Error::io(path))?;
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 1 << 16]);
    loop {
        match file.read(&mut chunk).map_err(Error::io(path))? {
            0 => return Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect()),
            n => hash.update(&chunk[..n]),
        }
    }
}

/// Writes `bytes` to `path` atomically: after a crash, the file has the old content or the new one.
///
/// # Errors
/// [`Error::Io`] naming the file.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_with(path, |temporary| {
        fs::write(temporary, bytes).map_err(Error::io(temporary))
    })
}

/// Calls `write` with a temporary path beside `path`, syncs the file and renames it to `path`.
///
/// # Errors
/// Errors of `write`, or [`Error::Io`] naming the file.
pub fn write_atomic_with(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(dir).map_err(Error::io(dir))?;
    let temporary = temporary_name(path);
    let result = write(&temporary).and_then(|()| {
        sync(&temporary)?;
        fs::rename(&temporary, path).map_err(Error::io(path))?;
        sync_dir(dir)
    });
    if result.is_err() {
        let _ = fs::remove_file(&temporary); // the first error is the one to report
    }
    result
}

fn temporary_name(path: &Path) -> PathBuf {
    // Several threads may write the same file.
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".{name}.{}.{count}.tmp", std::process::id()))
}

/// Removes temporary files that killed processes left in `dir`.
pub(crate) fn sweep_temporary(dir: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else {
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
    // Windows syncs only files that are open for writing.
    OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.sync_all())
        .map_err(Error::io(path))
}

/// Waits until a directory's entries are on disk.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    // Other systems cannot sync directories; they keep renames in order.
    if !cfg!(unix) {
        return Ok(());
    }
    File::open(dir)
        .and_then(|file| file.sync_all())
        .map_err(Error::io(dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_atomic_keeps_old_file_on_failure() {
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

    #[test]
    fn read_text_strips_bom_and_names_encodings() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            read_text(&path).map_err(|error| error.to_string())
        };
        assert_eq!(read("\u{feff}ab\u{feff}".as_bytes()).unwrap(), "ab\u{feff}");
        assert_eq!(read(b"ab").unwrap(), "ab");
        for (bytes, expected) in [
            (&b"\xff\xfea\0"[..], "UTF-16"),
            (b"\xfe\xff\0a", "UTF-16"),
            (b"\xff\xfe\0\0", "UTF-32"),
            (b"abc\xff", "not UTF-8 from byte 3"),
        ] {
            let error = read(bytes).unwrap_err();
            assert!(
                error.contains(expected) && error.contains("text"),
                "{error}"
            );
        }
        assert!(
            read_text(dir.path())
                .unwrap_err()
                .to_string()
                .contains("directory")
        );
        assert_eq!(strip_bom("\u{feff}{}"), "{}");
    }
}
