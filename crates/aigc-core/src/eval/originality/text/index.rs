//! An index of a training text.

use super::{
    config::{TextIndexConfig, check_searched},
    hash::{Hashed, PrefixHashes},
    normalize::OffsetMap,
    spans::{Query, Span, is_start, maximal_spans, trim},
    suffixes::{SEPARATOR, Suffixes},
};
use crate::{DataFault, Error, Result, fs::read_text};
use std::{ops::Range, path::Path};

/// Finds passages of generated text in a training text of up to 2 GiB.
///
/// A suffix array over the bytes of all documents (Manber and Myers 1993), built by libsais.
/// Matches do not cross the borders of documents, and start and end at characters. The text is
/// compared as [`TextIndexConfig`] says; all offsets are those of the original texts.
#[derive(Clone, Debug)]
pub struct TextIndex {
    config: TextIndexConfig,
    suffixes: Suffixes,
    /// Where the documents start in the indexed text.
    starts: Vec<usize>,
    /// Offsets within the original documents.
    map: OffsetMap,
}

/// The longest match of [`TextIndex::longest_match`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Match {
    /// Length in the searched text, in bytes.
    pub len: usize,
    /// Number of the document that has it, from 0.
    pub document: usize,
    /// Offset in that document, in bytes.
    pub offset: usize,
}

/// A passage of a text that occurs in the training text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedSpan {
    /// Bytes of the searched text.
    pub range: Range<usize>,
    /// Length in characters, after normalisation.
    pub characters: usize,
    /// Number of a document that has it, from 0.
    pub document: usize,
    /// Offset in that document, in bytes.
    pub offset: usize,
}

impl TextIndex {
    /// Indexes documents.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no text, 2³¹ bytes or more, or if the index would
    /// need more memory than allowed.
    pub fn from_texts<S: AsRef<str>>(texts: &[S], config: &TextIndexConfig) -> Result<Self> {
        let bytes: u64 = texts.iter().map(|text| text.as_ref().len() as u64).sum();
        config.check_size(bytes, texts.len(), 0)?;
        let mut builder = Builder::new(*config, bytes, texts.len());
        for text in texts {
            builder.add(text.as_ref());
        }
        builder.build()
    }

    /// Indexes text files, one document each. Their sizes are checked before they are read. A
    /// byte-order mark at the beginning is no part of the text, and offsets do not count it.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be read; [`Error::Data`] if it is not UTF-8, or grows while
    /// files are read; and those of [`from_texts`](Self::from_texts).
    pub fn from_files<P: AsRef<Path>>(paths: &[P], config: &TextIndexConfig) -> Result<Self> {
        let sizes = paths.iter().map(|path| {
            let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
            Ok(metadata.len())
        });
        let sizes = sizes.collect::<Result<Vec<u64>>>()?;
        let bytes: u64 = sizes.iter().sum();
        config.check_size(bytes, paths.len(), 0)?;
        let mut builder = Builder::new(*config, bytes, paths.len());
        for (path, size) in paths.iter().zip(sizes) {
            let text = read_text(path)?;
            if text.len() as u64 > size {
                let found = text.len();
                let fault = format!("{found} bytes, but {size} when its size was checked");
                return Err(Error::data(path, DataFault::Mismatch(fault)));
            }
            builder.add(&text);
        }
        builder.build()
    }

    /// How texts are compared.
    pub fn config(&self) -> &TextIndexConfig {
        &self.config
    }

    /// Number of documents.
    pub fn documents(&self) -> usize {
        self.starts.len()
    }

    /// Memory of the index in bytes.
    pub fn memory_bytes(&self) -> u64 {
        Suffixes::memory(self.suffixes.bytes() as u64)
            + (self.starts.capacity() * size_of::<usize>()) as u64
            + self.map.memory()
    }

    /// The longest passage from byte `position` of `text` on that occurs in the training text;
    /// `None` if not even its first character does. It takes `O(log n)` comparisons for `n` bytes
    /// of training text, and time to hash the rest of `text`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if there is no character at `position`, or if `text` has 2³¹
    /// bytes or more.
    pub fn longest_match(&self, text: &str, position: usize) -> Result<Option<Match>> {
        check_searched("text", text)?;
        if position >= text.len() || !text.is_char_boundary(position) {
            return Err(Error::argument(
                "position",
                position,
                format!("the start of a character of a text of {} bytes", text.len()),
            ));
        }
        let (mut query, mut map) = (Vec::new(), OffsetMap::default());
        let normalization = self.config.normalization();
        normalization.append(&text[position..], false, &mut query, &mut map);
        let hashes = PrefixHashes::new(&query);
        let hashed = Hashed {
            text: &query,
            hashes: &hashes,
        };
        let found = self.suffixes.longest(hashed, 0);
        let mut length = found.length;
        while length < query.len() && !is_start(query[length]) {
            length -= 1;
        }
        if length == 0 {
            return Ok(None);
        }
        let (document, offset) = self.locate(found.place);
        let len = map.original(length);
        // A part of the lower case of one character is no match.
        Ok((len > 0).then_some(Match {
            len,
            document,
            offset,
        }))
    }

