//! The variational autoencoders of `docs/results.md` on MNIST, with the settings of the plain
//! PyTorch loop they are compared with (`tests/reference/vae_mnist.py`).
//!
//!     cargo run --release --example reproduce_vae -- --data DIR [--model conv] [--steps 31000]

#![forbid(unsafe_code)]

use aigc_core::train::TrainerConfig;
use aigc_examples::{
    ImagesConfig, RunOptions, after_training, outln, stop_on_ctrl_c, unless_stopped,
};
use aigc_vae::{AnyVae, ConvVaeConfig, KlWeight, MlpVaeConfig, VaeConfig, VaeObjective, evaluate};
use clap::{Parser, ValueEnum};

/// Trains a VAE on MNIST, by default for 31,000 steps, and prints its -ELBO on the test set.
#[derive(Debug, Parser)]
struct Args {
    #[command(flatten)]
    data: ImagesConfig,
    /// Model to train.
    #[arg(long, value_enum, default_value = "mlp")]
    model: Kind,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    /// Fully connected, 784-400-20-400-784.
    Mlp,
    /// Convolutional, with 32 and 64 channels and 32 latent dimensions.
    Conv,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let options = &args.run;
    let device = options.device()?;
    let images = args.data.given()?.open(128, options.seed)?;
    let model = match args.model {
        Kind::Mlp => VaeConfig::Mlp(MlpVaeConfig::new(images.shape)),
        Kind::Conv => VaeConfig::Conv(ConvVaeConfig::new(images.shape)),
    };
    let config = TrainerConfig {
        seed: options.seed,
        save_steps: 5000,
        ..TrainerConfig::new(31_000)
    };
    let config = options.config(config)?;
    let run = options.run("mnist-vae")?;
    images.print_summary(&run);
    let stop = stop_on_ctrl_c();
    let trained = options
        .trainer(config, stop.clone(), 100)
        .with_model_config(&model)?
        .with_data_config(&args.data)?
        .with_evaluation(|model: &AnyVae| {
            unless_stopped(&stop, || {
                images.evaluate(&stop, |held_out| evaluate(model, held_out, &device, 0))
            })
        })
        .fit(
            VaeObjective::new(KlWeight::default())?,
            model.init(&device)?,
            &images.train,
            &run,
        )?;
    after_training(trained, &run, &stop, |trained| {
        let minutes = trained.elapsed.as_secs_f64() / 60.0;
        outln!(
            "{} steps, {} of them in this run, in {minutes:.2} minutes ({:.0} per minute); test {:?} nats per image over {} images",
            trained.step,
            trained.steps_run,
            trained.steps_run as f64 / minutes,
            trained.metrics,
            images.held_out.num_items()
        );
        Ok(())
    })
}
