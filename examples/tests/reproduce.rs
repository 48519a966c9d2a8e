//! The programs of `docs/results.md`, on a small MNIST data set and with an untrained classifier:
//! all figures are printed as numbers, and an interrupted run resumes.

mod common;

use aigc_core::output::provenance::verify_file;
use common::{World, program};
use std::{path::Path, process::Command};

/// The picture says which model and seed it is of; returns a setting, as JSON.
fn check_origin(path: &Path, model: &str, setting: &str) -> String {
    let found = verify_file(path).unwrap();
    let record = found.valid();
    let record = record.unwrap_or_else(|| panic!("{}: {found}", path.display()));
    assert_eq!(record.model, model);
    assert!(record.seed.is_some() && record.model_hash.is_some());
    record.settings[setting].to_string()
}

/// The number that follows `label`.
fn number(text: &str, label: &str) -> f64 {
    let (_, rest) = text
        .split_once(label)
        .unwrap_or_else(|| panic!("{label} in {text}"));
    let rest = rest.trim_start();
    let end = rest
        .find(|c: char| !c.is_ascii_digit() && c != '.' && c != '-' && c != '+')
        .unwrap_or(rest.len());
    let digits = rest[..end].trim_end_matches('.');
    digits
        .parse()
        .unwrap_or_else(|_| panic!("{label} {digits:?} in {text}"))
}

#[test]
fn vae() {
    let world = World::new();
    let data = "--data mnist --out run --steps";
    let text = world.run("reproduce_vae", &format!("{data} 3"));
    assert!(
        text.contains("40 training images of 1×28×28")
            && text.contains("3 steps, 3 of them in this run"),
        "{text}"
    );
    let text = world.run("reproduce_vae", &format!("{data} 5 --resume"));
    assert!(text.contains("5 steps, 2 of them in this run"), "{text}");
    assert!(number(&text, "(\"nelbo\",") > 0.0);
}

/// The rows of the table of figures.
fn rows(text: &str) -> Vec<&str> {
    text.lines().filter(|line| line.starts_with("| ")).collect()
}

/// The numbers of our figure in the row of the table that begins with `what`.
fn figures(text: &str, what: &str) -> Vec<f64> {
    let start = format!("| {what} |");
    let row = rows(text).into_iter().find(|row| row.starts_with(&start));
    let row = row.unwrap_or_else(|| panic!("{what} in {text}"));
    let ours = row.split('|').nth(2).unwrap();
    let ends = |c: char| !c.is_ascii_digit() && c != '.' && c != '-';
    ours.split(ends).filter_map(|x| x.parse().ok()).collect()
}

/// The figures of a model with latent vectors, by 3 importance samples, fit each other.
fn check_figures(text: &str) {
    let of = |what: &str| figures(text, what);
    let [likelihood, error] = of("-log p(x) by 3 latents per image, nats")[..] else {
        panic!("{text}");
    };
    let (bound, divergence) = (of("-ELBO, nats")[0], of("divergence, nats")[0]);
    // Pixels are binary, so that the reconstruction costs something.
    assert!((0.0..bound).contains(&divergence), "{text}");
    // The two bounds are close after two steps.
    assert!((likelihood - bound).abs() < 0.1 * bound, "{text}");
    assert!((0.0..0.1 * bound).contains(&error), "{text}");
    let [mean, least] = of("effective latents per image, mean and least")[..] else {
        panic!("{text}");
    };
    assert!((1.0..=mean).contains(&least) && mean <= 3.0, "{text}");
    let [active, all] = of("active units")[..] else {
        panic!("{text}");
    };
    assert!(all > 0.0 && (0.0..=all).contains(&active), "{text}");
}

/// Distances of features of an untrained classifier, which hardly differ: two decimals may be zero.
fn is_distance(found: f64) -> bool {
    (0.0..10.0).contains(&found)
}

