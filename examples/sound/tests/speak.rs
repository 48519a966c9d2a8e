//! The program `speak`, with few steps.

#[path = "../../tests/common/mod.rs"]
mod common;

use aigc_core::{
    audio::{WavFormat, Waveform, read_wav, write_wav},
    output::provenance::verify_file,
};
use common::{finish, program};
use std::{path::Path, process::Command};

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("speak"));
    command.args(arguments).current_dir(folder);
    command
}

fn speak(folder: &Path, arguments: &[&str]) -> String {
    finish(command(folder, arguments))
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = command(folder, arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Recordings named as those of FSDD: a tone for each digit, and two speakers, one of them lower.
fn recordings(dir: &Path) {
    std::fs::create_dir_all(dir).unwrap();
    for digit in 0..10 {
        for (speaker, factor) in [("ann", 1.0), ("bo", 0.7)] {
            for index in [0, 5, 6] {
                let frequency = factor * f64::from(300 + 150 * digit);
                let samples = (0..2100 + 40 * index).map(|at| {
                    let phase = std::f64::consts::TAU * frequency * f64::from(at) / 8000.0;
                    (0.4 * phase.sin()) as f32
                });
                let wave = Waveform::mono(samples.collect(), 8000).unwrap();
                let name = dir.join(format!("{digit}_{speaker}_{index}.wav"));
                write_wav(&wave, name, WavFormat::default()).unwrap();
            }
        }
    }
}

/// A short training; the time limit is far away, since the learning rate would follow it.
const SHORT: [&str; 10] = [
    "--steps",
    "4",
    "--batch",
    "4",
    "--save-steps",
    "2",
    "--minutes",
    "1000",
    "--check",
    "2",
];

fn train<'a>(out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let base = ["one two", "--out", out, "--speaker", "bo"];
    [&base[..], &SHORT, more].concat()
}

/// The weights of all trainings of a run.
#[cfg(unix)]
fn weights(run: &Path) -> Vec<Vec<u8>> {
    let of = |dir: &str| std::fs::read(run.join(dir).join("final/model.safetensors")).unwrap();
    ["", "vocoder", "reader"].map(of).to_vec()
}

/// Runs the program until `checkpoint` exists, and interrupts it as Ctrl-C does.
#[cfg(unix)]
fn interrupt(mut command: Command, checkpoint: &Path) -> String {
    use std::{process::Stdio, thread::sleep, time::Duration};
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none() && !checkpoint.exists() {
        sleep(Duration::from_millis(1));
    }
    let mut kill = Command::new("kill");
    let sent = kill.args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

#[test]
fn a_voice_is_trained_speaks_and_resumes_exactly() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, at) = (folder.path(), |name: &str| folder.path().join(name));
    recordings(&at("digits"));
    let printed = speak(folder, &train("whole", &["--data", "digits"]));
    for expected in [
        "40 recordings of 2 speakers, 20 held out",
        "20 held-out recordings, resynthesised: spectral distance",
        "real-time factor",
        "of 2 digits are heard as asked",
        "digits are heard as asked in held-out recordings",
        "s  one\n",
        "s  two\n",
    ] {
        assert!(printed.contains(expected), "{expected}: {printed}");
    }
    for file in ["speech.wav", "speech.png", "samples/step-000004.wav"] {
        let found = verify_file(at("whole").join(file)).unwrap();
        let record = found.valid().unwrap();
        assert_eq!(record.prompt.as_deref(), Some("one two"), "{file}");
    }
    let found = verify_file(at("whole/speech.wav")).unwrap();
    let record = found.valid().unwrap();
    assert_eq!(record.settings["speaker"], "bo");
    assert_eq!(record.settings["vocoder"], "magnitude");
    assert!(record.model_hash.is_some());
    let report = std::fs::read_to_string(at("whole/check.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["single"]["of"], 1);
    assert!(report["sequences"]["of"].as_u64().unwrap() >= 4);
    assert_eq!(report["recordings"]["of"], 20);

    // The same voice again: the same sound.
    let whole = read_wav(at("whole/speech.wav")).unwrap();
    let again = |out: &str, more: &[&str]| {
        let base = [
            "one two",
            "--model",
            "whole",
            "--speaker",
            "bo",
            "--out",
            out,
        ];
        let printed = speak(folder, &[&base, more].concat());
        (printed, read_wav(at(out)).unwrap())
    };
    let (printed, same) = again("again.wav", &[]);
    assert!(!printed.contains("first sound"), "{printed}");
    assert_eq!(same, whole);
    let (_, slow) = again("slow.wav", &["--rate", "0.02"]);
    assert!(slow.len() > 2 * whole.len());
    let (_, plain) = again("plain.wav", &["--vocoder", "griffin-lim"]);
    assert_eq!(plain.len(), whole.len());
    assert_ne!(plain, whole);
    std::fs::write(at("words.txt"), "two t w o o\n").unwrap();
    let (_, spelt) = again("spelt.wav", &["--lexicon", "words.txt"]);
    assert_ne!(spelt, whole);

    for (more, expected) in [
        (
            ["--stream"].as_slice(),
            "magnitude needs all of the spectra",
        ),
        (&["--vocoder", "nsf"], "magnitude, the vocoder of the run"),
    ] {
        let error = refused(folder, &[&["one", "--model", "whole"], more].concat());
        assert!(error.contains(expected), "{error}");
    }

    // A voice that is to speak piece by piece has another vocoder, and the sound has no seams.
    speak(folder, &train("piped", &["--data", "digits", "--stream"]));
    let config = std::fs::read_to_string(at("piped/vocoder/config.json")).unwrap();
    assert!(config.contains("nsf_hifigan"), "{config}");
    let slow = |out: &str, more: &[&str]| {
        let base = [
            "one two", "--model", "piped", "--rate", "0.02", "--out", out,
        ];
        let printed = speak(folder, &[&base, more].concat());
        (printed, read_wav(at(out)).unwrap())
    };
    speak(folder, &train("piped", &["--resume"]));
    let error = refused(folder, &train("whole", &["--resume", "--stream"]));
    assert!(error.contains("--vocoder nsf"), "{error}");
    let (printed, pieces) = slow("pieces.wav", &["--stream"]);
    assert!(printed.contains("first sound after"), "{printed}");
    let (_, whole_pieces) = slow("whole-pieces.wav", &[]);
    assert_eq!(pieces.len(), whole_pieces.len());
    let gaps = pieces.channel(0).iter().zip(whole_pieces.channel(0));
    let gap = gaps.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(gap < 1e-3, "{gap}");

    // A voice without a trained vocoder stays one when its training goes on.
    let hollow = ["--data", "digits", "--vocoder", "griffin-lim"];
    speak(folder, &train("hollow", &hollow));
    speak(folder, &train("hollow", &["--resume"]));
    assert!(at("hollow/reader").is_dir() && !at("hollow/vocoder").exists());
    let of_none = ["one", "--model", "hollow", "--vocoder", "nsf"];
    let error = refused(folder, &of_none);
    assert!(error.contains("no trained vocoder"), "{error}");

    let change = train("hollow", &["--resume", "--vocoder", "nsf"]);
    let error = refused(folder, &change);
    assert!(error.contains("data.vocoder"), "{error}");

    // A run whose training has not ended has no voice yet.
    std::fs::create_dir_all(at("begun/checkpoints")).unwrap();
    std::fs::copy(at("whole/config.json"), at("begun/config.json")).unwrap();
    let error = refused(folder, &["one", "--model", "begun"]);
    assert!(
        error.contains("begun") && error.contains("--resume"),
        "{error}"
    );

    // Interrupted in the first training and in the second.
    #[cfg(unix)]
    {
        let begun = command(folder, &train("parts", &["--data", "digits"]));
        let printed = interrupt(begun, &at("parts/checkpoints/step-000002"));
        assert!(printed.contains("--resume --out"), "{printed}");
        let resumed = command(folder, &train("parts", &["--resume"]));
        let printed = interrupt(resumed, &at("parts/vocoder/checkpoints/step-000002"));
        assert!(printed.contains("--resume --out"), "{printed}");
        speak(folder, &train("parts", &["--resume"]));
        assert_eq!(weights(&at("parts")), weights(&at("whole")));
        assert_eq!(read_wav(at("parts/speech.wav")).unwrap(), whole);

        // A voice without a trained vocoder stays one also if nothing but its record says so.
        let begun = command(folder, &train("early", &hollow));
        interrupt(begun, &at("early/checkpoints/step-000002"));
        let _ = std::fs::remove_dir_all(at("early/reader"));
        speak(folder, &train("early", &["--resume"]));
        assert!(at("early/reader").is_dir() && !at("early/vocoder").exists());
    }
}

#[test]
fn what_cannot_be_spoken_is_named_before_a_training() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, at) = (folder.path(), |name: &str| folder.path().join(name));
    recordings(&at("digits"));
    let cases: [(&[&str], &[&str]); 8] = [
        (&["quack!"], &["'q'", "'a'", "'c'", "'k'", "'!'"]),
        (&["one", "--speaker", "cid"], &["--speaker", "ann, bo"]),
        (&["one", "--rate", "0"], &["--rate", "above 0"]),
        (
            &["one", "--stream", "--vocoder", "griffin-lim"],
            &["--stream", "griffin-lim"],
        ),
        (&["??", "--skip-unknown"], &["TEXT", "the voice knows"]),
        (&["one", "--lexicon", "bad.txt"], &["bad.txt", "line 1"]),
        (&["one", "--steps", "0"], &["max_steps"]),
        (&["one", "--model", "whole"], &["--data"]),
    ];
    std::fs::write(at("bad.txt"), "one\n").unwrap();
    for (arguments, expected) in cases {
        let error = refused(folder, &[arguments, &["--data", "digits"]].concat());
        for name in expected {
            assert!(error.contains(name), "{name}: {error}");
        }
    }
    let error = refused(folder, &["one"]);
    assert!(
        error.contains("--data") && error.contains("--model"),
        "{error}"
    );

    // Recordings: names of another form, too short, none held out.
    let with = |names: &[&str], len: usize| {
        let dir = at("others");
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        let wave = Waveform::mono(vec![0.1; len], 8000).unwrap();
        for name in names {
            write_wav(&wave, dir.join(name), WavFormat::default()).unwrap();
        }
        refused(folder, &["one", "--data", "others"])
    };
    let cases: [(&[&str], usize, &str); 4] = [
        (&["3_ann_2.wav", "hello.wav"], 4000, "hello.wav"),
        (&["3_ann_2.wav", "3_ann_7.wav"], 300, "3_ann_7.wav"),
        (&["3_ann_7.wav"], 4000, "an index below 5"),
        (&["3_ann_2.wav"], 4000, "an index of 5 or above"),
    ];
    for (names, len, expected) in cases {
        let error = with(names, len);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert!(!at("runs").exists());
}

/// A small voice of VITS with random weights, from the reference numbers.
fn vits(dir: &Path) -> bool {
    let Some(fixtures) = std::env::var_os("AIGC_FIXTURES") else {
        let all = std::env::var_os("AIGC_REQUIRE_DATA");
        assert!(all.is_none(), "AIGC_REQUIRE_DATA is set: set AIGC_FIXTURES");
        println!("skipped: set AIGC_FIXTURES");
        return false;
    };
    // Relative to the workspace, whatever directory the test runs in.
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let fixtures = workspace.join(fixtures);
    let nets = fixtures.join("audio/nets");
    std::fs::create_dir_all(dir).unwrap();
    for part in ["vits-speakers-batch/model", "vits-tokenizer/tokenizer"] {
        for entry in std::fs::read_dir(nets.join(part)).unwrap() {
            let from = entry.unwrap().path();
            std::fs::copy(&from, dir.join(from.file_name().unwrap())).unwrap();
        }
    }
    true
}

#[test]
fn voices_of_vits_speak_whole_and_in_pieces() {
    let folder = tempfile::tempdir().unwrap();
    let (folder, at) = (folder.path(), |name: &str| folder.path().join(name));
    if !vits(&at("voice")) {
        return;
    }
    let text = "what is that noise in the dark behind the old house on the hill";
    let say = |out: &str, more: &[&str]| {
        let base = [text, "--model", "voice", "--seed", "3", "--out", out];
        let printed = speak(folder, &[&base, more].concat());
        assert!(printed.contains("real-time factor"), "{printed}");
        assert!(printed.contains("s  noise\n"), "{printed}");
        let found = verify_file(at(out)).unwrap();
        let record = found.valid().unwrap();
        assert_eq!(
            (record.prompt.as_deref(), record.seed),
            (Some(text), Some(3))
        );
        (printed, read_wav(at(out)).unwrap())
    };
    let (_, whole) = say("whole.wav", &["--speaker", "1", "--rate", "0.2"]);
    assert_eq!(whole.sample_rate(), 4000);
    assert!(at("whole.png").is_file());
    let streamed = ["--speaker", "1", "--rate", "0.2", "--stream"];
    let (printed, pieces) = say("pieces.wav", &streamed);
    assert!(printed.contains("first sound after"), "{printed}");
    // More than one piece: 64 frames of 8 samples.
    assert!(whole.len() > 2 * 64 * 8, "{}", whole.len());
    assert_eq!(pieces.len(), whole.len());
    let gaps = pieces.channel(0).iter().zip(whole.channel(0));
    let gap = gaps.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(gap < 1e-3, "{gap}");
    let (_, other) = say("other.wav", &["--speaker", "2", "--rate", "0.2"]);
    assert_ne!(other, whole);

    // Long texts sentence by sentence, without marks of words.
    let long = "what is that noise in the dark. ".repeat(40);
    let printed = speak(
        folder,
        &[
            &long,
            "--model",
            "voice",
            "--skip-unknown",
            "--out",
            "long.wav",
        ],
    );
    assert!(printed.contains("real-time factor"), "{printed}");
    assert!(!printed.contains("s  noise\n"), "{printed}");
    let one = speak(
        folder,
        &[
            &long[..60],
            "--model",
            "voice",
            "--skip-unknown",
            "--out",
            "one.wav",
        ],
    );
    assert!(one.contains("s  noise\n"), "{one}");
    assert!(
        read_wav(at("long.wav")).unwrap().seconds()
            > 10.0 * read_wav(at("one.wav")).unwrap().seconds()
    );
    assert!(at("long.png").is_file());

    let cases: [(&[&str], &str); 6] = [
        (&["a", "--model", "voice", "--out", "a.png"], ".wav"),
        (&["what?", "--model", "voice"], "'?'"),
        (&["a", "--model", "voice", "--speaker", "3"], "below 3"),
        (&["a", "--model", "voice", "--speaker", "ann"], "--speaker"),
        (&["a", "--model", "voice", "--check", "2"], "--check"),
        (&["a", "--model", "none"], "none"),
    ];
    for (arguments, expected) in cases {
        let error = refused(folder, arguments);
        assert!(error.contains(expected), "{expected}: {error}");
    }
    let lax = ["what?", "--model", "voice", "--skip-unknown"];
    assert!(speak(folder, &lax).contains("s  what?\n"));
    assert!(at("speech.wav").is_file());
}
