//! Text files in UTF-8, line by line.

use aigc_core::{DataFault, Error, Result, fs::open_text};
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

/// Number of bytes that are read at once at most.
const PIECE: u64 = 1 << 20;

/// Reads a text file line by line; each line includes its end. The file may be larger than memory:
/// lines of more than a mebibyte are returned in parts. A byte-order mark at the beginning is
/// skipped.
///
/// # Errors
/// [`Error::Io`] if the file cannot be opened; [`Error::Data`] for a directory or UTF-16. An item
/// is an error if its line cannot be read or is not UTF-8.
pub fn read_lines(path: &Path) -> Result<Lines> {
    let (reader, mark) = open_text(path)?;
    Ok(Lines {
        path: path.into(),
        reader,
        rest: Vec::new(),
        read: mark as u64,
    })
}

/// Iterator of [`read_lines`].
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// The beginning of an incomplete character.
    rest: Vec<u8>,
    read: u64,
}

impl Lines {
    /// Number of bytes read so far.
    pub fn bytes_read(&self) -> u64 {
        self.read
    }

    fn next_piece(&mut self) -> Result<Option<String>> {
        let mut piece = std::mem::take(&mut self.rest);
        let begins = self.read - piece.len() as u64;
        let read = self
            .reader
            .by_ref()
            .take(PIECE)
            .read_until(b'\n', &mut piece);
        let read = read.map_err(Error::io(&self.path))? as u64;
        self.read += read;
        if piece.is_empty() {
            return Ok(None);
        }
        match String::from_utf8(piece) {
            Ok(piece) => Ok(Some(piece)),
            // A piece may end inside a character; a line cannot.
            Err(error) if error.utf8_error().error_len().is_none() && read == PIECE => {
                let at = error.utf8_error().valid_up_to();
                let mut piece = error.into_bytes();
                self.rest = piece.split_off(at);
                Ok(Some(String::from_utf8(piece).expect("valid up to there")))
            }
            Err(error) => {
                let at = begins + error.utf8_error().valid_up_to() as u64;
                let reason = format!("not UTF-8 from byte {at} on; convert it to UTF-8 first");
                Err(Error::data(&self.path, DataFault::Decode(reason)))
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_piece().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aigc_core::fs::read_text;

    #[test]
    fn text_files_are_read_without_bom() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text.txt");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let lines = read_lines(&path).and_then(|lines| lines.collect::<Result<String>>());
            let whole = read_text(&path);
            match (&lines, &whole) {
                (Ok(lines), Ok(whole)) => assert_eq!(lines, whole),
                (Err(_), Err(_)) => {}
                other => panic!("{other:?}"),
            }
            whole.map_err(|error| error.to_string())
        };
        assert_eq!(read("\u{feff}one\ntwo".as_bytes()).unwrap(), "one\ntwo");
        assert_eq!(read("\u{feff}".as_bytes()).unwrap(), "");
        assert_eq!(read("a\0b".as_bytes()).unwrap(), "a\0b");
        let utf16 =
            |text: &str| -> Vec<u8> { text.encode_utf16().flat_map(u16::to_le_bytes).collect() };
        assert!(read(&utf16("\u{feff}text")).unwrap_err().contains("UTF-16"));
        assert!(read(&utf16("text")).unwrap_err().contains("UTF-16"));
        // "中文" in GBK.
        let gbk = [b'a', 0xd6, 0xd0, 0xce, 0xc4];
        assert!(read(&gbk).unwrap_err().contains("not UTF-8 from byte 1 on"));
        let error = read_text(dir.path()).unwrap_err().to_string();
        assert!(error.contains("a directory"), "{error}");
        assert!(read_lines(dir.path()).is_err());
    }
}
