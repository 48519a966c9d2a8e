//! The program `digits`: uninterrupted, killed, interrupted and resumed.

mod common;

use aigc_core::{
    output::provenance::{Provenance, verify_file},
    weights::hash_files,
};
use common::{finish, program};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

const STEPS: &str = "150";

fn digits(out: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program("digits"));
    if !more.contains(&"--steps") {
        command.args(["--steps", STEPS]);
    }
    command
        .args([
            // The time limit must neither end these runs nor affect their learning rates.
            "--minutes",
            "1000",
            "--save-steps",
            "7",
            "--seed",
            "3",
            "--out",
        ])
        .arg(out)
        .args(more);
    command
}

/// The tensors of the final model and of the newest checkpoint, as bytes. The optimizer's file,
/// whose bytes are in the order of a hash map, is compared by the library's tests of exact resume.
fn tensors(run: &Path) -> BTreeMap<String, Vec<u8>> {
    tensors_at(run, STEPS)
}

/// [`tensors`] of a run of `steps` steps.
fn tensors_at(run: &Path, steps: &str) -> BTreeMap<String, Vec<u8>> {
    let newest = checkpoint(run, steps);
    tensors_in(&[
        run.join("final/model.safetensors"),
        newest.join("model.safetensors"),
        newest.join("ema.safetensors"),
    ])
}

/// The newest checkpoint of a run, which is that of `steps` steps.
fn checkpoint(run: &Path, steps: &str) -> PathBuf {
    let newest = std::fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .max()
        .unwrap();
    assert!(newest.ends_with(format!("step-{steps:0>6}")), "{newest:?}");
    newest
}

/// The tensors in these files, as bytes.
fn tensors_in(files: &[PathBuf]) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for (index, file) in files.iter().enumerate() {
        let bytes = std::fs::read(file).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        all.extend(
            tensors
                .iter()
                .map(|(name, view)| (format!("{index}/{name}"), view.data().to_vec())),
        );
    }
    assert!(all.len() > 30);
    all
}

/// The step of the last complete line of the log.
fn step(run: &Path) -> usize {
    let text = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap_or_default();
    let mut lines = text
        .lines()
        .filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
    lines
        .next_back()
        .and_then(|l| l["step"].as_u64())
        .unwrap_or(0) as usize
}

/// Waits until the log has reached `at`, or the process has ended.
fn wait_for(child: &mut Child, run: &Path, at: usize) {
    while child.try_wait().unwrap().is_none() && step(run) < at {
        sleep(Duration::from_millis(1));
    }
}

/// A random number below `below`, different in every process.
fn random(below: usize) -> usize {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish() as usize
        % below
}

#[test]
fn killed_run_ends_like_uninterrupted_run() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole");
    let text = finish(digits(&whole, &[]));
    assert!(
        text.contains("nats per image, mean of 297 held-out images"),
        "{text}"
    );
    let expected = tensors(&whole);
    let kills: usize = std::env::var("AIGC_KILLS").map_or(3, |n| n.parse().unwrap());
    for attempt in 0..kills {
        let run = folder.path().join(format!("killed-{attempt}"));
        let mut resume: &[&str] = &[];
        // Killed once or twice, at a random moment.
        for _ in 0..1 + random(2) {
            let mut child = digits(&run, resume)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let at = random(140);
            wait_for(&mut child, &run, at);
            sleep(Duration::from_millis(random(30) as u64));
            child.kill().unwrap(); // SIGKILL
            child.wait().unwrap();
            println!("attempt {attempt}: killed after step {}", step(&run));
            // Killed before it created its directories: there is nothing to resume.
            resume = if run.join("checkpoints").exists() {
                &["--resume"]
            } else {
                &[]
            };
        }
        finish(digits(&run, resume));
        assert!(
            tensors(&run) == expected,
            "attempt {attempt} ended with other tensors"
        );
    }
}

