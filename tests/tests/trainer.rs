//! The trainer, against closed forms and against itself.

use aigc_core::{
    Error, Result,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig},
    nn::{Initializer, Linear, LinearConfig},
    testing::{TempRun, flex, temp_run},
    train::{
        Ema, EmaConfig, Event, LossOutput, LrSchedule, MetricsLogger, Objective, OptimizerConfig,
        ParamGroupConfig, Phase, StartFrom, StepContext, StopReason, TrainOutput, Trainer,
        TrainerConfig, read_metrics,
    },
};
use aigc_tests::{Net, NoisyRegression, Rows, bits, columns, loader_of, row_loader};
use burn::{module::Module, optim::AdaGradConfig, tensor::Tensor};
use std::{cell::RefCell, rc::Rc};

fn train(config: TrainerConfig, batch: usize) -> (TrainOutput<Net>, TempRun) {
    let temp = temp_run().unwrap();
    let loader = row_loader(batch, 0);
    let trained = Trainer::new(config).fit(
        NoisyRegression::default(),
        Net::without_dropout(&flex()),
        &loader,
        &temp.run,
    );
    (trained.unwrap(), temp)
}

/// One weight `w`, loss `½(w − target)²` summed over the batch's targets: everything is known by
/// hand.
#[derive(Module, Debug)]
struct Scalar {
    w: Linear,
}

impl Scalar {
    fn new(start: f64) -> Self {
        Self {
            w: LinearConfig::new(1, 1)
                .with_bias(false)
                .with_initializer(Initializer::Constant(start))
                .init(&flex()),
        }
    }

    fn value(&self) -> f64 {
        f64::from(self.w.weight.val().into_scalar::<f32>())
    }
}

#[derive(Default)]
struct Pull {
    fail_at: Option<usize>,
    infinite_gradient_at: Option<usize>,
}

impl Objective for Pull {
    type Model = Scalar;
    type Batch = Rows;

    fn losses(
        &mut self,
        model: &Scalar,
        batch: &Rows,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let (_, targets) = columns(batch, &context.device);
        let w = model.w.weight.val();
        let error = w.clone() - targets;
        let mut loss = (error.clone() * error).mean() * 0.5;
        let mut part = loss.clone();
        if self.fail_at == Some(context.step) {
            part = part / 0.0;
        }
        if self.infinite_gradient_at == Some(context.step) {
            // √|0| is 0 and its slope infinite.
            loss = loss + (w.clone() - w.detach()).abs().sum().sqrt();
        }
        Ok(LossOutput::new(loss).with_metric("part", part))
    }
}

fn constant_rows(targets: &[f32], batch_size: usize) -> DataLoader<Rows> {
    let rows = targets.iter().map(|t| [0.0, 0.0, 0.0, 0.0, *t]).collect();
    let config = DataLoaderConfig {
        batch_size,
        shuffle_seed: None,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    loader_of(aigc_core::data::InMemory(rows), config)
}

fn sgd(steps: usize, rate: f64) -> TrainerConfig {
    TrainerConfig {
        optimizer: OptimizerConfig::sgd(),
        learning_rate: rate,
        ..TrainerConfig::new(steps)
    }
}

#[test]
fn gradient_descent_follows_its_closed_form() {
    let temp = temp_run().unwrap();
    let trainer = Trainer::new(sgd(20, 0.1));
    let trained = trainer
        .fit(
            Pull::default(),
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        )
        .unwrap();
    // w ← w − 0.1 (w − 1), so w − 1 shrinks by 0.9 each step.
    assert!((trained.model.value() - (1.0 + 4.0 * 0.9f64.powi(20))).abs() < 1e-5);
}

#[test]
fn schedule_scales_every_step() {
    let temp = temp_run().unwrap();
    let config = TrainerConfig {
        lr_schedule: LrSchedule::linear(2),
        ..sgd(5, 0.1)
    };
    let mut rates = Vec::new();
    let trained = Trainer::new(config)
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                rates.push(report.learning_rate);
            }
        })
        .fit(
            Pull::default(),
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        )
        .unwrap();
    let factors = [0.5, 1.0, 1.0, 0.5, 0.0];
    let expected = factors
        .iter()
        .fold(4.0, |gap, factor| gap * (1.0 - 0.1 * factor));
    assert!((trained.model.value() - 1.0 - expected).abs() < 1e-5);
    assert!(
        rates
            .iter()
            .zip(factors)
            .all(|(r, f)| (r - 0.1 * f).abs() < 1e-12),
        "{rates:?}"
    );
}

