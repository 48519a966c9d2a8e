//! The program `compress`: every kind of model is trained, and images are restored from its files.

mod common;

use aigc_core::data::digits;
use common::{finish, program};
use image::ExtendedColorType;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

fn compress(arguments: &[&str], paths: &[&Path]) -> Command {
    let mut command = Command::new(program("compress"));
    command.args(arguments).args(paths);
    command
}

/// Trains a model for a few steps; returns what is printed.
fn bench(run: &Path, more: &[&str]) -> String {
    let steps = ["--steps", "3", "--images", "2", "--out"];
    let mut command = compress(&["bench"], &[]);
    command.args(more).args(steps).arg(run);
    finish(command)
}

fn encode(model: &Path, paths: &[&Path], more: &[&str]) -> Command {
    let mut command = compress(&["encode"], paths);
    command.args(more).arg("--model").arg(model);
    command
}

fn decode(model: &Path, paths: &[&Path]) -> String {
    let mut command = compress(&["decode"], paths);
    command.arg("--model").arg(model);
    finish(command)
}

/// Writes the digit with this index as a picture; returns its pixels.
fn picture(index: usize, path: &Path) -> Vec<u8> {
    let pixels = digits::load().0[index].pixels.clone();
    image::save_buffer(path, &pixels, 8, 8, ExtendedColorType::L8).unwrap();
    pixels
}

fn pixels(path: &Path) -> Vec<u8> {
    image::open(path).unwrap().to_luma8().into_raw()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// A program named `cwebp` that reads a picture and writes 16 bytes, for 8×8 pixels.
#[cfg(unix)]
#[test]
fn cwebp_is_asked_where_it_is_installed() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("cwebp");
    let script =
        "#!/bin/sh\n[ \"$1\" = -version ] || { cat > /dev/null; printf 0123456789abcdef; }\n";
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let paths = std::env::var("PATH").unwrap();
    let steps = ["--model", "mlp", "--steps", "3", "--images", "2", "--out"];
    let mut command = compress(&["bench"], &[]);
    command
        .args(steps)
        .arg(folder.path().join("run"))
        .env("PATH", format!("{}:{paths}", folder.path().display()));
    let text = finish(command);
    let row = text.lines().find(|line| line.contains("cwebp")).unwrap();
    assert!(row.contains("2.000 bits per pixel"), "{text}");
}

#[test]
fn images_are_restored_by_every_kind_of_model() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    let (one, two) = (at("one.png"), at("two.png"));
    let expected = [picture(0, &one), picture(1, &two)];
    for kind in ["mlp", "conv", "hierarchical", "vq"] {
        let run = at(kind);
        let text = bench(&run, &["--model", kind]);
        assert!(
            text.contains("WebP lossless (image-webp encoder), one file each"),
            "{text}"
        );
        assert!(text.contains("restored bit for bit"), "{text}");
        let model = run.join("final");
        let (file, back) = (at("file.aigc"), at("back.png"));
        let text = finish(encode(&model, &[&one, &file], &[]));
        assert!(
            text.contains("PNG") && text.contains("bits per pixel"),
            "{text}"
        );
        decode(&model, &[&file, &back]);
        assert_eq!(pixels(&back), expected[0], "{kind}");
        let exact = size(&file);
        finish(encode(&model, &[&one, &file], &["--lossy"]));
        assert!(size(&file) < exact, "{kind}");
        decode(&model, &[&file, &back]);
        finish(encode(&model, &[&one, &two, &file], &[]));
        decode(&model, &[&file, &back]);
        for (index, expected) in expected.iter().enumerate() {
            let back = at(&format!("back-{index}.png"));
            assert_eq!(&pixels(&back), expected, "{kind}");
        }
    }
    // A file of another kind of model.
    let mut other = compress(&["decode"], &[&at("file.aigc"), &at("back.png")]);
    let output = other.arg("--model").arg(at("mlp/final")).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success() && text.contains("another kind of model"),
        "{text}"
    );
}

/// A model of black and white images refuses grey ones, and names the likelihood that fits.
#[test]
fn grey_images_need_a_likelihood_of_levels() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let text = bench(&at("run"), &["--model", "mlp", "--binary"]);
    assert!(text.contains("restored bit for bit"), "{text}");
    picture(0, &at("grey.png"));
    let (model, grey, file) = (at("run/final"), at("grey.png"), at("file.aigc"));
    let output = encode(&model, &[&grey, &file], &[]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        !output.status.success()
            && text.contains("grey.png")
            && text.contains("mixture of logistics"),
        "{text}"
    );
    assert!(!file.exists());
}
