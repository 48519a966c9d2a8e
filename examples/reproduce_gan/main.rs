//! The GANs of `docs/results.md`.
//!
//!     cargo run --release --example reproduce_gan -- gaussians ring --method r3gan
//!     cargo run --release --example reproduce_gan -- images --data FOLDER --judge LENET
//!     cargo run --release --example reproduce_gan -- stacked --data FOLDER --judge LENET

#![forbid(unsafe_code)]

mod gaussians;
mod images;
mod stacked;

use aigc_core::{
    burn::tensor::Device,
    checkpoint::RunFolder,
    device::device,
    train::{EmaConfig, OptimizerConfig, Schedule, Start, TrainerConfig},
};
use aigc_examples::stop_on_ctrl_c;
use aigc_gan::{GanLoss, GanObjectiveConfig, Penalty};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::{Path, PathBuf};

/// Trains the GANs of docs/results.md and prints their figures.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Gaussians in the plane: are all modes found?
    Gaussians(gaussians::Options),
    /// Images: MNIST-format files (MNIST, Fashion-MNIST) or a folder of images.
    Images(images::Options),
    /// Stacked-MNIST: three digits as colour channels, 1,000 modes.
    Stacked(stacked::Options),
}

/// What every run is told.
#[derive(Clone, Debug, Args)]
struct Common {
    /// Updates of the generator.
    #[arg(long)]
    steps: Option<usize>,
    /// Minutes after which to stop even so.
    #[arg(long)]
    minutes: Option<f64>,
    /// Seed of weights, order and noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    device: String,
    /// Where to leave everything; the next free number below `runs/` by default.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on with the run in --out, or with the newest one; the other options must be the same.
    #[arg(long)]
    resume: bool,
}

/// Which game.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The non-saturating game, nothing else.
    Plain,
    /// Wasserstein with the gradient penalty.
    WganGp,
    /// Relativistic pairing with R1 and R2.
    R3gan,
}

impl Method {
    /// Of images.
    fn usual_gamma(self) -> f64 {
        if self == Method::WganGp { 10.0 } else { 1.0 }
    }

    fn objective(self, gamma: f64) -> GanObjectiveConfig {
        match self {
            Method::Plain => GanObjectiveConfig::new(GanLoss::NonSaturating),
            Method::WganGp => {
                GanObjectiveConfig { penalties: vec![Penalty::wgan_gp(gamma)], ..GanObjectiveConfig::wgan_gp() }
            }
            Method::R3gan => GanObjectiveConfig::r3gan(gamma),
        }
    }
}

impl Common {
    fn device(&self) -> aigc_core::Result<Device> {
        device(&self.device)
    }

    fn start(&self) -> Start {
        if self.resume { Start::Resume } else { Start::Fresh }
    }

    fn run(&self, name: &str) -> aigc_core::Result<RunFolder> {
        let below = Path::new("runs").join(name);
        match (&self.out, self.resume) {
            (Some(out), false) => RunFolder::create(out),
            (Some(out), true) => RunFolder::open(out),
            (None, false) => RunFolder::create_next(below),
            (None, true) => RunFolder::open_newest(below),
        }
    }

    /// Adam as GANs have it, averaged weights, checkpoints every minute or so.
    fn trainer(&self, steps: usize, learning_rate: f64, betas: [f64; 2], schedule: Schedule) -> TrainerConfig {
        TrainerConfig {
            seed: self.seed,
            minutes: self.minutes,
            learning_rate,
            schedule,
            optimizer: OptimizerConfig::adam(betas[0], betas[1]),
            ema: Some(EmaConfig::new(0.999)),
            checkpoint_every: 1000,
            ..TrainerConfig::new(self.steps.unwrap_or(steps))
        }
    }
}

fn main() -> anyhow::Result<()> {
    let stop = stop_on_ctrl_c();
    match Cli::parse().what {
        What::Gaussians(options) => gaussians::run(&options, stop),
        What::Images(options) => images::run(&options, stop),
        What::Stacked(options) => stacked::run(&options, stop),
    }
}
