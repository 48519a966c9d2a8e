//! The figures of `docs/results.md` on sound: a classifier of spoken digits, a codec, speech from a
//! codec's tokens, a vocoder, and diffusion of mel spectra. Each command trains one of them on
//! FSDD and prints its measures beside their goals and floors:
//!
//!     cargo run --release --example reproduce_sound -- classifier --data FSDD
//!     cargo run --release --example reproduce_sound -- classifier --data FSDD --label speaker
//!     cargo run --release --example reproduce_sound -- codec --data FSDD
//!     cargo run --release --example reproduce_sound -- codes --data FSDD
//!     cargo run --release --example reproduce_sound -- vocoder --data FSDD
//!     cargo run --release --example reproduce_sound -- mel --data FSDD
//!
//! The others need the first; `codes` needs the first three. What they need is taken from the
//! newest run, or from the directory that an option names.
//!
//! | file | content |
//! |---|---|
//! | `fsdd` | the recordings: splits, labels, batches |
//! | `size` | the networks |
//! | `reader` | what a classifier reads in sounds, and scores by it |
//! | `runs` | what the runs of other commands hold |
//! | `resynthesis` | Griffin-Lim, and distances of sounds from their originals |
//! | `measures` | values with intervals, goals and floors |
//! | `listen` | sounds and spectrograms for people |
//! | `classifier`, `codec`, `codes`, `vocoder`, `mel` | the commands |
//! | `coded` | the codes of clips |

#![forbid(unsafe_code)]

mod classifier;
mod codec;
mod coded;
mod codes;
mod fsdd;
mod listen;
mod measures;
mod mel;
mod reader;
mod resynthesis;
mod runs;
mod size;
mod vocoder;

use aigc_examples::{is_stop, stop_on_ctrl_c};
use clap::{Parser, Subcommand};

/// Trains and measures models of spoken digits.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Train a classifier of digits or of speakers, by which the others are measured.
    Classifier(classifier::Options),
    /// Train a codec of 1.6 kbit/s, with or without discriminators.
    Codec(codec::Options),
    /// Train a model of a codec's tokens, which is told a digit and a speaker.
    Codes(codes::Options),
    /// Train a vocoder.
    Vocoder(vocoder::Options),
    /// Train a diffusion model of mel spectra, which is told a digit.
    Mel(mel::Options),
}

fn main() -> anyhow::Result<()> {
    let what = Cli::parse().what;
    let stop = stop_on_ctrl_c();
    let token = stop.clone();
    let result = match what {
        What::Classifier(options) => classifier::run(&options, stop),
        What::Codec(options) => codec::run(&options, stop),
        What::Codes(options) => codes::run(&options, stop),
        What::Vocoder(options) => vocoder::run(&options, stop),
        What::Mel(options) => mel::run(&options, stop),
    };
    match result {
        Err(error) if is_stop(&error, &token) => {
            eprintln!("stopped before training began");
            std::process::exit(130)
        }
        result => result,
    }
}
