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

use aigc_examples::{ImagesConfig, RunOptions, stop_on_ctrl_c};
use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Learns handwritten digits and shows what it invented.
#[derive(Debug, Parser)]
struct Args {
    /// What kind of model learns.
    #[arg(long, value_enum, default_value = "vae")]
    model: Model,
    #[command(flatten)]
    data: ImagesConfig,
    #[command(flatten)]
    run: RunOptions,
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

fn main() -> Result<()> {
    let args = Args::parse();
    let device = args.run.device()?;
    match args.model {
        Model::Vae => vae::run(&args, &device, stop_on_ctrl_c()),
        Model::Gan => gan::run(&args, &device, stop_on_ctrl_c(), false),
        Model::Cgan => gan::run(&args, &device, stop_on_ctrl_c(), true),
        Model::Diffusion => diffusion::run(&args, &device, stop_on_ctrl_c()),
    }
}