#[test]
fn accumulation_matches_large_batch() {
    // Two steps of two batches of 2, averaged, are two steps of batches of 4.
    let targets = [1.0, 2.0, 3.0, 10.0];
    let run = |accumulate, batch| {
        let temp = temp_run().unwrap();
        let config = TrainerConfig {
            gradient_accumulation_steps: accumulate,
            ..sgd(2, 0.1)
        };
        let trained = Trainer::new(config).fit(
            Pull::default(),
            Scalar::new(0.0),
            &constant_rows(&targets, batch),
            &temp.run,
        );
        trained.unwrap().model.value()
    };
    assert!((run(2, 2) - run(1, 4)).abs() < 1e-6);
    assert!((run(1, 4) - 4.0 * (1.0 - 0.9f64.powi(2))).abs() < 1e-5);
}

#[test]
fn clipping_bounds_global_norm() {
    // One step of plain descent moves the weights by rate × clipped norm, whatever the loss.
    let config = TrainerConfig {
        max_grad_norm: Some(0.25),
        seed: 3,
        ..sgd(1, 0.5)
    };
    let (trained, _keep) = train(config, 12);
    let start = stable_start(3);
    let moved: f64 = bits(&trained.model)
        .iter()
        .filter(|(path, _)| !path.contains("running"))
        .flat_map(|(path, new)| {
            new.iter()
                .zip(&start[path])
                .map(|(n, o)| f64::from(f32::from_bits(*n) - f32::from_bits(*o)))
        })
        .map(|d| d * d)
        .sum();
    assert!((moved.sqrt() - 0.5 * 0.25).abs() < 1e-5, "{}", moved.sqrt());
}

fn stable_start(seed: u64) -> std::collections::BTreeMap<String, Vec<u32>> {
    use aigc_core::rng::InitWeights;
    bits(&Net::without_dropout(&flex()).init_weights(seed))
}

#[test]
fn param_groups_have_own_rate_and_optimizer() {
    let frozen = ParamGroupConfig::new("^second", 0.0);
    let (trained, _keep) = train(
        TrainerConfig {
            param_groups: vec![frozen],
            seed: 1,
            ..TrainerConfig::new(5)
        },
        12,
    );
    let (start, end) = (stable_start(1), bits(&trained.model));
    assert_eq!(start["second.weight"], end["second.weight"]);
    assert_ne!(start["first.weight"], end["first.weight"]);

    // Plain descent for one layer inside Adam: its first step is rate × gradient, not rate × ±1.
    let plain = ParamGroupConfig::new("^second", 1.0).with_optimizer(OptimizerConfig::sgd());
    let config = TrainerConfig {
        param_groups: vec![plain],
        seed: 1,
        ..TrainerConfig::new(1)
    };
    let (mixed, _keep) = train(config, 12);
    let (all, _keep) = train(
        TrainerConfig {
            optimizer: OptimizerConfig::sgd(),
            seed: 1,
            ..TrainerConfig::new(1)
        },
        12,
    );
    let (mixed, all) = (bits(&mixed.model), bits(&all.model));
    assert_eq!(mixed["second.weight"], all["second.weight"]);
    assert_ne!(mixed["first.weight"], all["first.weight"]);
}