#[test]
#[cfg(unix)]
fn signals_save_and_print_how_to_resume() {
    let folder = tempfile::tempdir().unwrap();
    for signal in ["-INT", "-TERM", "-HUP"] {
        let run = folder.path().join(format!("run{signal}"));
        // More steps than the process can complete before the signal arrives.
        let mut endless = Command::new(program("digits"));
        endless
            .args(["--steps", "1000000", "--minutes", "100", "--out"])
            .arg(&run);
        let mut child = endless
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(&mut child, &run, 20);
        assert!(
            Command::new("kill")
                .args([signal, &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success()
                && text.contains("to resume, use the same options and --resume --out"),
            "{signal}: {text}"
        );
        let mut rest = Command::new(program("digits"));
        rest.args(["--steps", STEPS, "--resume", "--out"]).arg(&run);
        let text = finish(rest);
        assert!(text.contains("held-out -ELBO"), "{text}");
    }
}

#[test]
#[cfg(unix)]
fn interrupted_evaluation_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let gan = |more: &[&str]| {
        let mut command = Command::new(program("digits"));
        command
            .args(["--model", "gan", "--steps", "3", "--out"])
            .arg(&run)
            .args(more);
        command
    };
    let text = common::interrupt_evaluation(gan(&[]), &run, 3);
    assert!(!text.contains("Fréchet distance"), "{text}");
    // The evaluation alone is repeated.
    let log = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let text = finish(gan(&["--resume"]));
    assert!(text.contains("Fréchet distance in pixels"), "{text}");
    let resumed = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let trained = |log: &str| {
        let lines = log.lines().filter(|line| line.contains("\"train\""));
        lines.map(str::to_string).collect::<Vec<_>>()
    };
    assert_eq!(trained(&resumed), trained(&log));
    assert!(resumed.contains("frechet"), "{resumed}");
    assert!(run.join("samples.png").is_file());
}

#[test]
fn closed_pipe_ends_quietly() {
    let folder = tempfile::tempdir().unwrap();
    let start = |run: &Path| {
        Command::new(program("digits"))
            .args(["--steps", "2", "--out"])
            .arg(run)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let quiet = |child: Child| {
        let output = child.wait_with_output().unwrap();
        let printed = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && !printed.contains("panicked"),
            "{printed}"
        );
    };
    let mut child = start(&folder.path().join("closed"));
    drop(child.stdout.take());
    quiet(child);
    // `digits | head -1`: the results are written before they are printed.
    let run = folder.path().join("head");
    let mut child = start(&run);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert!(line.contains("training images"), "{line}");
    quiet(child);
    for file in ["final/model.safetensors", "samples.png", "latent.png"] {
        assert!(run.join(file).is_file(), "{file}");
    }
}

/// The error message of `digits` for wrong arguments.
fn fails(folder: &Path, args: &[&str]) -> String {
    let output = Command::new(program("digits"))
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn short(folder: &Path, args: &[&str]) -> String {
    let mut command = Command::new(program("digits"));
    command.args(args).current_dir(folder);
    finish(command)
}

/// Writes twelve images of 8×8.
fn photos(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for i in 0..12u8 {
        let pixels = (0..64).map(|k| k * 2 + 10 * i).collect();
        let image = image::GrayImage::from_raw(8, 8, pixels).unwrap();
        image.save(folder.join(format!("{i}.png"))).unwrap();
    }
}

#[test]
fn resume_refuses_other_settings() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    photos(&here.join("photos"));
    short(here, &["--steps", "2", "--seed", "3", "--out", "run"]);
    for (args, expected) in [
        (
            &["--seed", "4"][..],
            "`--seed` is 4, expected 3, with which",
        ),
        (&["--seed=0"], "`--seed` is 0, expected 3, with which"),
        (&["--data", "photos"], "`--data` is photos"),
        (&["--rgb"], "`--rgb` is given"),
        (&["--side", "16"], "`--side` is 16, expected 32"),
        (&["--model", "gan"], "is --model as before?"),
    ] {
        let all = [args, &["--resume", "--out", "run"]].concat();
        let error = fails(here, &all);
        assert!(error.contains(expected), "{args:?}: {error}");
    }
    short(
        here,
        &["--steps", "3", "--seed", "3", "--resume", "--out", "run"],
    );
}

#[test]
fn data_may_move_between_starts() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    photos(&here.join("photos"));
    let start = [
        "--data", "photos", "--side", "8", "--steps", "2", "--out", "run",
    ];
    short(here, &start);
    // In another working directory: an absolute path was saved.
    let elsewhere = here.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    short(&elsewhere, &["--resume", "--steps", "3", "--out", "../run"]);
    std::fs::rename(here.join("photos"), here.join("moved")).unwrap();
    let lost = fails(here, &["--resume", "--steps", "4", "--out", "run"]);
    assert!(lost.contains("photos"), "{lost}");
    let resume = [
        "--resume", "--steps", "4", "--out", "run", "--data", "moved",
    ];
    short(here, &resume);
    // Different data in the same directory.
    std::fs::write(
        here.join("moved/0.png"),
        std::fs::read(here.join("moved/1.png")).unwrap(),
    )
    .unwrap();
    image::GrayImage::new(8, 8)
        .save(here.join("moved/2.png"))
        .unwrap();
    let other = fails(
        here,
        &[
            "--resume", "--steps", "5", "--out", "run", "--data", "moved",
        ],
    );
    assert!(other.contains("fingerprint"), "{other}");
}

