//! Events, and the log of metrics.

use super::*;

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
