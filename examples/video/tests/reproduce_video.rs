//! The program `reproduce_video`, with trainings of two steps on a small MNIST data set.

#[path = "../../tests/common/mod.rs"]
mod common;

use common::World;
use serde_json::Value;

const EVALUATE: &str = "evaluate --classifier lenet.safetensors --clips 4 --sampling-steps 2";

fn read_json(world: &World, path: &str) -> Value {
    serde_json::from_slice(&std::fs::read(world.path().join(path)).unwrap()).unwrap()
}

#[test]
fn networks_are_trained_and_evaluated() {
    let world = World::new();
    let run = |arguments: &str| world.run("reproduce_video", arguments);
    let text = run("image --data mnist --size 16 --batch 4 --steps 2");
    assert!(
        text.contains("2 steps, 2 of them in this run")
            && text.contains("frames of 1×16×16 of 40 images"),
        "{text}"
    );
    assert!(
        world
            .path()
            .join("runs/video-frames-1/samples.png")
            .is_file()
    );

    // All of a network is trained.
    let short = "--frames 4 --batch 2 --steps 2 --sampling-steps 2";
    let text = run(&format!("train --data mnist --size 16 {short}"));
    assert!(text.contains("2 steps, 2 of them in this run"), "{text}");
    let text = run(&format!("{EVALUATE} --floor runs/video-frames-1"));
    for expected in [
        "classes are read by LeNet-5",
        "Fréchet distance of differences (LeNet-5)",
        "goal: frames read as asked",
        "the image model, frame by frame",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("bit for bit"), "{text}");
    let figures = read_json(&world, "runs/video-diffusion-1/evaluation.json");
    let command = figures["command"].as_str().unwrap();
    assert!(command.starts_with("reproduce_video evaluate"), "{command}");
    assert_eq!(figures["network"]["samples"]["right"]["total"], 16);
    assert!(figures["network"]["frechet_lenet5"]["data"]["frames"].is_f64());
    assert_eq!(figures["goals"].as_array().unwrap().len(), 4);
    assert!(figures["floor"]["samples"]["flicker"].is_f64());
    assert_eq!(figures["steps"], 2);
    // An image model of other frames is refused before anything is drawn.
    run("image --data mnist --size 8 --batch 4 --steps 2");
    let floor = format!("{EVALUATE} --floor runs/video-frames-2");
    let error = world.fails("reproduce_video", &floor);
    assert!(
        error.contains("`--floor` is 1×8×8, expected a model of images of 1×16×16"),
        "{error}"
    );

    // Motion modules alone, for frames like those of the image model.
    let text = run(&format!("train --image-model runs/video-frames-1 {short}"));
    assert!(text.contains("clips of 1×4×16×16"), "{text}");
    let text = run(&format!("{EVALUATE} --json figures.json"));
    assert!(
        text.contains("with motion modules off, 4 of 4 frames equal those of the image model"),
        "{text}"
    );
    let figures = read_json(&world, "figures.json");
    let equal = serde_json::json!([4, 4]);
    assert_eq!(figures["frames_equal_to_image_model"], equal);
}

#[test]
fn mistakes_are_named() {
    let world = World::new();
    for (arguments, expected) in [
        ("train", "`--data` is missing"),
        ("image", "`--data` is missing"),
        ("image --data mnist --batch 0", "`--batch` is 0"),
        (
            "train --data mnist --classifier lenet.safetensors",
            "`--classifier`",
        ),
        ("train --data mnist --eval-clips 4", "`--eval-clips` is 4"),
        ("image --data mnist --size 300", "`--size` is 300"),
        ("evaluate", "runs/video-diffusion"),
        ("evaluate --guidance=-1", "`--guidance` is -1"),
    ] {
        let error = world.fails("reproduce_video", arguments);
        assert!(error.contains(expected), "{arguments}: {error}");
    }
    assert!(!world.path().join("runs").exists());
}
