//! The program `reproduce_sound`, with tiny networks on tones that are named like spoken digits.

#[path = "../../tests/common/mod.rs"]
mod common;

use aigc_core::{
    audio::{WavFormat, Waveform, read_wav, write_wav},
    device::device,
    eval::sound_classifier::SoundClassifierConfig,
    output::provenance::verify_file,
    rng::InitWeights,
};
use common::{finish, program};
use serde_json::Value;
use std::{path::Path, process::Command};

/// Tones of ten pitches by two voices: two clips of the test set and four of the training set each.
fn tones(dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    for digit in 0..10 {
        for (voice, speaker) in ["ada", "ben"].into_iter().enumerate() {
            for index in [0, 1, 5, 6, 7, 8] {
                let hertz = 200.0 * 1.3f32.powi(digit) * (1.0 + 0.02 * voice as f32);
                let len = 1600 + 200 * (index % 3);
                let sample = |at: usize| {
                    let edge = at.min(len - at) as f32 / 100.0;
                    let angle = std::f32::consts::TAU * hertz * at as f32 / 8000.0;
                    0.4 * edge.min(1.0) * (angle + index as f32).sin()
                };
                let wave = Waveform::mono((0..len).map(sample).collect(), 8000).unwrap();
                let path = dir.join(format!("{digit}_{speaker}_{index}.wav"));
                write_wav(&wave, path, WavFormat::Pcm16).unwrap();
            }
        }
    }
}

/// `reproduce_sound` in a directory, with arguments that are separated by spaces.
fn reproduce_sound(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(program("reproduce_sound"));
    command.args(arguments.split_whitespace()).current_dir(dir);
    command
}

/// The measures of a run by name.
fn measures(run: &Path) -> Vec<(String, Value)> {
    let text = std::fs::read(run.join("results.json")).unwrap();
    let report: Value = serde_json::from_slice(&text).unwrap();
    assert!(report["steps"].as_u64() > Some(0) && report["threads"].as_u64() > Some(0));
    let found = report["measures"].as_array().unwrap().iter();
    found
        .map(|measure| {
            (
                measure["name"].as_str().unwrap().to_owned(),
                measure.clone(),
            )
        })
        .collect()
}

/// The measure with this name, which has a finite value.
fn measure(run: &Path, name: &str) -> Value {
    let all = measures(run);
    let found = all.iter().find(|(known, _)| known == name);
    let names: Vec<&String> = all.iter().map(|(known, _)| known).collect();
    let (_, measure) = found.unwrap_or_else(|| panic!("no {name} in {names:?}"));
    assert!(measure["value"].is_number(), "{measure}");
    assert!(measure["count"].as_u64() > Some(0), "{measure}");
    measure.clone()
}

/// Fails unless sounds and a picture with a record of how they were made are there.
fn check_made(run: &Path, name: &str) {
    let dir = run.join("listen");
    let wave = read_wav(dir.join(format!("{name}-0.wav"))).unwrap();
    assert_eq!((wave.sample_rate(), wave.num_channels()), (8000, 1));
    for file in [
        format!("{name}-0.wav"),
        format!("{name}-0.png"),
        format!("{name}.png"),
    ] {
        let found = verify_file(dir.join(&file)).unwrap();
        assert!(found.valid().is_some(), "{file}");
    }
}

