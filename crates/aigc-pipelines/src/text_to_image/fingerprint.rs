//! A hash by which weights are known again, at a fraction of the time of reading them.

use aigc_core::{Error, Result};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// Files up to this size are read whole, in bytes.
const WHOLE: u64 = 16 << 20;

/// Of larger ones, the first `SAMPLE` of every `STRIDE` bytes are read, and the last.
const STRIDE: u64 = 128 << 10;
const SAMPLE: u64 = 4 << 10;

/// SHA-256 in hexadecimal of files, or of samples and lengths of large ones. Training changes
/// every matrix, and each matrix of a large network has samples.
///
/// # Errors
/// [`Error::Io`] if a file cannot be read.
pub(crate) fn fingerprint<'a>(files: impl IntoIterator<Item = &'a Path>) -> Result<String> {
    let mut hash = Sha256::new();
    for path in files {
        add(&mut hash, path).map_err(Error::io(path))?;
    }
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

fn add(hash: &mut Sha256, path: &Path) -> std::io::Result<()> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = vec![];
    if length <= WHOLE {
        file.take(WHOLE).read_to_end(&mut bytes)?;
        hash.update(&bytes);
        return Ok(());
    }
    hash.update(length.to_le_bytes());
    let starts = (0..length).step_by(STRIDE as usize);
    for start in starts.chain([length - SAMPLE]) {
        file.seek(SeekFrom::Start(start))?;
        bytes.clear();
        file.by_ref().take(SAMPLE).read_to_end(&mut bytes)?;
        hash.update(&bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn small_files_have_their_checksum() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, b"abc").unwrap();
        // The example of FIPS 180.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(fingerprint([&*path]).unwrap(), expected);
        assert!(fingerprint([dir.path().join("b").as_path()]).is_err());
    }

    #[test]
    fn large_files_differ_by_samples_and_length() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let write = |at: u64, byte: u8, length: u64| {
            let mut file = File::create(&path).unwrap();
            file.set_len(length).unwrap();
            file.seek(SeekFrom::Start(at)).unwrap();
            file.write_all(&[byte]).unwrap();
            fingerprint([&*path]).unwrap()
        };
        let length = WHOLE + 10 * STRIDE + 7;
        let zeros = write(0, 0, length);
        assert_eq!(write(0, 0, length), zeros);
        assert_ne!(write(0, 1, length), zeros);
        assert_ne!(write(5 * STRIDE + 100, 1, length), zeros);
        assert_ne!(write(length - 1, 1, length), zeros);
        assert_ne!(write(0, 0, length + STRIDE), zeros);
    }
}
