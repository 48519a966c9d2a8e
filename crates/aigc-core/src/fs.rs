//! Reading text files, writing files atomically, checksums.

use crate::{DataFault, Error, Result};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

/// `text` without a leading byte-order mark, which editors on Windows write.
pub fn strip_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// Opens a text file behind its byte-order mark; also returns the length of the mark in bytes.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read, [`Error::Data`] if it is a directory or begins like
/// UTF-16, UTF-32 or binary data.
pub fn open_text(path: &Path) -> Result<(BufReader<File>, usize)> {
    if path.is_dir() {
        let reason = "a directory, expected a text file";
        return Err(Error::data(path, DataFault::Mismatch(reason.into())));
    }
    let file = File::open(path).map_err(Error::io(path))?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let start = reader.fill_buf().map_err(Error::io(path))?;
    refuse_other_encodings(path, start)?;
    let mark = "\u{feff}".as_bytes();
    let length = if start.starts_with(mark) {
        mark.len()
    } else {
        0
    };
    reader.consume(length);
    Ok((reader, length))
}

/// Fails for a file that begins like UTF-16, UTF-32 or binary data.
fn refuse_other_encodings(path: &Path, start: &[u8]) -> Result<()> {
    let wrong = |reason: String| Err(Error::data(path, DataFault::Decode(reason)));
    let encoding = match start {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        _ => None,
    };
    if let Some(encoding) = encoding {
        return wrong(format!(
            "begins with the byte-order mark of {encoding}; convert it to UTF-8 first"
        ));
    }
    // ASCII text in UTF-16 without a mark is valid UTF-8, but every other byte is zero.
    let start = &start[..start.len().min(1024)];
    let zeros = start.iter().filter(|byte| **byte == 0).count();
    if start.len() >= 4 && 4 * zeros >= start.len() {
        return wrong(format!(
            "{zeros} of its first {} bytes are zero: UTF-16 or binary data; convert it to UTF-8 \
             first",
            start.len()
        ));
    }
    Ok(())
}

/// Reads a UTF-8 text file. A byte-order mark at the beginning is skipped.
///
/// # Errors
/// As for [`open_text`], and [`Error::Data`] with byte and line if the file is not UTF-8.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let (mut reader, mark) = open_text(path)?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map_err(Error::io(path))?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = &error.as_bytes()[..valid];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        let reason = format!(
            "not UTF-8 from byte {} on (line {line}); convert it to UTF-8 first",
            mark + valid
        );
        Error::data(path, DataFault::Decode(reason))
    })
}

/// Reads a file of at most `max_bytes`; nothing of a larger one.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Data`] with [`DataFault::TooLarge`] if it is
/// larger.
pub fn read_at_most(path: impl AsRef<Path>, max_bytes: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let too_large = || Err(Error::data(path, DataFault::TooLarge { limit: max_bytes }));
    let file = File::open(path).map_err(Error::io(path))?;
    let metadata = file.metadata().map_err(Error::io(path))?;
    if metadata.is_file() && metadata.len() > max_bytes {
        return too_large();
    }
    // Pipes have no length, and files can grow.
    let mut bytes = vec![];
    file.take(max_bytes.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(Error::io(path))?;
    if bytes.len() as u64 > max_bytes {
        return too_large();
    }
    Ok(bytes)
}

/// SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    sha256_of([path])
}

/// SHA-256 of files one after the other, in hexadecimal.
pub(crate) fn sha256_of<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<String> {
    let (mut hash, mut chunk) = (Sha256::new(), vec![0; 1 << 16]);
    for path in paths {
        let mut file = File::open(path).map_err(Error::io(path))?;
        loop {
            match file.read(&mut chunk).map_err(Error::io(path))? {
                0 => break,
                n => hash.update(&chunk[..n]),
            }
        }
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
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
    fn larger_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, [7; 5]).unwrap();
        assert_eq!(read_at_most(&path, 5).unwrap(), [7; 5]);
        assert_eq!(read_at_most(&path, u64::MAX).unwrap().len(), 5);
        let error = read_at_most(&path, 4).unwrap_err();
        let fault = DataFault::TooLarge { limit: 4 };
        assert!(matches!(&error, Error::Data { fault: found, .. } if *found == fault));
        let message = error.to_string();
        let expected = "larger than the 4 bytes that are read";
        assert!(message.ends_with(expected), "{message}");
        assert!(matches!(
            read_at_most(dir.path().join("none"), 4),
            Err(Error::Io { .. })
        ));
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
            (b"a\0b\0", "UTF-16"),
            (b"abc\xff", "not UTF-8 from byte 3 on (line 1)"),
            (b"\xef\xbb\xbfa\n\xff", "not UTF-8 from byte 5 on (line 2)"),
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
