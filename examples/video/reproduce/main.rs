//! The video models of `docs/results.md`: moving MNIST digits, 16 frames of 32×32.
//!
//! A network that is trained as a whole, and its evaluation:
//!
//!     cargo run --release --example reproduce_video -- train --data DIR
//!     cargo run --release --example reproduce_video -- evaluate --classifier LENET
//!
//! An image model of single frames, motion modules for it, and their evaluation:
//!
//!     cargo run --release --example reproduce_video -- image --data DIR
//!     cargo run --release --example reproduce_video -- train --image-model runs/video-frames-1
//!     cargo run --release --example reproduce_video -- evaluate --classifier LENET

#![forbid(unsafe_code)]

mod evaluate;
mod frames;
mod train;

use aigc_examples::stop_on_ctrl_c;
use clap::{Parser, Subcommand};

/// Trains the video models of docs/results.md and prints their figures.
#[derive(Debug, Parser)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant)] // There is one.
enum What {
    /// Train an image model on single frames of moving digits, for `train --image-model`.
    Image(frames::Options),
    /// Train a video network, or motion modules for an image model.
    Train(train::Options),
    /// Evaluate a trained video network.
    Evaluate(evaluate::Options),
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().what {
        What::Image(options) => frames::run(&options, stop_on_ctrl_c()),
        What::Train(options) => train::run(&options, stop_on_ctrl_c()),
        What::Evaluate(options) => evaluate::run(&options, stop_on_ctrl_c()),
    }
}
