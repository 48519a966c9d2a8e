//! Time budgets, the metric of the best model, and starts that fail.

use super::*;
use crate::{
    CancelToken,
    data::{DataLoaderConfig, InMemory},
    nn::{Linear, LinearConfig},
    rng::Rng,
    train::{DiversityWatch, EmaConfig, LossOutput, LrSchedule, StartFrom, StepContext},
};
use burn::{
    module::Param,
    tensor::{Bool, Int, Tensor},
};
use std::{cell::Cell, path::Path, rc::Rc};

struct Regression;

impl Objective for Regression {
    type Model = Linear;
    type Batch = Vec<f32>;

    fn losses(
        &mut self,
        model: &Linear,
        batch: &Vec<f32>,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let x = Tensor::<1>::from_floats(batch.as_slice(), &context.device).reshape([-1, 1]);
        let noise = context.rng.normal([batch.len(), 1], &context.device);
        let loss = (model.forward(x) - noise).square().mean();
        Ok(LossOutput::new(loss))
    }
}

/// Trains for at most a minute of a clock that advances one second per step; cancels after
/// `stop` steps. Returns the learning rates.
fn train(dir: &Path, start: StartFrom, max_steps: usize, stop: usize) -> Result<Vec<f64>> {
    let run = match start {
        StartFrom::Fresh => RunDir::create(dir)?,
        _ => RunDir::open(dir)?,
    };
    let config = TrainerConfig {
        max_minutes: Some(1.0),
        lr_schedule: LrSchedule::linear(0),
        learning_rate: 0.1,
        ema: Some(EmaConfig::new(0.9)),
        save_steps: 0,
        metric_for_best_model: Some("second".into()),
        eval_steps: 20,
        ..TrainerConfig::new(max_steps)
    };
    let loader = DataLoader::new(
        InMemory((0..8).map(|i| i as f32).collect()),
        |items| items,
        DataLoaderConfig {
            batch_size: 4,
            num_workers: 0,
            ..DataLoaderConfig::default()
        },
    )?;
    let cancel = CancelToken::new();
    let raise = cancel.clone();
    let (rates, steps) = (Rc::new(Cell::new(Vec::new())), Rc::new(Cell::new(0)));
    let (seen, made) = (rates.clone(), steps.clone());
    Trainer::new(config)
        .with_start(start)
        .with_cancel(cancel)
        .with_clock(move || steps.get() as f64)
        .with_evaluation(|_| Ok(vec![("first".into(), 1.0), ("second".into(), 2.0)]))
        .with_callback(move |event: &Event<'_>| {
            if let Event::Step(report) = event {
                made.set(made.get() + 1);
                let mut all = seen.take();
                all.push(report.learning_rate);
                seen.set(all);
                if report.step == stop {
                    raise.cancel();
                }
            }
        })
        .fit(
            Regression,
            LinearConfig::new(1, 1).init(&Device::flex()),
            &loader,
            &run,
        )
        .map(|trained| {
            assert_eq!(trained.best.map(|(_, value)| value), Some(2.0));
        })?;
    Ok(rates.take())
}

#[test]
fn schedule_follows_the_budget_that_ends_first() {
    let dir = tempfile::tempdir().unwrap();
    // The steps end first: the rates do not depend on time.
    let rates = train(&dir.path().join("steps"), StartFrom::Fresh, 30, 0).unwrap();
    for (step, rate) in rates.iter().enumerate() {
        assert_eq!(*rate, 0.1 * LrSchedule::linear(0).lr_factor(step, 30));
    }
    // The minute ends first, after 60 of 1,000 steps.
    let rates = train(&dir.path().join("time"), StartFrom::Fresh, 1000, 0).unwrap();
    assert_eq!(rates.len(), 60);
    for (step, rate) in rates.iter().enumerate().skip(3) {
        assert_eq!(*rate, 0.1 * LrSchedule::linear(0).lr_factor(step, 60));
    }
}

