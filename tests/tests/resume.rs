//! n steps, stop, resume, n steps end bit for bit like 2n steps.

use aigc_core::{
    CancelToken, Result,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, collate_images, digits},
    device::device,
    rng::Rng,
    train::{
        EmaConfig, Event, LrSchedule, OptimizerConfig, ParamGroupConfig, StartFrom, StopReason,
        Trainer, TrainerConfig,
    },
};
use aigc_tests::{Net, NoisyRegression, bits, row_loader};
use aigc_vae::{KlWeight, MlpVaeConfig, VaeObjective};
use burn::module::Module;
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// All tensors of a run's newest checkpoint and its final model, as bytes.
fn everything(run: &RunDir) -> BTreeMap<String, Vec<u8>> {
    let checkpoint = run.latest_checkpoint().unwrap();
    let mut files = BTreeMap::new();
    for name in ["state.json", "model.safetensors", "ema.safetensors"] {
        files.insert(
            name.to_string(),
            std::fs::read(checkpoint.path(name)).unwrap(),
        );
    }
    for turn in ["model", "first", "second"] {
        let path = checkpoint.path(&format!("optimizer-{turn}.bpk"));
        if path.exists() {
            files.insert(format!("optimizer of {turn}"), optimizer_content(&path));
        }
    }
    assert!(files.len() >= 4);
    files.insert(
        "final".into(),
        std::fs::read(run.final_dir().join("model.safetensors")).unwrap(),
    );
    files
}

/// The optimizer's tensors in the order of their names: burn writes them in a hash map's order.
fn optimizer_content(path: &Path) -> Vec<u8> {
    let record = burn::optim::OptimizerRecord::load(path).unwrap();
    assert!(!record.is_empty());
    let bytes = std::fs::read(path).unwrap();
    let reader = burn_pack_names(&bytes);
    format!("{reader:?}").into_bytes()
}

/// Every tensor of a burnpack file by name, and every scalar.
fn burn_pack_names(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let reader =
        burn_pack::Reader::from_bytes(burn::tensor::Bytes::from_bytes_vec(bytes.to_vec())).unwrap();
    let mut content: BTreeMap<String, Vec<u8>> = reader
        .scalars()
        .iter()
        .map(|(name, value)| (name.clone(), format!("{value:?}").into_bytes()))
        .collect();
    for tensor in reader.into_tensors().unwrap() {
        let data = tensor.to_bytes().unwrap().to_vec();
        content.insert(tensor.name.clone(), data);
    }
    content
}

fn config() -> TrainerConfig {
    TrainerConfig {
        seed: 5,
        learning_rate: 1e-2,
        lr_schedule: LrSchedule::cosine(7),
        gradient_accumulation_steps: 2,
        max_grad_norm: Some(0.5),
        ema: Some(EmaConfig::new(0.99)),
        param_groups: vec![
            ParamGroupConfig::new("bias$|beta$", 0.5)
                .with_optimizer(OptimizerConfig::adam_w(0.8, 0.9, 0.1)),
        ],
        load_best_model_at_end: true,
        early_stopping_patience: Some(100),
        save_steps: 10,
        eval_steps: 9,
        ..TrainerConfig::new(60)
    }
}

/// Dropout draws from Flex's generator, of which a process has one: two trainings at a time would
/// disturb each other.
static GENERATOR: Mutex<()> = Mutex::new(());

/// Trains, stopping after each of `stops` and starting again in a new trainer.
fn train(
    turns: bool,
    stops: &[usize],
    workers: impl Fn(usize) -> usize,
) -> (RunDir, tempfile::TempDir, Net) {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let device = device("flex").unwrap();
    let mut run = RunDir::create(folder.path().join("run")).unwrap();
    let mut model = None;
    for (attempt, stop) in stops.iter().chain([&usize::MAX]).enumerate() {
        let (flag, start) = (
            CancelToken::new(),
            if attempt == 0 {
                StartFrom::Fresh
            } else {
                StartFrom::Resume
            },
        );
        let raise = flag.clone();
        let judge = |model: &Net| {
            // Judging uses other noise and the backend's generator; neither may leak into training.
            let device = model.devices()[0].clone();
            let _ = burn::tensor::Tensor::<1>::random(
                [3],
                burn::tensor::Distribution::Default,
                &device,
            );
            let y = model.forward(Rng::new(1).normal([8, 4], &device));
            Ok(vec![(
                "size".into(),
                f64::from(y.abs().mean().into_scalar::<f32>()),
            )])
        };
        let trained = Trainer::new(config())
            .with_start(start)
            .with_cancel(flag)
            .with_callback(move |event: &Event<'_>| {
                if let Event::Step(report) = event
                    && report.step == *stop
                {
                    raise.cancel();
                }
            })
            .with_evaluation(judge)
            .fit(
                NoisyRegression { noise: 0.1, turns },
                Net::new(&device),
                &row_loader(12, workers(attempt)),
                &run,
            )
            .unwrap();
        assert_eq!(
            trained.stop_reason,
            if *stop < 60 {
                StopReason::Interrupted
            } else {
                StopReason::Completed
            }
        );
        run = RunDir::open(run.path()).unwrap();
        model = Some(trained.model);
    }
    (run, folder, model.unwrap())
}