#[test]
fn failed_start_does_not_occupy_its_directory() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    photos(&here.join("photos"));
    for i in 0..12 {
        std::fs::write(here.join(format!("photos/{i}.png")), "no image").unwrap();
    }
    let start = [
        "--data", "photos", "--side", "8", "--steps", "2", "--out", "run",
    ];
    let error = fails(here, &start);
    assert!(error.contains(".png: cannot be decoded"), "{error}");
    assert!(!here.join("run").exists());
    photos(&here.join("photos"));
    short(here, &start);
}

#[test]
fn labels_beyond_nine_are_classes() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("mnist");
    common::small_mnist(&data);
    for part in ["train", "t10k"] {
        let labels = [
            vec![0, 0, 8, 1, 0, 0, 0, 40],
            (0..40).map(|i| 200 + i % 3).collect(),
        ];
        let path = data.join(format!("{part}-labels-idx1-ubyte"));
        std::fs::write(path, labels.concat()).unwrap();
    }
    short(
        folder.path(),
        &["--data", "mnist", "--steps", "2", "--out", "run"],
    );
    assert!(folder.path().join("run/walk.gif").is_file());
}

#[test]
fn my_images_explains_itself() {
    let folder = tempfile::tempdir().unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(program("my_images"))
            .args(args)
            .current_dir(folder.path())
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, out, _) = run(&["--help"]);
    assert!(
        code == Some(0) && out.contains("usage: my_images DIR"),
        "{out}"
    );
    for args in [&[][..], &["--steps"], &["a", "b"]] {
        let (code, _, err) = run(args);
        assert!(
            code == Some(2) && err.contains("usage: my_images DIR"),
            "{err}"
        );
    }
    let (code, _, err) = run(&["nowhere"]);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("error: nowhere: "), "{err}");
}

#[test]
fn run_leaves_every_listed_file() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let text = finish(digits(&run, &[]));
    let listed = [
        "samples.png",
        "reconstructions.png",
        "walk.gif",
        "latent.png",
        "loss.svg",
        "metrics.jsonl",
    ];
    for file in listed.iter().chain(&["final/model.safetensors"]) {
        assert!(
            text.contains(file) && run.join(file).metadata().unwrap().len() > 100,
            "{file}"
        );
    }
    assert!(
        run.join("final/config.json").is_file() && run.join("samples/step-000150.png").is_file()
    );
}

/// The record of a picture, which is as it was written.
fn record(path: &Path) -> Provenance {
    let found = verify_file(path).unwrap();
    let record = found.valid().cloned();
    record.unwrap_or_else(|| panic!("{}: {found}", path.display()))
}

