//! Learns sound effects, which are computed, and makes new ones.
//!
//!     cargo run --release -p aigc-examples-sound --example effects -- laser
//!
//! A diffusion model learns the log-mel spectra of eight kinds of sounds, as images; Griffin-Lim or
//! a vocoder turns those that it draws into sound. A classifier of the same kinds counts the
//! sounds that it reads as the requested kind. The first call trains a model; later calls use it.
//!
//! Sounds and pictures have a record of the model, the seed and the settings that made them:
//!
//!     cargo run --release -p aigc-examples-evaluate --example verify -- \
//!         runs/effects-1/sounds/laser-0.wav

#![forbid(unsafe_code)]

mod classify;
mod make;
mod model;
mod settings;
mod spectra;
mod train;

use aigc_core::{
    CancelToken, Error, burn::tensor::Device, data::effects::EffectKind, train::StartFrom,
};
use aigc_diffusion::ClassifierFreeGuidance;
use aigc_examples::{RunOptions, is_stop, outln, stop_on_ctrl_c};
use aigc_examples_sound::RunState;
use anyhow::Result;
use clap::Parser;
use settings::Settings;
use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

/// Name of the model and of its runs.
pub(crate) const NAME: &str = "effects";

/// Learns sound effects and makes new ones: coin, laser, jump, explosion, bell, drum, wind, alarm.
///
/// The first call trains for about 13 minutes on two processor cores; --steps 300 takes three and
/// sounds rough. A run in runs/ or --out that has been trained is used again, and one that was
/// interrupted goes on.
#[derive(Clone, Debug, Parser)]
struct Args {
    /// coin, laser, jump, explosion, bell, drum, wind, alarm, or all.
    kind: Kinds,
    /// A trained model instead of a run: the directory `model` of a run, or a run. Sounds are
    /// written to --out, by default `sounds`.
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// A vocoder, HiFi-GAN with or without a harmonic source or UnivNet, that reads exactly the
    /// mels of the model; by default Griffin-Lim, which has no weights.
    #[arg(long, value_name = "DIR")]
    vocoder: Option<PathBuf>,
    /// Number of sounds of each kind that are written.
    #[arg(long, value_name = "N", default_value_t = 4,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,
    /// Number of sounds of each kind that the classifier reads; those that are written are the
    /// first of them.
    #[arg(long, value_name = "N", default_value_t = 40,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    eval_samples: u32,
    /// Number of sampling steps.
    #[arg(long, value_name = "N", default_value_t = 20,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    sampling_steps: u32,
    /// Scale of classifier-free guidance: larger values give more typical sounds.
    #[arg(long, value_name = "SCALE", default_value_t = 2.0)]
    guidance: f64,
    /// Seed of the sounds; another one gives other sounds.
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    sample_seed: u64,
    /// Mels and frames of a spectrum: 16, 32 or 64; by default 32. Four times the cost for twice
    /// the size.
    #[arg(long, value_name = "N")]
    size: Option<usize>,
    /// Channels of the network's first block, a multiple of 8; by default 32.
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// Number of sounds to learn from; by default 4,096.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(8..=1_000_000))]
    clips: Option<u32>,
    /// Number of training steps of the classifier; by default 300.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    classifier_steps: Option<u32>,
    #[command(flatten)]
    run: RunOptions,
}

/// The requested kinds of sounds.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Kinds(Vec<EffectKind>);

impl FromStr for Kinds {
    type Err = Error;

    fn from_str(name: &str) -> aigc_core::Result<Self> {
        if name == "all" {
            return Ok(Self(EffectKind::ALL.to_vec()));
        }
        let kind = name.parse::<EffectKind>().map_err(|_| {
            let known = EffectKind::ALL.map(EffectKind::name).join(", ");
            Error::argument("KIND", name, format!("{known} or all"))
        })?;
        Ok(Self(vec![kind]))
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    // A wrong scale would be noticed after the first steps of a training.
    ClassifierFreeGuidance::new(args.guidance).validate()?;
    let device = args.run.device()?;
    let stop = stop_on_ctrl_c();
    let result = match &args.model {
        Some(model) => of_model(&args, model, &device, &stop),
        None => of_run(&args, &device, &stop),
    };
    match result {
        Err(error) if is_stop(&error, &stop) => {
            outln!("stopped");
            Ok(())
        }
        result => result,
    }
}

/// Makes sounds with a model from elsewhere.
fn of_model(args: &Args, model: &Path, device: &Device, stop: &CancelToken) -> Result<()> {
    let run = &args.run;
    let training = [
        ("--steps", run.steps.is_some()),
        ("--minutes", run.minutes.is_some()),
        ("--save-steps", run.save_steps.is_some()),
        ("--resume", run.start() != StartFrom::Fresh),
        ("--size", args.size.is_some()),
        ("--width", args.width.is_some()),
        ("--clips", args.clips.is_some()),
        ("--classifier-steps", args.classifier_steps.is_some()),
    ];
    if let Some((option, _)) = training.iter().find(|(_, given)| *given) {
        let expected = "no options of training with --model, which is not trained";
        return Err(Error::argument(*option, "given", expected).into());
    }
    let inside = model.join(model::FOLDER);
    let dir = match model.join(model::DESCRIPTION).is_file() || !inside.is_dir() {
        true => model.to_path_buf(),
        false => inside,
    };
    let out = run.out.clone().unwrap_or_else(|| "sounds".into());
    make::sounds(args, &dir, &out, device, stop)
}

/// Makes sounds with the model of a run, which is trained first if that is left to do.
fn of_run(args: &Args, device: &Device, stop: &CancelToken) -> Result<()> {
    let state = RunState::find(
        &args.run,
        NAME,
        |run| {
            run.config::<Settings>()?.check(args)?;
            classify::check(args, run)
        },
        |run| model::is_complete(&model::dir(run)),
    )?;
    if let RunState::Finished(run) = &state {
        outln!(
            "the model in {} is used again; another --steps, --seed or --out trains a new one, \
             --resume trains it further",
            run.path().display()
        );
        let out = run.path().join(make::FOLDER);
        return make::sounds(args, &model::dir(run), &out, device, stop);
    }
    train::run(args, &state, device, stop)
}
