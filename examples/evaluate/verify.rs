//! Says where generated files came from, and whether they or their records were changed.
//!
//!     cargo run --release --example verify -- samples.png sound.wav
//!
//! Signed Content Credentials are checked, too, with the feature `c2pa`:
//!
//!     cargo run --release -p aigc-examples-evaluate --features c2pa --example verify -- \
//!         --anchors authorities.pem photo.jpg

#![forbid(unsafe_code)]

use aigc_core::{
    DataFault, Error, Result,
    output::provenance::{Provenance, Verification, verify_file},
};
use aigc_examples::outln;
use aigc_examples_evaluate::printable;
use clap::Parser;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Checks PNG, WAV and GIF files against the record of how they were made. Built with the feature
/// `c2pa`, it also checks signed Content Credentials, in JPEG files too; without it, credentials
/// are not seen. The exit status is 0 if every file has a record or credentials, and all that it
/// has is valid; otherwise it is 1.
#[derive(Debug, Parser)]
#[command(name = "verify")]
struct Options {
    /// Files to check.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print all that a valid record says, as JSON.
    #[arg(long)]
    json: bool,
    /// Certificates (PEM) of the authorities to trust. Without them, signers are unknown.
    #[cfg(feature = "c2pa")]
    #[arg(long, value_name = "FILE")]
    anchors: Option<PathBuf>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut status = ExitCode::SUCCESS;
    for file in &options.files {
        match check(file, &options) {
            Ok(true) => {}
            Ok(false) => status = ExitCode::FAILURE,
            Err(error) => {
                let message = format!("error: {}: {error}", file.display());
                eprintln!("{}", printable(&message));
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}

/// Prints what a file says of its origin; whether it says something, and all of it is valid.
fn check(file: &Path, options: &Options) -> Result<bool> {
    let signed = check_credentials(file, options)?;
    let found = match verify_file(file) {
        // JPEG files have no records.
        Err(Error::Data {
            fault: DataFault::BadHeader(_),
            ..
        }) if signed.is_some() => return Ok(signed == Some(true)),
        found => found?,
    };
    say(file, &found);
    Ok(match found {
        Verification::Valid(record) => {
            say_all(&record, options);
            signed != Some(false)
        }
        Verification::Missing => signed == Some(true),
        _ => false,
    })
}

/// Prints the credentials of a file; whether they are valid, or `None` if it has none.
#[cfg(feature = "c2pa")]
fn check_credentials(file: &Path, options: &Options) -> Result<Option<bool>> {
    let Some(found) = credentials::read(file, options.anchors.as_deref())? else {
        return Ok(None);
    };
    say(file, &credentials::line(&found));
    let is_valid = credentials::is_valid(&found);
    if let Some(record) = found.provenance.filter(|_| is_valid) {
        say_all(&record, options);
    }
    Ok(Some(is_valid))
}

#[cfg(not(feature = "c2pa"))]
fn check_credentials(_: &Path, _: &Options) -> Result<Option<bool>> {
    Ok(None)
}

fn say(file: &Path, text: &impl std::fmt::Display) {
    outln!("{}", printable(&format!("{}: {text}", file.display())));
}

fn say_all(record: &Provenance, options: &Options) {
    if options.json {
        outln!("{}", printable(&serde_json::json!(record).to_string()));
    }
}

#[cfg(feature = "c2pa")]
mod credentials {
    use aigc_core::{
        Error, Result,
        fs::{read_at_most, read_text},
        output::provenance::{
            MAX_BYTES,
            c2pa::{self, CredentialState, Credentials},
        },
    };
    use std::path::Path;

    /// Those of a file; `None` if it has none, or a format that cannot have them. The authorities
    /// to trust are certificates in a file.
    pub(crate) fn read(file: &Path, anchors: Option<&Path>) -> Result<Option<Credentials>> {
        let anchors = anchors.map(read_text).transpose()?;
        let bytes = read_at_most(file, MAX_BYTES)?;
        match c2pa::read(&bytes, anchors.as_deref()) {
            Err(Error::InvalidArgument { argument, .. }) if argument == "bytes" => Ok(None),
            found => found,
        }
    }

    /// Whether the signature is valid and the file unchanged.
    pub(crate) fn is_valid(found: &Credentials) -> bool {
        found.state != CredentialState::Invalid
    }

    /// What they say, in one line.
    pub(crate) fn line(found: &Credentials) -> String {
        let trust = match found.state {
            CredentialState::Trusted => "trusted",
            CredentialState::Valid => "valid, of an unknown signer",
            CredentialState::Invalid => {
                let failures = found.failures.join(", ");
                return format!("Content Credentials are not valid: {failures}");
            }
        };
        let signer = found.signer.as_deref().unwrap_or("no name");
        let issuer = found.issuer.as_deref().unwrap_or("no organisation");
        let origin = match &found.provenance {
            Some(made) => format!("made by {} with model {}", made.generator, made.model),
            None => "without a record of how it was made".to_owned(),
        };
        format!("Content Credentials: {trust}; signed by {signer} ({issuer}); {origin}")
    }
}