#[test]
fn burn_optimizers_can_be_used() {
    let temp = temp_run().unwrap();
    let adagrad = AdaGradConfig::new().init();
    let trainer = Trainer::new(sgd(1, 0.1)).with_optimizer("model", adagrad);
    let trained = trainer
        .fit(
            Pull::default(),
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        )
        .unwrap();
    // AdaGrad's first step is the rate itself, plain descent's is 0.4.
    assert!(
        (trained.model.value() - 4.9).abs() < 1e-3,
        "{}",
        trained.model.value()
    );
    let temp = temp_run().unwrap();
    let trainer = Trainer::new(sgd(1, 0.1)).with_optimizer("critic", AdaGradConfig::new().init());
    let error = trainer
        .fit(
            Pull::default(),
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        )
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "argument `optimizer` is critic, expected the name of a phase: model"
    );
}

#[test]
fn ema_matches_formula() {
    let temp = temp_run().unwrap();
    let config = TrainerConfig {
        ema: Some(EmaConfig {
            decay: 0.5,
            warmup: true,
        }),
        ..sgd(3, 0.1)
    };
    let trained = Trainer::new(config)
        .fit(
            Pull::default(),
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        )
        .unwrap();
    let weights: Vec<f64> = (1..=3).map(|k| 1.0 + 4.0 * 0.9f64.powi(k)).collect();
    // Decays min(0.5, (1 + n)/(10 + n)): 0.1, 2/11, 0.25.
    let expected = weights
        .iter()
        .zip([0.1, 2.0 / 11.0, 0.25])
        .fold(5.0, |mean, (w, d)| d * mean + (1.0 - d) * w);
    assert!(
        (trained.model.value() - expected).abs() < 1e-5,
        "{} {expected}",
        trained.model.value()
    );
}

#[test]
fn ema_copies_running_statistics() {
    let live = aigc_core::rng::InitWeights::init_weights(Net::without_dropout(&flex()), 1).train();
    let mut ema = Ema::new(
        &live,
        EmaConfig {
            decay: 0.9,
            warmup: false,
        },
    );
    let x = |scale: f32| {
        Tensor::<2>::full([8, 4], scale, &flex().autodiff())
            * aigc_core::rng::Rng::new(2).normal([8, 4], &flex().autodiff())
    };
    live.forward(x(1.0));
    live.forward(x(5.0));
    ema.update(&live);
    let (average, now) = (bits(ema.model()), bits(&live.valid()));
    assert_eq!(average["norm.running_var"], now["norm.running_var"]);
    // The average is a model of its own: more training does not move it, and it does not move
    // training.
    live.forward(x(3.0));
    assert_eq!(bits(ema.model()), average);
    let moved = bits(&live.valid());
    ema.update(
        &aigc_core::rng::InitWeights::init_weights(Net::without_dropout(&flex()), 9).train(),
    );
    assert_eq!(bits(&live.valid()), moved);
    assert_ne!(bits(ema.model())["first.weight"], average["first.weight"]);
}

#[test]
fn infinite_loss_names_itself_and_last_good_checkpoint() {
    let fit = |objective, temp: &TempRun| {
        let config = TrainerConfig {
            save_steps: 4,
            ..sgd(20, 0.1)
        };
        Trainer::new(config)
            .fit(
                objective,
                Scalar::new(5.0),
                &constant_rows(&[1.0], 1),
                &temp.run,
            )
            .unwrap_err()
    };
    let temp = temp_run().unwrap();
    let error = fit(
        Pull {
            fail_at: Some(6),
            ..Pull::default()
        },
        &temp,
    );
    let Error::NotFinite {
        step,
        name,
        value,
        last_good,
    } = error
    else {
        panic!("{error}")
    };
    assert_eq!((step, name.as_str(), value), (7, "part", f64::INFINITY));
    assert_eq!(last_good, Some(temp.run.checkpoint_path(4)));
    assert_eq!(temp.run.latest_checkpoint().unwrap().step(), 4);

    // A gradient alone: the loss is finite. Step 10 is one whose norm is watched.
    let temp = temp_run().unwrap();
    let error = fit(
        Pull {
            infinite_gradient_at: Some(10),
            ..Pull::default()
        },
        &temp,
    )
    .to_string();
    assert!(
        error.contains("at step 11; the last good checkpoint is") && error.contains("step-000008"),
        "{error}"
    );
}

