//! Where a file came from: a record inside PNG, WAV and GIF files.
//!
//! ```no_run
//! use aigc_core::output::provenance::{
//!     Provenance, Verification, save_with_provenance, verify_file,
//! };
//! use std::path::Path;
//!
//! # fn main() -> aigc_core::Result<()> {
//! let wav = std::fs::read("sample.wav").unwrap();
//! let provenance = Provenance::new("wave_vae").with_seed(7);
//! save_with_provenance(&wav, &provenance, Path::new("sample.wav"))?;
//! match verify_file("sample.wav")? {
//!     Verification::Valid(provenance) => println!("seed {:?}", provenance.seed),
//!     other => println!("{other}"),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Where the record is, and what counts as content
//! - PNG: a text chunk `aigc-provenance` (`tEXt` or `iTXt`; compressed ones are read, too). Content
//!   are types, lengths and data of all chunks but `tEXt`, `zTXt`, `iTXt`, `tIME` and `caBX`.
//! - WAV: a chunk `aigc`, behind a comment for people (`LIST`, `INFO`, `ICMT`). Content are types,
//!   lengths and data of all chunks but `aigc`, `C2PA`, `JUNK`, and `LIST` of the types `INFO` and
//!   `adtl`.
//! - GIF: an application extension `AIGCPROV1.0`. Content are all bytes behind the version but
//!   comments and the application extensions `AIGCPROV1.0`, `C2PA_GIF` and `XMP Data`.
//!
//! So other programs may add texts, and the file may be signed afterwards. A picture that
//! is encoded again, even without loss, is other content. A record whose chunk, extension or
//! keyword gets another name counts as removed.
//!
//! # The form of the record
//! A JSON object with `version` (1), `provenance` (the fields of [`Provenance`]), `content_hash`
//! and `record_hash`, both as `sha256:` and hexadecimal digits. Its keys are sorted and it has no
//! spaces between them. `record_hash` is the hash of the text without this field. Text in any
//! other form counts as changed.
//!
//! Keys are sorted by code points. Only `"`, `\` and characters below U+0020 have escapes: `\b`,
//! `\f`, `\n`, `\r` and `\t`, the others as `\u001f`. Integers have no point. Other numbers have
//! the fewest digits that read back as the same 64-bit value: from 1e-4 to below 1e16 with a point,
//! as `0.1` and `20.0`, and otherwise with an exponent without `+` and leading zeros, as `1e-5` and
//! `1.5e16`.
//!
//! # What it proves
//! The hashes find damage and carelessness: a file that was cut or edited, a record that was moved
//! or retouched. They prove nothing against intent, for whoever changes a file can compute them
//! anew, or remove the record. Who vouches for a file is proven by signatures: module `c2pa`, with
//! the feature of this name.

#[cfg(feature = "c2pa")]
pub mod c2pa;
mod gif;
pub mod png;
mod record;
mod verify;
mod wav;

pub use record::Provenance;
pub use verify::{Verification, verify, verify_file};

use crate::{DataFault, Error, Result, fs::write_atomic};
use std::{ops::Range, path::Path};

/// Largest size of a file with a record, in bytes: 4 GiB, about what a WAV file can have. Files are
/// written and checked in memory.
pub const MAX_BYTES: u64 = 1 << 32;

/// The bytes of a PNG, WAV or GIF file with a record. A record that they have is replaced.
///
/// # Errors
/// [`Error::InvalidArgument`] if the bytes are of no such file or damaged, the record has more than
/// 4 MiB, or the file has more than [`MAX_BYTES`] with it; [`Error::Unsupported`] for RF64.
pub fn embed(bytes: &[u8], provenance: &Provenance) -> Result<Vec<u8>> {
    let format = Format::of(bytes)?;
    let scan = format.scan(bytes).map_err(|fault| {
        let expected = format!("an intact {} file", format.name());
        Error::argument("bytes", fault, expected)
    })?;
    let text = record::seal(provenance, &scan.content_hash)?;
    let with = match format {
        Format::Png => png::insert(bytes, &scan, &text)?,
        Format::Wav => wav::insert(bytes, &scan, &text, provenance)?,
        Format::Gif => gif::insert(bytes, &scan, &text),
    };
    match with.len() as u64 {
        0..=MAX_BYTES => Ok(with),
        _ => Err(too_large(with.len())),
    }
}

fn too_large(length: usize) -> Error {
    let found = format!("{length} bytes with the record");
    Error::argument("bytes", found, format!("at most {MAX_BYTES} bytes"))
}

/// Writes the bytes of a PNG, WAV or GIF file with a record to `path`, atomically.
///
/// # Errors
/// As for [`embed`]; [`Error::Io`] if the file cannot be written.
pub fn save_with_provenance(bytes: &[u8], provenance: &Provenance, path: &Path) -> Result<()> {
    write_atomic(path, &embed(bytes, provenance)?)
}

/// The formats that can have a record.
#[derive(Clone, Copy)]
enum Format {
    Png,
    Wav,
    Gif,
}

impl Format {
    fn of(bytes: &[u8]) -> Result<Self> {
        let is_wave = bytes.get(8..12) == Some(b"WAVE");
        if is_wave && (bytes.starts_with(b"RF64") || bytes.starts_with(b"BW64")) {
            return Err(Error::unsupported(
                "RF64, the form of WAV files above 4 GiB",
                "provenance",
                "split the sound into shorter files",
            ));
        }
        if bytes.starts_with(png::SIGNATURE) {
            Ok(Self::Png)
        } else if is_wave && bytes.starts_with(b"RIFF") {
            Ok(Self::Wav)
        } else if gif::SIGNATURES.iter().any(|s| bytes.starts_with(s)) {
            Ok(Self::Gif)
        } else {
            let start = &bytes[..bytes.len().min(12)];
            let found = format!("{} bytes that begin with {start:02x?}", bytes.len());
            Err(Error::argument("bytes", found, "a PNG, WAV or GIF file"))
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Png => "PNG",
            Self::Wav => "WAV",
            Self::Gif => "GIF",
        }
    }

    fn scan(self, bytes: &[u8]) -> Result<Scan, DataFault> {
        match self {
            Self::Png => png::scan(bytes),
            Self::Wav => wav::scan(bytes),
            Self::Gif => gif::scan(bytes),
        }
    }
}

/// Limit on the number of records that are read: they must not fill the memory.
const MAX_RECORDS: usize = 16;

/// What a file has.
#[derive(Default)]
struct Scan {
    content_hash: String,
    records: Vec<Record>,
}

struct Record {
    /// Its bytes in the file, with those of a comment for people.
    range: Range<usize>,
    /// Its text, or why it has none.
    text: Result<String, String>,
}

impl Scan {
    fn push(&mut self, range: Range<usize>, text: Result<String, String>) -> Result<(), DataFault> {
        if self.records.len() == MAX_RECORDS {
            let reason = format!("more than {MAX_RECORDS} provenance records");
            return Err(DataFault::Decode(reason));
        }
        let text = match text {
            Ok(text) if text.len() > record::MAX_TEXT => {
                Err(format!("it has more than {} bytes", record::MAX_TEXT))
            }
            other => other,
        };
        self.records.push(Record { range, text });
        Ok(())
    }

    /// The file without its records.
    fn without_records(&self, bytes: &[u8]) -> Vec<u8> {
        let mut kept = Vec::with_capacity(bytes.len());
        let mut at = 0;
        for record in &self.records {
            kept.extend(&bytes[at..record.range.start]);
            at = record.range.end;
        }
        kept.extend(&bytes[at..]);
        kept
    }
}

#[cfg(test)]
mod tests;
