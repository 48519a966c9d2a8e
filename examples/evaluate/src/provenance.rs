//! The records in the files that are judged.

use crate::{Part, book::Book};
use aigc_core::{
    Result,
    eval::report::{ProvenanceStatus, ProvenanceTable},
    output::provenance::{Provenance, Verification, verify_file},
};
use aigc_examples::Progress;
use std::path::{Path, PathBuf};

/// Extensions of files that can have a record.
const FORMATS: [&str; 4] = ["png", "wav", "wave", "gif"];

/// Verifies the record of each file, and adds a table of them if it is wanted. Returns the valid
/// records, one place for each file; none after an interruption.
pub(crate) fn verify(book: &mut Book, files: &[(String, PathBuf)]) -> Vec<Option<Provenance>> {
    let stop = book.stop().clone();
    let verified = book.attempt("records of where the files came from", || {
        let progress = Progress::new("records", files.len(), &stop);
        let one = |(_, path): &(String, PathBuf)| -> Result<_> {
            progress.add(1)?;
            Ok(verify_one(path))
        };
        files.iter().map(one).collect::<Result<Vec<_>>>()
    });
    let mut table = ProvenanceTable::new();
    let mut found = Vec::with_capacity(files.len());
    for ((name, _), (status, detail, record)) in files.iter().zip(verified.into_iter().flatten()) {
        table.push(name.as_str(), status, detail);
        found.push(record);
    }
    if !found.is_empty() && book.wants(Part::Provenance) {
        book.section("Provenance").add(table);
    }
    found
}

fn verify_one(path: &Path) -> (ProvenanceStatus, String, Option<Provenance>) {
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let verified = verify_file(path);
    match verified {
        Ok(Verification::Valid(record)) => {
            (ProvenanceStatus::Valid, describe(&record), Some(record))
        }
        Ok(Verification::Missing) => (ProvenanceStatus::Missing, String::new(), None),
        Ok(other) => (ProvenanceStatus::Invalid, other.to_string(), None),
        // Other formats cannot have a record; a PNG that is none is broken.
        Err(error) if FORMATS.contains(&extension.to_lowercase().as_str()) => {
            (ProvenanceStatus::Invalid, error.to_string(), None)
        }
        Err(_) => {
            let detail = format!("files of the kind “{extension}” have no records");
            (ProvenanceStatus::Missing, detail, None)
        }
    }
}

fn describe(record: &Provenance) -> String {
    let mut parts = vec![record.generator.clone(), format!("model {}", record.model)];
    parts.extend(record.seed.map(|seed| format!("seed {seed}")));
    parts.extend(record.index.map(|index| format!("sample {index}")));
    parts.extend(record.class.map(|class| format!("class {class}")));
    parts.extend(
        record
            .prompt
            .as_ref()
            .map(|prompt| format!("prompt “{prompt}”")),
    );
    parts.join(", ")
}
