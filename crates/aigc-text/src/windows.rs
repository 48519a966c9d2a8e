//! Windows of tokens for training, from memory or from a file, which may be larger than memory.

use crate::token_file::{HEADER, MAGIC};
use aigc_core::{DataFault, Error, Result, data::Dataset};
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

/// A sequence of tokens, in memory or in a file.
#[derive(Debug)]
enum TokenStore {
    Memory(Vec<u32>),
    /// The file is read when a window is requested.
    File {
        path: PathBuf,
        file: Arc<Mutex<File>>,
        first: usize,
        len: usize,
    },
}

/// Windows of the tokens of a text: `block_size` inputs and one more token, since the target of
/// each token is the next one.
#[derive(Debug)]
pub struct TokenDataset {
    tokens: TokenStore,
    block_size: usize,
    stride: usize,
}

impl TokenDataset {
    /// Windows of `block_size` input tokens that begin `stride` tokens apart.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `block_size` or `stride` is 0, or there are not enough tokens
    /// for a window.
    pub fn new(tokens: Vec<u32>, block_size: usize, stride: usize) -> Result<Self> {
        Self::from_store(TokenStore::Memory(tokens), block_size, stride)
    }

    /// Windows of a file that [`tokenize_file`](crate::tokenize_file) wrote; see
    /// [`new`](Self::new).
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::Data`] if the file is truncated or not a token file;
    /// [`Error::Io`] if it cannot be read.
    pub fn open(path: impl AsRef<Path>, block_size: usize, stride: usize) -> Result<Self> {
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
            let reason = "not a token file; write one from the text with tokenize_file".into();
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
        Self::from_store(
            TokenStore::File {
                path: path.into(),
                file: Arc::new(Mutex::new(file)),
                first: 0,
                len: len as usize,
            },
            block_size,
            stride,
        )
    }

    fn from_store(tokens: TokenStore, block_size: usize, stride: usize) -> Result<Self> {
        for (field, n) in [("block_size", block_size), ("stride", stride)] {
            if n == 0 {
                return Err(Error::argument(field, n, "at least 1"));
            }
        }
        let windows = Self {
            tokens,
            block_size,
            stride,
        };
        if windows.num_tokens() <= block_size {
            let expected = format!("more than {block_size}, the block size; or a smaller one");
            return Err(Error::argument("tokens", windows.num_tokens(), expected));
        }
        Ok(windows)
    }

    /// Splits the tokens into training windows of the first `train_fraction`, and evaluation
    /// windows of the rest. Evaluation windows begin `block_size` tokens apart, so that each token
    /// is predicted once.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `train_fraction` is not between 0 and 1, or leaves too few
    /// tokens for a window.
    pub fn split(self, train_fraction: f64) -> Result<(Self, Self)> {
        if !(train_fraction > 0.0 && train_fraction < 1.0) {
            let expected = "above 0 and below 1";
            return Err(Error::argument("train_fraction", train_fraction, expected));
        }
        let at = (self.num_tokens() as f64 * train_fraction) as usize;
        let [train, held_out] = match self.tokens {
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
            Self::from_store(train, self.block_size, self.stride)?,
            Self::from_store(held_out, self.block_size, self.block_size)?,
        ))
    }

    /// Number of tokens.
    pub fn num_tokens(&self) -> usize {
        match &self.tokens {
            TokenStore::Memory(tokens) => tokens.len(),
            TokenStore::File { len, .. } => *len,
        }
    }

    /// Number of input tokens of a window.
    pub fn block_size(&self) -> usize {
        self.block_size
    }
}

impl Dataset for TokenDataset {
    type Item = Vec<u32>;

    fn len(&self) -> usize {
        (self.num_tokens() - self.block_size - 1) / self.stride + 1
    }

    fn get(&self, index: usize) -> Result<Vec<u32>> {
        assert!(index < self.len(), "window {index} of {}", self.len());
        let (start, n) = (index * self.stride, self.block_size + 1);
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
