//! The program `animate`: trained from nothing, with an image model, with directories of models.

#[path = "../../tests/common/mod.rs"]
mod common;

use aigc_core::{
    burn::tensor::{Device, TensorData},
    data::ImageShape,
    output::provenance::{Provenance, verify_file},
    rng::InitWeights,
    weights::save_tensors,
};
use aigc_diffusion::{DpmMultistepScheduler, Pipeline, UNet2dConfig};
use aigc_tests::folder_from;
use common::{finish, program};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

/// A training of two steps on tiny clips. The time limit neither ends it nor affects its rates.
const SHORT: &str = "--steps 2 --save-steps 1 --minutes 1000 --frames 4 --size 8 --batch 2 -n 2 \
                     --eval-clips 2 --sampling-steps 2";

/// `animate` in a directory, with arguments that are separated by spaces.
fn animate(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new(program("animate"));
    command.args(arguments.split_whitespace()).current_dir(dir);
    command
}

/// What `animate` says when it fails.
fn refused(dir: &Path, arguments: &str) -> String {
    let output = animate(dir, arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The record of a file, which must be as it was written.
fn record(path: PathBuf) -> Provenance {
    let found = verify_file(&path).unwrap();
    let record = found.valid();
    record
        .unwrap_or_else(|| panic!("{}: {found}", path.display()))
        .clone()
}

fn read_json(path: PathBuf) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// An untrained image model of embedded digits, in a directory as `digits` writes it.
fn image_model(dir: &Path, seed: u64) {
    let shape = ImageShape::new(1, 8, 8);
    let config = UNet2dConfig::small(shape, Some(10)).with_null_class();
    let network = config.init(&Device::flex()).unwrap().init_weights(seed);
    let pipeline = Pipeline::new(network, DpmMultistepScheduler::default(), shape).unwrap();
    let labels = (0..10).map(|class: u32| class.to_string()).collect();
    pipeline
        .with_labels(labels)
        .unwrap()
        .save_pretrained(dir)
        .unwrap();
}

#[test]
fn digits_are_trained_drawn_and_drawn_again() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let text = finish(animate(
        dir,
        &format!("{SHORT} --class 7 --seed 3 --out run"),
    ));
    for expected in [
        "1500 training images of 5×5 move in clips of 1×4×8×8",
        "2 clips of 1×4×8×8 in ",
        "frames read as the class asked for",
        "classes are read by the nearest training frame",
        "times that of the data",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let at = |name: &str| dir.join("run").join(name);
    for name in ["clips.gif", "clips.apng", "clips-strip.png"] {
        let record = record(at(name));
        assert_eq!((record.seed, record.class), (Some(3), Some(7)), "{name}");
        assert!(record.model_hash.is_some() && record.model == "animate");
        assert_eq!(record.settings["num_inference_steps"], 2);
    }
    assert!(record(at("samples/step-000002.gif")).model_hash.is_none());
    let video = std::fs::read(at("clips.y4m")).unwrap();
    let frames = video.windows(6).filter(|part| *part == b"FRAME\n");
    assert_eq!(frames.count(), 4);
    let figures = read_json(at("figures.json"));
    assert_eq!(figures["figures"]["samples"]["clips"], 2);
    assert_eq!(figures["figures"]["data"]["right"]["total"], 8);

    // From its first step on again, the run ends with the same weights.
    let weights = || std::fs::read(at("final/model.safetensors")).unwrap();
    let whole = weights();
    finish(animate(
        dir,
        &format!("{SHORT} --seed 3 --resume-at 1 --out run"),
    ));
    assert!(weights() == whole);

    // Nothing is trained.
    let text = finish(animate(
        dir,
        "--model run --class 3 -n 1 --steps 2 --seed 5 --out more",
    ));
    assert!(text.contains("1 clips of 1×4×8×8"), "{text}");
    let again = record(dir.join("more/clips.gif"));
    assert_eq!((again.seed, again.class), (Some(5), Some(3)));
    assert_eq!(again.model_hash, record(at("clips.gif")).model_hash);
    let error = refused(dir, "--model run --frames 5");
    assert!(
        error.contains("`--frames` is 5, expected 1 to 4"),
        "{error}"
    );
    let error = refused(dir, "--model run --prompt ball");
    assert!(
        error.contains("`--prompt` is ball, expected none"),
        "{error}"
    );
    let error = refused(dir, "--model run --class 10");
    assert!(
        error.contains("`--class` is 10, expected below 10"),
        "{error}"
    );
}

#[test]
fn image_model_is_set_in_motion() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    image_model(&dir.join("images"), 0);
    image_model(&dir.join("others"), 1);
    let short = SHORT.replace("--size 8", "");
    let text = finish(animate(
        dir,
        &format!("{short} --image-model images --out run"),
    ));
    assert!(
        text.contains("with motion modules off, 10 of 10 frames equal those of the image model"),
        "{text}"
    );
    // Frames are those of the image model, and its weights stay.
    assert!(text.contains("clips of 1×4×8×8"), "{text}");
    let weights = "unet/diffusion_pytorch_model.safetensors";
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    assert!(read(dir.join("run/pipeline").join(weights)) == read(dir.join("images").join(weights)));
    assert!(
        dir.join("run/pipeline/motion_adapter/config.json")
            .is_file()
    );
    let figures = read_json(dir.join("run/figures.json"));
    assert_eq!(
        figures["frames_equal_to_image_model"],
        serde_json::json!([10, 10])
    );
    // The path need not be given again; other weights are refused.
    let text = finish(animate(
        dir,
        &format!("{short} --steps 3 --resume --out run").replace("--steps 2 ", ""),
    ));
    assert!(text.contains("10 of 10 frames"), "{text}");
    let error = refused(dir, "--image-model others --resume --out run");
    assert!(
        error.contains("the weights with which the run began"),
        "{error}"
    );
    let error = refused(dir, "--image-model images --size 16 --out new");
    assert!(error.contains("`--size` is 16, expected 8"), "{error}");
    assert!(!dir.join("new").exists());
}

#[test]
#[cfg(unix)]
fn interrupted_evaluation_resumes() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, run) = (folder.path(), folder.path().join("run"));
    let endless = SHORT
        .replace("-n 2", "-n 100")
        .replace("--sampling-steps 2", "--sampling-steps 1000");
    let command = animate(dir, &format!("{endless} --out run"));
    let text = common::interrupt_evaluation(command, &run, 2);
    assert!(!text.contains("evaluation"), "{text}");
    let text = finish(animate(dir, &format!("{SHORT} --resume --out run")));
    assert!(text.contains("evaluation"), "{text}");
}

