//! Windows of tokens, from memory or from a file that may be larger than memory.

use crate::tokenizer::Tokenizer;
use aigc_core::{DataFault, Error, Result, checkpoint::write_atomic_with, data::Dataset};
use std::{
    fs::File,
    io::{BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// First bytes of a file of tokens; then their number, in 64 bits, and the tokens, in 32 bits each,
/// little-endian.
const MAGIC: &[u8; 8] = b"aigctok1";
const HEADER: u64 = 16;

/// Tokens in a row, wherever they are.
#[derive(Debug)]
enum TokenStore {
    Memory(Vec<u32>),
    /// Read where and when a window is asked for.
    File {
        path: PathBuf,
        file: Arc<Mutex<File>>,
        first: usize,
        len: usize,
    },
}

/// Windows of as many tokens as a model learns from at once, and one more: each token's target is
/// the one behind it.
#[derive(Debug)]
pub struct TokenDataset {
    tokens: TokenStore,
    length: usize,
    stride: usize,
}

impl TokenDataset {
    /// Windows for `length` tokens of input, each `stride` tokens behind the one before.
    ///
    /// # Errors
    /// [`Error::Config`] if a length is 0, or there are not enough tokens for a window.
    pub fn new(tokens: Vec<u32>, length: usize, stride: usize) -> Result<Self> {
        Self::of(TokenStore::Memory(tokens), length, stride)
    }

    /// The same of a file that [`tokenize_file`] made.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Data`] if it is no such file, or not whole; [`Error::Io`] if
    /// it cannot be read.
    pub fn open(path: impl AsRef<Path>, length: usize, stride: usize) -> Result<Self> {
        let path = path.as_ref();
        let io = |source| Error::Io {
            path: path.into(),
            source,
        };
        let wrong = |fault| Error::Data {
            path: path.into(),
            fault,
        };
        let mut file = File::open(path).map_err(io)?;
        let found = file.metadata().map_err(io)?.len();
        let mut header = [0; HEADER as usize];
        if found < HEADER {
            return Err(wrong(DataFault::Truncated {
                expected: HEADER,
                found,
            }));
        }
        file.read_exact(&mut header).map_err(io)?;
        if &header[..8] != MAGIC {
            let reason = "not a file of tokens; make one of the text first".into();
            return Err(wrong(DataFault::BadHeader(reason)));
        }
        let len = u64::from_le_bytes(header[8..].try_into().expect("eight bytes"));
        match len
            .checked_mul(4)
            .and_then(|bytes| bytes.checked_add(HEADER))
        {
            Some(expected) if expected == found => (),
            Some(expected) if expected > found => {
                return Err(wrong(DataFault::Truncated { expected, found }));
            }
            expected => {
                return Err(wrong(DataFault::Oversized {
                    expected: expected.unwrap_or(u64::MAX),
                }));
            }
        }
        Self::of(
            TokenStore::File {
                path: path.into(),
                file: Arc::new(Mutex::new(file)),
                first: 0,
                len: len as usize,
            },
            length,
            stride,
        )
    }

    fn of(tokens: TokenStore, length: usize, stride: usize) -> Result<Self> {
        for (field, n) in [("length", length), ("stride", stride)] {
            if n == 0 {
                return Err(Error::config(field, n, "at least 1"));
            }
        }
        let windows = Self {
            tokens,
            length,
            stride,
        };
        if windows.num_tokens() <= length {
            let expected = format!("more than {length}, a window's length; or a shorter context");
            return Err(Error::config("tokens", windows.num_tokens(), expected));
        }
        Ok(windows)
    }

    /// Windows of the first `share` of the tokens, to learn from, and of the others, to be judged
    /// by; those are as far apart as they are long, so that each token is foretold once.
    ///
    /// # Errors
    /// [`Error::Config`] if `share` is not between 0 and 1, or leaves too few tokens for a window.
    pub fn split(self, share: f64) -> Result<(Self, Self)> {
        if !(share > 0.0 && share < 1.0) {
            return Err(Error::config("share", share, "between 0 and 1"));
        }
        let at = (self.num_tokens() as f64 * share) as usize;
        let [learned, held_out] = match self.tokens {
            TokenStore::Memory(mut tokens) => {
                let rest = tokens.split_off(at);
                [TokenStore::Memory(tokens), TokenStore::Memory(rest)]
            }
            TokenStore::File {
                path,
                file,
                first,
                len,
            } => [(first, at), (first + at, len - at)].map(|(first, len)| TokenStore::File {
                path: path.clone(),
                file: file.clone(),
                first,
                len,
            }),
        };
        Ok((
            Self::of(learned, self.length, self.stride)?,
            Self::of(held_out, self.length, self.length)?,
        ))
    }

    /// Number of tokens in all.
    pub fn num_tokens(&self) -> usize {
        match &self.tokens {
            TokenStore::Memory(tokens) => tokens.len(),
            TokenStore::File { len, .. } => *len,
        }
    }

    /// Tokens of input in a window.
    pub fn block_size(&self) -> usize {
        self.length
    }
}

impl Dataset for TokenDataset {
    type Item = Vec<u32>;

    fn len(&self) -> usize {
        (self.num_tokens() - self.length - 1) / self.stride + 1
    }

    fn get(&self, index: usize) -> Result<Vec<u32>> {
        assert!(index < self.len(), "window {index} of {}", self.len());
        let (start, n) = (index * self.stride, self.length + 1);
        match &self.tokens {
            TokenStore::Memory(tokens) => Ok(tokens[start..start + n].to_vec()),
            TokenStore::File {
                path, file, first, ..
            } => {
                let start = first + start;
                let mut bytes = vec![0; 4 * n];
                let mut file = file.lock().unwrap_or_else(|e| e.into_inner());
                let read = file
                    .seek(SeekFrom::Start(HEADER + 4 * start as u64))
                    .and_then(|_| file.read_exact(&mut bytes));
                read.map_err(|source| Error::Io {
                    path: path.clone(),
                    source,
                })?;
                let token =
                    |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
                Ok(bytes.chunks_exact(4).map(token).collect())
            }
        }
    }
}

/// The longest piece of a text that is read at once, in bytes.
const PIECE: u64 = 1 << 20;

/// The lines of a text file, each with its end, without holding the file; lines of more than a
/// mebibyte come in parts.
///
/// # Errors
/// [`Error::Io`] if it cannot be opened. The pieces are errors where it cannot be read or is not
/// UTF-8.
pub fn read_lines(path: &Path) -> Result<Lines> {
    let file = File::open(path).map_err(|source| Error::Io {
        path: path.into(),
        source,
    })?;
    Ok(Lines {
        path: path.into(),
        reader: BufReader::with_capacity(1 << 20, file),
        rest: Vec::new(),
        read: 0,
    })
}

/// What [`read_lines`] gives.
#[derive(Debug)]
pub struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    /// The beginning of a character that was cut.
    rest: Vec<u8>,
    read: u64,
}

impl Lines {
    fn next_piece(&mut self) -> Result<Option<String>> {
        let mut piece = std::mem::take(&mut self.rest);
        let begins = self.read - piece.len() as u64;
        let read = self
            .reader
            .by_ref()
            .take(PIECE)
            .read_until(b'\n', &mut piece);
        let read = read.map_err(|source| Error::Io {
            path: self.path.clone(),
            source,
        })? as u64;
        self.read += read;
        if piece.is_empty() {
            return Ok(None);
        }
        match String::from_utf8(piece) {
            Ok(piece) => Ok(Some(piece)),
            // Only the size of a piece cuts a character.
            Err(error) if error.utf8_error().error_len().is_none() && read == PIECE => {
                let at = error.utf8_error().valid_up_to();
                let mut piece = error.into_bytes();
                self.rest = piece.split_off(at);
                Ok(Some(String::from_utf8(piece).expect("valid up to there")))
            }
            Err(error) => {
                let at = begins + error.utf8_error().valid_up_to() as u64;
                let reason = format!("not UTF-8 from byte {at} on; convert it first");
                Err(Error::Data {
                    path: self.path.clone(),
                    fault: DataFault::Decode(reason),
                })
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

/// Writes the tokens of a text file to `to`, a line at a time, so that neither has to fit into
/// memory. `told` hears how many bytes have been read. Gives the number of tokens.
///
/// Byte pairs do not reach over the ends of lines, as they may where a text is encoded as a whole.
///
/// # Errors
/// [`Error::Data`] where the text is not UTF-8, and whatever the tokenizer and the files report.
pub fn tokenize_file(
    text: impl AsRef<Path>,
    tokenizer: &dyn Tokenizer,
    to: impl AsRef<Path>,
    mut told: impl FnMut(u64),
) -> Result<usize> {
    let (text, to) = (text.as_ref(), to.as_ref());
    let io = |path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    };
    let mut lines = read_lines(text)?;
    let mut count = 0;
    write_atomic_with(to, |temporary| {
        let mut writer =
            BufWriter::with_capacity(1 << 20, File::create(temporary).map_err(io(temporary))?);
        writer
            .write_all(&[0; HEADER as usize])
            .map_err(io(temporary))?;
        while let Some(line) = lines.next() {
            for token in tokenizer.encode(&line?)? {
                writer
                    .write_all(&token.to_le_bytes())
                    .map_err(io(temporary))?;
                count += 1;
            }
            told(lines.read);
        }
        let mut file = writer
            .into_inner()
            .map_err(|error| io(temporary)(error.into_error()))?;
        file.rewind().map_err(io(temporary))?;
        file.write_all(MAGIC).map_err(io(temporary))?;
        file.write_all(&(count as u64).to_le_bytes())
            .map_err(io(temporary))
    })?;
    Ok(count)
}