#[test]
fn interrupted_training_resumes_exactly() {
    for (turns, stops) in [
        (false, &[30][..]),
        (false, &[1]),
        (false, &[59]),
        (false, &[3, 10, 11, 40]),
        (true, &[7, 33]),
    ] {
        let (whole, _keep, model) = train(turns, &[], |_| 0);
        let expected = everything(&whole);
        // The number of workers changes from start to start: the batches must not.
        let (resumed, _keep, resumed_model) = train(turns, stops, |attempt| attempt);
        for (name, bytes) in everything(&resumed) {
            assert!(
                bytes == expected[&name],
                "{name} differs after stops at {stops:?}"
            );
        }
        assert_eq!(bits(&resumed_model), bits(&model));
    }
}

#[test]
fn ema_differs_and_running_statistics_move() {
    let (run, _keep, model) = train(false, &[], |_| 0);
    let checkpoint = run.latest_checkpoint().unwrap();
    let live = std::fs::read(checkpoint.path("model.safetensors")).unwrap();
    let average = std::fs::read(checkpoint.path("ema.safetensors")).unwrap();
    assert_ne!(live, average);
    let moved = bits(&model)["norm.running_mean"].iter().all(|b| *b != 0);
    assert!(moved, "running statistics stayed at their start");
    use aigc_core::rng::InitWeights;
    let start = bits(&Net::new(&device("flex").unwrap()).init_weights(5));
    assert_eq!(
        bits(&model)["first.bias"],
        start["first.bias"],
        "a frozen weight moved"
    );
    assert_ne!(bits(&model)["first.weight"], start["first.weight"]);
}

#[test]
fn resume_refuses_other_configuration() {
    let (run, _keep, _) = train(false, &[], |_| 0);
    let device = device("flex").unwrap();
    let resume = |config: TrainerConfig, batch| {
        let loader = row_loader(batch, 0);
        let trainer = Trainer::new(config).with_start(StartFrom::Resume);
        trainer
            .fit(
                NoisyRegression {
                    noise: 0.1,
                    turns: false,
                },
                Net::new(&device),
                &loader,
                &run,
            )
            .unwrap_err()
            .to_string()
    };
    let message = resume(
        TrainerConfig {
            seed: 6,
            ..config()
        },
        12,
    );
    assert_eq!(
        message,
        "config field `seed` is 6, expected 5, with which the run began"
    );
    assert!(
        resume(
            TrainerConfig {
                ema: None,
                ..config()
            },
            12
        )
        .contains("`ema`")
    );
    assert!(
        resume(
            TrainerConfig {
                learning_rate: 1e-3,
                ..config()
            },
            12
        )
        .contains("`learning_rate`")
    );
    assert!(
        resume(
            TrainerConfig {
                lr_schedule: LrSchedule::linear(7),
                ..config()
            },
            12
        )
        .contains("`lr_schedule`")
    );
    assert!(
        resume(
            TrainerConfig {
                max_grad_norm: None,
                ..config()
            },
            12
        )
        .contains("`max_grad_norm`")
    );
    assert!(
        resume(
            TrainerConfig {
                param_groups: vec![],
                ..config()
            },
            12
        )
        .contains("`param_groups`")
    );
    let message = resume(config(), 24);
    assert!(message.contains("`loader.batch_size`"), "{message}");
    let trainer = Trainer::new(config());
    let fresh = trainer
        .fit(
            NoisyRegression {
                noise: 0.1,
                turns: false,
            },
            Net::new(&device),
            &row_loader(12, 0),
            &run,
        )
        .unwrap_err();
    assert!(
        fresh.to_string().contains("already has checkpoints"),
        "{fresh}"
    );
}

/// Settings that set every field that has been renamed since the first version.
fn older_run() -> (TrainerConfig, MlpVaeConfig, KlWeight) {
    let trainer = TrainerConfig {
        seed: 5,
        max_minutes: Some(100.0),
        learning_rate: 1e-2,
        lr_schedule: LrSchedule {
            min_lr_ratio: 0.1,
            ..LrSchedule::cosine(3)
        },
        param_groups: vec![ParamGroupConfig::new("bias$", 0.5)],
        gradient_accumulation_steps: 2,
        max_grad_norm: Some(50.0),
        ema: Some(EmaConfig::new(0.9)),
        optimizer: OptimizerConfig::adam_w(0.8, 0.9, 0.01),
        save_total_limit: 1,
        load_best_model_at_end: true,
        greater_is_better: true,
        early_stopping_patience: Some(50),
        eval_steps: 4,
        save_steps: 6,
        ..TrainerConfig::new(12)
    };
    let model = MlpVaeConfig {
        hidden_dim: 3,
        latent_dim: 2,
        ..MlpVaeConfig::new(digits::SHAPE)
    };
    let objective = KlWeight {
        value: 0.5,
        warmup_steps: 4,
        ..KlWeight::default()
    };
    (trainer, model, objective)
}