#[test]
fn checkpoints_hold_finite_weights_only() {
    for bad in 0..8 {
        let temp = temp_run().unwrap();
        let config = TrainerConfig {
            save_steps: 1,
            ..sgd(8, 0.1)
        };
        let objective = Pull {
            infinite_gradient_at: Some(bad),
            ..Pull::default()
        };
        let error = Trainer::new(config).fit(
            objective,
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        );
        assert!(matches!(error, Err(Error::NotFinite { .. })));
        // A run that failed in its first step leaves nothing behind.
        for step in temp.run.checkpoint_steps().unwrap_or_default() {
            let file = temp.run.checkpoint(step).unwrap().path("model.safetensors");
            let model = aigc_core::weights::load_weights(Scalar::new(0.0), &file).unwrap();
            assert!(model.value().is_finite());
        }
    }
}

/// The last step saves too, whatever its number: here one at which nobody watches the gradients.
#[test]
fn infinite_weights_are_not_saved_at_the_end() {
    let temp = temp_run().unwrap();
    let config = TrainerConfig {
        save_steps: 3,
        ..sgd(8, 0.1)
    };
    let objective = Pull {
        infinite_gradient_at: Some(7),
        ..Pull::default()
    };
    let error = Trainer::new(config).fit(
        objective,
        Scalar::new(5.0),
        &constant_rows(&[1.0], 1),
        &temp.run,
    );
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("`w.weight` became") && error.contains("step-000006"),
        "{error}"
    );
    assert_eq!(temp.run.latest_checkpoint().unwrap().step(), 6);
    assert!(!temp.run.final_dir().exists());
}

#[test]
fn run_with_infinite_metric_resumes() {
    let temp = temp_run().unwrap();
    let fit = |start, steps| {
        let config = TrainerConfig {
            eval_steps: 2,
            save_steps: 2,
            ..sgd(steps, 0.1)
        };
        Trainer::new(config)
            .with_start(start)
            .with_evaluation(|_: &Scalar| Ok(vec![("score".into(), f64::INFINITY)]))
            .fit(
                Pull::default(),
                Scalar::new(5.0),
                &constant_rows(&[1.0], 1),
                &temp.run,
            )
            .unwrap()
    };
    assert_eq!(fit(StartFrom::Fresh, 4).best, None);
    assert_eq!(fit(StartFrom::Resume, 6).step, 6);
}

#[test]
fn repeated_update_reports_losses_once() {
    struct Twice;
    impl Objective for Twice {
        type Model = Scalar;
        type Batch = Rows;
        fn phases(&self) -> Vec<Phase> {
            vec![Phase::new("model").with_repeats(2)]
        }
        fn losses(
            &mut self,
            model: &Scalar,
            batch: &Rows,
            context: &mut StepContext,
        ) -> Result<LossOutput> {
            Pull::default().losses(model, batch, context)
        }
    }
    let temp = temp_run().unwrap();
    let mut seen = Vec::new();
    Trainer::new(sgd(1, 0.1))
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                seen = report.losses.clone();
            }
        })
        .fit(
            Twice,
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        )
        .unwrap();
    // The second update starts from 1 + 4·0.9.
    let expected = 0.5 * (4.0f64 * 0.9).powi(2);
    assert!(
        seen.len() == 2 && seen[0].0 == "loss" && (seen[0].1 - expected).abs() < 1e-4,
        "{seen:?}"
    );
}