/// Every model prints its table after training, and the same one when it is opened again.
#[test]
fn vaes_print_their_tables() {
    let world = World::new();
    for (model, row) in [
        ("iwae-1", "| 86.76 | Burda et al. 2016 |"),
        ("iwae-5", "| 85.54 | Burda et al. 2016 |"),
        ("hierarchical", "| 78.01 | NVAE, Vahdat and Kautz 2020 |"),
        (
            "conditional",
            "| samples read as the digit asked for, LeNet-5, with a mixture of ",
        ),
        ("vq", "| bits per image, codes of the prior | "),
    ] {
        let importance = match model {
            "vq" => "",
            _ => "--importance-samples 3",
        };
        let options = format!(
            "--data mnist --model {model} {importance} --test-images 12 \
             --classifier lenet.safetensors --samples 20"
        );
        let text = world.run(
            "reproduce_vae",
            &format!("{options} --steps 2 --out {model}"),
        );
        assert!(text.contains("2 steps, 2 of them in this run"), "{text}");
        assert!(
            text.contains("| figure | ours | published | source |") && text.contains(row),
            "{text}"
        );
        if model == "vq" {
            let bits = number(&text, "| bits per image, equally probable codes |");
            // 7×7 codes of 8 bits.
            assert!((bits - 392.0).abs() < 0.1, "{text}");
        } else {
            check_figures(&text);
        }
        let distance = figures(&text, "Fréchet distance of 20 samples, LeNet-5")[0];
        assert!(is_distance(distance), "{text}");
        let variation = figures(&text, "total variation of their classes from uniform")[0];
        assert!((0.0..=0.9).contains(&variation), "{text}");
        for figure in ["precision", "recall", "coverage"] {
            let share = figures(&text, &format!("{figure}, LeNet-5"))[0];
            assert!((0.0..=1.0).contains(&share), "{text}");
        }
        let samples = world.path().join(model).join("samples.png");
        let network = check_origin(&samples, &format!("mnist-{model}"), "network");
        assert_eq!(network, format!("\"{model}\""));
        let again = world.run(
            "reproduce_vae",
            &format!("{options} --evaluate-only --run {model}"),
        );
        assert_eq!(rows(&again), rows(&text));
    }
    for (arguments, expected) in [
        ("--k 5", "`--k` is 5, expected --model iwae-1 or iwae-5"),
        (
            "--estimator sticking-the-landing",
            "`--estimator` is sticking-the-landing, expected --model iwae-1 or iwae-5",
        ),
        ("--run iwae-1", "--evaluate-only"),
        (
            "--model iwae-5 --evaluate-only --run iwae-1",
            "is a run of another model than iwae-5",
        ),
        (
            "--model vq --evaluate-only --run iwae-1",
            "is not a run of vq",
        ),
    ] {
        let error = world.fails("reproduce_vae", &format!("--data mnist {arguments}"));
        assert!(error.contains(expected), "{arguments}: {error}");
    }
}

#[test]
fn conditional_gan_is_evaluated() {
    let world = World::new();
    let text = world.run(
        "reproduce_gan",
        "images --data mnist --classifier lenet.safetensors --conditional --samples 60 --steps 3 --out run",
    );
    for what in ["averaged", "averaged, standing statistics", "last weights"] {
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("{what}: Fréchet")))
            .unwrap();
        assert!(
            is_distance(number(line, "Fréchet distance"))
                && line.contains("(60 samples, 40 test images)"),
            "{line}"
        );
        let ends = |line: &&str| {
            line.starts_with(&format!("{what}: "))
                && line.ends_with("classified as the requested class")
        };
        let right = text
            .lines()
            .find(ends)
            .map(|line| number(line, &format!("{what}:")))
            .unwrap();
        assert!((0.0..=100.0).contains(&right), "{right} in {text}");
        let precision = number(&text, &format!("{what}: precision"));
        assert!((0.0..=1.0).contains(&precision), "{text}");
    }
    for file in ["samples.png", "classes.png", "nearest.png", "walk.gif"] {
        let path = world.path().join("run").join(file);
        assert_eq!(check_origin(&path, "images-gan", "method"), "\"Plain\"");
    }
}

/// A metric of samples is logged, and may decide which model is kept.
#[test]
fn metric_of_samples_decides_in_training() {
    let world = World::new();
    world.run(
        "reproduce_gan",
        "images --data mnist --classifier lenet.safetensors --samples 60 --steps 4 --eval-steps 2 \
         --eval-samples 40 --metric-for-best-model kid --out best",
    );
    let log = std::fs::read_to_string(world.path().join("best/metrics.jsonl")).unwrap();
    let evaluations: Vec<_> = log
        .lines()
        .filter(|line| line.contains("\"kid\""))
        .collect();
    assert_eq!(evaluations.len(), 2, "{log}");
    assert!(evaluations[0].contains("\"diversity\""), "{log}");
}

