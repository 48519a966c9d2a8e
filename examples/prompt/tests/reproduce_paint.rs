//! The program `reproduce_paint`, with trainings of two steps.

#[path = "../../tests/common/mod.rs"]
mod common;

use aigc_core::burn::tensor::Device;
use aigc_encoders::{clip::ClipModel, tokenizer::ClipTokenizer};
use common::{finish, program};
use serde_json::{Value, json};
use std::{path::Path, process::Command};

/// `reproduce_paint` in a directory, with arguments that are separated by spaces.
fn reproduce_paint(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(program("reproduce_paint"));
    command.args(arguments.split_whitespace()).current_dir(dir);
    command
}

/// The number that follows `label`.
fn number(text: &str, label: &str) -> f64 {
    let (_, rest) = text
        .split_once(label)
        .unwrap_or_else(|| panic!("{label} in {text}"));
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
    let digits = &rest[..end.unwrap_or(rest.len())];
    digits
        .parse()
        .unwrap_or_else(|_| panic!("{label} {digits:?} in {text}"))
}

#[test]
fn trained_model_is_written_and_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let run = |arguments: &str| finish(reproduce_paint(dir, arguments));
    // A batch of 64 images for the figures, and a smaller one.
    let text = run("autoencoder --steps 2 --batch 8 --images 70");
    let error = number(&text, "error on held-out images ");
    assert!(error > 0.0, "{text}");
    // The configuration begins with 1.
    let factor = number(&text, "scaling factor ");
    let config = std::fs::read(dir.join("runs/paint-autoencoder-1/vae/config.json")).unwrap();
    let config: Value = serde_json::from_slice(&config).unwrap();
    let written = config["scaling_factor"].as_f64().unwrap();
    assert!(
        factor != 1.0 && (written - factor).abs() < 1e-4,
        "{written}: {text}"
    );

    // The autoencoder is that of the newest run.
    run("painter --steps 2 --batch 8 --prompts 2 --out painter");
    assert!(dir.join("painter/model/model_index.json").is_file());
    assert!(!dir.join("painter/model.parts").exists());

    let evaluate = |out: &str| {
        let text = run(&format!(
            "evaluate --model painter/model --prompts 10 --guidance 3 --steps 2 --neighbours 5 \
             --out {out}"
        ));
        assert!(text.contains("guidance 3: 10 prompts; "), "{text}");
        let right = number(&text, "prompts right in every word ");
        assert!((0.0..=100.0).contains(&right), "{text}");
        assert!(text.contains("nearest of 5 training images"), "{text}");
        assert!(number(&text, "smallest distance is ") > 0.0, "{text}");
        let judged = |line: &&str| line.starts_with("  right ") || line.starts_with("  wrong ");
        assert_eq!(text.lines().filter(judged).count(), 8, "{text}");
        let picture = image::open(dir.join(out).join("guidance-3.png")).unwrap();
        picture.to_rgb8()
    };
    let picture = evaluate("first");
    // A whole row of eight samples, and one of their nearest images; 2 pixels around each.
    assert_eq!(picture.dimensions(), (8 * 66 + 2, 2 * 66 + 2));
    // The images are as large as those of the data set, whatever the model's own size.
    let path = dir.join("painter/model/unet/config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["sample_size"] = json!(8);
    std::fs::write(&path, config.to_string()).unwrap();
    assert_eq!(evaluate("again"), picture);
}

#[test]
fn trained_pair_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let arguments = "pair --steps 2 --batch 8 --same-kinds 4 --images 100 --out pair";
    let text = finish(reproduce_paint(dir, arguments));
    let found = number(&text, "of 100 held-out images, ");
    assert!((0.0..=100.0).contains(&found), "{text}");
    let clip = dir.join("pair/clip");
    let model = ClipModel::from_pretrained(&clip, &Device::flex()).unwrap();
    assert!(model.warnings().is_empty(), "{:?}", model.warnings());
    let tokenizer = ClipTokenizer::from_pretrained(&clip).unwrap();
    let model = model.into_inner();
    assert_eq!(
        tokenizer.vocab_size(),
        model.config().text_config.vocab_size
    );
}

#[test]
fn mistakes_are_named_before_training() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for (arguments, expected) in [
        ("autoencoder --batch 0", "--batch"),
        ("autoencoder --images 0", "--images"),
        ("painter --batch 0", "--batch"),
        ("painter --prompts 0", "--prompts"),
        ("evaluate --prompts 0", "--prompts"),
        ("evaluate --steps 0", "--steps"),
        ("evaluate --neighbours 0", "--neighbours"),
        ("pair --batch 0", "--batch"),
        ("pair --images 50", "--images"),
        ("pair --same-kinds 0", "--same-kinds"),
        ("pair --same-kinds 3 --batch 8", "--same-kinds"),
    ] {
        let output = reproduce_paint(dir, arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.contains(expected), "{arguments}: {error}");
    }
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
}

/// With the model of this repository.
#[test]
#[cfg(unix)]
fn interrupted_search_writes_no_picture() {
    use std::{
        io::{BufRead, BufReader},
        process::Stdio,
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    // More training images than are drawn before the signal.
    let arguments = "evaluate --prompts 1 --guidance 3 --steps 2 --neighbours 1000000 --out out";
    let mut child = reproduce_paint(dir, arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    // The search follows the figures.
    let figures = lines.next().unwrap().unwrap();
    assert!(figures.starts_with("guidance 3: 1 prompts; "), "{figures}");
    let mut kill = Command::new("kill");
    let sent = kill.args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(rest.is_empty(), "{rest:?}");
    assert!(!dir.join("out/guidance-3.png").exists());
}
