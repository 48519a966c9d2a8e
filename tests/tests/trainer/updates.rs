//! Updates: rates, accumulation, clipping, optimizers, averages.

use super::*;

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
fn seed_fixes_initial_weights() {
    use aigc_core::rng::InitWeights;
    let first = bits(&Net::without_dropout(&flex()).init_weights(4));
    Net::without_dropout(&flex()).init_weights(5);
    let _: Tensor<1> = Tensor::random([9], burn::tensor::Distribution::Default, &flex());
    assert_eq!(bits(&Net::without_dropout(&flex()).init_weights(4)), first);
    assert_ne!(bits(&Net::without_dropout(&flex()).init_weights(5)), first);
    assert_ne!(first["first.weight"][..16], first["second.weight"][..16]);
}
