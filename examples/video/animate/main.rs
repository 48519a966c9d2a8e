//! Makes short animations.
//!
//!     cargo run --release --example animate -- --class 7
//!     cargo run --release --example animate -- --image-model runs/digits-diffusion-1
//!     cargo run --release --example animate -- --model runs/animate-1 --class 7
//!     cargo run --release --example animate -- --model DIR --prompt "A ball rolls down a hill"
//!
//! Without `--model`, a video network is trained on digits that move and bounce, and then draws the
//! class that is asked for; with `--image-model`, a trained image model is set in motion. With
//! `--model`, a trained network draws more, or a directory of AnimateDiff or Wan makes a video from
//! a prompt. GIF, APNG and a strip of frames have a record of how they were made:
//!
//!     cargo run --release --example verify -- runs/animate-1/clips.gif
//!
//! With the feature `mp4`, there is an MP4 file, too:
//!
//!     cargo run --release -p aigc-examples-video --features mp4 --example animate -- --class 7

#![forbid(unsafe_code)]

mod folder;
mod options;
mod own;
mod prompt;
mod train;
mod wan;

use aigc_examples::stop_on_ctrl_c;
use anyhow::Result;
use clap::Parser;
use options::Options;

fn main() -> Result<()> {
    let options = Options::parse();
    options.check()?;
    match &options.model {
        None => train::run(&options, stop_on_ctrl_c()),
        Some(model) => folder::run(&options, model, stop_on_ctrl_c()),
    }
}