#[test]
fn mistakes_are_named_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    for (arguments, expected) in [
        ("--frames 3", "`--frames` is 3"),
        ("--size 4", "`--size` is 4"),
        ("--size 16x8", "`--size` is 16x8"),
        ("--size 8 --digit-size 8", "`--digit-size` is 8"),
        ("--batch 0", "`--batch` is 0"),
        ("--class 10", "`--class` is 10"),
        ("--fps 0", "`--fps` is 0"),
        ("--guidance NaN", "`--guidance` is NaN"),
        ("--classifier none", "none"),
        ("--image-model none", "none"),
        ("--prompt ball", "--model"),
        ("--model none --prompt ball", "none"),
        ("--resume --out none", "none"),
    ] {
        let error = refused(dir, arguments);
        assert!(error.contains(expected), "{arguments}: {error}");
    }
    std::fs::create_dir(dir.join("other")).unwrap();
    let index = "{\"_class_name\": \"FluxPipeline\"}";
    std::fs::write(dir.join("other/model_index.json"), index).unwrap();
    let error = refused(dir, "--model other --prompt ball");
    assert!(error.contains("FluxPipeline"), "{error}");
    let error = refused(dir, "--model other");
    assert!(error.contains("`--prompt` is missing"), "{error}");
    // Nothing else was made.
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
}

fn pipeline(name: &str) -> Option<PathBuf> {
    let fixtures = folder_from("AIGC_FIXTURES")?;
    Some(fixtures.join("video/pipelines").join(name).join("pipeline"))
}

