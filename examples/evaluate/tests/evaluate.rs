//! The program `evaluate`, on the embedded digits and on small texts and sounds.

mod common;

use aigc_core::{
    CancelToken, Error, Result,
    data::{Image, digits},
    output::provenance::{Provenance, save_with_provenance},
    rng::{InitWeights, Rng},
};
use aigc_examples_evaluate::{Options, Outcome, run};
use aigc_gan::{GanConfig, MlpGanConfig};
use common::{flex, measure};
use image::{GrayImage, ImageFormat};
use serde_json::Value;
use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    process::Command,
};

fn options(subject: &Path, against: &str, further: &[&str]) -> Options {
    common::options(subject, &[&["--against", against][..], further].concat())
}

fn evaluate(subject: &Path, against: &str, further: &[&str]) -> (Outcome, Value, String) {
    common::evaluate(subject, &[&["--against", against][..], further].concat())
}

fn refused(subject: &Path, against: &str, further: &[&str]) -> Error {
    run(&options(subject, against, further), &CancelToken::new()).unwrap_err()
}

fn png(image: &Image) -> Vec<u8> {
    let (width, height) = (image.shape.width as u32, image.shape.height as u32);
    let picture = GrayImage::from_raw(width, height, image.pixels.clone()).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn folder(root: &Path, name: &str) -> PathBuf {
    let dir = root.join(name);
    fs::create_dir_all(&dir).unwrap();
    dir
}

fn has_warning(outcome: &Outcome, parts: &[&str]) -> bool {
    let warnings = &outcome.warnings;
    let has = |warning: &String| parts.iter().all(|part| warning.contains(part));
    warnings.iter().any(has)
}

/// Held-out digits, planted copies of training digits, a broken file, and a name that is markup.
#[test]
fn planted_copies_are_found_and_broken_files_named() {
    let root = tempfile::tempdir().unwrap();
    let dir = folder(root.path(), "samples");
    let (train, test) = digits::train_test_split();
    for (i, image) in test.0[..40].iter().enumerate() {
        fs::write(dir.join(format!("new-{i:02}.png")), png(image)).unwrap();
    }
    for (i, image) in train.0[40..60].iter().enumerate() {
        fs::write(dir.join(format!("copy-{i:02}.png")), png(image)).unwrap();
    }
    let mut cut = png(&test.0[50]);
    cut.truncate(60);
    fs::write(dir.join("broken.png"), cut).unwrap();
    let record = Provenance::new("my model").with_seed(77).with_class(3);
    save_with_provenance(&png(&test.0[41]), &record, &dir.join("record.png")).unwrap();
    if cfg!(unix) {
        let hostile = "<img src=x onerror=alert(1)>.png";
        fs::write(dir.join(hostile), png(&test.0[42])).unwrap();
    }

    let (outcome, json, page) = evaluate(&dir, "digits", &[]);
    let copies = measure(&json, "Copies");
    let count = copies["count"].as_u64().unwrap();
    let found = (copies["value"].as_f64().unwrap() * count as f64).round();
    assert!(
        count >= 61 && (20.0..=23.0).contains(&found),
        "{found} of {count}"
    );
    for name in [
        "Fréchet distance (pixels)",
        "Kernel distance",
        "Precision",
        "Density",
        "Recall",
        "Coverage",
        "Mean pairwise distance",
        "Vendi score",
        "Class entropy",
        "Authenticity",
        "Nearer to training data",
    ] {
        let found = measure(&json, name);
        assert_eq!(found["count"].as_u64(), Some(count), "{name}");
        assert!(found["value"].as_f64().unwrap().is_finite(), "{name}");
    }
    let frechet = measure(&json, "Fréchet distance (pixels)");
    assert!(frechet["floor"].as_f64().unwrap() > 0.0 && frechet["interval"].is_array());
    assert!(has_warning(&outcome, &["1 of ", "skipped", "broken.png"]));
    assert!(page.contains("my model") && page.contains("seed 77"));
    assert!(!page.contains("<img src=x"));
    assert!(page.contains("copy-00.png"));
    assert!(
        json["facts"]["Command"]
            .as_str()
            .unwrap()
            .contains("--against digits")
    );
}

/// Folders with the names of classes are the requested classes; images of another size are told of.
#[test]
fn folders_are_requested_classes() {
    let root = tempfile::tempdir().unwrap();
    let dir = folder(root.path(), "by-class");
    let (_, test) = digits::train_test_split();
    for (i, image) in test.0[..60].iter().enumerate() {
        let class = folder(&dir, &image.label.unwrap().to_string());
        fs::write(class.join(format!("{i}.png")), png(image)).unwrap();
    }
    let large = GrayImage::from_pixel(20, 20, image::Luma([9]));
    large.save(dir.join("1/large.png")).unwrap();
    let (outcome, json, _) = evaluate(&dir, "digits", &["--only", "relevance"]);
    let accuracy = measure(&json, "Conditional accuracy");
    assert!(accuracy["value"].as_f64().unwrap() > 0.8, "{accuracy}");
    assert!(accuracy["floor"].as_f64().unwrap() > 0.9, "{accuracy}");
    assert!(has_warning(
        &outcome,
        &["by-class: 1 of 61 images are not 1×8×8", "cropped"]
    ));
}

/// A run is sampled by its final model, and its log is drawn.
#[test]
fn runs_are_sampled() -> Result<()> {
    let root = tempfile::tempdir().unwrap();
    let run_dir = folder(root.path(), "run");
    let gan = GanConfig::Mlp(MlpGanConfig::new(digits::SHAPE)).init(&flex())?;
    gan.init_weights(0).save_pretrained(run_dir.join("final"))?;
    let line = |step: usize| {
        format!(r#"{{"step":{step},"kind":"train","values":{{"loss":{step}.5}},"seconds":1.0}}"#)
    };
    let log = format!("{}\n{}\n", line(1), line(2));
    fs::write(run_dir.join("metrics.jsonl"), log).unwrap();
    let further = ["--only", "diversity", "--samples", "30"];
    let (_, json, page) = evaluate(&run_dir, "digits", &further);
    assert_eq!(measure(&json, "Vendi score")["count"], 30);
    assert_eq!(json["facts"]["Model"], "GAN");
    let page_dir = run(
        &options(
            &run_dir,
            "digits",
            &["--samples", "2", "--only", "provenance"],
        ),
        &CancelToken::new(),
    )?;
    assert_eq!(
        page_dir.page,
        Some(run_dir.join("evaluation/report.html")),
        "the report of a run is in it"
    );
    assert!(page.contains("Training"));

    let checked = options(&run_dir, "digits", &["--check"]);
    assert_eq!(run(&checked, &CancelToken::new())?.page, None);
    let stopped = CancelToken::new();
    stopped.cancel();
    let error = run(&options(&run_dir, "digits", &[]), &stopped).unwrap_err();
    assert!(matches!(error, Error::Cancelled { .. }), "{error}");
    Ok(())
}

/// The class that a record says is the requested one, though records are not asked for; an option
/// without effect is told of.
#[test]
fn recorded_classes_are_requested() {
    let root = tempfile::tempdir().unwrap();
    let dir = folder(root.path(), "samples");
    let (_, test) = digits::train_test_split();
    for (i, image) in test.0[..40].iter().enumerate() {
        let record = Provenance::new("a model").with_class(image.label.unwrap() as usize);
        save_with_provenance(&png(image), &record, &dir.join(format!("{i:02}.png"))).unwrap();
    }
    let further = ["--only", "relevance", "--guidance", "2"];
    let (outcome, json, _) = evaluate(&dir, "digits", &further);
    let accuracy = measure(&json, "Conditional accuracy");
    assert_eq!(accuracy["count"], 40);
    assert!(accuracy["value"].as_f64().unwrap() > 0.8, "{accuracy}");
    assert!(has_warning(&outcome, &["--guidance has no effect"]));
}

/// Colours that grey data have not are told of, and held-out digits are the test images alone.
#[test]
fn changed_images_are_told_of() {
    let root = tempfile::tempdir().unwrap();
    let dir = folder(root.path(), "samples");
    for i in 0..4 {
        let picture = image::RgbImage::from_pixel(8, 8, image::Rgb([60 * i, 0, 9]));
        picture.save(dir.join(format!("{i}.png"))).unwrap();
    }
    let further = ["--held-out", "digits", "--only", "originality"];
    let (outcome, json, _) = evaluate(&dir, "digits", &further);
    assert!(has_warning(
        &outcome,
        &["4 of 4 images are stored in colour"]
    ));
    let held_out = format!("held out: {}", digits::train_test_split().1.0.len());
    let reference = json["facts"]["Reference"].as_str().unwrap();
    assert!(reference.ends_with(&held_out), "{reference}");
}

/// Reference images of another size than the samples change every measure: that is told, too.
#[test]
fn changed_data_are_told_of() {
    let root = tempfile::tempdir().unwrap();
    let [dir, data] = ["samples", "data"].map(|name| folder(root.path(), name));
    for (i, image) in digits::train_test_split().1.0[..12].iter().enumerate() {
        fs::write(dir.join(format!("{i}.png")), png(image)).unwrap();
    }
    for i in 0..30u8 {
        let wide = GrayImage::from_fn(40, 25, |x, y| image::Luma([(i * 8) ^ (x * y) as u8]));
        wide.save(data.join(format!("{i:02}.png"))).unwrap();
    }
    let further = ["--only", "diversity"];
    let (outcome, ..) = evaluate(&dir, data.to_str().unwrap(), &further);
    for part in ["training", "held-out"] {
        let expected = [part, "images are not 1×8×8; they were cropped"];
        assert!(
            has_warning(&outcome, &expected),
            "{part}: {:?}",
            outcome.warnings
        );
    }
}

/// Grey images are far from all data, which is no originality.
#[test]
fn grey_images_are_not_as_original_as_real_data() {
    let root = tempfile::tempdir().unwrap();
    let dir = folder(root.path(), "samples");
    for i in 0..40u8 {
        let grey = GrayImage::from_pixel(8, 8, image::Luma([100 + i]));
        grey.save(dir.join(format!("{i:02}.png"))).unwrap();
    }
    let (_, json, _) = evaluate(&dir, "digits", &["--only", "originality"]);
    let found = measure(&json, "Authenticity");
    assert_eq!(found["value"], 1.0);
    let ideal = found["better"]["target"].as_f64().unwrap();
    assert_eq!(found["floor"].as_f64(), Some(ideal));
    assert!((0.2..0.8).contains(&ideal), "{found}");
    let summary = json["summary"].to_string();
    assert!(summary.contains("above the ideal"), "{summary}");
}

/// A page on which nothing was measured is written, and the reason is an error.
#[test]
fn pages_without_measures_are_errors() {
    let root = tempfile::tempdir().unwrap();
    let dir = folder(root.path(), "samples");
    fs::write(dir.join("a.png"), png(&digits::load().0[0])).unwrap();
    let out = root.path().join("out");
    let further = ["--only", "quality", "--out", out.to_str().unwrap()];
    let error = refused(&dir, "digits", &further);
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error}");
    assert!(out.join("report.html").is_file());
}

/// Sentences of random words.
fn prose(seed: u64, sentences: usize) -> Vec<String> {
    let mut rng = Rng::new(seed);
    let mut word = || -> String {
        let letters = 2 + rng.random_index(6);
        (0..letters)
            .map(|_| char::from(b'a' + rng.random_index(26) as u8))
            .collect()
    };
    (0..sentences)
        .map(|_| (0..12).map(|_| word()).collect::<Vec<_>>().join(" ") + ".")
        .collect()
}

#[test]
fn planted_sentences_are_found() {
    let root = tempfile::tempdir().unwrap();
    let train = prose(1, 400);
    let book = root.path().join("book.txt");
    fs::write(&book, train.join("\n")).unwrap();
    let dir = folder(root.path(), "texts");
    for (i, new) in prose(2, 24).into_iter().enumerate() {
        // Every fourth text has a sentence of the book.
        let planted = if i % 4 == 0 { train[i].as_str() } else { "" };
        fs::write(dir.join(format!("{i:02}.txt")), format!("{new} {planted}")).unwrap();
    }
    fs::write(dir.join("broken.txt"), [0xff, 0xfe, 0x00]).unwrap();
    let (outcome, json, page) = evaluate(&dir, book.to_str().unwrap(), &[]);
    let copied = measure(&json, "Copied characters");
    let share = copied["value"].as_f64().unwrap();
    assert!((0.1..0.4).contains(&share), "{share}");
    assert_eq!(copied["floor"], 0.0);
    for name in [
        "distinct-1",
        "distinct-3",
        "self-BLEU",
        "Repetition",
        "Copied 20-grams",
    ] {
        assert_eq!(measure(&json, name)["count"], 24, "{name}");
    }
    assert!(has_warning(&outcome, &["1 of 25", "broken.txt"]));
    assert!(has_warning(&outcome, &["Perplexity", "need the model"]));
    assert!(page.contains("<mark"), "copied passages are marked");
}

/// A WAV file of 16 bits with a tone.
fn tone(frequency: f64, samples: usize) -> Vec<u8> {
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + 2 * samples as u32).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    wav.extend(8000u32.to_le_bytes());
    wav.extend(16_000u32.to_le_bytes());
    wav.extend(b"\x02\0\x10\0data");
    wav.extend((2 * samples as u32).to_le_bytes());
    for i in 0..samples {
        let phase = std::f64::consts::TAU * frequency * i as f64 / 8000.0;
        wav.extend(((8000.0 * phase.sin()) as i16).to_le_bytes());
    }
    wav
}

