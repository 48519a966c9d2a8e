//! Says where generated files came from, and whether they or their records were changed.
//!
//!     cargo run --release --example verify -- samples.png sound.wav

#![forbid(unsafe_code)]

use aigc_core::output::provenance::{Verification, verify_file};
use aigc_examples::outln;
use clap::Parser;
use std::{path::PathBuf, process::ExitCode};

/// Checks PNG, WAV and GIF files against the record of how they were made. The exit status is 0 if
/// all records are valid, and 1 otherwise.
#[derive(Debug, Parser)]
#[command(name = "verify")]
struct Options {
    /// Files to check.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print all that a valid record says, as JSON.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let mut status = ExitCode::SUCCESS;
    for file in &options.files {
        let name = file.display();
        match verify_file(file) {
            Ok(found) => {
                outln!("{name}: {found}");
                match found {
                    Verification::Valid(record) if options.json => {
                        outln!("{}", serde_json::json!(record));
                    }
                    Verification::Valid(_) => {}
                    _ => status = ExitCode::FAILURE,
                }
            }
            Err(error) => {
                eprintln!("error: {name}: {error}");
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}
