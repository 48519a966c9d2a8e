//! The program `paint`, with a tiny pipeline and with an API on the loopback interface.

#[path = "../../tests/common/mod.rs"]
mod common;

use aigc_pipelines::text_to_image::read_png_settings;
use aigc_tests::folder_from;
use base64::{Engine, engine::general_purpose::STANDARD};
use common::{finish, program};
use image::{DynamicImage, GrayImage, ImageFormat, Luma, Rgb, RgbImage};
use serde_json::{Value, json};
use std::{
    io::{Cursor, Read, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread::{self, JoinHandle},
};

/// `paint` in a directory, without the settings of this machine.
fn paint(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("paint"));
    for name in [
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
    ] {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(dir);
    command
}

/// What `paint` says when it fails.
fn refused(dir: &Path, arguments: &[&str]) -> String {
    let output = paint(dir, arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn tiny_pipeline() -> Option<PathBuf> {
    folder_from("AIGC_FIXTURES").map(|fixtures| fixtures.join("pipelines/tiny-sd15"))
}

fn pixels(path: PathBuf) -> RgbImage {
    image::open(path).unwrap().to_rgb8()
}

#[test]
fn images_of_a_pipeline_have_their_settings() {
    let Some(model) = tiny_pipeline() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let run = |seed: &str, out: &str, further: &[&str]| {
        let model = model.to_str().unwrap();
        let arguments = ["a cat", "--model", model, "--steps", "4", "--seed", seed];
        finish(paint(
            dir,
            &[&arguments[..], &["--out", out], further].concat(),
        ))
    };
    // Without a size, that of the model; several images are numbered.
    let printed = run("5", "cat.png", &["-n", "2", "--negative", "a dog"]);
    assert!(
        printed.contains("cat-1.png (32x32, seed 5)") && printed.contains("cat-2.png"),
        "{printed}"
    );
    assert!(!dir.join("cat.png").exists());
    for (name, first) in [("cat-1.png", None), ("cat-2.png", Some(1))] {
        assert_eq!(pixels(dir.join(name)).dimensions(), (32, 32));
        let settings = read_png_settings(dir.join(name)).unwrap();
        let request = settings.request;
        assert_eq!((&*request.prompt, request.seed), ("a cat", Some(5)));
        assert_eq!(request.negative_prompt.as_deref(), Some("a dog"));
        assert_eq!((request.first_image, request.n), (first, Some(1)));
        assert_eq!(request.num_inference_steps, Some(4));
        assert_eq!(settings.model, "tiny-sd15");
        assert!(settings.model_hash.is_some());
    }
    let first = pixels(dir.join("cat-1.png"));
    assert_ne!(first, pixels(dir.join("cat-2.png")));

    // The same seed, the same image.
    run(
        "5",
        "again.png",
        &["--negative", "a dog", "--size", "32x32"],
    );
    assert_eq!(pixels(dir.join("again.png")), first);
    run("6", "other.png", &["--negative", "a dog"]);
    assert_ne!(pixels(dir.join("other.png")), first);
    run("5", "wide.png", &["--size", "64x32", "--half"]);
    assert_eq!(pixels(dir.join("wide.png")).dimensions(), (64, 32));
}

#[test]
fn images_start_from_others_and_are_kept_outside_the_mask() {
    let Some(model) = tiny_pipeline() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let from = RgbImage::from_fn(64, 32, |x, y| Rgb([x as u8 * 4, y as u8 * 8, 90]));
    from.save(dir.join("from.png")).unwrap();
    let mask = GrayImage::from_fn(64, 32, |x, _| Luma([if x < 32 { 255 } else { 0 }]));
    mask.save(dir.join("mask.png")).unwrap();
    GrayImage::new(32, 32).save(dir.join("small.png")).unwrap();
    let model = model.to_str().unwrap();
    let arguments = ["a cat", "--model", model, "--steps", "4", "--seed", "1"];
    let from = ["--from", "from.png", "--strength", "0.5"];
    let with = |further: &[&'static str]| [&arguments[..], &from, further].concat();
    finish(paint(dir, &with(&["--out", "image.png"])));
    finish(paint(
        dir,
        &with(&["--mask", "mask.png", "--out", "masked.png"]),
    ));
    let (image, masked) = (
        pixels(dir.join("image.png")),
        pixels(dir.join("masked.png")),
    );
    assert_eq!(
        (image.dimensions(), masked.dimensions()),
        ((64, 32), (64, 32))
    );
    assert_ne!(image, masked);
    let settings = read_png_settings(dir.join("masked.png")).unwrap();
    assert_eq!(settings.missing_inputs, ["image", "mask_image"]);
    assert_eq!(settings.request.strength, Some(0.5));
    let error = refused(dir, &with(&["--mask", "small.png"]));
    assert!(error.contains("32x32, expected 64x32"), "{error}");
}

#[test]
fn a_single_file_opens_with_a_directory_and_adapters() {
    let Some(base) = tiny_pipeline() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let beside = |path: &str| base.with_file_name(path).to_str().unwrap().to_owned();
    let (file, lora) = (
        beside("sd15-single-file/model.safetensors"),
        beside("sd15-lora-two/a.safetensors"),
    );
    let base = base.to_str().unwrap();
    let run = |out: &str, further: &[&str]| {
        let arguments = ["a cat", "--model", &file, "--config", base, "--out", out];
        let short = ["--steps", "4", "--seed", "5"];
        finish(paint(dir, &[&arguments[..], &short, further].concat()));
        pixels(dir.join(out))
    };
    let plain = run("plain.png", &[]);
    let none = run("none.png", &["--lora", &format!("{lora}:0")]);
    let full = run("full.png", &["--lora", &lora]);
    assert_eq!(none, plain);
    assert_ne!(full, plain);
    let settings = read_png_settings(dir.join("full.png")).unwrap().settings;
    assert!(
        settings.iter().any(|(name, _)| name == "lora"),
        "{settings:?}"
    );
}

#[test]
fn controlnets_embeddings_weights_and_tiles_change_the_image() {
    let Some(model) = tiny_pipeline() else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let beside = |path: &str| model.with_file_name(path).to_str().unwrap().to_owned();
    let (controlnet, embedding) = (
        beside("tiny-sd15-controlnet"),
        beside("sd15-textual-inversion-one/embedding.safetensors"),
    );
    // Larger than a tile of the autoencoder, which has 64 pixels.
    let edges = RgbImage::from_fn(96, 64, |x, y| Rgb([x as u8 * 2, y as u8 * 3, 90]));
    edges.save(dir.join("edges.png")).unwrap();
    let model = model.to_str().unwrap();
    let run = |further: &[&str]| {
        let arguments = [
            "a (large:1.4) <cat-toy>",
            "--model",
            model,
            "--out",
            "x.png",
        ];
        let short = ["--size", "96x64", "--steps", "4", "--seed", "5"];
        finish(paint(dir, &[&arguments[..], &short, further].concat()));
        let path = dir.join("x.png");
        let settings = read_png_settings(&path).unwrap();
        let names: Vec<String> = settings
            .settings
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        (pixels(path), names, settings.missing_inputs)
    };
    let (plain, plain_names, missing) = run(&[]);
    assert!(missing.is_empty(), "{missing:?}");
    let control = ["--controlnet", &controlnet, "--control", "edges.png"];
    let (image, _, missing) = run(&control);
    assert_ne!(image, plain);
    assert_eq!(missing, ["control_image"]);
    for (options, setting) in [
        (
            &["--embedding", embedding.as_str()][..],
            "textual_inversion",
        ),
        (&["--web-ui"], "prompt_syntax"),
        (&["--tiles"], "tiling"),
    ] {
        let (image, names, _) = run(options);
        assert_ne!(image, plain, "{options:?}");
        let has = |names: &[String]| names.iter().any(|name| name == setting);
        assert!(has(&names) && !has(&plain_names), "{options:?}: {names:?}");
    }
}

/// With the model of this repository.
#[test]
fn images_are_written_though_one_cannot_be() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("x-1.png")).unwrap();
    let prompt = "two red circles left of a blue square";
    let error = refused(dir, &[prompt, "-n", "2", "--steps", "2", "--out", "x.png"]);
    assert!(error.contains("x-1.png"), "{error}");
    assert_eq!(pixels(dir.join("x-2.png")).dimensions(), (64, 64));
}

#[test]
fn bad_options_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::create_dir(dir.join("empty")).unwrap();
    for (arguments, expected) in [
        (&[][..], "<PROMPT>"),
        (&["a cat", "--model", "none"], "no such file or directory"),
        (&["a cat", "--model", "empty"], "model_index.json"),
        (&["a cat", "--model", "empty", "--steps", "0"], "--steps"),
        (&["a cat", "--model", "empty", "--size", "9"], "512x768"),
        (&["a cat", "--model", "empty", "--out", "a.jpg"], ".png"),
        (&["a cat", "--model", "empty", "--mask", "m.png"], "--from"),
        (&["a cat", "--base", "empty"], "--model"),
        (&["a cat", "--api", "--half"], "cannot be used with"),
        (&["a cat", "--api", "a dog"], "the prompt comes before"),
        (&[" ", "--api"], "the prompt is empty"),
    ] {
        let error = refused(dir, arguments);
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
    let Some(model) = tiny_pipeline() else {
        return;
    };
    let model = model.to_str().unwrap();
    let error = refused(dir, &["a cat", "--model", model, "--size", "33x32"]);
    assert!(error.contains("size") && error.contains("33x32"), "{error}");
    let files = std::fs::read_dir(dir).unwrap().count();
    assert_eq!(files, 1, "only the directory");
}

/// A server that answers one request; returns its base URL and the body that it received.
fn answer_once(status: u16, body: &Value) -> (String, JoinHandle<Value>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let body = body.to_string();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut received = vec![];
        let request = loop {
            let mut buffer = [0; 4096];
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "the request is cut off");
            received.extend_from_slice(&buffer[..read]);
            let text = String::from_utf8_lossy(&received);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let mut lines = head.lines().filter_map(|line| line.split_once(':'));
                let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
                let length: usize = length.unwrap().1.trim().parse().unwrap();
                if body.len() >= length {
                    assert!(head.starts_with("POST /v1/images/generations "), "{head}");
                    break serde_json::from_str(body).unwrap();
                }
            }
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body.as_bytes()).unwrap();
        request
    });
    (url, thread)
}