#[test]
fn animate_diff_makes_a_video() {
    let Some(model) = pipeline("animatediff-DDIMScheduler") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let with = |rest: &str| {
        let mut command = animate(dir, rest);
        command.arg("--model").arg(&model);
        command.args(["--prompt", "red ball moves"]);
        command
    };
    let output = animate(dir, "").arg("--model").arg(&model).output();
    let error = output.unwrap().stderr;
    assert!(String::from_utf8_lossy(&error).contains("`--prompt` is missing"));
    let text = finish(with("--frames 4 --size 16 --steps 2 --seed 4 --out video"));
    assert!(text.contains("4 frames in "), "{text}");
    for name in ["video.gif", "video.apng", "video-strip.png"] {
        let record = record(dir.join("video").join(name));
        assert_eq!(record.prompt.as_deref(), Some("red ball moves"));
        assert_eq!((record.seed, record.model.as_str()), (Some(4), "pipeline"));
        assert_eq!(record.settings["request"]["num_frames"], 4);
        assert!(record.model_hash.is_some());
    }
    let strip = image::open(dir.join("video/video-strip.png")).unwrap();
    assert_eq!((strip.width(), strip.height()), (64, 16));

    // The record names the weights of motion modules from elsewhere.
    let mut elsewhere = with("--frames 2 --size 16 --steps 1 --out adapted");
    elsewhere
        .arg("--motion-adapter")
        .arg(model.join("motion_adapter"));
    finish(elsewhere);
    let adapted = record(dir.join("adapted/video.gif"));
    assert!(adapted.settings["motion_adapter_hash"].is_string());

    // More frames than the 16 positions.
    let long = "--frames 18 --size 16 --steps 1 --out long";
    let output = with(long).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("window_overlap"));
    assert!(!dir.join("long").exists());
    let text = finish(with(&format!("{long} --overlap 4")));
    assert!(text.contains("18 frames in "), "{text}");
}

#[test]
fn wan_writes_frames_as_they_come() {
    let Some(model) = pipeline("wan-UniPCMultistepScheduler") else {
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let with = |rest: &str| {
        let mut command = animate(dir, rest);
        command.arg("--model").arg(&model);
        command.args(["--prompt", "a red ball"]);
        command
    };
    let text = finish(with("--frames 5 --size 16 --steps 2 --out video"));
    assert!(
        text.contains("5 frames in ") && text.contains("of that, decoding"),
        "{text}"
    );
    let made = record(dir.join("video/video.apng"));
    assert_eq!(made.settings["request"]["num_frames"], 5);
    // The latents are not needed any more.
    assert!(!dir.join("video/latents.safetensors").exists());
    assert!(!dir.join("video/latents.json").exists());
    let output = with("--frames 6 --size 16 --steps 2 --out bad")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("`num_frames` is 6"));

    // Latents that were kept are decoded.
    let channels = read_json(model.join("vae/config.json"))["z_dim"].clone();
    let shape = [1, channels.as_u64().unwrap() as usize, 2, 2, 2];
    let values = vec![0.5f32; shape.iter().product()];
    let latents = TensorData::new(values, shape);
    let tensors = BTreeMap::from([("latents".to_string(), latents)]);
    save_tensors(&tensors, &dir.join("kept.safetensors")).unwrap();
    finish(with("--latents kept.safetensors --out kept"));
    assert!(dir.join("kept/video.gif").is_file());
    assert!(dir.join("kept.safetensors").is_file());
    // Their record has the settings in the file beside them, and no others.
    let made = record(dir.join("kept/video.apng"));
    assert_eq!(made.seed, None);
    assert!(made.settings["request"]["num_inference_steps"].is_null());
    // Two latents; each but the first stands for two frames of four times its side.
    assert_eq!(made.settings["request"]["num_frames"], 3);
    assert_eq!(made.settings["request"]["size"]["width"], 8);
    let request = "{\"prompt\": \"a red ball\", \"seed\": 9, \"num_inference_steps\": 3}";
    std::fs::write(dir.join("kept.json"), request).unwrap();
    finish(with("--latents kept.safetensors --out again"));
    let made = record(dir.join("again/video.apng"));
    assert_eq!(made.seed, Some(9));
    assert_eq!(made.settings["request"]["num_inference_steps"], 3);
    std::fs::write(dir.join("kept.json"), request.replace("red", "blue")).unwrap();
    let output = with("--latents kept.safetensors --out bad")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("`--prompt`") && error.contains("a blue ball"),
        "{error}"
    );
    std::fs::write(dir.join("bad.safetensors"), "none").unwrap();
    let output = with("--latents bad.safetensors --out bad")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("bad.safetensors"));
}
