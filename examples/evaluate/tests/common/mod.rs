//! What the tests of `evaluate` share: its options, its report, and images in folders.

#![allow(
    dead_code,
    reason = "each test is a separate program, and none uses everything"
)]

use aigc_core::{
    CancelToken,
    burn::tensor::Device,
    data::{Image, digits},
    device::device,
};
use aigc_examples_evaluate::{Options, Outcome, run};
use clap::Parser;
use image::GrayImage;
use serde_json::Value;
use std::{fs, path::Path};

pub(crate) fn flex() -> Device {
    device("flex").unwrap()
}

pub(crate) fn options(subject: &Path, further: &[&str]) -> Options {
    let common = ["evaluate", subject.to_str().unwrap()];
    Options::parse_from(common.iter().chain(further))
}

/// Evaluates into a directory beside the subject; the report's JSON and page. Every measure has an
/// interval, or says why it has none.
pub(crate) fn evaluate(subject: &Path, further: &[&str]) -> (Outcome, Value, String) {
    let out = subject.with_extension("report");
    let further = [&["--out", out.to_str().unwrap()][..], further].concat();
    let outcome = run(&options(subject, &further), &CancelToken::new()).unwrap();
    assert_eq!(outcome.page, Some(out.join("report.html")));
    let json = fs::read_to_string(out.join("report.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    for measure in json["measures"].as_array().unwrap() {
        let mut notes = measure["notes"].as_array().unwrap().iter();
        let is_said = notes.any(|note| note.as_str().unwrap().starts_with("No interval"));
        assert!(measure["interval"].is_array() != is_said, "{measure}");
    }
    let page = fs::read_to_string(out.join("report.html")).unwrap();
    (outcome, json, page)
}

/// The measure whose name begins like this.
pub(crate) fn measure<'a>(json: &'a Value, name: &str) -> &'a Value {
    let measures = json["measures"].as_array().unwrap();
    let named = |measure: &&Value| measure["name"].as_str().unwrap().starts_with(name);
    measures.iter().find(named).unwrap_or_else(|| {
        let names: Vec<&Value> = measures.iter().map(|measure| &measure["name"]).collect();
        panic!("no {name} in {names:?}, warnings {}", json["warnings"])
    })
}

/// Writes images to folders with the names of their classes.
pub(crate) fn save(images: &[Image], dir: &Path) {
    for (i, image) in images.iter().enumerate() {
        let class = dir.join(image.label.unwrap().to_string());
        fs::create_dir_all(&class).unwrap();
        let (width, height) = (image.shape.width as u32, image.shape.height as u32);
        let picture = GrayImage::from_raw(width, height, image.pixels.clone()).unwrap();
        picture.save(class.join(format!("{i:03}.png"))).unwrap();
    }
}

/// The first `most` images of each of the ten classes.
fn of_each_class(images: &[Image], most: usize) -> Vec<Image> {
    let mut found = [0; 10];
    let wanted = images.iter().filter(|image| {
        let count = &mut found[image.label.unwrap() as usize];
        *count += 1;
        *count <= most
    });
    wanted.cloned().collect()
}

/// Folders with 40 training and 20 held-out digits, as options.
pub(crate) fn few_digits(root: &Path) -> [String; 4] {
    let (train, test) = digits::train_test_split();
    let [known, others] = ["known", "others"].map(|name| root.join(name));
    save(&of_each_class(&train.0, 4), &known);
    save(&of_each_class(&test.0, 2), &others);
    let path = |dir: &Path| dir.to_str().unwrap().to_string();
    [
        "--against".into(),
        path(&known),
        "--held-out".into(),
        path(&others),
    ]
}
