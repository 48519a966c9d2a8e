//! Configurations that are rejected.

use super::*;

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
