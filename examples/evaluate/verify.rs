//! Says where generated files came from, and whether they or their records were changed.
//!
//!     cargo run --release --example verify -- samples.png sound.wav

#![forbid(unsafe_code)]

use aigc_core::output::provenance::{Verification, verify_file};
use aigc_examples::outln;
use aigc_examples_evaluate::printable;
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
                outln!("{}", printable(&format!("{name}: {found}")));
                match found {
                    Verification::Valid(record) if options.json => {
                        outln!("{}", printable(&serde_json::json!(record).to_string()));
                    }
                    Verification::Valid(_) => {}
                    _ => status = ExitCode::FAILURE,
                }
            }
            Err(error) => {
                eprintln!("{}", printable(&format!("error: {name}: {error}")));
                status = ExitCode::FAILURE;
            }
        }
    }
    status
}