#[test]
fn models_are_trained_and_measured() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tones(&dir.join("tones"));
    let run = |arguments: &str| {
        let arguments = format!("{arguments} --data tones --size tiny");
        finish(reproduce_sound(dir, &arguments))
    };

    let text = run("classifier --steps 120 --batch 20 --rate 1e-2");
    assert!(text.contains("| test clips read rightly | "), "{text}");
    let digits = dir.join("runs/sound-digits-1");
    let right = measure(&digits, "test clips read rightly");
    assert!(right["value"].as_f64() > Some(0.9), "{right}");
    assert_eq!(right["count"], 40);
    assert_eq!(right["floor"], 0.1);
    run("classifier --label speaker --steps 2 --batch 4");

    run("codec --steps 4 --save-steps 2 --batch 4 --clips 4");
    let codec = dir.join("runs/sound-codec-1");
    let kept = measure(&codec, "decoded clips read as their originals are");
    assert_eq!(kept["goal"]["at_least"], 0.95);
    assert!(
        kept["met"].is_boolean() && kept["floor"].is_number(),
        "{kept}"
    );
    for name in ["mel distance", "SI-SNR, dB", "perplexity of codebook 2"] {
        measure(&codec, name);
    }
    assert_eq!(
        measure(&codec, "codes in use of codebook 1")["goal"]["at_least"],
        0.5
    );
    assert_eq!(measure(&codec, "kbit/s")["value"], 0.4);
    check_made(&codec, "decoded");
    assert!(codec.join("listen/griffin-lim.png").is_file());
    // Clips of several digits are measured, whatever their number.
    assert!(codec.join("listen/decoded-3.wav").is_file());
    // A run continues bit for bit, codebooks included, and is measured again.
    let weights = || std::fs::read(codec.join("final/model.safetensors")).unwrap();
    let whole = weights();
    run("codec --steps 4 --batch 4 --clips 4 --resume-at 2 --out runs/sound-codec-1");
    assert!(weights() == whole);
    run("codec --steps 5 --batch 4 --clips 4 --resume --out runs/sound-codec-1");
    let text = std::fs::read_to_string(codec.join("results.json")).unwrap();
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["steps"], 5);
    assert!(weights() != whole);

    // A run stands for what was trained in it, as the directory in it does.
    let critics = "codec --critics --critics-from 1 --steps 2 --batch 4 --clips 2";
    run(&format!("{critics} --classifier runs/sound-digits-1"));
    check_made(&dir.join("runs/sound-codec-critics-1"), "decoded");

    run(
        "codes --steps 2 --batch 4 --versions 2 --samples 20 --codec runs/sound-codec-1 \
         --classifier runs/sound-digits-1/final",
    );
    let codes = dir.join("runs/sound-codes-1");
    for (name, goal) in [
        ("digit as told", 0.9),
        ("speaker as told", 0.8),
        ("IS, generated", 7.0),
    ] {
        assert_eq!(measure(&codes, name)["goal"]["at_least"], goal, "{name}");
    }
    for name in [
        "real-time factor",
        "AM, test clips",
        "mIS, training clips",
        "nats a code of test clips",
    ] {
        measure(&codes, name);
    }
    check_made(&codes, "generated");
    assert!(codes.join("decoder/model.safetensors").is_file());
    // Codes of another codec, or other speakers, are refused.
    let refused = |arguments: &str| {
        let output = reproduce_sound(dir, arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    run("codec --steps 1 --batch 4 --clips 2 --seed 1");
    let error = refused(
        "codes --data tones --size tiny --batch 4 --versions 2 --steps 3 --samples 20 --resume",
    );
    assert!(error.contains("`data.codec`"), "{error}");
    std::fs::create_dir(dir.join("others")).unwrap();
    for entry in std::fs::read_dir(dir.join("tones")).unwrap() {
        let from = entry.unwrap().path();
        let name = from.file_name().unwrap().to_str().unwrap();
        let to = dir.join("others").join(name.replace("ada", "zoe"));
        std::fs::copy(&from, to).unwrap();
    }
    for (option, field) in [
        ("codes --guidance 0.5", "guidance_scale"),
        ("codes --temperature 0", "temperature"),
        ("mel --guidance nan", "guidance_scale"),
    ] {
        let error = refused(&format!("{option} --data tones --size tiny --steps 1"));
        assert!(error.contains(field), "{option}: {error}");
    }
    assert!(!dir.join("runs/sound-codes-2").exists() && !dir.join("runs/sound-mel-1").exists());
    let error = refused("codes --data others --size tiny");
    assert!(
        error.contains("ada, ben") && error.contains("ben, zoe"),
        "{error}"
    );

    run("vocoder --steps 2 --batch 4 --clips 4");
    let vocoder = dir.join("runs/sound-vocoder-1");
    let ratio = measure(&vocoder, "multi-resolution STFT distance, of Griffin-Lim's");
    assert_eq!(ratio["goal"]["at_most"], 0.8);
    assert_eq!(ratio["floor"], 1.0);
    assert!(measure(&vocoder, "real-time factor")["value"].as_f64() > Some(0.0));
    check_made(&vocoder, "vocoded");
    assert!(measure(&vocoder, "frames with another pitch")["floor"].is_number());
    for (network, model_type) in [
        ("nsf", "nsf_hifigan"),
        ("hifi-gan", "speecht5_hifigan"),
        ("magnitude", "magnitude_vocoder"),
    ] {
        let folder = match network {
            "magnitude" => vocoder.clone(),
            _ => {
                let options = "--critics-from 1 --steps 2 --batch 4 --clips 4";
                run(&format!(
                    "vocoder --network {network} {options} --out runs/{network}"
                ));
                dir.join("runs").join(network)
            }
        };
        let text = std::fs::read(folder.join("vocoder/config.json")).unwrap();
        let config: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(config["model_type"], model_type);
    }
    let plain = "vocoder --network hifi-gan --steps 2 --batch 4 --clips 4";
    let other = format!("{plain} --resume --out runs/sound-vocoder-1");
    let error = refused(&format!("{other} --data tones --size tiny"));
    assert!(error.contains("with which the run began"), "{error}");

    run("mel --steps 2 --batch 4 --samples 10 --sampling-steps 2");
    let mel = dir.join("runs/sound-mel-1");
    assert_eq!(measure(&mel, "digit as told")["count"], 10);
    let name = "Fréchet distance of the classifier's features, generated";
    assert!(measure(&mel, name)["interval"].is_array());
    // Spectra keep what the classifier reads.
    let kept = measure(&mel, "digit of vocoded test clips");
    assert!(kept["value"].as_f64() > Some(0.8), "{kept}");
    check_made(&mel, "generated");
    assert!(mel.join("pipeline/model_index.json").is_file());

    // The newest codec is still in training.
    std::fs::create_dir_all(dir.join("runs/sound-codec-7/checkpoints")).unwrap();
    for given in ["", " --codec runs/sound-codec-7"] {
        let error = refused(&format!("codes --data tones --size tiny{given}"));
        assert!(
            error.contains("sound-codec-7") && error.contains("has not ended"),
            "{error}"
        );
    }
}

#[test]
fn mistakes_are_named_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    tones(&dir.join("tones"));
    std::fs::create_dir(dir.join("empty")).unwrap();
    std::fs::create_dir(dir.join("names")).unwrap();
    std::fs::copy(dir.join("tones/0_ada_0.wav"), dir.join("names/zero.wav")).unwrap();
    std::fs::create_dir(dir.join("half")).unwrap();
    for name in ["0_ada_0.wav", "1_ben_1.wav"] {
        std::fs::copy(dir.join("tones").join(name), dir.join("half").join(name)).unwrap();
    }
    std::fs::create_dir(dir.join("short")).unwrap();
    for name in ["0_ada_5.wav", "1_ben_6.wav"] {
        std::fs::copy(dir.join("tones").join(name), dir.join("short").join(name)).unwrap();
    }
    let short = Waveform::mono(vec![0.1; 500], 8000).unwrap();
    write_wav(&short, dir.join("short/1_ben_0.wav"), WavFormat::Pcm16).unwrap();
    let classifier = SoundClassifierConfig::new(8000, 10);
    let classifier = classifier.init(&device("flex").unwrap()).unwrap();
    let classifier = classifier.init_weights(0);
    classifier.save_pretrained(dir.join("classes")).unwrap();
    for (arguments, expected) in [
        ("codec --data short --classifier classes", "1_ben_0.wav"),
        ("vocoder --data short --classifier classes", "1_ben_0.wav"),
        ("classifier --data nothing", "nothing"),
        ("classifier --data empty", "no sound"),
        ("classifier --data names", "zero.wav"),
        ("classifier --data half", "training set"),
        ("classifier --data tones --rate 2", "learning_rate"),
        ("classifier --data tones --label age", "--label"),
        ("codec --data tones", "sound-digits-1"),
        ("codec --data tones --clips 1", "--clips"),
        ("codes --data tones --classifier nothing", "nothing"),
        ("codes --data tones --samples 5", "--samples"),
        ("vocoder --data tones --batch 0", "--batch"),
        ("vocoder --data tones --critics-from 1", "--critics-from"),
        ("mel --data tones --sampling-steps 1", "--sampling-steps"),
        ("mel", "--data"),
    ] {
        let output = reproduce_sound(dir, arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(expected), "{arguments}: {error}");
    }
    assert!(!dir.join("runs").exists());
}