#[test]
fn sounds_are_compared() {
    let root = tempfile::tempdir().unwrap();
    let (train, dir) = (folder(root.path(), "train"), folder(root.path(), "sounds"));
    for i in 0..20 {
        let wav = tone(200.0 + 40.0 * f64::from(i), 2000);
        fs::write(train.join(format!("{i:02}.wav")), wav).unwrap();
    }
    for i in 0..8 {
        let wav = tone(210.0 + 90.0 * f64::from(i), 3000);
        fs::write(dir.join(format!("{i}.wav")), wav).unwrap();
    }
    fs::write(dir.join("broken.wav"), b"RIFF").unwrap();
    let (outcome, json, _) = evaluate(&dir, train.to_str().unwrap(), &[]);
    let duration = measure(&json, "Mean duration")["value"].as_f64().unwrap();
    assert!((duration - 0.375).abs() < 1e-9);
    assert_eq!(measure(&json, "Silence")["value"], 0.0);
    assert_eq!(measure(&json, "Fréchet distance (log-mel)")["count"], 8);
    assert!(has_warning(&outcome, &["broken.wav", "skipped"]));
    // Two held-out sounds set no threshold.
    assert!(has_warning(
        &outcome,
        &["Not measured: copies", "--held-out"]
    ));
}

#[test]
fn bad_input_is_an_error() {
    let root = tempfile::tempdir().unwrap();
    let text = root.path().join("a.txt");
    fs::write(&text, "words").unwrap();
    let error = refused(&text, "digits", &[]).to_string();
    assert!(
        error.contains("`--against` is digits with images, expected texts"),
        "{error}"
    );
    let error = refused(&text, text.to_str().unwrap(), &["--held-out", "digits"]).to_string();
    assert!(
        error.contains("`--held-out` is digits with images"),
        "{error}"
    );
    let within = folder(root.path(), "data");
    fs::write(within.join("b.txt"), "more words").unwrap();
    let all = root.path().to_str().unwrap();
    let error = refused(&text, all, &["--held-out", within.to_str().unwrap()]).to_string();
    assert!(
        error.contains("`--held-out`") && error.contains("data that are not in"),
        "{error}"
    );
    let empty = folder(root.path(), "empty");
    assert!(
        refused(&empty, "digits", &[])
            .to_string()
            .contains("no file in it")
    );
    let missing = refused(&root.path().join("missing"), "digits", &[]);
    assert!(matches!(missing, Error::Io { .. }), "{missing}");
    let broken = folder(root.path(), "broken");
    fs::write(broken.join("a.png"), b"no picture").unwrap();
    let error = refused(&broken, "digits", &[]).to_string();
    assert!(
        error.contains("none of its 1 images can be read"),
        "{error}"
    );
    let unfinished = folder(root.path(), "unfinished");
    folder(&unfinished, "checkpoints");
    let error = refused(&unfinished, "digits", &[]).to_string();
    assert!(error.contains("it has no final model; resume"), "{error}");
}