    /// The passages of at least `min_characters` characters that occur in the training text and
    /// cannot be extended, longest first. They may overlap, but none lies in another. Where
    /// whitespace is normalised, they neither start nor end with it.
    ///
    /// For `m` characters this takes `O(m log n)` comparisons, also for repetitive texts: long
    /// prefixes are compared by hashes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `min_characters` is 0, or `text` has 2³¹ bytes or more.
    pub fn spans(&self, text: &str, min_characters: usize) -> Result<Vec<CopiedSpan>> {
        if min_characters == 0 {
            return Err(Error::argument("min_characters", 0, "at least 1"));
        }
        let query = self.query("text", text)?;
        let mut spans = self.trimmed(&query, &self.maximal(&query));
        spans.retain(|span| span.characters() >= min_characters);
        spans.sort_by_key(|span| (std::cmp::Reverse(span.characters()), span.start));
        let copied = spans.iter().map(|span| self.copied(&query, span));
        // A part of the lower case of one character is no passage.
        Ok(copied.filter(|span| !span.range.is_empty()).collect())
    }

    /// # Errors
    /// [`Error::InvalidArgument`] that names `name` if the text is too large.
    pub(super) fn query(&self, name: &str, text: &str) -> Result<Query> {
        check_searched(name, text)?;
        Ok(Query::new(text, self.config.normalization()))
    }

    pub(super) fn maximal(&self, query: &Query) -> Vec<Span> {
        maximal_spans(&self.suffixes, query)
    }

    pub(super) fn trimmed(&self, query: &Query, spans: &[Span]) -> Vec<Span> {
        trim(spans, query, self.config.normalization())
    }

    pub(super) fn copied(&self, query: &Query, span: &Span) -> CopiedSpan {
        let original = |character: usize| query.map.original(query.starts[character]);
        let (document, offset) = self.locate(span.place);
        CopiedSpan {
            range: original(span.start)..original(span.end),
            characters: span.characters(),
            document,
            offset,
        }
    }

    /// Document and original offset of a byte of the indexed text.
    fn locate(&self, place: usize) -> (usize, usize) {
        let document = self.starts.partition_point(|start| *start <= place) - 1;
        (document, self.map.original(place))
    }
}

struct Builder {
    config: TextIndexConfig,
    text: Vec<u8>,
    starts: Vec<usize>,
    map: OffsetMap,
}

impl Builder {
    fn new(config: TextIndexConfig, bytes: u64, documents: usize) -> Self {
        Self {
            config,
            text: Vec::with_capacity(bytes as usize + 3 * documents),
            starts: Vec::with_capacity(documents),
            map: OffsetMap::default(),
        }
    }

    fn add(&mut self, text: &str) {
        self.starts.push(self.text.len());
        let normalization = self.config.normalization();
        normalization.append(text, true, &mut self.text, &mut self.map);
        self.text.push(SEPARATOR);
    }

    fn build(mut self) -> Result<TextIndex> {
        if self.is_blank() {
            return Err(Error::argument(
                "texts",
                format!("{} empty documents", self.starts.len()),
                "at least one character",
            ));
        }
        self.text.shrink_to_fit();
        self.map.shrink_to_fit();
        // Some lower cases are longer, and the offsets take memory where whitespace is irregular.
        self.config
            .check_size(self.text.len() as u64, self.starts.len(), self.map.memory())?;
        Ok(TextIndex {
            config: self.config,
            suffixes: Suffixes::new(self.text)?,
            starts: self.starts,
            map: self.map,
        })
    }

