//! The programs with language models, with few steps.

#[path = "../../tests/common/mod.rs"]
mod common;
#[path = "../generate/weather.rs"]
mod weather;

use common::{finish, program};
use std::{
    path::Path,
    process::{Command, Stdio},
};

fn run(name: &str, folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program(name));
    command.args(arguments).current_dir(folder);
    finish(command)
}

fn refused(name: &str, folder: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program(name))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{name} {arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The number that follows `label`.
fn number(text: &str, label: &str) -> f64 {
    let (_, rest) = text
        .split_once(label)
        .unwrap_or_else(|| panic!("{label} in {text}"));
    rest.split_whitespace()
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or_else(|| panic!("{label} in {text}"))
}

#[test]
fn train_text_trains_and_continues_a_text() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let text: String = weather::corpus(300, 7)
        .into_iter()
        .map(|report| report + "\n")
        .collect();
    std::fs::write(folder.join("text.txt"), &text).unwrap();
    let small = [
        "--layers",
        "1",
        "--heads",
        "2",
        "--width",
        "32",
        "--context",
        "32",
        "--batch",
        "4",
    ];
    let begin = |out: &str, steps: &str| {
        run(
            "train_text",
            folder,
            &[
                &["--text", "text.txt", "--steps", steps, "--out", out],
                &small[..],
            ]
            .concat(),
        )
    };
    let printed = begin("whole", "40");
    let loss = number(&printed, "loss of held-out text:");
    // Better than a uniform distribution, and the units are consistent.
    let characters = text.chars().collect::<std::collections::HashSet<_>>().len() as f64;
    assert!(loss > 0.5 && loss < characters.ln(), "{loss}");
    assert!(
        (number(&printed, "perplexity:") - loss.exp()).abs() < 0.01 * loss.exp(),
        "{printed}"
    );
    assert!(
        (number(&printed, "bits per character:") - loss / std::f64::consts::LN_2).abs() < 0.02,
        "{printed}"
    );

    // Generation with the trained model: greedy, sampled, with beams, quantised, and with itself as
    // the assistant.
    let generate = |more: &[&str]| {
        let known = [
            "--model",
            "whole/model",
            "--prompt",
            "Oslo, 3",
            "--max-new-tokens",
            "12",
        ];
        run("generate", folder, &[&known, more].concat())
    };
    let greedy = generate(&[]);
    assert!(
        greedy.starts_with("Oslo, 3") && greedy.trim_end().chars().count() <= 19,
        "{greedy:?}"
    );
    assert_eq!(generate(&["--assistant", "whole/model"]), greedy);
    assert!(generate(&["--num-beams", "3", "--no-repeat-ngram-size", "2"]).contains("(score -"));
    assert_eq!(
        generate(&["--do-sample", "--seed", "5"]),
        generate(&["--do-sample", "--seed", "5"])
    );
    let perplexity_of = |more: &[&str]| {
        let known = ["--model", "whole/model", "--perplexity", "text.txt"];
        number(
            &run("generate", folder, &[&known, more].concat()),
            "perplexity",
        )
    };
    let (full, few) = (perplexity_of(&[]), perplexity_of(&["--quantize", "int8"]));
    assert!(
        full > 1.0 && full < characters && few != full && (few / full - 1.0).abs() < 0.01,
        "{few} of {full}"
    );
    let listed = generate(&[
        "--set",
        "output_scores=true",
        "--set",
        "suppress_tokens=[0]",
    ]);
    assert!(
        listed.starts_with("Oslo, 3")
            && listed
                .lines()
                .filter(|line| line.trim_start().starts_with('-'))
                .count()
                == 12,
        "{listed}"
    );
    for (set, named) in [
        ("nonsense=1", "nonsense"),
        ("top_k", "`=`"),
        ("top_k=x", "top_k"),
        ("top_p=\"x\"", "`top_p`"),
    ] {
        let printed = refused(
            "generate",
            folder,
            &["--model", "whole/model", "--set", set],
        );
        assert!(printed.contains(named), "{printed}");
    }
    // Values may begin with a hyphen; values that are not numbers are errors.
    assert!(generate(&["--presence-penalty", "-0.5"]).starts_with("Oslo, 3"));
    let error = refused(
        "generate",
        folder,
        &[
            "--model",
            "whole/model",
            "--do-sample",
            "--temperature",
            "-1",
        ],
    );
    assert!(error.contains("`temperature` is -1"), "{error}");
    for (option, value) in [
        ("--temperature", "nan"),
        ("--temperature", "inf"),
        ("--length-penalty", "nan"),
    ] {
        let error = refused(
            "generate",
            folder,
            &["--model", "whole/model", option, value],
        );
        assert!(error.contains("finite number"), "{error}");
    }
    let hyphen = run(
        "generate",
        folder,
        &[
            "--model",
            "whole/model",
            "--prompt",
            "-3",
            "--max-new-tokens",
            "2",
        ],
    );
    assert!(hyphen.starts_with("-3"), "{hyphen}");
    // Options without effect are printed.
    let options = folder.join("whole/model/generation_config.json");
    let unused = r#"{"guidance_scale": 1.5, "encoder_repetition_penalty": 1.2}"#;
    std::fs::write(&options, unused).unwrap();
    let known = ["--model", "whole/model", "--prompt", "Oslo, 3"];
    let output = Command::new(program("generate"))
        .args(known)
        .args(["--max-new-tokens", "2", "--temperature", "0.5"])
        .current_dir(folder)
        .output()
        .unwrap();
    std::fs::remove_file(&options).unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    for option in [
        "guidance_scale",
        "encoder_repetition_penalty",
        "temperature",
    ] {
        assert!(printed.contains(option), "{option}: {printed}");
    }
    // The byte-order mark of a schema is skipped.
    std::fs::write(folder.join("schema.json"), "\u{feff}[]").unwrap();
    let error = refused(
        "generate",
        folder,
        &[&known[..], &["--json-schema", "schema.json"]].concat(),
    );
    assert!(error.contains("not an object"), "{error}");
    // A closed pipe ends the program quietly.
    let mut child = Command::new(program("generate"))
        .args(known)
        .args(["--max-new-tokens", "12"])
        .current_dir(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && !printed.contains("panicked"),
        "{printed}"
    );
    let forced = generate(&["--num-beams", "4", "--force-words", "snow"]);
    assert!(forced.contains("snow"), "{forced}");
    assert!(
        refused(
            "generate",
            folder,
            &["--model", "whole/model", "--prompt", "Ω"]
        )
        .contains("character 1 of the text")
    );
    assert!(refused("generate", folder, &["--model", "nowhere"]).contains("nowhere"));

    // The same seed gives the same weights.
    begin("again", "40");
    let weights =
        |run: &str| std::fs::read(folder.join(run).join("model/model.safetensors")).unwrap();
    assert!(weights("again") == weights("whole"));
    // The trained model is fine-tuned.
    let from = [
        "--text",
        "text.txt",
        "--from",
        "whole/model",
        "--steps",
        "3",
        "--context",
        "32",
        "--out",
        "tuned",
    ];
    let tuned = number(&run("train_text", folder, &from), "loss of held-out text:");
    assert!((tuned - loss).abs() < 0.2, "{tuned} after {loss}");
    // The same with adapters, which are saved separately and merged.
    let adapt = |rank, out| {
        [
            "--text",
            "text.txt",
            "--from",
            "whole/model",
            "--context",
            "32",
            "--lora",
            rank,
            "--out",
            out,
        ]
    };
    let printed = run(
        "train_text",
        folder,
        &[&adapt("4", "adapted")[..], &["--steps", "3"]].concat(),
    );
    let adapted = number(&printed, "loss of held-out text:");
    assert!((adapted - loss).abs() < 0.2, "{adapted} after {loss}");
    for file in [
        "adapters/adapter_config.json",
        "adapters/adapter_model.safetensors",
        "final/model.safetensors",
    ] {
        assert!(folder.join("adapted").join(file).is_file(), "{file}");
    }
    assert!(
        weights("adapted") != weights("whole")
            && weights("adapted").len() == weights("whole").len()
    );
    assert!(
        refused("train_text", folder, &adapt("33", "too-much"))
            .contains("`rank` is 33, expected 1 to 32")
    );
    assert!(!folder.join("too-much").exists());
    assert!(
        refused("train_text", folder, &["--text", "text.txt", "--lora", "4"]).contains("--from")
    );

    assert!(refused("train_text", folder, &[]).contains("--text"));
    assert!(refused("train_text", folder, &["--text", "none.txt"]).contains("none.txt"));
    assert!(refused("train_text", folder, &["--text", "."]).contains("a directory"));
    std::fs::write(folder.join("empty.txt"), "").unwrap();
    assert!(refused("train_text", folder, &["--text", "empty.txt"]).contains("the file is empty"));
    std::fs::write(folder.join("gbk.txt"), [0xd6, 0xd0]).unwrap();
    assert!(
        refused("train_text", folder, &["--text", "gbk.txt"]).contains("not UTF-8 from byte 0")
    );
    // A text that is too short leaves no run directory behind.
    std::fs::write(folder.join("short.txt"), "short").unwrap();
    let short = ["--text", "short.txt", "--out", "short"];
    assert!(refused("train_text", folder, &short).contains("`tokens`"));
    assert!(!folder.join("short").exists());
    // Without a line feed, the default prompt is the first character of the text.
    std::fs::write(folder.join("cr.txt"), "one two\rthree\r".repeat(60)).unwrap();
    let cr = ["--text", "cr.txt", "--steps", "1", "--out", "cr"];
    run("train_text", folder, &[&cr[..], &small[..]].concat());
    assert!(
        refused(
            "train_text",
            folder,
            &["--text", "text.txt", "--heads", "3"]
        )
        .contains("n_head")
    );
    assert!(
        refused(
            "train_text",
            folder,
            &["--text", "text.txt", "--prompt", "Ω"]
        )
        .contains("character 1 of the text")
    );
}

