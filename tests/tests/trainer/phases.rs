//! Phases of a step.

use super::*;

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

/// Two parts with separate optimizers; one is updated twice per step.
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