/// The exit status says whether all records are valid.
#[test]
fn verify_tells_valid_from_cut_and_bare_files() {
    let root = tempfile::tempdir().unwrap();
    let at = |name: &str| root.path().join(name);
    let bare = png(&digits::load().0[0]);
    let record = Provenance::new("my model").with_seed(77);
    save_with_provenance(&bare, &record, &at("valid.png")).unwrap();
    let valid = fs::read(at("valid.png")).unwrap();
    fs::write(at("cut.png"), &valid[..valid.len() - 20]).unwrap();
    fs::write(at("bare.png"), bare).unwrap();
    let verify = |names: &[&str]| {
        let tests = std::env::current_exe().unwrap();
        let program = format!("examples/verify{}", std::env::consts::EXE_SUFFIX);
        let output = Command::new(tests.parent().unwrap().parent().unwrap().join(program))
            .arg("--json")
            .args(names.iter().map(|name| at(name)))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text)
    };
    let (good, text) = verify(&["valid.png"]);
    assert!(good && text.contains("\"seed\":77"), "{text}");
    let (good, text) = verify(&["valid.png", "cut.png", "bare.png", "none.png"]);
    assert!(!good, "{text}");
    for expected in ["damaged", "no provenance record"] {
        assert!(text.contains(expected), "{text}");
    }
}

