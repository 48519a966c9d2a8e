//! Trains the model of `paint`, in steps that build on each other:
//!
//!     cargo run --release --example reproduce_paint -- autoencoder
//!     cargo run --release --example reproduce_paint -- painter
//!     cargo run --release --example reproduce_paint -- evaluate
//!     cargo run --release --example reproduce_paint -- pair

#![forbid(unsafe_code)]

mod autoencoder;
mod evaluate;
mod model;
mod painter;
mod pair;
mod relevance;

use aigc_examples::{is_stop, stop_on_ctrl_c};
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
    /// Count how many held-out prompts the model paints rightly.
    Evaluate(evaluate::Options),
    /// Train a pair of encoders that finds the caption of an image.
    Pair(pair::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Autoencoder(options) => autoencoder::run(&options, stop_on_ctrl_c()),
        What::Painter(options) => painter::run(&options, stop_on_ctrl_c()),
        What::Evaluate(options) => {
            let stop = stop_on_ctrl_c();
            match evaluate::run(&options, stop.clone()) {
                Err(error) if is_stop(&error, &stop) => {
                    eprintln!("stopped before the evaluation was finished");
                    std::process::exit(130)
                }
                result => result,
            }
        }
        What::Pair(options) => pair::run(&options, stop_on_ctrl_c()),
    }
}
