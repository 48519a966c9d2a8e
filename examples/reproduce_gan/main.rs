//! The GANs of `docs/results.md`.
//!
//!     cargo run --release --example reproduce_gan -- gaussians ring --method r3gan
//!     cargo run --release --example reproduce_gan -- images --data DIR --classifier LENET
//!     cargo run --release --example reproduce_gan -- stacked --data DIR --classifier LENET

#![forbid(unsafe_code)]

mod gaussians;
mod images;
mod stacked;

use aigc_core::rng::Rng;
use aigc_core::train::{EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig};
use aigc_examples::stop_on_ctrl_c;
use aigc_gan::{GanLoss, GanObjectiveConfig, GradientPenalty};
use clap::{Parser, Subcommand, ValueEnum};

/// Trains the GANs of docs/results.md and prints their figures.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Gaussians in the plane, to test mode coverage; by default 10,000 to 50,000 steps, depending
    /// on mixture and method.
    Gaussians(gaussians::Options),
    /// Images: MNIST-format files (MNIST, Fashion-MNIST) or a directory of images; by default
    /// 17,000 steps.
    Images(images::Options),
    /// Stacked-MNIST: three digits as colour channels, 1,000 modes; by default 20,000 steps.
    Stacked(stacked::Options),
}

/// Loss and penalties.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Method {
    /// The non-saturating loss.
    Plain,
    /// Wasserstein loss with gradient penalty.
    WganGp,
    /// Relativistic pairing with R1 and R2.
    R3gan,
}

impl Method {
    /// Default weight of the penalties for images.
    fn default_gamma(self) -> f64 {
        if self == Method::WganGp { 10.0 } else { 1.0 }
    }

    fn objective(self, gamma: f64) -> GanObjectiveConfig {
        match self {
            Method::Plain => GanObjectiveConfig::new(GanLoss::NonSaturating),
            Method::WganGp => GanObjectiveConfig {
                penalties: vec![GradientPenalty::wgan_gp(gamma)],
                ..GanObjectiveConfig::wgan_gp()
            },
            Method::R3gan => GanObjectiveConfig::r3gan(gamma),
        }
    }
}

/// Adam with averaged weights, and a checkpoint every 1,000 steps.
fn trainer(
    seed: u64,
    steps: usize,
    learning_rate: f64,
    betas: [f64; 2],
    schedule: LrSchedule,
) -> TrainerConfig {
    TrainerConfig {
        seed,
        learning_rate,
        lr_schedule: schedule,
        optimizer: OptimizerConfig::adam(betas[0], betas[1]),
        ema: Some(EmaConfig::new(0.999)),
        save_steps: 1000,
        ..TrainerConfig::new(steps)
    }
}

/// Seed for part `part` of the evaluated samples.
fn part_seed(seed: u64, part: usize) -> u64 {
    Rng::stream(seed, "evaluated", part as u64).next_u64()
}

fn main() -> anyhow::Result<()> {
    let stop = stop_on_ctrl_c();
    match Cli::parse().what {
        What::Gaussians(options) => gaussians::run(&options, stop),
        What::Images(options) => images::run(&options, stop),
        What::Stacked(options) => stacked::run(&options, stop),
    }
}