/// The tiny CLIP of the fixtures: distances in its embeddings, and the score of prompts.
#[test]
fn clip_compares_images_and_prompts() {
    let root = tempfile::tempdir().unwrap();
    let dir = folder(root.path(), "samples");
    for (i, image) in digits::train_test_split().1.0[..30].iter().enumerate() {
        fs::write(dir.join(format!("{i:02}.png")), png(image)).unwrap();
    }
    let prompts = root.path().join("prompts.txt");
    fs::write(&prompts, "a picture of a number\n".repeat(30)).unwrap();
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/eval/clip");
    let further = [
        "--features",
        "clip",
        clip.to_str().unwrap(),
        "--only",
        "quality,relevance",
        "--prompts",
        prompts.to_str().unwrap(),
    ];
    let (_, json, _) = evaluate(&dir, "digits", &further);
    for name in ["Fréchet distance (CLIP)", "CMMD"] {
        assert!(
            measure(&json, name)["value"].as_f64().unwrap() > 0.0,
            "{name}"
        );
    }
    let score = measure(&json, "CLIP score");
    assert_eq!(score["count"].as_u64(), Some(30));

    // Prompts are those of all files, of which some are drawn.
    let some = [&further[..], &["--samples", "8"]].concat();
    let (_, json, _) = evaluate(&dir, "digits", &some);
    assert_eq!(measure(&json, "CLIP score")["count"].as_u64(), Some(8));
    fs::write(&prompts, "a picture of a number\n".repeat(8)).unwrap();
    let error = refused(&dir, "digits", &some).to_string();
    assert!(
        error.contains("8 lines, expected 30, one for each"),
        "{error}"
    );
    let score = measure(&json, "CLIP score");
    assert!((0.0..=100.0).contains(&score["value"].as_f64().unwrap()));
}