#[test]
fn train_text_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("text.txt"), weather::corpus(100, 7).join("\n")).unwrap();
    let small = [
        "--layers",
        "1",
        "--heads",
        "2",
        "--width",
        "16",
        "--context",
        "16",
        "--batch",
        "2",
    ];
    let begin = [
        "--text",
        "text.txt",
        "--tokens",
        "byte-pairs",
        "--vocabulary",
        "300",
        "--save-steps",
        "5",
    ];
    run(
        "train_text",
        folder,
        &[&begin[..], &small[..], &["--steps", "10", "--out", "run"]].concat(),
    );
    // A resumed run keeps its settings; different ones are errors that name the option.
    for (option, value) in [
        ("--learning-rate", "0.5"),
        ("--seed", "3"),
        ("--width", "32"),
    ] {
        let error = refused(
            "train_text",
            folder,
            &["--resume", "--out", "run", option, value],
        );
        assert!(error.contains(option) && error.contains(value), "{error}");
    }
    let printed = run("train_text", folder, &["--resume-at", "5", "--out", "run"]);
    assert!(printed.contains("5 steps in"), "{printed}");
    // With byte pairs there are fewer tokens than characters.
    assert!(
        number(&printed, "bits per character:")
            < number(&printed, "loss of held-out text:") / std::f64::consts::LN_2
    );
}

