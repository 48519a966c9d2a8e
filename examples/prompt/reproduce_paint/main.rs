//! Trains the model of `paint`, in steps that build on each other:
//!
//!     cargo run --release --example reproduce_paint -- autoencoder
//!     cargo run --release --example reproduce_paint -- painter

#![forbid(unsafe_code)]

mod autoencoder;
mod painter;

use aigc_examples::stop_on_ctrl_c;
use clap::{Parser, Subcommand};

/// Trains and evaluates the model of `paint`.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Train the autoencoder.
    Autoencoder(autoencoder::Options),
    /// Train the text encoder and the denoising network.
    Painter(painter::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Autoencoder(options) => autoencoder::run(&options, stop_on_ctrl_c()),
        What::Painter(options) => painter::run(&options, stop_on_ctrl_c()),
    }
}
