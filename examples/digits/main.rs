//! Learns handwritten digits and generates new ones.
//!
//!     cargo run --release --example digits
//!
//! `--model` chooses the model family; each family has its own file in this directory. Pictures
//! have a record of the model, the seed and the settings that made them:
//!
//!     cargo run --release --example verify -- runs/digits-vae-1/samples.png

#![forbid(unsafe_code)]

mod bound;
mod copies;
mod cvae;
mod diffusion;
mod evaluate;
mod gan;
mod hvae;
mod job;
mod vae;
mod vqvae;

use aigc_core::Error;
use aigc_examples::{ImagesConfig, RunOptions, stop_on_ctrl_c};
use anyhow::Result;
use clap::{Parser, ValueEnum};

/// Learns handwritten digits and generates new ones.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// Model family.
    #[arg(long, value_enum, default_value = "vae")]
    model: Model,
    #[command(flatten)]
    data: ImagesConfig,
    /// Number of samples that cvae, vqvae, gan, cgan and diffusion are evaluated with; by default
    /// as many as there are training images, at least 50 and at most 1,000. The other models are
    /// not evaluated with samples.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    eval_samples: Option<u32>,
    /// Number of sampling steps of a diffusion model; 20 by default. Like --eval-samples, it is not
    /// recorded: give it again with --resume.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    sampling_steps: Option<u32>,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Model {
    /// A variational autoencoder.
    Vae,
    /// A class-conditional variational autoencoder.
    Cvae,
    /// A variational autoencoder with quantised latents, and then a prior over its codes; the
    /// number of steps applies to each of the two, and each has half of the time limit.
    Vqvae,
    /// A hierarchical variational autoencoder.
    Hvae,
    /// A generative adversarial network.
    Gan,
    /// A class-conditional generative adversarial network.
    Cgan,
    /// A diffusion model, class-conditional if the images have classes.
    Diffusion,
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let (Some(steps), false) = (args.sampling_steps, args.model == Model::Diffusion) {
        return Err(Error::argument("--sampling-steps", steps, "--model diffusion").into());
    }
    if let (Some(n), Model::Vae | Model::Hvae) = (args.eval_samples, args.model) {
        let expected = "--model cvae, vqvae, gan, cgan or diffusion";
        return Err(Error::argument("--eval-samples", n, expected).into());
    }
    let device = args.run.device()?;
    match args.model {
        Model::Vae => vae::run(&args, &device, stop_on_ctrl_c()),
        Model::Cvae => cvae::run(&args, &device, stop_on_ctrl_c()),
        Model::Vqvae => vqvae::run(&args, &device, stop_on_ctrl_c()),
        Model::Hvae => hvae::run(&args, &device, stop_on_ctrl_c()),
        Model::Gan => gan::run(&args, &device, stop_on_ctrl_c(), false),
        Model::Cgan => gan::run(&args, &device, stop_on_ctrl_c(), true),
        Model::Diffusion => diffusion::run(&args, &device, stop_on_ctrl_c()),
    }
}