#[test]
fn generate_trains_on_weather_reports() {
    let folder = tempfile::tempdir().unwrap();
    let printed = run("generate", folder.path(), &["--steps", "3", "--out", "run"]);
    let right = number(&printed, "of 1000 reports");
    // The fraction is computed again from the written reports.
    let written = std::fs::read_to_string(folder.path().join("run/reports.txt")).unwrap();
    let counted = written
        .lines()
        .filter(|report| weather::fault(report).is_none())
        .count();
    assert!(
        (right - counted as f64 / 10.0).abs() < 0.06 && right < 50.0,
        "{counted}: {printed}"
    );
    assert!(
        printed.contains("are not in the training data") && printed.contains("3 steps in"),
        "{printed}"
    );
    assert!(folder.path().join("run/reports.txt").exists());
}

#[test]
fn poems_have_the_requested_form() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let line = |i: usize| {
        let characters: Vec<char> = "春夏秋冬風花雪月山水明日天地人心".chars().collect();
        let some = |at: usize| {
            (0..5)
                .map(|j| characters[(at * 7 + j * 3 + i) % characters.len()])
                .collect::<String>()
        };
        format!("{}，{}。", some(1), some(2))
    };
    let poems: Vec<_> = (0..60)
        .map(|i| serde_json::json!({"paragraphs": [line(i), line(i + 1)]}))
        .collect();
    std::fs::write(
        folder.join("poems.json"),
        serde_json::to_string(&poems).unwrap(),
    )
    .unwrap();
    std::fs::write(folder.join("prose.json"), "{\"title\": 1}").unwrap();
    let printed = run(
        "poems",
        folder,
        &["--data", ".", "--steps", "3", "--out", "run"],
    );
    let lines: Vec<&str> = printed
        .lines()
        .filter(|line| line.ends_with('。'))
        .collect();
    assert_eq!(lines.len(), 8, "{printed}");
    for (i, line) in lines.iter().enumerate() {
        let marks: Vec<usize> = line
            .chars()
            .enumerate()
            .filter(|(_, c)| "，。".contains(*c))
            .map(|(at, _)| at)
            .collect();
        assert_eq!((marks, line.chars().count()), (vec![5, 11], 12), "{line}");
        assert_eq!(line.starts_with("明月"), i % 2 == 0, "{printed}");
    }
    assert!(refused("poems", folder, &["--data", ".", "--prompt", "龍"]).contains("character 1"));
    std::fs::create_dir(folder.join("empty")).unwrap();
    assert!(refused("poems", folder, &["--data", "empty"]).contains("no JSON file with poems"));
    // Other keys are reported; broken files are reported and skipped; everything else is read:
    // upper-case names, lines of JSON, `content`, a byte-order mark, ASCII punctuation,
    // subdirectories.
    let other = folder.join("other");
    std::fs::create_dir_all(other.join("x.json")).unwrap();
    std::fs::write(other.join("a.json"), "[{\"verses\": [1]}]").unwrap();
    let error = refused("poems", folder, &["--data", "other"]);
    assert!(error.contains("verses"), "{error}");
    let half = |i: usize| line(i).replace('，', ",").replace('。', ".");
    let each = |i: usize| serde_json::json!({"content": [half(i)]}).to_string();
    let lines: Vec<String> = (0..400).map(each).collect();
    std::fs::write(other.join("x.json/B.JSONL"), lines.join("\n")).unwrap();
    let mixed = serde_json::json!([{"paragraphs": null}, {"paragraphs": [line(3)]}]);
    std::fs::write(other.join("c.JSON"), format!("\u{feff}{mixed}")).unwrap();
    std::fs::write(other.join("cut.json"), "[{\"paragraphs\": [").unwrap();
    let output = Command::new(program("poems"))
        .args([
            "--data", "other", "--steps", "1", "--prompt", "春", "--out", "run2",
        ])
        .current_dir(folder)
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{err}");
    assert_eq!(
        out.lines().filter(|line| line.ends_with('。')).count(),
        8,
        "{out}"
    );
    assert!(err.contains("cut.json: not JSON"), "{err}");
    assert!(err.contains("c.JSON: 1 of 2 entries"), "{err}");
    assert!(err.contains("a.json: 1 of 1 entries"), "{err}");
    // Marks of ASCII alone become Chinese ones.
    std::fs::create_dir(folder.join("half")).unwrap();
    std::fs::copy(other.join("x.json/B.JSONL"), folder.join("half/B.JSONL")).unwrap();
    let half = [
        "--data", "half", "--steps", "1", "--prompt", "春", "--out", "run3",
    ];
    let conditional = run("poems", folder, &half);
    let lines = conditional.lines().filter(|line| line.ends_with('。'));
    assert_eq!(lines.count(), 8, "{conditional}");
}
