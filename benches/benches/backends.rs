//! What every backend does: the table of `docs/backends.md`.
//!
//!     cargo bench -p aigc-benches --features ndarray,tch,wgpu --bench backends -- --write docs/backends.md

use aigc_backends::{models, pass, pictures};
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
    /// Where to write the table: between the markers `<!-- backends -->` of this file.
    #[arg(long)]
    write: Option<std::path::PathBuf>,
    /// Try one device and answer in JSON.
    #[arg(long, hide = true)]
    device: Option<String>,
    /// Time one workload on the device that `AIGC_DEVICE` names.
    #[arg(long, hide = true)]
    serve: Option<String>,
    /// What cargo adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The training step that is timed: a convolutional autoencoder of 16×16 images, batches of 32.
const WORKLOAD: &str = "vae_conv_width_16";

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(name) = args.serve {
        return serve(&name, false);
    }
    if let Some(name) = args.device {
        println!("{}", tried(&device::device(&name)?)?);
        return Ok(());
    }
    let mut lines = vec![
        "| backend | feature | train: loss of the first and the 300th step | parity: forward, gradients | sample: pictures | \
         speed: ms a step |"
            .to_string(),
        "|---|---|---|---|---|---|".to_string(),
    ];
    for (name, feature) in BACKENDS {
        let cells = match available_backends().contains(&name) {
            true => row(name).unwrap_or_else(|error| format!("{error:#} | | | |")),
            false => "not built in, not measured | | | |".to_string(),
        };
        lines.push(format!("| {name} | `{feature}` | {cells}"));
        println!("{}", lines[lines.len() - 1]);
    }
    args.write.map_or(Ok(()), |path| {
        write_between(&path, "backends", &lines.join("\n"))
    })
}

/// The cells of one backend, which runs in a process of its own: a GPU that is not there panics.
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
    let mut clocked = Command::new(this);
    clocked
        .args(["--serve", WORKLOAD])
        .env("AIGC_DEVICE", name)
        .stderr(Stdio::null());
    let mut side = Side::start(clocked)?;
    side.round(3.0)?;
    let number = |key: &str| answer[key].as_f64().unwrap_or(f64::NAN);
    Ok(format!(
        "{:.2}, {:.2} | {:.0e}, {:.0e} | {:.0e} | {:.2} |",
        number("first"),
        number("last"),
        number("forward"),
        number("gradients"),
        number("pictures"),
        side.figures.milliseconds()
    ))
}

/// Trains, and compares with Flex.
fn tried(device: &Device) -> Result<Value> {
    let (mut forward, mut gradients, mut drawn) = (0.0f64, 0.0f64, 0.0f64);
    for (_, config) in models() {
        let ((outputs, grads), (expected, expected_grads)) =
            (pass(&config, device), pass(&config, &Device::flex()));
        for ((_, got), (_, expected)) in outputs.iter().zip(&expected) {
            forward = forward.max(difference(got, expected));
        }
        for (path, (_, expected)) in &expected_grads {
            gradients = gradients.max(difference(&grads[path].1, expected));
        }
        drawn = drawn.max(difference(
            &pictures(&config, device).1,
            &pictures(&config, &Device::flex()).1,
        ));
    }
    let [_, (_, config)] = models();
    let loader = DataLoaderConfig {
        batch_size: 32,
        ..DataLoaderConfig::default()
    };
    let folder = tempfile::tempdir()?;
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
            &RunDir::create(folder.path().join("run"))?,
        )?;
    let (first, last) = (losses.first(), losses.last());
    Ok(
        json!({"forward": forward, "gradients": gradients, "pictures": drawn, "first": first, "last": last}),
    )
}

/// The largest difference, of the largest value (at least one).
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