#[test]
fn loss_metrics_need_distinct_names() {
    struct Named(&'static str);
    impl Objective for Named {
        type Model = Scalar;
        type Batch = Rows;
        fn losses(
            &mut self,
            model: &Scalar,
            batch: &Rows,
            context: &mut StepContext,
        ) -> Result<LossOutput> {
            let losses = Pull::default().losses(model, batch, context)?;
            let total = losses.loss.clone();
            Ok(losses.with_metric(self.0, total))
        }
    }
    for (name, good) in [
        ("loss", false),
        ("grad_norm", false),
        ("part", false),
        ("other", true),
    ] {
        let temp = temp_run().unwrap();
        let fitted = Trainer::new(sgd(1, 0.1)).fit(
            Named(name),
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        );
        assert_eq!(fitted.is_ok(), good, "{name}");
    }
}

#[test]
fn missing_best_checkpoint_warns_and_uses_last() {
    let temp = temp_run().unwrap();
    let warnings = Rc::new(RefCell::new(Vec::new()));
    let fit = |start, steps, keep_best, value: f64| {
        let config = TrainerConfig {
            eval_steps: 1,
            save_total_limit: 1,
            load_best_model_at_end: keep_best,
            ..sgd(steps, 0.1)
        };
        let told = warnings.clone();
        Trainer::new(config)
            .with_start(start)
            .with_callback(move |event: &Event<'_>| {
                if let Event::Warning(text) = event {
                    told.borrow_mut().push(text.to_string());
                }
            })
            .with_evaluation(move |_: &Scalar| Ok(vec![("score".into(), value)]))
            .fit(
                Pull::default(),
                Scalar::new(5.0),
                &constant_rows(&[1.0], 1),
                &temp.run,
            )
            .unwrap()
    };
    fit(StartFrom::Fresh, 3, false, 1.0);
    let trained = fit(StartFrom::Resume, 6, true, 2.0);
    assert!(
        matches!(&warnings.borrow()[..], [one] if one.contains("of step 1, was not kept")),
        "{warnings:?}"
    );
    assert!((trained.model.value() - (1.0 + 4.0 * 0.9f64.powi(6))).abs() < 1e-5);
}

#[test]
fn param_groups_that_match_nothing_are_refused() {
    let temp = temp_run().unwrap();
    let config = TrainerConfig {
        param_groups: vec![ParamGroupConfig::new("^typo", 0.5)],
        ..sgd(1, 0.1)
    };
    let error = Trainer::new(config).fit(
        Pull::default(),
        Scalar::new(1.0),
        &constant_rows(&[1.0], 1),
        &temp.run,
    );
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("`param_groups.pattern` is ^typo, expected a pattern that matches")
    );
}

#[test]
fn run_directory_in_use_is_refused() {
    let temp = temp_run().unwrap();
    let mut inner = None;
    Trainer::new(sgd(1, 0.1))
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(_) = event {
                let second = Trainer::new(sgd(1, 0.1));
                let fitted = second.fit(
                    Pull::default(),
                    Scalar::new(1.0),
                    &constant_rows(&[1.0], 1),
                    &temp.run,
                );
                inner = Some(fitted.unwrap_err().to_string());
            }
        })
        .fit(
            Pull::default(),
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        )
        .unwrap();
    assert!(inner.unwrap().contains("in use by another trainer"));
}

#[test]
fn infinite_minutes_do_not_stop() {
    let temp = temp_run().unwrap();
    for (minutes, run) in [
        (f64::INFINITY, &temp.run),
        (1e300, &temp_run().unwrap().run),
    ] {
        let config = TrainerConfig {
            max_minutes: Some(minutes),
            ..sgd(3, 0.1)
        };
        let trained = Trainer::new(config).fit(
            Pull::default(),
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            run,
        );
        assert_eq!(trained.unwrap().stop_reason, StopReason::Completed);
    }
}

#[test]
fn create_next_numbers_past_the_largest() {
    let temp = tempfile::tempdir().unwrap();
    let base = temp.path().join("run");
    assert!(RunDir::open_latest(&base).is_err());
    assert!(
        RunDir::create_next(&base)
            .unwrap()
            .path()
            .ends_with("run-1")
    );
    assert!(
        RunDir::create_next(&base)
            .unwrap()
            .path()
            .ends_with("run-2")
    );
    std::fs::remove_dir_all(temp.path().join("run-1")).unwrap();
    assert!(
        RunDir::create_next(&base)
            .unwrap()
            .path()
            .ends_with("run-3")
    );
    assert!(
        RunDir::open_latest(&base)
            .unwrap()
            .path()
            .ends_with("run-3")
    );
}

