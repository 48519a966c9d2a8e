//! The program `serve`: its options, and a tiny model behind it.

#[path = "../../tests/common/mod.rs"]
mod programs;

use aigc_core::text_to_image::{ImageRequest, TextToImage};
use aigc_pipelines::{
    openai::{CallOptions, CreateImageRequest, OpenAiConfig, OpenAiImages},
    text_to_image::decode_png_settings,
};
use aigc_tests::folder_from;
use programs::program;
use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

fn serve(arguments: &[&str]) -> Command {
    let mut command = Command::new(program("serve"));
    command.env_remove("SERVE_API_KEY").args(arguments);
    command
}

/// A program that ends with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_single_file_with_an_adapter_is_served() {
    let Some(fixtures) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let path = |path: &str| {
        let path = fixtures.join("pipelines").join(path);
        path.to_str().unwrap().to_owned()
    };
    let (file, base) = (
        path("sd15-single-file/model.safetensors"),
        path("tiny-sd15"),
    );
    let lora = path("sd15-lora-two/a.safetensors") + ":0.5";
    let model = ["--model", &file, "--config", &base, "--lora", &lora];
    let further = ["--low-memory", "--name", "mine", "--listen", "127.0.0.1:0"];
    let mut command = serve(&[&model[..], &further].concat());
    let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn();
    let mut running = Running(child.unwrap());
    let mut lines = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let mut printed = vec![];
    let url = loop {
        let line = lines.next().unwrap_or_else(|| panic!("{printed:?}"));
        let line = line.unwrap();
        match line.strip_prefix("mine at ") {
            Some(url) => break url.to_owned(),
            None => printed.push(line),
        }
    };
    // What was found in the file.
    assert!(
        printed.iter().any(|line| line.contains("unet")),
        "{printed:?}"
    );

    let client = OpenAiImages::new(OpenAiConfig::new(&url)).unwrap();
    let answer = client.generations(
        &CreateImageRequest::new("a cat"),
        &mut CallOptions::default(),
    );
    let answer = answer.unwrap();
    let image = &answer.images[0];
    assert_eq!((image.image.width(), image.image.height()), (32, 32));
    let settings = decode_png_settings(&image.bytes).unwrap();
    assert_eq!(settings.model, "mine");
    let lora = settings.settings.iter().find(|(name, _)| name == "lora");
    assert!(lora.is_some(), "{:?}", settings.settings);
    // Beyond the default of --max-side.
    let large = ImageRequest::new("a cat").with_size(4096, 32);
    let error = client.generate(&large).unwrap_err().to_string();
    assert!(error.contains("2048"), "{error}");
}

#[test]
fn mistakes_are_named_before_the_model_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let here = dir.path().to_str().unwrap();
    for (arguments, expected) in [
        (&["--model", "none"][..], "no such file or directory"),
        (&["--model", here, "--base", here], "is a directory"),
        (&["--base", here], "--model"),
        (&["--model", here, "--max-side", "0"], "max_side"),
        (&["--model", here, "--high-steps", "300"], "max_steps"),
        (
            &["--model", here, "--max-url-bytes", "99999999999999"],
            "--max-url-bytes",
        ),
        (&["--model", here, "--listen", "0.0.0.0:0"], "SERVE_API_KEY"),
        (&["--model", here], "model_index.json"),
        (
            &[
                "--model",
                here,
                "--high-steps",
                "300",
                "--max-steps",
                "300",
                "--max-url-bytes",
                "0",
            ],
            "model_index.json",
        ),
    ] {
        let listen = match arguments.contains(&"--listen") {
            true => &[][..],
            false => &["--listen", "127.0.0.1:0"],
        };
        let output = serve(&[arguments, listen].concat()).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{arguments:?}");
        assert!(error.contains(expected), "{arguments:?}: {error}");
    }
}
