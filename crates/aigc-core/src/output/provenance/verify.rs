//! Checking a file against its record.

use super::{
    Format, MAX_BYTES, Provenance,
    record::{self, VERSION},
};
use crate::{DataFault, Error, Result, fs::read_at_most};
use std::{fmt, path::Path};

/// The result of checking the provenance record of a file.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Verification {
    /// Record and content are as they were written.
    Valid(Provenance),
    /// There is no record.
    Missing,
    /// The record is as it was written, for other content: the picture or sound was edited or
    /// encoded again, or the record was moved here from another file.
    ContentChanged(Provenance),
    /// The record is not as it was written.
    RecordChanged {
        /// How one sees it.
        reason: String,
    },
    /// The file is cut, has bytes behind its end, or its structure or checksums are broken. Its
    /// record, if there is one, is not read.
    Damaged(DataFault),
    /// There are several records; none of them is read.
    Several(usize),
}

impl Verification {
    /// The record, if it and the content are as they were written.
    pub fn valid(&self) -> Option<&Provenance> {
        match self {
            Self::Valid(provenance) => Some(provenance),
            _ => None,
        }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Valid(provenance) => write!(f, "valid: made by {}", by(provenance)),
            Self::Missing => write!(f, "no provenance record"),
            Self::ContentChanged(provenance) => write!(
                f,
                "the content is not that of the record, which names {}",
                by(provenance)
            ),
            Self::RecordChanged { reason } => write!(f, "the record was changed: {reason}"),
            Self::Damaged(fault) => write!(f, "the file is damaged: {fault}"),
            Self::Several(count) => write!(f, "{count} provenance records, expected one"),
        }
    }
}

fn by(provenance: &Provenance) -> String {
    format!("{} with model {}", provenance.generator, provenance.model)
}

/// Checks the bytes of a PNG, WAV or GIF file against their record.
///
/// # Errors
/// [`Error::InvalidArgument`] if they are of no such file; [`Error::Unsupported`] for RF64 and for
/// an intact record of a newer version.
pub fn verify(bytes: &[u8]) -> Result<Verification> {
    let format = Format::of(bytes)?;
    let scan = match format.scan(bytes) {
        Ok(scan) => scan,
        Err(fault) => return Ok(Verification::Damaged(fault)),
    };
    let text = match &scan.records[..] {
        [] => return Ok(Verification::Missing),
        [record] => &record.text,
        several => return Ok(Verification::Several(several.len())),
    };
    let opened = text.as_ref().map_err(String::clone);
    let stored = match opened.and_then(|text| record::open(text)) {
        Ok(stored) => stored,
        Err(reason) => return Ok(Verification::RecordChanged { reason }),
    };
    if stored.version != VERSION {
        return Err(Error::unsupported(
            format!("a provenance record of version {}", stored.version),
            "verify",
            "use a newer version of aigc",
        ));
    }
    let is_of_content = stored.content_hash == scan.content_hash;
    Ok(match stored.provenance() {
        Err(reason) => Verification::RecordChanged { reason },
        Ok(provenance) if is_of_content => Verification::Valid(provenance),
        Ok(provenance) => Verification::ContentChanged(provenance),
    })
}

/// Checks a PNG, WAV or GIF file against its record.
///
/// # Errors
/// [`Error::Io`] if the file cannot be read; [`Error::Data`] if it has another format or more than
/// [`MAX_BYTES`]; [`Error::Unsupported`] as for [`verify`].
pub fn verify_file(path: impl AsRef<Path>) -> Result<Verification> {
    let path = path.as_ref();
    let bytes = read_at_most(path, MAX_BYTES)?;
    verify(&bytes).map_err(|error| match error {
        Error::InvalidArgument { expected, .. } => {
            let reason = format!("expected {expected}");
            Error::data(path, DataFault::BadHeader(reason))
        }
        other => other,
    })
}
