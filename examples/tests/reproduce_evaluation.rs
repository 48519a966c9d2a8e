//! The program `reproduce_evaluation`, on small data: its tables and its JSON files.

mod common;

use aigc_core::data::digits;
use common::World;
use serde_json::Value;
use std::path::Path;

/// The embedded digits as files in the format of MNIST: 400 training and 500 test images of 8×8.
fn digit_files(dir: &Path) {
    std::fs::create_dir(dir).unwrap();
    let all = digits::load().0;
    for (part, images) in [("train", &all[..400]), ("t10k", &all[400..900])] {
        let count = (images.len() as u32).to_be_bytes();
        let mut pixels = [[0, 0, 8, 3], count, [0, 0, 0, 8], [0, 0, 0, 8]].concat();
        let mut labels = [[0, 0, 8, 1], count].concat();
        for image in images {
            pixels.extend_from_slice(&image.pixels);
            labels.push(image.label.unwrap() as u8);
        }
        std::fs::write(dir.join(format!("{part}-images-idx3-ubyte")), pixels).unwrap();
        std::fs::write(dir.join(format!("{part}-labels-idx1-ubyte")), labels).unwrap();
    }
}

/// The tables that a command of `reproduce_evaluation` writes.
fn tables(world: &World, name: &str, arguments: &str) -> Vec<Value> {
    world.run(
        "reproduce_evaluation",
        &format!("{name} {arguments} --out out"),
    );
    let path = world.path().join(format!("out/{name}.json"));
    let json: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(json["complete"], true);
    assert!(!path.with_extension("partial.json").exists());
    json["tables"].as_array().unwrap().clone()
}

/// The row of a table whose first cell is `first`.
fn row<'a>(table: &'a Value, first: &str) -> &'a Value {
    let mut rows = table["rows"].as_array().unwrap().iter();
    rows.find(|row| row[0] == first)
        .unwrap_or_else(|| panic!("{first} in {table}"))
}

#[test]
fn measures_get_worse_with_the_samples() {
    let world = World::new();
    digit_files(&world.path().join("digits"));
    let all = tables(
        &world,
        "sanity",
        "--data digits --classifier lenet.safetensors --images 100",
    );
    let [pixels, lenet, directions] = &all[..] else {
        panic!("{all:?}");
    };
    for table in [pixels, lenet] {
        let rows = table["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 17);
        let floor = row(table, "floor");
        assert_eq!(floor[2], 100);
        let frechet = |row: &Value| row[3].as_f64().unwrap();
        assert!(frechet(row(table, "noise")).is_finite() && frechet(floor) > 0.0);
    }
    for verdict in directions["rows"].as_array().unwrap() {
        assert!(["yes", "no"].contains(&verdict[4].as_str().unwrap()));
    }
    let error = world.fails("reproduce_evaluation", "sanity --data digits --images 300");
    assert!(
        error.contains("`--images` is 300, expected at most 200"),
        "{error}"
    );
}

#[test]
fn planted_copies_and_sentences_are_found() {
    let world = World::new();
    digit_files(&world.path().join("digits"));
    let copies = tables(&world, "copies", "--data digits --copies 20");
    assert_eq!(copies[0]["rows"].as_array().unwrap().len(), 9);
    let unchanged = &row(&copies[0], "unchanged")[1];
    assert_eq!(unchanged["count"], 20);
    assert_eq!(unchanged["total"], 20);
    let alarms = &row(&copies[0], "false alarms on held-out images")[1];
    assert_eq!(alarms["total"], 250);

    let spans = tables(&world, "spans", "--megabytes 1 --planted 20");
    let found = &row(&spans[0], "planted sentences found")[1];
    assert_eq!(found["count"], 20);
    assert_eq!(found["total"], 20);
}

#[test]
fn watermarks_are_measured() {
    let world = World::new();
    let all = tables(&world, "watermark", "--count 4 --pairs 100");
    let [similarity, survival, positives] = &all[..] else {
        panic!("{all:?}");
    };
    let decibels = row(similarity, "PSNR in dB")[1].as_f64().unwrap();
    assert!((30.0..60.0).contains(&decibels), "{decibels}");
    assert_eq!(row(survival, "JPEG, quality 75")[1]["total"], 4);
    let rates = positives["rows"].as_array().unwrap();
    assert_eq!(rates.len(), 5);
    assert_eq!(rates[0][1]["total"], 100);
}
