//! The program `effects`, with networks that are trained for a few steps.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../effects/spectra.rs"]
mod spectra;

use aigc_core::{
    audio::read_wav,
    device::device,
    dsp::MelConfig,
    output::provenance::{Provenance, verify_file},
    rng::InitWeights,
};
use aigc_gan::vocoder::HifiGanConfig;
use common::{World, program};
use spectra::{LENGTH, SAMPLE_RATE};
use std::{fs, path::Path, process::Command};

/// Options of a training that takes a few seconds.
const TINY: &str = "--size 16 --width 8 --clips 32 --classifier-steps 2 --steps 4 --save-steps 2";
/// Options of making few sounds.
const FEW: &str = "--count 1 --eval-samples 2 --sampling-steps 2";

/// Runs the program with arguments separated by spaces.
fn effects(world: &World, arguments: &str) -> String {
    world.run("effects", &format!("{arguments} {FEW}"))
}

/// The record of a file, which is as it was written.
fn record(path: &Path) -> Provenance {
    let found = verify_file(path).unwrap();
    let record = found.valid().cloned();
    record.unwrap_or_else(|| panic!("{}: {found}", path.display()))
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_run_is_trained_once_and_used_again() {
    let world = World::new();
    let at = |name: &str| world.path().join(name);
    let text = effects(&world, &format!("all --out run {TINY}"));
    for part in [
        "bell: ",
        "of 2 are read as bell; bell-0.wav in",
        "right kind: ",
        "of 16 sounds; the goal is 95 %",
        "made of their spectra by Griffin-Lim: ",
        "real-time factor ",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let kinds = [
        "coin",
        "laser",
        "jump",
        "explosion",
        "bell",
        "drum",
        "wind",
        "alarm",
    ];
    for (class, kind) in kinds.into_iter().enumerate() {
        let wav = at(&format!("run/sounds/{kind}-0.wav"));
        let wave = read_wav(&wav).unwrap();
        assert_eq!(
            (wave.sample_rate(), wave.len()),
            (SAMPLE_RATE, LENGTH),
            "{kind}"
        );
        for path in [&wav, &wav.with_extension("png")] {
            let record = record(path);
            assert_eq!((&*record.model, record.seed), ("effects", Some(0)));
            let place = (record.class, record.index);
            assert_eq!(place, (Some(class as u64), Some(0)), "{kind}");
            assert_eq!(record.settings["kind"], kind);
            assert_eq!(record.settings["vocoder"], "Griffin-Lim");
            assert_eq!(record.settings["mel_config"]["n_mels"], 16);
            assert!(record.model_hash.is_some());
        }
    }
    for name in [
        "loss.svg",
        "metrics.jsonl",
        "samples/step-000004.png",
        "samples/step-000004.wav",
        "classifier/final/model.safetensors",
        "model/model_index.json",
        "model/unet/config.json",
        "model/scheduler/scheduler_config.json",
        "model/classifier/model.safetensors",
    ] {
        let size = at("run").join(name).metadata().map_or(0, |file| file.len());
        assert!(size > 50, "{name}");
    }
    assert_eq!(
        record(&at("run/samples/step-000004.wav")).settings["training_step"],
        4
    );
    // The mels are in the run and in the model.
    let config = json(&at("run/config.json"));
    let mel = &config["data"]["spectra"]["mel_config"];
    let model = json(&at("run/model/effects.json"));
    assert_eq!(mel, &model["spectra"]["mel_config"]);
    let mel: MelConfig = serde_json::from_value(mel.clone()).unwrap();
    assert_eq!(
        (mel.sample_rate, mel.n_mels, mel.hop_length),
        (8000, 16, 512)
    );

    // Used again, without options or with the same; alone, a kind has the same sounds.
    let bell = at("run/sounds/bell-0.wav");
    let first = fs::read(&bell).unwrap();
    fs::remove_file(&bell).unwrap();
    for options in ["", TINY] {
        let text = effects(&world, &format!("bell --out run {options}"));
        assert!(
            text.contains("is used again") && !text.contains("laser:"),
            "{text}"
        );
        assert_eq!(fs::read(&bell).unwrap(), first);
    }
    for model in ["run", "run/model"] {
        effects(&world, &format!("bell --model {model} --out other"));
        assert_eq!(fs::read(at("other/bell-0.wav")).unwrap(), first);
    }
    effects(&world, "bell --out run --sample-seed 1");
    assert_ne!(fs::read(&bell).unwrap(), first);
    assert_eq!(record(&bell).seed, Some(1));

    vocoders_have_to_fit(&world, mel);
    let others = [
        ("gong", "argument `KIND` is gong, expected coin, laser"),
        ("bell --model nowhere", "nowhere"),
        (
            "bell --out new --guidance nan",
            "`guidance_scale` is NaN, expected a finite number",
        ),
        ("bell --model run --steps 3", "`--steps` is given"),
        (
            "bell --model run --classifier-steps 3",
            "`--classifier-steps` is given",
        ),
        ("bell --out run --steps 5", "there is a run in it already"),
        (
            "bell --out run --classifier-steps 3",
            "`--classifier-steps` is 3, expected 2",
        ),
        (
            "bell --out run --resume --size 32",
            "`--size` is 32, expected 16",
        ),
        (
            "bell --out run --resume --seed 3",
            "`--seed` is 3, expected 0",
        ),
        (
            "bell --out new --size 24",
            "`--size` is 24, expected 16, 32",
        ),
        (
            "bell --out new --width 12",
            "`--width` is 12, expected a multiple",
        ),
        ("bell --out none --resume", "there is no run in it"),
    ];
    for (arguments, expected) in others {
        let error = world.fails("effects", arguments);
        // Long messages are wrapped by the parser of the options.
        let error = error.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(error.contains(expected), "{arguments}: {error}");
        assert!(!at("new").exists() && !at("none").exists());
    }
}

/// A vocoder of the same mels is used; one of others is refused by field.
fn vocoders_have_to_fit(world: &World, mel: MelConfig) {
    let device = device("flex").unwrap();
    let save = |config: HifiGanConfig, name: &str| {
        let network = config.init(&device).unwrap().init_weights(1);
        network.save_pretrained(world.path().join(name)).unwrap();
    };
    let fitting = HifiGanConfig {
        upsample_initial_channel: 8,
        upsample_rates: vec![8; 3],
        upsample_kernel_sizes: vec![16; 3],
        resblock_kernel_sizes: vec![3],
        resblock_dilation_sizes: vec![vec![1]],
        ..HifiGanConfig::for_mel(mel)
    };
    let other = HifiGanConfig {
        mel_config: Some(MelConfig { floor: 1e-9, ..mel }),
        ..fitting.clone()
    };
    save(fitting, "fitting");
    save(other, "other-mels");
    effects(world, "bell --model run --vocoder fitting --out vocoded");
    let vocoded = record(&world.path().join("vocoded/bell-0.wav"));
    assert_eq!(vocoded.settings["vocoder"], "fitting");
    let error = world.fails("effects", "bell --model run --vocoder other-mels");
    assert!(
        error.contains("`floor` is 1e-9, expected 1e-5: these mels are of another configuration"),
        "{error}"
    );
}

/// A run goes on as if it had not stopped, bit for bit, and what is missing behind the training is
/// made without an option.
#[test]
fn a_run_resumes_where_it_stopped() {
    let world = World::new();
    let at = |name: &str| world.path().join("run").join(name);
    effects(&world, &format!("coin --out run {TINY}"));
    let names = [
        "final/model.safetensors",
        "checkpoints/step-000004/model.safetensors",
        "model/unet/diffusion_pytorch_model.safetensors",
        "sounds/coin-0.wav",
    ];
    let read = || names.map(|name| fs::read(at(name)).unwrap());
    let whole = read();
    for name in names {
        fs::remove_file(at(name)).unwrap();
    }
    effects(&world, "coin --out run --resume-at 2");
    assert!(read() == whole);

    // Interrupted behind the training: the classifier has still to be trained.
    fs::remove_file(at("model/effects.json")).unwrap();
    fs::remove_dir_all(at("classifier")).unwrap();
    let text = effects(&world, "coin --out run --classifier-steps 2");
    assert!(
        text.contains("classifier of the kinds") && !text.contains("is used again"),
        "{text}"
    );
    assert!(read() == whole);

    let text = effects(&world, "coin --out run --resume --steps 6");
    assert!(text.contains("6 steps in run"), "{text}");
    assert_ne!(fs::read(at(names[0])).unwrap(), whole[0]);
}

/// Ctrl-C saves all that was trained.
#[cfg(unix)]
#[test]
fn an_interrupted_run_goes_on() {
    use std::{process::Stdio, thread::sleep, time::Duration};
    let world = World::new();
    let long = TINY.replace("--steps 4", "--steps 100000");
    let mut child = world
        .command("effects", &format!("drum --out run {long} {FEW}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let checkpoints = world.path().join("run/checkpoints");
    let saved = || {
        let entries = fs::read_dir(&checkpoints).into_iter().flatten().flatten();
        let mut names = entries.map(|entry| entry.file_name());
        names.any(|name| name.to_string_lossy().starts_with("step-"))
    };
    while child.try_wait().unwrap().is_none() && !saved() {
        sleep(Duration::from_millis(1));
    }
    let mut kill = Command::new("kill");
    assert!(
        kill.args(["-INT", &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let (_, rest) = text.split_once("stopped after step ").unwrap();
    let digits = rest.split(';').next().unwrap();
    let step: usize = digits.parse().unwrap();
    let last = format!("run/checkpoints/step-{step:06}/model.safetensors");
    assert!(world.path().join(last).is_file());

    // As long as the checkpoint, so that nothing is left to train but the classifier.
    let text = effects(
        &world,
        &format!("drum --out run --resume --classifier-steps 2 --steps {step}"),
    );
    assert!(text.contains("of 2 are read as drum"), "{text}");
}

/// The share in percent that follows `label`.
fn percent(text: &str, label: &str) -> f64 {
    let (_, rest) = text
        .split_once(label)
        .unwrap_or_else(|| panic!("{label} in {text}"));
    let number = rest.split_whitespace().next().unwrap();
    number.parse().unwrap()
}

/// After 60 steps the classifier reads effects that it has not learned, far above chance (12.5 %),
/// and those made of coarse spectra by Griffin-Lim above it. The network of spectra needs more
/// steps than a test has.
#[test]
fn the_classifier_reads_held_out_effects() {
    let world = World::new();
    let tiny = TINY.replace("--classifier-steps 2", "--classifier-steps 60");
    let few = "--count 1 --eval-samples 6 --sampling-steps 2";
    let text = world.run("effects", &format!("wind --out run {tiny} {few}"));
    let plain = percent(&text, "that were not learned: ");
    let again = percent(&text, "by Griffin-Lim: ");
    assert!(plain > 50.0 && again > 25.0, "{text}");
}

/// The program itself says what it is for.
#[test]
fn help_names_the_kinds_and_the_time() {
    let output = Command::new(program("effects"))
        .arg("--help")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "coin, laser, jump",
        "13 minutes",
        "--sample-seed",
        "Griffin-Lim",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