/// Every picture says which model, weights and seed it is of; a cut one is damaged, and one that
/// was saved again has no record.
#[test]
fn pictures_name_their_origin() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    finish(digits(&run, &["--steps", "10"]));
    let weights = run.join("final/model.safetensors");
    let hash = hash_files([weights.as_path()]).unwrap();
    for (file, seed) in [
        ("samples.png", Some(2)),
        ("reconstructions.png", None),
        ("walk.gif", None),
        ("latent.png", None),
    ] {
        let record = record(&run.join(file));
        assert_eq!(
            (&*record.model, record.seed),
            ("digits-vae", seed),
            "{file}"
        );
        assert_eq!(record.model_hash.as_ref(), Some(&hash), "{file}");
    }
    assert_eq!(
        record(&run.join("samples.png")).settings["temperature"],
        0.8
    );
    let preview = record(&run.join("samples/step-000010.png"));
    assert_eq!((preview.seed, preview.model_hash), (Some(3), None));
    assert_eq!(preview.settings["training_step"], 10);

    let picture = run.join("samples.png");
    let bytes = std::fs::read(&picture).unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("cut.png"), &bytes[..bytes.len() - 20]).unwrap();
    image::open(&picture)
        .unwrap()
        .save(at("again.png"))
        .unwrap();
    for (name, expected) in [
        ("cut.png", "the file is damaged"),
        ("again.png", "no provenance record"),
    ] {
        let found = verify_file(at(name)).unwrap();
        assert!(found.valid().is_none(), "{name}");
        assert!(found.to_string().contains(expected), "{name}: {found}");
    }
}

/// The other autoencoders: all listed files exist, and the figures are printed.
#[test]
fn autoencoders_leave_files() {
    let folder = tempfile::tempdir().unwrap();
    let samples = &["--eval-samples", "50"][..];
    for (model, options, expected, more) in [
        (
            "vqvae",
            samples,
            "bits per image: ",
            &["prior/final/model.safetensors"][..],
        ),
        ("cvae", samples, "classified as the requested class", &[]),
        ("hvae", &[], "divergence of each group of latents", &[]),
    ] {
        let run = folder.path().join(model);
        let short = [&["--model", model, "--steps", "10"][..], options].concat();
        let text = finish(digits(&run, &short));
        assert!(text.contains(expected), "{text}");
        let files = [
            "samples.png",
            "reconstructions.png",
            "loss.svg",
            "metrics.jsonl",
            "final/model.safetensors",
        ];
        for file in files.iter().chain(more) {
            assert!(
                text.contains(file) && run.join(file).metadata().unwrap().len() > 100,
                "{file}"
            );
        }
        assert!(run.join("final/config.json").is_file());
        let made = record(&run.join("samples.png"));
        assert_eq!(made.model, format!("digits-{model}"));
        assert!(made.seed.is_some() && made.model_hash.is_some());
        record(&run.join("reconstructions.png"));
    }
}

/// The whole objective is recorded: a run goes on with the free bits that it began with.
#[test]
fn hierarchical_model_resumes_with_its_free_bits() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let options = |steps| ["--model", "hvae", "--steps", steps];
    finish(digits(&run, &options("2")));
    let path = run.join("config.json");
    let config = std::fs::read_to_string(&path).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["objective"]["free_bits"], 0.1, "{config}");
    config["objective"]["free_bits"] = serde_json::json!(-1.0);
    std::fs::write(&path, config.to_string()).unwrap();
    let resumed = [&options("3")[..], &["--resume"]].concat();
    let output = digits(&run, &resumed).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && error.contains("`free_bits` is -1"),
        "{error}"
    );
}