#[test]
fn time_budget_resumes_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
    let expected = train(&whole, StartFrom::Fresh, 1000, 0).unwrap();
    let mut rates = train(&parts, StartFrom::Fresh, 1000, 23).unwrap();
    rates.extend(train(&parts, StartFrom::Resume, 1000, 0).unwrap());
    assert_eq!(rates, expected);
    for file in ["model.safetensors", "ema.safetensors", "state.json"] {
        let read = |run: &Path| std::fs::read(run.join("checkpoints/step-000060").join(file));
        assert_eq!(read(&whole).unwrap(), read(&parts).unwrap(), "{file}");
    }
}

#[test]
fn unknown_metric_for_best_model_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path().join("run")).unwrap();
    let loader =
        DataLoader::new(InMemory(vec![1.0f32]), |x| x, DataLoaderConfig::default()).unwrap();
    let config = TrainerConfig {
        metric_for_best_model: Some("fid".into()),
        ..TrainerConfig::new(1)
    };
    let error = Trainer::new(config)
        .with_evaluation(|_| Ok(vec![("loss".into(), 1.0)]))
        .fit(
            Regression,
            LinearConfig::new(1, 1).init(&Device::flex()),
            &loader,
            &run,
        )
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`metric_for_best_model` is fid") && error.contains("loss"),
        "{error}"
    );
}

/// A model with parameters that are not floats.
#[derive(Module, Debug)]
struct Lookup {
    layer: Linear,
    table: Param<Tensor<1, Int>>,
    mask: Param<Tensor<1, Bool>>,
}

struct LookupRegression;

impl Objective for LookupRegression {
    type Model = Lookup;
    type Batch = Vec<f32>;

    fn losses(
        &mut self,
        model: &Lookup,
        batch: &Vec<f32>,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        Regression.losses(&model.layer, batch, context)
    }
}

#[test]
fn integer_and_boolean_parameters_resume() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path().join("run")).unwrap();
    let loader =
        DataLoader::new(InMemory(vec![1.0f32]), |x| x, DataLoaderConfig::default()).unwrap();
    let fit = |start, max_steps, table: [i32; 3], mask: [bool; 2]| {
        let device = Device::flex();
        let model = Lookup {
            layer: LinearConfig::new(1, 1).init(&device),
            table: Param::initialized(ParamId::new(), Tensor::from_ints(table, &device)),
            mask: Param::initialized(ParamId::new(), Tensor::from_data(mask, &device)),
        };
        let config = TrainerConfig {
            ema: Some(EmaConfig::new(0.9)),
            ..TrainerConfig::new(max_steps)
        };
        let trainer = Trainer::new(config).with_start(start);
        trainer.fit(LookupRegression, model, &loader, &run).unwrap()
    };
    fit(StartFrom::Fresh, 2, [7, -1, 300], [true, false]);
    // The values are those of the checkpoint, not those of the new model.
    let resumed = fit(StartFrom::Resume, 4, [0; 3], [false; 2]);
    assert_eq!((resumed.step, resumed.steps_run), (4, 2));
    let table: Vec<i64> = resumed.model.table.val().into_data().iter().collect();
    let mask: Vec<bool> = resumed.model.mask.val().into_data().iter().collect();
    assert_eq!((table, mask), (vec![7, -1, 300], vec![true, false]));
}

fn config_of_a_run(loader: &DataLoader<Vec<f32>>) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path().join("run")).unwrap();
    let model = LinearConfig::new(1, 1).init(&Device::flex());
    Trainer::new(TrainerConfig::new(1))
        .fit(Regression, model, loader, &run)
        .unwrap();
    std::fs::read(run.config_path()).unwrap()
}

