//! The variational autoencoders of `docs/results.md` on MNIST, with the settings of the plain PyTorch loop they are
//! held against (`tests/reference/vae_mnist.py`).
//!
//!     cargo run --release --example reproduce_vae -- --data FOLDER [--model conv] [--steps 31000] [--seed 0]

#![forbid(unsafe_code)]

use aigc_core::{
    checkpoint::RunFolder,
    device::device,
    train::{Event, MetricsLog, ProgressBar, Start, StopReason, Trainer, TrainerConfig},
};
use aigc_examples::{ImagesConfig, say_how_to_go_on, stop_on_ctrl_c};
use aigc_vae::{Beta, ConvVaeConfig, MlpVaeConfig, VaeConfig, VaeObjective, held_out};
use clap::{Parser, ValueEnum};
use std::{path::PathBuf, time::Instant};

/// Trains a VAE on MNIST and prints its -ELBO on the test set.
#[derive(Debug, Parser)]
struct Args {
    /// A folder with the four MNIST files; `mnist` downloads them (feature `download`).
    #[arg(long, value_name = "FOLDER")]
    data: PathBuf,
    /// Which model.
    #[arg(long, value_enum, default_value = "mlp")]
    model: Kind,
    /// Updates to make.
    #[arg(long, default_value_t = 31_000)]
    steps: usize,
    /// Minutes after which to stop even so.
    #[arg(long)]
    minutes: Option<f64>,
    /// Seed of weights, order and noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// flex, ndarray, libtorch, wgpu, vulkan, metal, cuda:0, rocm or auto.
    #[arg(long, default_value = "flex")]
    device: String,
    /// Where to leave everything; `runs/mnist-vae-1` or the next number by default.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Go on with the run in --out, or with the newest one; the other options must be the same.
    #[arg(long)]
    resume: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// 784-400-20-400-784.
    Mlp,
    /// Convolutions of 32 and 64 channels, 32 latent dimensions.
    Conv,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let device = device(&args.device)?;
    let images = ImagesConfig { path: Some(args.data.clone()), ..Default::default() }.open(128, args.seed)?;
    let model = match args.model {
        Kind::Mlp => VaeConfig::Mlp(MlpVaeConfig::new(images.shape)),
        Kind::Conv => VaeConfig::Conv(ConvVaeConfig::new(images.shape)),
    };
    let config = TrainerConfig {
        seed: args.seed,
        minutes: args.minutes,
        checkpoint_every: 5000,
        ..TrainerConfig::new(args.steps)
    };
    config.validate()?;
    let run = match (&args.out, args.resume) {
        (Some(out), false) => RunFolder::create(out)?,
        (Some(out), true) => RunFolder::open(out)?,
        (None, false) => RunFolder::create_next("runs/mnist-vae")?,
        (None, true) => RunFolder::open_newest("runs/mnist-vae")?,
    };
    let mut made = 0;
    let began = Instant::now();
    let trained = Trainer::new(config)
        .model_config(&model)?
        .stop_flag(stop_on_ctrl_c())
        .start(if args.resume { Start::Resume } else { Start::Fresh })
        .observe(ProgressBar::new())
        .observe(MetricsLog::every(100))
        .observe(|event: &Event<'_>| made += usize::from(matches!(event, Event::Step(_))))
        .evaluate(|model| held_out(model, &images.held_out, &device, 0))
        .fit(VaeObjective::new(Beta::default())?, model.init(&device)?, &images.train, &run)?;
    if trained.reason == StopReason::Interrupted {
        say_how_to_go_on(trained.step, &run);
        return Ok(());
    }
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!(
        "{} steps, {made} of them now in {minutes:.2} minutes ({:.0} per minute); test {:?} nats per image over {} images",
        trained.step,
        made as f64 / minutes,
        trained.metrics,
        images.held_out.items()
    );
    Ok(())
}
