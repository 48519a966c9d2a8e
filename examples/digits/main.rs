//! Learns handwritten digits and shows what it invented.
//!
//!     cargo run --release --example digits
//!
//! `--model` chooses the family; each lives in a file of its own beside this one.

mod vae;

use aigc_core::{checkpoint::RunFolder, device::device, train::Start};
use aigc_examples::{ImagesConfig, new_run_folder, newest_run_folder, stop_on_ctrl_c};
use anyhow::Result;
use clap::{Parser, ValueEnum};
use std::path::PathBuf;

/// Learns handwritten digits and shows what it invented.
#[derive(Debug, Parser)]
struct Args {
    /// What kind of model learns.
    #[arg(long, value_enum, default_value = "vae")]
    model: Model,
    /// A folder with MNIST-format files or with images; `mnist` downloads MNIST (feature `download`). Without it, the
    /// digits inside the program.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Side that a folder's images are brought to.
    #[arg(long, value_name = "PIXELS")]
    side: Option<usize>,
    /// Keep the colours of a folder's images.
    #[arg(long)]
    rgb: bool,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    device: String,
    /// Updates to make.
    #[arg(long)]
    steps: Option<usize>,
    /// Minutes after which to stop even so.
    #[arg(long)]
    minutes: Option<f64>,
    /// The same seed gives the same pictures.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Steps between checkpoints.
    #[arg(long, value_name = "STEPS")]
    checkpoint_every: Option<usize>,
    /// Where to leave everything; `runs/digits-vae-1` or the next free number by default.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on with the run in --out, or with the newest one, exactly where it stopped.
    #[arg(long)]
    resume: bool,
    /// Go on from an older checkpoint, when the newest is damaged.
    #[arg(long, value_name = "STEP")]
    resume_at: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Model {
    /// A variational autoencoder.
    Vae,
}

/// What every family gets.
struct Job {
    run: RunFolder,
    start: Start,
    images: ImagesConfig,
    args: Args,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let start = match (args.resume_at, args.resume) {
        (Some(step), _) => Start::ResumeAt(step),
        (None, true) => Start::Resume,
        (None, false) => Start::Fresh,
    };
    let name = match args.model {
        Model::Vae => "digits-vae",
    };
    let run = match (&args.out, start) {
        (Some(out), Start::Fresh) => RunFolder::create(out)?,
        (Some(out), _) => RunFolder::open(out)?,
        (None, Start::Fresh) => new_run_folder(name)?,
        (None, _) => newest_run_folder(name)?,
    };
    let images = ImagesConfig { path: args.data.clone(), side: args.side, rgb: args.rgb };
    let (device, stop) = (device(&args.device)?, stop_on_ctrl_c());
    let job = Job { run, start, images, args };
    match job.args.model {
        Model::Vae => vae::run(&job, &device, stop),
    }
}
