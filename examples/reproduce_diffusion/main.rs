//! The diffusion model of `docs/results.md`.
//!
//!     cargo run --release --example reproduce_diffusion -- train --data DIR
//!     cargo run --release --example reproduce_diffusion -- evaluate --data DIR --classifier LENET

#![forbid(unsafe_code)]

mod evaluate;
mod train;

use aigc_examples::stop_on_ctrl_c;
use clap::{Parser, Subcommand};

/// Trains the diffusion model of docs/results.md and prints its figures.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Train a network on MNIST-format files or a directory of images, class-conditional if there
    /// are classes; 16,000 steps by default.
    Train(train::Options),
    /// Evaluate the trained network.
    #[command(alias = "judge")]
    Evaluate(evaluate::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Train(options) => train::run(&options, stop_on_ctrl_c()),
        What::Evaluate(options) => evaluate::run(&options, stop_on_ctrl_c()),
    }
}