#[test]
fn an_api_is_asked_instead() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let picture = DynamicImage::from(RgbImage::from_pixel(16, 8, Rgb([9, 8, 7])));
    let mut png = Cursor::new(vec![]);
    picture.write_to(&mut png, ImageFormat::Png).unwrap();
    let answer = json!({"created": 1, "data": [{"b64_json": STANDARD.encode(png.into_inner())}]});
    let (url, server) = answer_once(200, &answer);
    let arguments = ["a cat", "--api", &url, "--api-model", "mine"];
    let request = ["--size", "16x8", "--seed", "3", "--out", "cat.png"];
    let printed = finish(paint(dir, &[&arguments[..], &request].concat()));
    assert!(printed.contains("cat.png (16x8, seed 3)"), "{printed}");
    let sent = server.join().unwrap();
    for (name, expected) in [
        ("prompt", json!("a cat")),
        ("model", json!("mine")),
        ("n", json!(1)),
        ("size", json!("16x8")),
        ("seed", json!(3)),
    ] {
        assert_eq!(sent[name], expected, "{name}: {sent}");
    }
    assert_eq!(pixels(dir.join("cat.png")), picture.to_rgb8());
    let settings = read_png_settings(dir.join("cat.png")).unwrap();
    assert_eq!(settings.request.prompt, "a cat");
    assert_eq!(settings.model, "mine");

    let error = json!({"error": {"message": "no such size", "param": "size", "code": "bad"}});
    let (url, server) = answer_once(400, &error);
    let message = refused(dir, &["a cat", "--api", &url, "--out", "none.png"]);
    assert!(message.contains("no such size"), "{message}");
    assert!(!dir.join("none.png").exists());
    server.join().unwrap();
}