#[test]
fn best_evaluation_is_kept_and_returned() {
    for (maximize, best_step) in [(false, 3), (true, 8)] {
        let temp = temp_run().unwrap();
        let config = TrainerConfig {
            eval_steps: 1,
            load_best_model_at_end: true,
            save_total_limit: 1,
            greater_is_better: maximize,
            save_steps: 2,
            ..sgd(10, 0.1)
        };
        let (mut values, mut weights) = (
            [5.0, 4.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 5.0, 4.0].into_iter(),
            Vec::new(),
        );
        let trained = Trainer::new(config)
            .with_evaluation(|model: &Scalar| {
                weights.push(model.value());
                Ok(vec![("score".into(), values.next().unwrap())])
            })
            .fit(
                Pull::default(),
                Scalar::new(5.0),
                &constant_rows(&[1.0], 1),
                &temp.run,
            )
            .unwrap();
        assert_eq!(trained.best.unwrap().0, best_step);
        assert_eq!(temp.run.checkpoint_steps().unwrap(), [best_step, 10]);
        assert_eq!(trained.model.value(), weights[best_step - 1]);
    }
}

#[test]
fn training_stops_early_in_time_and_when_complete() {
    let patient = TrainerConfig {
        eval_steps: 2,
        early_stopping_patience: Some(3),
        ..sgd(100, 0.1)
    };
    let temp = temp_run().unwrap();
    let trained = Trainer::new(patient)
        .with_evaluation(|_: &Scalar| Ok(vec![("score".into(), 1.0)]))
        .fit(
            Pull::default(),
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        )
        .unwrap();
    assert_eq!(
        (trained.stop_reason, trained.step),
        (StopReason::EarlyStopped, 8)
    );

    let temp = temp_run().unwrap();
    let brief = TrainerConfig {
        max_minutes: Some(1e-9),
        ..sgd(100, 0.1)
    };
    let trained = Trainer::new(brief)
        .fit(
            Pull::default(),
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        )
        .unwrap();
    assert_eq!(
        (trained.stop_reason, trained.step),
        (StopReason::OutOfTime, 0)
    );
    assert!(temp.run.final_dir().join("model.safetensors").is_file());
}

#[test]
fn events_come_in_order_and_log_holds_means() {
    let temp = temp_run().unwrap();
    let names = Rc::new(RefCell::new(Vec::new()));
    let seen = names.clone();
    let config = TrainerConfig {
        eval_steps: 2,
        preview_steps: 2,
        save_steps: 2,
        ..sgd(4, 0.1)
    };
    Trainer::new(config)
        .with_callback(move |event: &Event<'_>| {
            let name = format!("{event:?}");
            seen.borrow_mut()
                .push(name.split([' ', '(']).next().unwrap().to_string());
        })
        .with_callback(MetricsLogger::new(2))
        .with_evaluation(|_: &Scalar| Ok(vec![("score".into(), 1.0)]))
        .with_preview(|_, context| {
            std::fs::write(context.run.sample_path(context.step, "txt"), "seen").unwrap();
            Ok(())
        })
        .fit(
            Pull::default(),
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        )
        .unwrap();
    let round = ["Step", "Step", "Evaluated", "Previewed", "Saved"];
    let expected: Vec<&str> = [&["Started"][..], &round, &round, &["Finished"]].concat();
    assert_eq!(*names.borrow(), expected);
    assert!(temp.run.samples_dir().join("step-000002.txt").is_file());

    let records = read_metrics(&temp.run.metrics_path()).unwrap();
    let kinds: Vec<_> = records.iter().map(|r| (r.step, r.kind.as_str())).collect();
    assert_eq!(
        kinds,
        [(2, "train"), (2, "evaluate"), (4, "train"), (4, "evaluate")]
    );
    // Losses ½·(4·0.9ᵏ)²; the first line holds the mean of k = 0 and 1.
    let expected = (8.0 + 8.0 * 0.81) / 2.0;
    assert!((records[0].values["loss"].unwrap() - expected).abs() < 1e-4);
}