fn train_older_run(run: &RunDir, start: StartFrom, stop: Option<usize>) -> Result<()> {
    let (trainer, model, objective) = older_run();
    let (train, _) = digits::train_test_split();
    let config = DataLoaderConfig {
        batch_size: 8,
        shuffle_seed: Some(3),
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(train, collate_images, config)?;
    let cancel = CancelToken::new();
    let raise = cancel.clone();
    let mut evaluations = if start == StartFrom::Fresh { 0.0 } else { 1.0 };
    Trainer::new(trainer)
        .with_start(start)
        .with_cancel(cancel)
        .with_callback(move |event: &Event<'_>| {
            if let Event::Step(report) = event
                && Some(report.step) == stop
            {
                raise.cancel();
            }
        })
        .with_evaluation(move |_| {
            evaluations += 1.0;
            Ok(vec![("n".into(), evaluations)])
        })
        .with_model_config(&model)?
        .with_objective_config(&objective)?
        .with_data_config(&serde_json::json!({"path": null}))?
        .fit(
            VaeObjective::new(objective)?,
            model.init(&device("flex")?)?,
            &loader,
            run,
        )?;
    Ok(())
}

/// Names of fields and values that have changed, with those of the first version.
const RENAMED: [(&str, &str); 20] = [
    ("max_steps", "steps"),
    ("max_minutes", "minutes"),
    ("lr_schedule", "schedule"),
    ("warmup_steps", "warmup"),
    ("min_lr_ratio", "floor"),
    ("param_groups", "groups"),
    ("gradient_accumulation_steps", "accumulate"),
    ("max_grad_norm", "clip_norm"),
    ("eval_steps", "evaluate_every"),
    ("preview_steps", "preview_every"),
    ("save_steps", "checkpoint_every"),
    ("save_total_limit", "keep_last"),
    ("load_best_model_at_end", "keep_best"),
    ("greater_is_better", "maximize"),
    ("early_stopping_patience", "patience"),
    ("hidden_dim", "hidden"),
    ("latent_dim", "latent"),
    ("shuffle_seed", "shuffle"),
    ("on_read_error", "bad_items"),
    ("fail", "fatal"),
];

fn older(json: Value) -> Value {
    let name = |name: &str| {
        let renamed = RENAMED.iter().find(|(new, _)| *new == name);
        renamed.map_or(name, |(_, old)| old).to_string()
    };
    match json {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(field, _)| field != "metric_for_best_model")
            .map(|(field, value)| (name(&field), older(value)))
            .collect(),
        Value::Array(values) => values.into_iter().map(older).collect(),
        Value::String(text) => Value::String(name(&text)),
        other => other,
    }
}

/// Gives the files of a run the form that the first version wrote.
fn make_older(run: &RunDir) {
    let read =
        |path: &Path| serde_json::from_slice::<Value>(&std::fs::read(path).unwrap()).unwrap();
    let write = |path: &Path, json: &Value| std::fs::write(path, json.to_string()).unwrap();
    let mut config = older(read(&run.config_path()));
    let objective = config["objective"].as_object_mut().unwrap();
    let steps = objective.remove("warmup").unwrap();
    objective.insert("anneal".into(), steps);
    write(&run.config_path(), &config);
    let checkpoint = run.latest_checkpoint().unwrap();
    std::fs::remove_file(checkpoint.path("time.json")).unwrap();
    let manifest = checkpoint.path("manifest.json");
    let mut json = read(&manifest);
    json["files"]
        .as_object_mut()
        .unwrap()
        .remove("time.json")
        .unwrap();
    write(&manifest, &json);
}

#[test]
fn run_of_first_version_resumes_bit_for_bit() {
    let _alone = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path().join("old")).unwrap();
    train_older_run(&run, StartFrom::Fresh, Some(6)).unwrap();
    make_older(&run);
    train_older_run(&run, StartFrom::Resume, None).unwrap();
    let whole = RunDir::create(dir.path().join("whole")).unwrap();
    train_older_run(&whole, StartFrom::Fresh, None).unwrap();
    let (found, expected) = (everything(&run), everything(&whole));
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (name, bytes) in found {
        assert!(bytes == expected[&name], "{name} differs");
    }
}
