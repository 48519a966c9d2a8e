//! Measures every backend: generates the table of `docs/backends.md`.
//!
//!     cargo bench -p aigc-benches --features ndarray,tch,wgpu --bench backends \
//!         -- --write docs/backends.md

use aigc_backends::{models, vae_samples, vae_step};
use aigc_benches::{Side, serve, write_between};
use aigc_core::{
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, collate_images, digits},
    device::{self, BACKENDS, available_backends},
    train::{Event, Trainer, TrainerConfig},
};
use aigc_vae::{KlWeight, VaeObjective};
use anyhow::{Context, Result};
use burn::tensor::Device;
use clap::Parser;
use serde_json::{Value, json};
use std::process::{Command, Stdio};

#[derive(Parser)]
struct Args {
    /// File to write the table to, between its markers `<!-- backends -->`.
    #[arg(long)]
    write: Option<std::path::PathBuf>,
    /// Measures one device and prints JSON.
    #[arg(long, hide = true)]
    device: Option<String>,
    /// Times one workload on the device named by `AIGC_DEVICE`.
    #[arg(long, hide = true)]
    serve: Option<String>,
    /// Added by cargo.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The timed training step: a convolutional autoencoder of 16×16 images, with batches of 32.
const WORKLOAD: &str = "vae_conv_width_16";

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(name) = args.serve {
        return serve(&name, false);
    }
    if let Some(name) = args.device {
        println!("{}", measure(&device::device(&name)?)?);
        return Ok(());
    }
    let mut lines = vec![
        "| backend | feature | training: loss of steps 1 and 300 | parity: forward, gradients | sampling: images | \
         speed: ms per step |"
            .to_string(),
        "|---|---|---|---|---|---|".to_string(),
    ];
    for (name, feature) in BACKENDS {
        let cells = match available_backends().contains(&name) {
            true => row(name).unwrap_or_else(|error| format!("{error:#} | | | |")),
            false => "not compiled in, not measured | | | |".to_string(),
        };
        lines.push(format!("| {name} | `{feature}` | {cells}"));
        println!("{}", lines[lines.len() - 1]);
    }
    args.write.map_or(Ok(()), |path| {
        write_between(&path, "backends", &lines.join("\n"))
    })
}

/// The cells of one backend, measured in a separate process because a missing GPU panics.
fn row(name: &str) -> Result<String> {
    let this = std::env::current_exe()?;
    let output = Command::new(&this)
        .args(["--device", name])
        .stderr(Stdio::null())
        .output()?;
    let answer = String::from_utf8_lossy(&output.stdout)
        .lines()
        .last()
        .map(serde_json::from_str::<Value>);
    let answer = answer
        .and_then(Result::ok)
        .context("cannot be used on this machine")?;
    let mut timed = Command::new(this);
    timed
        .args(["--serve", WORKLOAD])
        .env("AIGC_DEVICE", name)
        .stderr(Stdio::null());
    let mut side = Side::start(timed)?;
    side.round(3.0)?;
    let number = |key: &str| answer[key].as_f64().unwrap_or(f64::NAN);
    Ok(format!(
        "{:.2}, {:.2} | {:.0e}, {:.0e} | {:.0e} | {:.2} |",
        number("first"),
        number("last"),
        number("forward"),
        number("gradients"),
        number("images"),
        side.figures.milliseconds()
    ))
}

/// Trains a model on `device`, and compares results with Flex.
fn measure(device: &Device) -> Result<Value> {
    let (mut forward, mut gradients, mut images) = (0.0f64, 0.0f64, 0.0f64);
    for (_, config) in models() {
        let ((outputs, grads), (expected, expected_grads)) = (
            vae_step(&config, device),
            vae_step(&config, &Device::flex()),
        );
        for ((_, got), (_, expected)) in outputs.iter().zip(&expected) {
            forward = forward.max(difference(got, expected));
        }
        for (path, (_, expected)) in &expected_grads {
            gradients = gradients.max(difference(&grads[path].1, expected));
        }
        images = images.max(difference(
            &vae_samples(&config, device).1,
            &vae_samples(&config, &Device::flex()).1,
        ));
    }
    let [_, (_, config)] = models();
    let loader = DataLoaderConfig {
        batch_size: 32,
        ..DataLoaderConfig::default()
    };
    let dir = tempfile::tempdir()?;
    let mut losses = Vec::new();
    Trainer::new(TrainerConfig::new(300))
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                losses.extend(report.losses.first().map(|(_, loss)| *loss));
            }
        })
        .fit(
            VaeObjective::new(KlWeight::default())?,
            config.init(device)?,
            &DataLoader::new(digits::load(), collate_images, loader)?,
            &RunDir::create(dir.path().join("run"))?,
        )?;
    let (first, last) = (losses.first(), losses.last());
    Ok(
        json!({"forward": forward, "gradients": gradients, "images": images, "first": first, "last": last}),
    )
}

/// The largest difference relative to the largest value (at least one).
fn difference(got: &[f64], expected: &[f64]) -> f64 {
    let scale = expected
        .iter()
        .fold(1.0f64, |top, value| top.max(value.abs()));
    got.iter()
        .zip(expected)
        .fold(0.0f64, |top, (got, expected)| {
            top.max((got - expected).abs() / scale)
        })
}