#[test]
fn log_forgets_repeated_steps() {
    let temp = temp_run().unwrap();
    let fit = |start, steps, fail_at| {
        let config = TrainerConfig {
            save_steps: 4,
            ..sgd(steps, 0.1)
        };
        let trainer = Trainer::new(config)
            .with_start(start)
            .with_callback(MetricsLogger::new(1));
        trainer.fit(
            Pull {
                fail_at,
                ..Pull::default()
            },
            Scalar::new(5.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        )
    };
    assert!(fit(StartFrom::Fresh, 10, Some(6)).is_err());
    // As a killed run would leave it.
    let path = temp.run.metrics_path();
    let mut text = std::fs::read(&path).unwrap();
    text.extend(b"{\"step\":7,\"ki");
    std::fs::write(&path, text).unwrap();
    fit(StartFrom::Resume, 10, None).unwrap();
    let steps: Vec<_> = read_metrics(&path)
        .unwrap()
        .iter()
        .map(|r| r.step)
        .collect();
    assert_eq!(steps, (1..=10).collect::<Vec<_>>());
}

/// Two players with optimizers of their own, one of them moving twice per step.
#[derive(Module, Debug)]
struct Two {
    left: Scalar,
    right: Scalar,
}

struct TakeTurns;

impl Objective for TakeTurns {
    type Model = Two;
    type Batch = Rows;

    fn phases(&self) -> Vec<Phase> {
        vec![
            Phase::new("left").for_field("left").with_repeats(2),
            Phase::new("right").for_field("right").reuse_batch(),
        ]
    }

    fn losses(
        &mut self,
        model: &Two,
        batch: &Rows,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        let (_, targets) = columns(batch, &context.device);
        // Both weights are in the loss of each: only the phase's own may move.
        let sum = model.left.w.weight.val() + model.right.w.weight.val();
        let error = sum - targets;
        Ok(LossOutput::new((error.clone() * error).mean() * 0.5))
    }
}

#[test]
fn phases_update_their_field_as_often_as_configured() {
    let temp = temp_run().unwrap();
    let model = Two {
        left: Scalar::new(1.0),
        right: Scalar::new(1.0),
    };
    let mut names = Vec::new();
    let trained = Trainer::new(sgd(2, 0.1))
        .with_callback(|event: &Event<'_>| {
            if let Event::Step(report) = event {
                names = report.losses.iter().map(|(n, _)| n.clone()).collect();
            }
        })
        .fit(TakeTurns, model, &constant_rows(&[0.0], 1), &temp.run)
        .unwrap();
    let (mut left, mut right) = (1.0f64, 1.0f64);
    for _ in 0..2 {
        left -= 0.1 * (left + right);
        left -= 0.1 * (left + right);
        right -= 0.1 * (left + right);
    }
    assert!(
        (trained.model.left.value() - left).abs() < 1e-5
            && (trained.model.right.value() - right).abs() < 1e-5
    );
    assert_eq!(names, ["left.loss", "right.loss"]);
    let checkpoint = temp.run.latest_checkpoint().unwrap();
    assert!(
        checkpoint.path("optimizer-left.bpk").is_file()
            && checkpoint.path("optimizer-right.bpk").is_file()
    );
}

