//! Writes music.
//!
//!     cargo run --release --example music
//!     cargo run --release --example music -- --data jsb-chorales
//!     cargo run --release --example music -- --data jsb-chorales --grid quarters
//!     cargo run --release --example music -- --model musicgen-small --prompt "slow piano"
//!
//! The first command trains a small GPT on melodies of a grammar for some minutes; the next two on
//! the chorales of Bach, of the JSB-Chorales-dataset. All three write new pieces as MIDI files,
//! sounds and pictures, and print statistics beside those of the data. The last one makes sound
//! from a description with a folder of MusicGen; its file grows while it is made.
//!
//! | file | content |
//! |---|---|
//! | `melody`, `notation` | music as tokens, and which token may come next |
//! | `model`, `layers` | a GPT that knows voice and metre |
//! | `windows`, `objective`, `training` | data, loss, evaluation, settings |
//! | `compose`, `files` | new pieces and their files |
//! | `melodies` | the grammar |
//! | `chorales`, `corpus`, `statistics` | the chorales |
//! | `musicgen` | music from a prompt |

#![forbid(unsafe_code)]

mod chorales;
mod compose;
mod corpus;
mod files;
mod layers;
mod melodies;
mod melody;
mod model;
mod musicgen;
mod notation;
mod objective;
mod statistics;
mod training;
mod windows;

use aigc_examples::{RunOptions, stop_on_ctrl_c};
use anyhow::Result;
use clap::{Parser, ValueEnum};
use compose::SamplingOptions;
use notation::Notation;
use std::path::PathBuf;
use training::{Job, ModelOptions};

/// Writes music: melodies of a grammar, chorales after Bach's, or sound from a prompt.
///
/// Without --data and --model, a small GPT learns melodies of a grammar (five minutes on two
/// cores). With --data it learns chorales: by default in sixteenths (half an hour), with --grid
/// quarters in quarters (a quarter of an hour).
#[derive(Clone, Debug, Parser)]
#[command(mut_arg("out", |arg| arg.help(
    "Run directory, by default the next free number below `runs/`; with --model the WAV file, by \
     default music.wav"
)))]
pub(crate) struct Args {
    /// Directory with Jsb16thSeparated.json or jsb-chorales-quarter.json, plain or gzipped. A
    /// resumed run knows its directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Steps of the chorales.
    #[arg(long, value_enum, requires = "data")]
    grid: Option<Grid>,
    /// Folder of MusicGen in the layout of transformers.
    #[arg(
        long, value_name = "FOLDER",
        conflicts_with_all = ["data", "pieces", "files", "layers", "heads", "width", "context",
                              "dropout", "batch", "learning_rate", "steps", "minutes",
                              "save_steps", "resume", "resume_at"]
    )]
    model: Option<PathBuf>,
    /// What the music is like; without it, the model is told nothing.
    #[arg(long, requires = "model", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Length in seconds; 10 by default.
    #[arg(long, requires = "model", allow_negative_numbers = true)]
    seconds: Option<f64>,
    /// Scale of classifier-free guidance; by default that of the folder, or 3.
    #[arg(long, requires = "model", allow_negative_numbers = true)]
    guidance_scale: Option<f64>,
    /// Number of new pieces.
    #[arg(
        long, value_name = "N", default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pieces: u32,
    /// Number of new pieces that become sounds and pictures; all become MIDI files.
    #[arg(long, value_name = "N", default_value_t = 8)]
    files: usize,
    #[command(flatten)]
    sampling: SamplingOptions,
    #[command(flatten)]
    model_options: ModelOptions,
    #[command(flatten)]
    run: RunOptions,
}

/// Steps of chorales.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Grid {
    /// Four voices in every sixteenth (convention C).
    Sixteenths,
    /// The pitches of every quarter (convention B).
    Quarters,
}

impl Args {
    /// What is to be learnt.
    fn notation(&self) -> Notation {
        match (&self.data, self.grid) {
            (None, _) => Notation::Melodies,
            (Some(_), Some(Grid::Quarters)) => Notation::Quarters,
            (Some(_), Some(Grid::Sixteenths) | None) => Notation::Sixteenths,
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let stop = stop_on_ctrl_c();
    if let Some(dir) = &args.model {
        return musicgen::run(&args, dir, &stop);
    }
    let job = Job::new(&args, stop)?;
    match job.settings.model.notation {
        Notation::Melodies => melodies::run(job),
        Notation::Sixteenths | Notation::Quarters => chorales::run(job),
    }
}
