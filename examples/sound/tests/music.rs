//! The program `music`, with few steps, and its parts.

#[path = "../../tests/common/mod.rs"]
mod common;
#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../music/compose.rs"]
mod compose;
#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../music/corpus.rs"]
mod corpus;
#[path = "../music/layers.rs"]
mod layers;
#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../music/melody.rs"]
mod melody;
#[path = "../music/model.rs"]
mod model;
#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../music/notation.rs"]
mod notation;
#[path = "../music/tests/parts.rs"]
mod parts;
#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../music/statistics.rs"]
mod statistics;
#[allow(dead_code, reason = "the program uses all of it")]
#[path = "../music/windows.rs"]
mod windows;

use aigc_core::{
    audio::read_wav,
    data::melodies::Melody,
    music::{MidiFile, VoiceGrid, read_chords, read_voices},
    output::provenance::verify_file,
};
use common::{finish, program};
use parts::melodies;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

fn command(folder: &Path, arguments: &str) -> Command {
    let mut command = Command::new(program("music"));
    command
        .args(arguments.split_whitespace())
        .current_dir(folder);
    command
}

fn run(folder: &Path, arguments: &str) -> String {
    finish(command(folder, arguments))
}

fn refused(folder: &Path, arguments: &str) -> String {
    let output = command(folder, arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The number that follows `label`.
fn number(text: &str, label: &str) -> f64 {
    let (_, rest) = text
        .split_once(label)
        .unwrap_or_else(|| panic!("{label} in {text}"));
    let word = rest.split_whitespace().next();
    let word = word.map(|word| word.trim_end_matches([';', ',']));
    word.and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{label} in {text}"))
}

/// A directory below the one that the variable names; says that the test is skipped without.
fn shared(variable: &str, name: &str) -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os(variable).map(|folder| root.join(folder).join(name));
    let folder = folder.filter(|folder| folder.is_dir());
    if folder.is_none() {
        let required = std::env::var_os("AIGC_REQUIRE_DATA").is_some();
        assert!(!required, "{variable} has no {name}");
        println!("skipped: set {variable}");
    }
    folder
}

const SMALL: &str = "--layers 1 --heads 2 --width 16 --batch 2 --pieces 3 --files 1";

#[test]
fn melodies_are_learnt_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let begin = format!("{SMALL} --seed 4 --save-steps 2 --steps 4");
    let printed = run(folder, &format!("{begin} --out run"));
    let nats = number(&printed, "held-out melodies:");
    assert!(nats > 0.5 && nats < 5.0, "{printed}");
    for label in [
        "answers that come again, %",
        "first tones that belong to the chord, %",
        "real-time factor",
        "4 steps in",
    ] {
        assert!(printed.contains(label), "{label}: {printed}");
    }
    // Whatever the model has learnt, its pieces are melodies.
    let piece = |name: &str| folder.join("run/pieces").join(name);
    let mut files = 0;
    for index in 1..=3 {
        let path = piece(&format!("piece-{index:03}.mid"));
        if path.exists() {
            let file = MidiFile::read(&path).unwrap();
            assert!(file.notes.len() >= 4 && file.hanging_notes == 0);
            files += 1;
        }
    }
    assert!(files > 0 && !piece("piece-002.wav").exists(), "{printed}");
    let midi = MidiFile::read(piece("piece-001.mid")).unwrap();
    let wave = read_wav(piece("piece-001.wav")).unwrap();
    assert!((wave.seconds() - midi.seconds()).abs() < 0.5);
    assert!(wave.peak() > 0.05);
    for name in ["piece-001.wav", "piece-001.png"] {
        let found = verify_file(piece(name)).unwrap();
        let record = found.valid().unwrap();
        assert_eq!((record.seed, record.index), (Some(4), Some(0)));
        assert!(record.model_hash.is_some());
    }

    // A resumed run has the same weights, and keeps its settings.
    let weights = || std::fs::read(folder.join("run/final/model.safetensors")).unwrap();
    let before = weights();
    let again = format!("{SMALL} --out run --resume-at 2");
    let printed = run(folder, &again);
    assert!(printed.contains("2 steps in"), "{printed}");
    assert!(weights() == before);
    // A run that was killed before it wrote its settings begins with those of the command line.
    std::fs::create_dir_all(folder.join("killed/checkpoints")).unwrap();
    let printed = run(folder, &format!("{SMALL} --steps 1 --out killed --resume"));
    assert!(printed.contains("1 steps in"), "{printed}");
    // The pieces of a later evaluation take the place of all earlier ones, and of nothing else.
    std::fs::write(piece("piece-mine.mid"), "mine").unwrap();
    let fewer = SMALL.replace("--pieces 3 --files 1", "--pieces 1 --files 0");
    run(folder, &format!("{fewer} --out run --resume"));
    let names = std::fs::read_dir(folder.join("run/pieces")).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.filter(|name| name != "piece-001.mid").collect();
    assert_eq!(names, ["piece-mine.mid"]);
    let error = refused(folder, "--out run --resume --layers 2");
    assert!(error.contains("n_layer"), "{error}");
    let error = refused(folder, "--out run --resume --data .");
    assert!(error.contains("`--data`"), "{error}");
    let error = refused(folder, "--out run --resume --seed 9");
    assert!(error.contains("--seed"), "{error}");
    assert!(refused(folder, "--width 30 --out bad").contains("`n_embd` is 30"));
    assert!(refused(folder, "--temperature -1 --steps 1").contains("temperature"));
    assert!(!folder.join("bad").exists());
}

