//! Run directories, the best checkpoint, and the end of training.

use super::*;

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