#[test]
fn phases_without_parameters_are_refused() {
    struct Nobody;
    impl Objective for Nobody {
        type Model = Two;
        type Batch = Rows;
        fn phases(&self) -> Vec<Phase> {
            vec![Phase::new("middle").for_field("middle")]
        }
        fn losses(&mut self, _: &Two, _: &Rows, _: &mut StepContext) -> Result<LossOutput> {
            unreachable!()
        }
    }
    let temp = temp_run().unwrap();
    let model = Two {
        left: Scalar::new(1.0),
        right: Scalar::new(1.0),
    };
    let error = Trainer::new(sgd(2, 0.1))
        .fit(Nobody, model, &constant_rows(&[0.0], 1), &temp.run)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("middle has no trainable parameter"),
        "{error}"
    );
}

#[test]
fn phases_need_distinct_names() {
    struct Named(Vec<&'static str>);
    impl Objective for Named {
        type Model = Scalar;
        type Batch = Rows;
        fn phases(&self) -> Vec<Phase> {
            self.0.iter().map(|name| Phase::new(name)).collect()
        }
        fn losses(&mut self, _: &Scalar, _: &Rows, _: &mut StepContext) -> Result<LossOutput> {
            unreachable!()
        }
    }
    for names in [vec![], vec!["a", "a"], vec!["../a"], vec![""], vec!["1"]] {
        let temp = temp_run().unwrap();
        let objective = Named(names.clone());
        let fitted = Trainer::new(sgd(1, 0.1)).fit(
            objective,
            Scalar::new(1.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        );
        assert!(
            fitted
                .unwrap_err()
                .to_string()
                .contains("argument `phases`"),
            "{names:?}"
        );
    }
}

#[test]
fn config_names_values_out_of_range() {
    let cases: [(TrainerConfig, &str); 9] = [
        (TrainerConfig::new(0), "max_steps"),
        (
            TrainerConfig {
                learning_rate: 0.0,
                ..TrainerConfig::new(1)
            },
            "learning_rate",
        ),
        (
            TrainerConfig {
                gradient_accumulation_steps: 0,
                ..TrainerConfig::new(1)
            },
            "gradient_accumulation_steps",
        ),
        (
            TrainerConfig {
                max_grad_norm: Some(-1.0),
                ..TrainerConfig::new(1)
            },
            "max_grad_norm",
        ),
        (
            TrainerConfig {
                ema: Some(EmaConfig::new(1.0)),
                ..TrainerConfig::new(1)
            },
            "ema.decay",
        ),
        (
            TrainerConfig {
                early_stopping_patience: Some(1),
                ..TrainerConfig::new(1)
            },
            "eval_steps",
        ),
        (
            TrainerConfig {
                max_minutes: Some(0.0),
                ..TrainerConfig::new(1)
            },
            "max_minutes",
        ),
        (
            TrainerConfig {
                param_groups: vec![ParamGroupConfig::new("(", 1.0)],
                ..TrainerConfig::new(1)
            },
            "param_groups.pattern",
        ),
        (
            TrainerConfig {
                lr_schedule: LrSchedule {
                    min_lr_ratio: 2.0,
                    ..LrSchedule::CONSTANT
                },
                ..TrainerConfig::new(1)
            },
            "lr_schedule.min_lr_ratio",
        ),
    ];
    for (config, field) in cases {
        let temp = temp_run().unwrap();
        let fitted = Trainer::new(config).fit(
            Pull::default(),
            Scalar::new(1.0),
            &constant_rows(&[1.0], 1),
            &temp.run,
        );
        let message = fitted.unwrap_err().to_string();
        assert!(
            message.starts_with(&format!("config field `{field}` is")),
            "{message}"
        );
    }
}

#[test]
fn seed_fixes_initial_weights() {
    use aigc_core::rng::InitWeights;
    let first = bits(&Net::without_dropout(&flex()).init_weights(4));
    Net::without_dropout(&flex()).init_weights(5);
    let _: Tensor<1> = Tensor::random([9], burn::tensor::Distribution::Default, &flex());
    assert_eq!(bits(&Net::without_dropout(&flex()).init_weights(4)), first);
    assert_ne!(bits(&Net::without_dropout(&flex()).init_weights(5)), first);
    assert_ne!(first["first.weight"][..16], first["second.weight"][..16]);
}