/// Files like those of the chorales, of four-part pieces of the grammar.
fn small_chorales(folder: &Path) {
    let grids: Vec<VoiceGrid> = melodies(8).iter().map(Melody::to_grid).collect();
    let voices = |grid: &VoiceGrid| -> Value {
        let steps = grid.steps.iter().take(64);
        let steps = steps.map(|step| step.map(|pitch| pitch.map_or(-1, i32::from)));
        json!(steps.collect::<Vec<_>>())
    };
    let chords = |grid: &VoiceGrid| {
        json!(
            grid.chords()
                .frames
                .into_iter()
                .step_by(4)
                .collect::<Vec<_>>()
        )
    };
    let splits = |each: &dyn Fn(&VoiceGrid) -> Value| {
        let part = |range: std::ops::Range<usize>| -> Vec<Value> {
            grids[range].iter().map(each).collect()
        };
        json!({"train": part(0..4), "valid": part(4..6), "test": part(6..8)}).to_string()
    };
    for (name, text) in [
        ("Jsb16thSeparated.json", splits(&voices)),
        ("jsb-chorales-quarter.json", splits(&chords)),
    ] {
        std::fs::write(folder.join(name), text).unwrap();
    }
}

#[test]
fn chorales_are_learnt_and_written() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    small_chorales(folder);
    let small = format!("{SMALL} --context 64 --steps 3 --data .");

    let printed = run(folder, &format!("{small} --out sixteenths"));
    let nats = number(&printed, "test:");
    // Hardly better than a choice between all 62 tokens.
    assert!(nats > 2.0 && nats < 62f64.ln() + 0.2, "{printed}");
    let (_, of_test) = printed.split_once("test:").unwrap();
    assert!(number(of_test, "a counted n-gram has") < nats, "{printed}");
    for label in ["convention C", "parallel fifths", "longest copy", "95 %"] {
        assert!(printed.contains(label), "{label}: {printed}");
    }
    let pieces = read_voices(folder.join("sixteenths/pieces/pieces.json")).unwrap();
    assert_eq!(pieces.test.len(), 3);
    let midi = MidiFile::read(folder.join("sixteenths/pieces/piece-001.mid")).unwrap();
    let mut expected = pieces.test[0].to_notes(84.0, [73, 68, 71, 70]);
    aigc_core::music::sort_notes(&mut expected);
    // Voices of one instrument and pitch cannot overlap, so that no note is lost.
    assert_eq!(midi.notes.len(), expected.len());
    for (found, expected) in midi.notes.iter().zip(&expected) {
        assert_eq!(
            (found.pitch, found.program),
            (expected.pitch, expected.program)
        );
        assert!((found.start - expected.start).abs() < 2e-3);
        assert!((found.end - expected.end).abs() < 2e-3);
    }

    let printed = run(folder, &format!("{small} --grid quarters --out quarters"));
    assert!(printed.contains("convention B") && printed.contains("nats a frame"));
    let pieces = read_chords(folder.join("quarters/pieces/pieces.json")).unwrap();
    assert_eq!(pieces.test.len(), 3);
    let midi = MidiFile::read(folder.join("quarters/pieces/piece-001.mid")).unwrap();
    let notes = pieces.test[0].to_notes(84.0, 1.0, 19);
    assert_eq!(midi.notes.len(), notes.len());

    assert!(refused(folder, "--grid quarters").contains("--data"));
    let error = refused(folder, "--data nowhere");
    assert!(error.contains("Jsb16thSeparated.json"), "{error}");
    std::fs::write(folder.join("broken.json"), "{\"train\": [[[1, 2]]]}").unwrap();
    let error = refused(folder, "--data broken.json --out none");
    assert!(error.contains("broken.json"), "{error}");
    let none = r#"{"train": [], "valid": [], "test": []}"#;
    std::fs::write(folder.join("empty.json"), none).unwrap();
    let error = refused(folder, "--data empty.json --out none");
    assert!(error.contains("pieces in train"), "{error}");
    assert!(!folder.join("none").exists());
}