/// A model with quantised latents and its prior, both killed: the resumed run equals an
/// uninterrupted one. If the model is trained further, the prior of its old codes is replaced.
#[test]
fn quantised_model_resumes_with_its_prior() {
    const STEPS: &str = "24";
    let options = |steps| ["--model", "vqvae", "--eval-samples", "50", "--steps", steps];
    let resumed = |steps| [&options(steps)[..], &["--resume"]].concat();
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    finish(digits(&whole, &options(STEPS)));
    let mut more = options(STEPS).to_vec();
    for killed in [parts.clone(), parts.join("prior")] {
        let mut child = digits(&parts, &more)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(&mut child, &killed, 10);
        child.kill().unwrap();
        child.wait().unwrap();
        more = resumed(STEPS);
    }
    let text = finish(digits(&parts, &more));
    assert!(!text.contains("trained anew"), "{text}");
    let files = |run: &Path| {
        let prior = run.join("prior");
        let model = [
            run.join("final/model.safetensors"),
            checkpoint(run, STEPS).join("model.safetensors"),
        ];
        (tensors_in(&model), tensors_at(&prior, STEPS))
    };
    assert!(files(&parts) == files(&whole));

    let text = finish(digits(&parts, &resumed("40")));
    assert!(text.contains("trained anew"), "{text}");
    tensors_at(&parts.join("prior"), "40");
}

/// Both adversarial models: all listed files exist, and a resumed run equals an uninterrupted one.
#[test]
fn adversarial_models_leave_files_and_resume() {
    let folder = tempfile::tempdir().unwrap();
    for (model, expected) in [
        ("gan", "classes appear"),
        ("cgan", "classified as the requested class"),
    ] {
        let (whole, parts) = (
            folder.path().join(model),
            folder.path().join(format!("{model}-parts")),
        );
        let text = finish(digits(&whole, &["--model", model]));
        assert!(
            text.contains("Fréchet distance in pixels") && text.contains(expected),
            "{text}"
        );
        for file in [
            "samples.png",
            "nearest.png",
            "walk.gif",
            "loss.svg",
            "metrics.jsonl",
            "final/model.safetensors",
        ] {
            assert!(
                text.contains(file) && whole.join(file).metadata().unwrap().len() > 100,
                "{file}"
            );
        }
        assert!(
            text.contains("precision ") && text.contains("copies of training images: "),
            "{text}"
        );
        let log = std::fs::read_to_string(whole.join("metrics.jsonl")).unwrap();
        let evaluation = log.lines().rev().find(|line| line.contains("frechet"));
        let evaluation: serde_json::Value = serde_json::from_str(evaluation.unwrap()).unwrap();
        let shares = [
            "uneven",
            "entropy",
            "precision",
            "recall",
            "coverage",
            "copies",
        ];
        for name in shares {
            let value = evaluation["values"][name].as_f64();
            let value = value.unwrap_or_else(|| panic!("{name} in {evaluation}"));
            assert!((0.0..=1.0).contains(&value), "{name} is {value}");
        }
        for file in ["samples.png", "nearest.png", "walk.gif"] {
            let made = record(&whole.join(file));
            assert_eq!(made.model, format!("digits-{model}"));
            assert!(made.seed.is_some() && made.model_hash.is_some(), "{file}");
        }
        let mut endless = Command::new(program("digits"));
        endless
            .args([
                "--model",
                model,
                "--steps",
                STEPS,
                "--minutes",
                "1000",
                "--save-steps",
                "7",
                "--seed",
                "3",
                "--out",
            ])
            .arg(&parts);
        let mut child = endless
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_for(&mut child, &parts, 30);
        child.kill().unwrap();
        child.wait().unwrap();
        finish(digits(&parts, &["--model", model, "--resume"]));
        assert!(tensors(&parts) == tensors(&whole), "{model}");
    }
}

