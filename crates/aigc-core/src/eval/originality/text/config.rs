//! Settings of an index, and the sizes that it can have.

use super::{normalize::Normalization, suffixes::Suffixes};
use crate::{Error, Result};

/// How a [`TextIndex`](super::TextIndex) compares texts, and how much memory it may use.
///
/// Texts are compared code point by code point: `é` as one code point and as `e` with a combining
/// accent are different. Where sources differ in that, bring all texts into one of Unicode's normal
/// forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextIndexConfig {
    /// Whether each run of whitespace counts as one space, so that another line break does not hide
    /// a copy. On by default.
    pub normalize_whitespace: bool,
    /// Whether each character counts as its lower case (Unicode's mapping of single characters).
    /// Off by default.
    pub lowercase: bool,
    /// Largest memory of the index and its construction, in bytes; 8 GiB by default. The index
    /// takes about 5.25 bytes for each byte of text.
    pub max_memory_bytes: u64,
}

impl Default for TextIndexConfig {
    fn default() -> Self {
        Self {
            normalize_whitespace: true,
            lowercase: false,
            max_memory_bytes: 8 << 30,
        }
    }
}

/// Texts are shorter than this, in bytes: offsets have 32 bits, also where lower cases are longer.
const MAX_BYTES: u64 = 1 << 31;

/// Checks the size of a text that is searched.
pub(super) fn check_searched(name: &str, text: &str) -> Result<()> {
    if text.len() as u64 >= MAX_BYTES {
        return Err(Error::argument(
            name,
            format!("a text of {} bytes", text.len()),
            format!("less than {MAX_BYTES} bytes; split it into several texts"),
        ));
    }
    Ok(())
}

impl TextIndexConfig {
    pub(super) fn normalization(&self) -> Normalization {
        Normalization {
            whitespace: self.normalize_whitespace,
            lowercase: self.lowercase,
        }
    }

    /// Checks that texts of `bytes` bytes in `documents` documents can be indexed; `more` is memory
    /// that is needed besides.
    pub(super) fn check_size(&self, bytes: u64, documents: usize, more: u64) -> Result<()> {
        // A separator and at most two spaces for each.
        let indexed = bytes + 3 * documents as u64;
        let needed = Suffixes::memory(indexed) + 16 * documents as u64 + more;
        if indexed >= MAX_BYTES {
            return Err(Error::argument(
                "texts",
                format!("{bytes} bytes"),
                format!(
                    "less than {MAX_BYTES} bytes in all, for 32-bit offsets; split it into several \
                     indices"
                ),
            ));
        }
        if needed > self.max_memory_bytes {
            return Err(Error::argument(
                "max_memory_bytes",
                self.max_memory_bytes,
                format!("at least {needed} for {bytes} bytes of text, or less text"),
            ));
        }
        Ok(())
    }
}