/// The chorales of Bach in quarters: a short training of a small model, which must stay below 8
/// nats a frame. Counting has 6.90, the best published LSTM of independent notes 8.44.
#[test]
fn short_training_on_chorales_reaches_eight_nats() {
    let Some(data) = shared("AIGC_DATA", "jsb-chorales") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let mut command = command(
        folder.path(),
        "--grid quarters --steps 300 --layers 2 --width 96 --context 128 --batch 10 \
         --dropout 0.1 --learning-rate 0.003 --pieces 2 --files 0 --out run",
    );
    let printed = finish({
        command.arg("--data").arg(data);
        command
    });
    let nats = number(&printed, "test:");
    assert!(nats <= 8.0, "{nats} nats a frame: {printed}");
    assert!((number(&printed, "valid:") - nats).abs() < 1.0, "{printed}");
}

#[test]
fn musicgen_writes_sound_from_a_prompt() {
    let Some(case) = shared("AIGC_FIXTURES", "audio/nets/musicgen-mono") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let music = |out: &str, seconds: &str| {
        let mut command = command(folder, &format!("--seconds {seconds} --seed 3 --out {out}"));
        command.args(["--prompt", "a slow song"]).arg("--model");
        command.arg(case.join("model"));
        command
    };
    let printed = finish(music("a.wav", "0.2"));
    assert!(printed.contains("real-time factor"), "{printed}");
    let wave = read_wav(folder.join("a.wav")).unwrap();
    assert_eq!((wave.sample_rate(), wave.len()), (1600, 320));
    for name in ["a.wav", "a.png"] {
        let found = verify_file(folder.join(name)).unwrap();
        let record = found.valid().unwrap();
        assert_eq!(record.prompt.as_deref(), Some("a slow song"));
        assert_eq!(record.seed, Some(3));
    }
    // The same seed gives the same sound.
    finish(music("b.wav", "0.2"));
    assert_eq!(read_wav(folder.join("b.wav")).unwrap(), wave);
    // More than the model has positions for leaves no file behind.
    let output = music("c.wav", "60").output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("seconds"),
        "{error}"
    );
    assert!(!folder.join("c.wav").exists());
    assert!(refused(folder, "--prompt x").contains("--model"));
    assert!(refused(folder, "--model x --pieces 3").contains("--pieces"));
    assert!(refused(folder, "--model nowhere").contains("nowhere"));
}