    fn is_blank(&self) -> bool {
        let added =
            |byte: &u8| *byte == SEPARATOR || (self.config.normalize_whitespace && *byte == b' ');
        self.text.iter().all(added)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> TextIndexConfig {
        TextIndexConfig {
            normalize_whitespace: false,
            ..TextIndexConfig::default()
        }
    }

    #[test]
    fn longest_match_names_document_and_offset() {
        let index = TextIndex::from_texts(&["one two", "", "two three"], &plain()).unwrap();
        let found = index.longest_match("xtwo threx", 1).unwrap().unwrap();
        assert_eq!((found.len, found.document, found.offset), (8, 2, 0));
        assert_eq!(index.longest_match("xtwo", 0).unwrap(), None);
        assert_eq!(index.documents(), 3);
        for position in [4, 5] {
            let error = index.longest_match("xtwo", position).unwrap_err();
            assert!(error.to_string().contains("`position`"), "{error}");
        }
        assert!(index.longest_match("é", 1).is_err());
    }

    #[test]
    fn spans_are_maximal_and_do_not_cross_documents() {
        let index = TextIndex::from_texts(&["the cat", "sat down"], &plain()).unwrap();
        let text = "-the catsat down-";
        let spans = index.spans(text, 3).unwrap();
        let found: Vec<(&str, usize, usize)> = spans
            .iter()
            .map(|span| (&text[span.range.clone()], span.document, span.offset))
            .collect();
        assert_eq!(found, [("sat down", 1, 0), ("the cat", 0, 0)]);
        assert_eq!(spans[0].range, 8..16);
        assert!(index.spans("a", 0).is_err());
        assert_eq!(index.spans("", 1).unwrap(), []);
    }

    #[test]
    fn normalised_spans_have_original_offsets() {
        let config = TextIndexConfig {
            lowercase: true,
            ..TextIndexConfig::default()
        };
        let index = TextIndex::from_texts(&["So: the\n   İCE cat sat."], &config).unwrap();
        let text = "!  THE  İce\tCat  ?";
        let spans = index.spans(text, 4).unwrap();
        assert_eq!(spans.len(), 1);
        assert_eq!(&text[spans[0].range.clone()], "THE  İce\tCat");
        assert_eq!(spans[0].offset, 4);
        let found = index.longest_match(text, 8).unwrap().unwrap();
        assert_eq!(&text[8..8 + found.len], "İce\tCat  ");
        assert_eq!(found.offset, 11);
        // The lower case of `İ` is `i` and a dot; `i` alone is no part of this text.
        let index = TextIndex::from_texts(&["i"], &config).unwrap();
        assert_eq!(index.spans("İ", 1).unwrap(), []);
        assert_eq!(index.longest_match("İ", 0).unwrap(), None);
    }

    #[test]
    fn impossible_indices_are_errors() {
        let none: [&str; 0] = [];
        for error in [
            TextIndex::from_texts(&none, &plain()).unwrap_err(),
            TextIndex::from_texts(&["", ""], &plain()).unwrap_err(),
            TextIndex::from_texts(&[" \n"], &TextIndexConfig::default()).unwrap_err(),
        ] {
            assert!(
                error.to_string().contains("at least one character"),
                "{error}"
            );
        }
        let small = TextIndexConfig {
            max_memory_bytes: 1 << 20,
            ..plain()
        };
        let error = TextIndex::from_texts(&["a".repeat(300_000)], &small).unwrap_err();
        assert!(
            error.to_string().contains("`max_memory_bytes` is 1048576"),
            "{error}"
        );
        assert!(TextIndex::from_texts(&["a".repeat(100_000)], &small).is_ok());
        let error = plain().check_size(1 << 31, 1, 0).unwrap_err();
        assert!(
            error.to_string().contains("less than 2147483648"),
            "{error}"
        );
        assert!(TextIndex::from_files(&["/no/such/file"], &plain()).is_err());
    }

    #[test]
    fn files_are_documents() {
        let dir = tempfile::tempdir().unwrap();
        let (good, bad) = (dir.path().join("a.txt"), dir.path().join("b.txt"));
        std::fs::write(&good, "a line of text").unwrap();
        std::fs::write(&bad, b"a\n\xff").unwrap();
        let index = TextIndex::from_files(&[&good], &plain()).unwrap();
        assert_eq!(index.spans("line of", 7).unwrap()[0].offset, 2);
        let error = TextIndex::from_files(&[&good, &bad], &plain()).unwrap_err();
        let error = error.to_string();
        assert!(
            error.contains("not UTF-8 from byte 2 on (line 2)"),
            "{error}"
        );
        // With a byte-order mark.
        std::fs::write(&good, "\u{feff}a line of text").unwrap();
        let index = TextIndex::from_files(&[&good], &plain()).unwrap();
        assert_eq!(index.spans("line of", 7).unwrap()[0].offset, 2);
        assert_eq!(index.spans("\u{feff}", 1).unwrap(), []);
    }

    /// The kernel's files have no length before they are read.
    #[cfg(target_os = "linux")]
    #[test]
    fn files_longer_than_checked_are_errors() {
        let error = TextIndex::from_files(&["/proc/version"], &plain()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("but 0 when its size was checked"), "{error}");
    }
}
