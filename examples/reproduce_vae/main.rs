//! The variational autoencoders of `docs/results.md` on MNIST, with the settings of the plain PyTorch loop they are
//! held against (`tests/reference/vae_mnist.py`).
//!
//!     cargo run --release --example reproduce_vae -- --data FOLDER [--model conv] [--steps 31000] [--seed 0]

use aigc_core::{
    checkpoint::RunFolder,
    data::ImageShape,
    device::device,
    train::{MetricsLog, ProgressBar, Trainer, TrainerConfig},
};
use aigc_examples::{ImagesConfig, new_run_folder, stop_on_ctrl_c};
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
    /// Where to leave everything.
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
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
    let shape = ImageShape::new(1, 28, 28);
    let model = match args.model {
        Kind::Mlp => VaeConfig::Mlp(MlpVaeConfig::new(shape)),
        Kind::Conv => VaeConfig::Conv(ConvVaeConfig::new(shape)),
    };
    let run = match &args.out {
        Some(out) => RunFolder::create(out)?,
        None => new_run_folder("mnist-vae")?,
    };
    let config = TrainerConfig {
        seed: args.seed,
        minutes: args.minutes,
        checkpoint_every: 5000,
        ..TrainerConfig::new(args.steps)
    };
    let began = Instant::now();
    let trained = Trainer::new(config)
        .model_config(&model)?
        .stop_flag(stop_on_ctrl_c())
        .observe(ProgressBar::new())
        .observe(MetricsLog::every(100))
        .evaluate(|model| held_out(model, &images.held_out, &device, 0))
        .fit(VaeObjective::new(Beta::default())?, model.init(&device)?, &images.train, &run)?;
    let minutes = began.elapsed().as_secs_f64() / 60.0;
    println!(
        "{} steps in {minutes:.2} minutes ({:.0} per minute); test {:?} nats per image over {} images",
        trained.step,
        trained.step as f64 / minutes,
        trained.metrics,
        images.held_out.items()
    );
    Ok(())
}
