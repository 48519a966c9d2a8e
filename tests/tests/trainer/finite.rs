//! Losses, gradients and weights that are not finite.

use super::*;

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