#[test]
fn failed_start_leaves_no_run_behind() {
    struct Fails;
    impl Objective for Fails {
        type Model = Linear;
        type Batch = Vec<f32>;
        fn losses(&mut self, _: &Linear, _: &Vec<f32>, _: &mut StepContext) -> Result<LossOutput> {
            Err(Error::other("a bad image"))
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let loader =
        DataLoader::new(InMemory(vec![1.0f32]), |x| x, DataLoaderConfig::default()).unwrap();
    let fit = |run: &RunDir| {
        let model = LinearConfig::new(1, 1).init(&Device::flex());
        Trainer::new(TrainerConfig::new(2)).fit(Fails, model, &loader, run)
    };
    assert!(fit(&RunDir::create(&path).unwrap()).is_err());
    assert!(!path.exists());
    // Other files in the directory are kept.
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("notes.txt"), "mine").unwrap();
    assert!(fit(&RunDir::create(&path).unwrap()).is_err());
    let names = |path: &Path| -> Vec<_> {
        let entries = std::fs::read_dir(path).unwrap();
        entries.map(|entry| entry.unwrap().file_name()).collect()
    };
    assert_eq!(names(&path), ["notes.txt"]);
    // So is the directory itself.
    let path = dir.path().join("empty");
    std::fs::create_dir(&path).unwrap();
    assert!(fit(&RunDir::create(&path).unwrap()).is_err());
    assert!(names(&path).is_empty());
    // A directory left by a killed start is reused, but not one that contains a run.
    let run = RunDir::create(&path).unwrap();
    std::fs::write(run.metrics_path(), "").unwrap();
    std::fs::write(run.config_path(), config_of_a_run(&loader)).unwrap();
    assert!(RunDir::create(&path).is_ok());
    // Another start that fails keeps the files that were there.
    assert!(fit(&RunDir::create(&path).unwrap()).is_err());
    assert!(run.config_path().exists() && run.metrics_path().exists());
    let lock = run.lock().unwrap();
    let in_use = RunDir::create(&path).unwrap_err().to_string();
    assert!(in_use.contains("in use"), "{in_use}");
    drop(lock);
    run.write_checkpoint(2).unwrap().commit(2).unwrap();
    let taken = RunDir::create(&path).unwrap_err().to_string();
    assert!(taken.contains("a run in it already"), "{taken}");
}

#[test]
fn fresh_start_refuses_the_directory_of_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.json");
    std::fs::write(&config, r#"{"kind": "mlp"}"#).unwrap();
    let run = RunDir::open(dir.path()).unwrap();
    let loader =
        DataLoader::new(InMemory(vec![1.0f32]), |x| x, DataLoaderConfig::default()).unwrap();
    let model = LinearConfig::new(1, 1).init(&Device::flex());
    let message = Trainer::new(TrainerConfig::new(1))
        .fit(Regression, model, &loader, &run)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("config.json is not that of a run"),
        "{message}"
    );
    assert_eq!(std::fs::read(&config).unwrap(), br#"{"kind": "mlp"}"#);
}

/// A watch on the evaluation's metrics raises an alert, which every callback receives once.
#[test]
fn alerts_of_callbacks_reach_all_callbacks() {
    let dir = tempfile::tempdir().unwrap();
    let run = RunDir::create(dir.path().join("run")).unwrap();
    let loader = DataLoader::new(
        InMemory(vec![1.0f32; 8]),
        |x| x,
        DataLoaderConfig::default(),
    )
    .unwrap();
    let device = Device::flex();
    let real = Rng::new(1).normal([16, 4], &device);
    let watch = DiversityWatch::new(&real).unwrap();
    let config = TrainerConfig {
        eval_steps: 2,
        lr_schedule: LrSchedule::linear(0),
        ..TrainerConfig::new(6)
    };
    let (before, after) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let count = |counter: &Rc<Cell<usize>>| {
        let counter = counter.clone();
        move |event: &Event<'_>| {
            if let Event::Alert { step, kind, text } = event {
                assert_eq!((*step, *kind), (2, "collapse"));
                assert!(text.contains("is 10 % of that of real samples"), "{text}");
                counter.set(counter.get() + 1);
            }
        }
    };
    Trainer::new(config)
        .with_callback(count(&before))
        .with_callback(watch.clone())
        .with_callback(count(&after))
        .with_evaluation(|_| watch.metrics(&(real.clone() * 0.1)))
        .fit(
            Regression,
            LinearConfig::new(1, 1).init(&device),
            &loader,
            &run,
        )
        .unwrap();
    assert_eq!((before.get(), after.get()), (1, 1));
}