#[test]
fn gan_trains_on_image_directory() {
    let world = World::new();
    let folder = world.path().join("pictures");
    std::fs::create_dir(&folder).unwrap();
    for i in 0..12u8 {
        let pixels =
            (0..28 * 28).map(|at| image::Rgb([i * 20, (at % 256) as u8, (at / 28) as u8 * 9]));
        let mut picture = image::RgbImage::new(28, 28);
        picture
            .pixels_mut()
            .zip(pixels)
            .for_each(|(to, from)| *to = from);
        picture.save(folder.join(format!("{i}.png"))).unwrap();
    }
    let text = world.run(
        "reproduce_gan",
        "images --data pictures --side 28 --rgb --steps 2 --out run",
    );
    assert!(text.contains("3×28×28"), "{text}");
    assert!(
        world.path().join("run/samples.png").is_file()
            && world.path().join("run/nearest.png").is_file()
    );
}

#[test]
fn stacked_digits_modes_are_counted() {
    let world = World::new();
    let text = world.run(
        "reproduce_gan",
        "stacked --data mnist --classifier lenet.safetensors --samples 600 --steps 2 --out run",
    );
    let modes = number(&text, "seed 0:");
    assert!(
        (1.0..=600.0).contains(&modes) && text.contains("of 1000 modes in 600 samples"),
        "{text}"
    );
    assert!(
        (0.0..7.0).contains(&number(&text, "KL to uniform")),
        "{text}"
    );
}

#[test]
#[cfg(unix)]
fn interrupted_evaluation_is_repeated() {
    let world = World::new();
    let stacked = "stacked --data mnist --classifier lenet.safetensors --steps 2 --out run";
    let mut command = Command::new(program("reproduce_gan"));
    // 25,600 samples.
    command
        .args(stacked.split_whitespace())
        .current_dir(world.path());
    let text = common::interrupt_evaluation(command, &world.path().join("run"), 2);
    assert!(!text.contains("of 1000 modes"), "{text}");
    let text = world.run(
        "reproduce_gan",
        &format!("{stacked} --samples 600 --resume"),
    );
    assert!(
        text.contains("of 1000 modes in 600 samples")
            && text.contains("2 steps, 0 of them in this run"),
        "{text}"
    );
}

#[test]
fn diffusion_is_evaluated() {
    let world = World::new();
    world.run(
        "reproduce_diffusion",
        "train --data mnist --batch 4 --steps 2 --eval-samples 6 --out run",
    );
    let text = world.run(
        "reproduce_diffusion",
        "train --data mnist --batch 4 --steps 3 --eval-samples 6 --out run --resume",
    );
    assert!(text.contains("3 steps, 1 of them in this run"), "{text}");
    let text = world.run(
        "reproduce_diffusion",
        "evaluate --data mnist --classifier lenet.safetensors --run run --share 0.0001 --solver-steps 5 --ddpm-steps 30 --bootstrap 20",
    );
    let share = number(&text, "guidance 2:");
    assert!((0.0..=100.0).contains(&share), "{text}");
    let ddpm = number(&text, "ddpm, 30 steps:");
    assert!(is_distance(ddpm), "{text}");
    for solver in ["dpm-solver++", "unipc", "deis", "ddim"] {
        for steps in [5, 20] {
            let at = format!(" {steps} steps:");
            let is_row = |line: &&str| {
                line.trim_start().starts_with(&format!("{solver} ")) && line.contains(&at)
            };
            let row = text
                .lines()
                .find(is_row)
                .unwrap_or_else(|| panic!("{solver} {steps}: {text}"));
            assert!(is_distance(number(row, "steps:")), "{row}");
        }
        // A distance and its difference from that of DDPM in percent.
        let label = format!("{solver}, 20 steps from the same noise:");
        let (_, row) = text.split_once(&label).unwrap();
        let (distance, percent) = (number(row, ""), number(row, ","));
        let factor = 1.0 + percent / 100.0;
        let rounding = 0.005 + 0.005 * factor.abs() + 0.0005 * ddpm + 1e-5;
        assert!(
            is_distance(distance) && (distance - factor * ddpm).abs() <= rounding,
            "{label} {text}"
        );
    }
    assert!(
        number(&text, "variational bound") > 0.0 && number(&text, "probability flow").is_finite(),
        "{text}"
    );
    let picture = world.path().join("run/guided-2.png");
    let guidance = check_origin(&picture, "images-diffusion", "guidance_scale");
    assert_eq!(guidance, "2.0");
}
