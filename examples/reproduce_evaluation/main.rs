//! The figures of `docs/results.md` on the evaluation itself: whether each measure moves as it must
//! when samples get worse, whether planted copies and sentences are found, what the watermark
//! survives, and how long InceptionV3 takes.
//!
//!     cargo run --release --example reproduce_evaluation -- sanity --data MNIST --classifier LENET
//!     cargo run --release --example reproduce_evaluation -- copies --data MNIST --data CIFAR
//!     cargo run --release --example reproduce_evaluation -- spans --megabytes 100
//!     cargo run --release --example reproduce_evaluation -- watermark
//!     cargo run --release --example reproduce_evaluation -- inception --weights FILE --images DIR

#![forbid(unsafe_code)]

mod copies;
mod images;
mod inception;
mod memory;
mod pictures;
mod report;
mod sanity;
mod spans;
mod watermark;
mod words;

use aigc_core::{CancelToken, burn::tensor::Device, device::device};
use aigc_examples::stop_on_ctrl_c;
use clap::{Args, Parser, Subcommand};
use report::Report;
use std::path::PathBuf;

/// Checks the measures of quality, diversity and originality on data where the answer is known.
/// Every command prints a table, and writes it to a JSON file with the command and the number of
/// threads. After Ctrl-C, the finished rows are in a file that ends with `.partial.json`.
#[derive(Debug, Parser)]
struct Program {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    common: Common,
}

/// Options of all commands.
#[derive(Debug, Args)]
struct Common {
    /// Directory for the JSON files.
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        default_value = "runs/evaluation"
    )]
    out: PathBuf,
    /// Random seed of draws, noise, words and keys.
    #[arg(long, global = true, default_value_t = 0)]
    seed: u64,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, global = true, default_value = "flex")]
    device: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Every measure at its floor, training against test images, and as samples get worse.
    Sanity(sanity::SanityArgs),
    /// Planted copies of training images, and false alarms on held-out ones.
    Copies(copies::CopiesArgs),
    /// Planted sentences of a long training text.
    Spans(spans::SpansArgs),
    /// The watermark after compression and resizing, and its false positives.
    Watermark(watermark::WatermarkArgs),
    /// Features of InceptionV3 of a folder of images, and the FID between two folders.
    Inception(inception::InceptionArgs),
}

/// What all commands run with.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) out: PathBuf,
    pub(crate) seed: u64,
    pub(crate) device: Device,
    pub(crate) stop: CancelToken,
}

fn main() -> anyhow::Result<()> {
    let Program { command, common } = Program::parse();
    let context = Context {
        device: device(&common.device)?,
        out: common.out,
        seed: common.seed,
        stop: stop_on_ctrl_c(),
    };
    let name = match &command {
        Command::Sanity(_) => "sanity",
        Command::Copies(_) => "copies",
        Command::Spans(_) => "spans",
        Command::Watermark(_) => "watermark",
        Command::Inception(_) => "inception",
    };
    let mut report = Report::new(name, &context.out);
    let result = match command {
        Command::Sanity(args) => sanity::run(&args, &context, &mut report),
        Command::Copies(args) => copies::run(&args, &context, &mut report),
        Command::Spans(args) => spans::run(&args, &context, &mut report),
        Command::Watermark(args) => watermark::run(&args, &context, &mut report),
        Command::Inception(args) => inception::run(&args, &context, &mut report),
    };
    report.finish(result, &context.stop)
}
