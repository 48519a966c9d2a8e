//! Checks where a picture comes from: `digits verify FILE`.

use aigc_core::output::provenance::verify_file;
use aigc_examples::outln;
use anyhow::Result;
use std::{path::Path, process::ExitCode};

/// Prints what the record of a file says. The status is a failure unless the record and the content
/// are as they were written.
pub(crate) fn run(file: &Path) -> Result<ExitCode> {
    let found = verify_file(file)?;
    outln!("{}: {found}", file.display());
    let Some(record) = found.valid() else {
        return Ok(ExitCode::FAILURE);
    };
    outln!("{}", serde_json::to_string_pretty(record)?);
    Ok(ExitCode::SUCCESS)
}
