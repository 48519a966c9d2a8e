//! Speaks a text.
//!
//!     cargo run --release --example speak -- "one two three" --data fsdd/recordings
//!     cargo run --release --example speak -- "four two" --model runs/speak-1 --speaker theo
//!     cargo run --release --example speak -- "what is that noise" --model mms-tts-eng
//!
//! The first command trains a voice from recordings of spoken digits and their words, and then
//! speaks; the second speaks with a voice that was trained so; the third with a voice of VITS, such
//! as those of MMS. All write a WAV file with a record of how it was made, and a picture of its
//! spectrum with the places of words and symbols.
//!
//! | file | content |
//! |---|---|
//! | `vits` | voices of VITS |
//! | `own` | the training of a voice of digits: text to spectra |
//! | `data`, `stage` | the recordings; trainings inside of a run |
//! | `vocoder`, `reader` | spectra to sound; which digit is heard |
//! | `voice`, `check` | speaking with a trained voice; digits that are heard as asked |
//! | `text`, `sound`, `picture` | symbols and words; the files |

#![forbid(unsafe_code)]

mod check;
mod data;
mod own;
mod picture;
mod reader;
mod sound;
mod stage;
mod text;
mod vits;
mod vocoder;
mod voice;

use aigc_core::Error;
use aigc_examples::{RunOptions, stop_on_ctrl_c};
use anyhow::Result;
use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Speaks a text with the voice in a folder, or with one that is trained from recordings of digits.
///
/// With --data, three networks are trained: text to spectra, spectra to sound (the vocoder), and a
/// reader that tells which digit is heard. On two cores this takes 20 minutes, of which the first
/// two have 12 and 6. --vocoder nsf takes 30 minutes, of which the vocoder has 15, and speaks piece
/// by piece with --stream. --vocoder griffin-lim has no vocoder to train: the words are clear after
/// 14 minutes, and sound hollow.
#[derive(Clone, Debug, Parser)]
#[command(mut_arg("out", |arg| arg.help(
    "Run directory, by default the next free number below `runs/`; with --model the WAV file, by \
     default speech.wav"
)))]
#[command(mut_arg("minutes", |arg| arg.help(
    "Time limit for all trainings together in minutes, by default 20, with \
     --vocoder nsf 30 and with --vocoder griffin-lim 15; training ends even if steps are left. The \
     learning rates are scaled to the limit that is reached first"
)))]
#[command(mut_arg("steps", |arg| arg.help(
    "Number of training steps of each network; by default 5,000, of the vocoder 4,000 or with \
     --vocoder nsf 10,000, of the reader 600, which is also its most"
)))]
pub(crate) struct Args {
    /// The text, such as "one two three".
    #[arg(value_name = "TEXT")]
    text: String,
    /// Folder of a voice: of VITS in the layout of transformers, or a run of this program.
    #[arg(
        long, value_name = "FOLDER",
        conflicts_with_all = ["data", "batch", "steps", "minutes", "save_steps", "resume",
                              "resume_at"]
    )]
    model: Option<PathBuf>,
    /// Folder with recordings of digits to train a voice on, named as those of the Free Spoken
    /// Digit Dataset: `7_theo_32.wav`. A resumed run knows its folder.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Who speaks: a name of the recordings, or a number; by default the first.
    #[arg(long, value_name = "NAME")]
    speaker: Option<String>,
    /// Speed of speech.
    #[arg(long, value_name = "FACTOR", allow_negative_numbers = true)]
    rate: Option<f64>,
    /// File with a line `word symbol symbol …` for every word that is not spoken as it is written.
    #[arg(long, value_name = "FILE")]
    lexicon: Option<PathBuf>,
    /// Leave out characters that the voice does not know, instead of stopping.
    #[arg(long)]
    skip_unknown: bool,
    /// Write the sound piece by piece while it is made. A voice of digits needs the vocoder nsf,
    /// which is the default of a training with --stream.
    #[arg(long)]
    stream: bool,
    /// What makes sound of the spectra of a voice of digits: in a training by default `magnitude`,
    /// with --stream `nsf`; otherwise the trained vocoder, and `griffin-lim` for a run without one.
    /// A resumed run keeps to what it began with.
    #[arg(long, value_enum)]
    vocoder: Option<VocoderKind>,
    /// Number of texts with which a voice of digits is checked: half of them single digits, half
    /// longer than any in training. 60 after a training, otherwise none.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=100_000))]
    check: Option<u32>,
    /// Recordings in a batch; the vocoder has half as many stretches of half a second. 32 by
    /// default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
    batch: Option<u32>,
    #[command(flatten)]
    run: RunOptions,
}

/// What makes sound of spectra.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum VocoderKind {
    /// A network of magnitudes, trained on the same recordings, with angles by the algorithm of
    /// Griffin and Lim.
    Magnitude,
    /// A HiFi-GAN with a harmonic source, trained on the same recordings.
    #[serde(alias = "hifi-gan")]
    Nsf,
    /// The algorithm of Griffin and Lim, without training.
    GriffinLim,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(rate) = args.rate.filter(|rate| !(*rate > 0.0 && rate.is_finite())) {
        return Err(Error::argument("--rate", rate, "a finite number above 0").into());
    }
    if let Some(kind) = args
        .vocoder
        .filter(|kind| args.stream && !kind.can_stream())
    {
        return Err(cannot_stream(kind).into());
    }
    let device = args.run.device()?;
    match &args.model {
        Some(dir) if own::is_run(dir) => own::speak(&args, dir, &device, &stop_on_ctrl_c()),
        Some(dir) => vits::speak(&args, dir, &device),
        None => own::train(&args, &device, &stop_on_ctrl_c()),
    }
}

/// The error of `--stream` with a vocoder that needs all of the spectra at once.
fn cannot_stream(kind: VocoderKind) -> Error {
    let kind = kind.name();
    let expected =
        format!("left out: the vocoder {kind} needs all of the spectra; --vocoder nsf does not");
    Error::argument("--stream", "given", expected)
}

impl VocoderKind {
    /// Name on the command line and in records.
    fn name(self) -> &'static str {
        match self {
            Self::Magnitude => "magnitude",
            Self::Nsf => "nsf",
            Self::GriffinLim => "griffin-lim",
        }
    }
}
