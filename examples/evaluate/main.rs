//! Judges a run or a folder of samples against a data set, and writes one page about it.
//!
//!     cargo run --release --example evaluate -- \
//!         runs/digits-vae-1 --against digits
//!     cargo run --release --example evaluate -- \
//!         samples/ --against photos/ --features inception weights.pth
//!     cargo run --release --example evaluate -- \
//!         runs/train-text-1 --against shakespeare.txt

#![forbid(unsafe_code)]

use aigc_examples::stop_on_ctrl_c;
use aigc_examples_evaluate::{Options, run};
use clap::Parser;

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    run(&options, &stop_on_ctrl_c())?;
    Ok(())
}
