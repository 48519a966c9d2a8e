//! Learns handwritten digits and shows what it invented.
//!
//!     cargo run --release --example digits
//!
//! `--model` chooses the family; each lives in a file of its own beside this one.

#![forbid(unsafe_code)]

mod diffusion;
mod gan;
mod job;
mod judge;
mod vae;

use aigc_core::{checkpoint::RunFolder, device::device, train::Start};
use aigc_examples::stop_on_ctrl_c;
use anyhow::Result;
use clap::{Parser, ValueEnum};
use std::path::{Path, PathBuf};

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
    /// Go on with the run in --out, or with the newest one, exactly where it stopped; settings come from its folder.
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
    /// A generative adversarial network.
    Gan,
    /// One that makes the class asked for.
    Cgan,
    /// A diffusion model, which makes the class asked for where images have classes.
    Diffusion,
}

impl Args {
    fn start(&self) -> Start {
        match (self.resume_at, self.resume) {
            (Some(step), _) => Start::ResumeAt(step),
            (None, true) => Start::Resume,
            (None, false) => Start::Fresh,
        }
    }

    /// The folder of the run to resume.
    fn existing_run(&self, name: &str) -> aigc_core::Result<RunFolder> {
        match &self.out {
            Some(out) => RunFolder::open(out),
            None => RunFolder::open_newest(Path::new("runs").join(name)),
        }
    }

    /// A folder for a new run; made last, so that a mistake elsewhere leaves none behind.
    fn new_run(&self, name: &str) -> aigc_core::Result<RunFolder> {
        match &self.out {
            Some(out) => RunFolder::create(out),
            None => RunFolder::create_next(Path::new("runs").join(name)),
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = device(&args.device)?;
    match args.model {
        Model::Vae => vae::run(&args, &device, stop_on_ctrl_c()),
        Model::Gan => gan::run(&args, &device, stop_on_ctrl_c(), false),
        Model::Cgan => gan::run(&args, &device, stop_on_ctrl_c(), true),
        Model::Diffusion => diffusion::run(&args, &device, stop_on_ctrl_c()),
    }
}