/// The diffusion model: all listed files exist, a resumed run equals an uninterrupted one, and
/// `restore` works with its pipeline.
#[test]
fn diffusion_model_leaves_files_and_resumes() {
    const DIFFUSION: [&str; 8] = [
        "--model",
        "diffusion",
        "--steps",
        "45",
        "--eval-samples",
        "10",
        "--sampling-steps",
        "4",
    ];
    let folder = tempfile::tempdir().unwrap();
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    let text = finish(digits(&whole, &DIFFUSION));
    assert!(text.contains("classified as the requested class"), "{text}");
    let weights = "pipeline/unet/diffusion_pytorch_model.safetensors";
    let pictures = [
        "samples.png",
        "denoising.gif",
        "between.gif",
        "nearest.png",
        "loss.svg",
    ];
    for file in pictures.iter().chain(&["metrics.jsonl", weights]) {
        assert!(whole.join(file).metadata().unwrap().len() > 100, "{file}");
    }
    assert!(
        pictures.iter().all(|file| text.contains(file)) && text.contains("pipeline/"),
        "{text}"
    );
    for file in ["samples.png", "denoising.gif", "between.gif", "nearest.png"] {
        let made = record(&whole.join(file));
        assert_eq!(made.settings["num_inference_steps"], 4, "{file}");
        assert_eq!(made.settings["guidance_scale"], 2.0, "{file}");
        assert!(made.seed.is_some() && made.model_hash.is_some(), "{file}");
    }
    let config = whole.join("pipeline/scheduler/scheduler_config.json");
    let scheduler = std::fs::read_to_string(&config).unwrap();
    // Samples of a network that has hardly been trained stay images.
    assert!(scheduler.contains("\"thresholding\": true"), "{scheduler}");
    // The evaluation of few images is small.
    photos(&folder.path().join("photos"));
    let few = [
        "--model",
        "diffusion",
        "--data",
        "photos",
        "--side",
        "8",
        "--steps",
        "2",
        "--sampling-steps",
        "4",
        "--out",
        "few",
    ];
    let text = short(folder.path(), &few);
    assert!(
        text.contains("between 50 samples and 2 held-out images"),
        "{text}"
    );
    let mut child = digits(&parts, &DIFFUSION);
    let mut child = child
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for(&mut child, &parts, 30);
    child.kill().unwrap();
    child.wait().unwrap();
    finish(digits(&parts, &[&DIFFUSION[..], &["--resume"]].concat()));
    assert!(tensors_at(&parts, "45") == tensors_at(&whole, "45"));

    let restore = |args: &[&str]| {
        let mut command = Command::new(program("restore"));
        command
            .args(args)
            .arg("--pipeline")
            .arg(whole.join("pipeline"))
            .args(["--images", "3", "--steps", "4"]);
        command.current_dir(folder.path()).output().unwrap()
    };
    let factor = ["enlarge", "--factor", "2"];
    for args in [
        &["inpaint"][..],
        &["inpaint", "--method", "repaint"],
        &factor,
        &["denoise", "--average", "2"],
    ] {
        let output = restore(args);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let lines = text
            .lines()
            .filter(|line| line.contains("PSNR") && line.contains("SSIM"))
            .count();
        assert!(
            lines == 2 && folder.path().join("restored.png").is_file(),
            "{text}"
        );
        let made = record(&folder.path().join("restored.png"));
        assert_eq!(
            (made.seed, made.settings["task"].as_str()),
            (Some(0), Some(args[0]))
        );
        std::fs::remove_file(folder.path().join("restored.png")).unwrap();
    }
    let picture = whole.join("samples.png");
    let of_mine = restore(&[
        "enlarge",
        "--factor",
        "2",
        "--as-it-is",
        "--image",
        picture.to_str().unwrap(),
    ]);
    assert!(of_mine.status.success() && folder.path().join("restored.png").is_file());
    // Only a frame of both halves is known, by a mask.
    let mask = folder.path().join("mask.png");
    let known = (0..64).map(|i| {
        if [0, 7].contains(&(i / 8)) || [0, 7].contains(&(i % 8)) {
            255
        } else {
            0
        }
    });
    image::GrayImage::from_raw(8, 8, known.collect())
        .unwrap()
        .save(&mask)
        .unwrap();
    let mask = mask.to_str().unwrap();
    assert!(restore(&["inpaint", "--mask", mask]).status.success());
    let filled = restore(&[
        "inpaint",
        "--mask",
        mask,
        "--as-it-is",
        "--image",
        picture.to_str().unwrap(),
    ]);
    assert!(
        filled.status.success(),
        "{}",
        String::from_utf8_lossy(&filled.stderr)
    );
    // With any scheduler of the pipeline's process.
    let index = whole.join("pipeline/model_index.json");
    let components = std::fs::read_to_string(&index).unwrap();
    for class in aigc_diffusion::AnyScheduler::CLASSES {
        if ["EDM", "Flow", "Cosine", "IPNDM"]
            .iter()
            .any(|other| class.starts_with(other))
        {
            continue;
        }
        let named = components.replace("DPMSolverMultistepScheduler", class);
        std::fs::write(&index, named).unwrap();
        std::fs::write(&config, format!("{{\"_class_name\": \"{class}\"}}")).unwrap();
        let output = restore(&["enlarge", "--factor", "2"]);
        assert!(
            output.status.success(),
            "{class}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    std::fs::write(&index, components).unwrap();
    std::fs::write(&config, scheduler).unwrap();
    for (args, expected) in [
        (
            &["inpaint", "--as-it-is", "--image", mask][..],
            "--mask FILE is required",
        ),
        (&["denoise", "--mask", mask], "--mask is for `inpaint`"),
        (
            &["enlarge", "--factor", "3"],
            "`--factor` is 3, expected a divisor of 8×8 pixels",
        ),
        (&["enlarge", "--factor", "0"], "`--factor` is 0"),
        (&["denoise", "--noise", "0"], "`--noise` is 0"),
        (
            &["denoise", "--method", "repaint"],
            "RePaint only fills in missing parts",
        ),
        (&["inpaint", "--average", "0"], "at least 1"),
        (&["inpaint", "--image", "nowhere.png"], "nowhere.png"),
    ] {
        let output = restore(args);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            !output.status.success() && text.contains(expected),
            "{args:?}: {text}"
        );
    }
}

#[test]
fn mistakes_name_option_and_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let fails = |args: &[&str]| {
        let output = Command::new(program("digits"))
            .args(args)
            .current_dir(folder.path())
            .output()
            .unwrap();
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(fails(&["--resume"]).contains("there is no run in it"));
    assert!(fails(&["--device", "cuda:0"]).contains("enable the feature `cuda`"));
    assert!(fails(&["--sampling-steps", "9"]).contains("--model diffusion"));
    for model in ["vae", "hvae"] {
        let error = fails(&["--model", model, "--eval-samples", "9"]);
        assert!(error.contains("`--eval-samples` is 9"), "{error}");
    }
    assert!(fails(&["--steps", "0"]).contains("`max_steps` is 0"));
    assert!(fails(&["--model", "poem"]).contains("invalid value"));
    let photos = folder.path().join("photos");
    std::fs::create_dir(&photos).unwrap();
    for name in ["a.png", "b.png", "c.png"] {
        let device = aigc_core::device::device("flex").unwrap();
        let picture = aigc_core::burn::tensor::Tensor::<4>::zeros([1, 1, 8, 8], &device);
        aigc_core::output::save_image(
            &picture,
            aigc_core::output::ImageGrid::new(1, 8),
            &photos.join(name),
        )
        .unwrap();
    }
    for model in ["cgan", "cvae"] {
        let unlabelled = fails(&["--model", model, "--data", photos.to_str().unwrap()]);
        assert!(unlabelled.contains("images without labels"), "{unlabelled}");
    }
    let nowhere = folder.path().join("nowhere");
    assert!(fails(&["--data", nowhere.to_str().unwrap()]).contains("nowhere"));
    let run = folder.path().join("run");
    let mut short = Command::new(program("digits"));
    short.args(["--steps", "2", "--out"]).arg(&run);
    finish(short);
    assert!(fails(&["--out", run.to_str().unwrap()]).contains("there is a run in it already"));
}
