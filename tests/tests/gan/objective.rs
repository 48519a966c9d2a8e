//! The objective: its options, and what it rejects.

use super::*;

#[test]
fn weight_clip_bounds_the_discriminator_only() {
    let gan = GanConfig::Mlp(MlpGanConfig {
        hidden: vec![16],
        ..MlpGanConfig::new(ImageShape::new(1, 8, 8))
    });
    let gan = gan.init(&flex()).unwrap();
    let objective = GanObjectiveConfig {
        weight_clip: Some(0.02),
        ..GanObjectiveConfig::new(GanLoss::Wasserstein)
    };
    let (run, _keep) = run_dir();
    let loader = batches(bars(ImageShape::new(1, 8, 8), 24), 12);
    let objective = GanObjective::new(objective, &gan).unwrap();
    let trained = Trainer::new(trainer(4))
        .fit(objective, gan, &loader, &run)
        .unwrap();
    let most = |prefix: &str| {
        let weights = bits(&trained.model)
            .into_iter()
            .filter(|(name, _)| name.starts_with(prefix));
        weights
            .flat_map(|(_, bits)| bits)
            .map(|bits| f32::from_bits(bits).abs())
            .fold(0.0, f32::max)
    };
    assert_eq!(most("discriminator"), 0.02);
    assert!(most("generator") > 0.1);
}

/// Every update of the discriminator draws a batch, the generator reuses the last of them;
/// parameter groups scale learning rates.
#[test]
fn discriminator_steps_and_rates_are_as_configured() {
    let shape = ImageShape::new(1, 8, 8);
    let train = |discriminator_steps, discriminator_rate, steps| {
        let gan = GanConfig::Mlp(MlpGanConfig {
            hidden: vec![8],
            ..MlpGanConfig::new(shape)
        })
        .init(&flex())
        .unwrap();
        let config = GanObjectiveConfig {
            discriminator_steps,
            ..Default::default()
        };
        let groups = vec![ParamGroupConfig::new(
            "^discriminator\\.",
            discriminator_rate,
        )];
        let trainer = TrainerConfig {
            param_groups: groups,
            optimizer: OptimizerConfig::sgd(),
            ..trainer(steps)
        };
        let (run, _keep) = run_dir();
        let loader = batches(bars(shape, 24), 4);
        let before = bits(&gan.clone().init_weights(2));
        let objective = GanObjective::new(config, &gan).unwrap();
        let trained = Trainer::new(trainer)
            .fit(objective, gan, &loader, &run)
            .unwrap();
        let state: serde_json::Value = run
            .latest_checkpoint()
            .unwrap()
            .read_json("state.json")
            .unwrap();
        let moved = |prefix: &str| {
            let after = bits(&trained.model);
            let pairs = before.iter().filter(|(name, _)| name.starts_with(prefix));
            let squares = pairs.flat_map(|(name, old)| {
                old.iter()
                    .zip(&after[name])
                    .map(|(a, b)| f64::from(f32::from_bits(*a) - f32::from_bits(*b)).powi(2))
            });
            squares.sum::<f64>().sqrt()
        };
        (
            state["batches"].as_u64().unwrap(),
            moved("discriminator"),
            moved("generator"),
        )
    };
    let (drawn, one, generator) = train(1, 1.0, 1);
    assert_eq!(drawn, 1);
    let (_, four_times, same) = train(1, 4.0, 1);
    assert!((four_times / one - 4.0).abs() < 1e-2, "{four_times} {one}");
    assert!((same / generator - 1.0).abs() < 0.05);
    let (drawn, thrice, _) = train(3, 1.0, 2);
    assert_eq!(drawn, 6);
    assert!(thrice > 3.0 * one, "{thrice} {one}");
}

#[test]
fn objective_rejects_networks_of_different_classes() {
    let shape = ImageShape::new(1, 8, 8);
    let small = DcganConfig {
        channels: vec![4, 6],
        ..DcganConfig::new(shape)
    };
    let of = |count| DcganConfig {
        classes: Some(ClassConditioning::new(count)),
        ..small.clone()
    };
    for (generator, critic, expected) in [
        (small.clone(), of(3), "expected 0"),
        (of(10), of(3), "expected 10"),
    ] {
        let gan = Gan {
            generator: generator.generator(&flex()).unwrap(),
            discriminator: critic.discriminator(&flex()).unwrap(),
        };
        let error = GanObjective::<_, _, ImageBatch>::new(GanObjectiveConfig::default(), &gan)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`classes` is 3 for the discriminator") && error.contains(expected),
            "{error}"
        );
    }
}

#[test]
fn objective_rejects_out_of_range_configs() {
    let shape = ImageShape::new(1, 8, 8);
    let small = DcganConfig {
        channels: vec![4, 6],
        ..DcganConfig::new(shape)
    };
    let gan = GanConfig::Dcgan(small.clone()).init(&flex()).unwrap();
    let refused = |config: GanObjectiveConfig| {
        GanObjective::<_, _, ImageBatch>::new(config, &gan)
            .unwrap_err()
            .to_string()
    };
    assert!(
        refused(GanObjectiveConfig::r3gan(1.0))
            .contains("the discriminator has batch normalisation")
    );
    for (config, expected) in [
        (
            GanObjectiveConfig {
                discriminator_steps: 0,
                ..Default::default()
            },
            "`discriminator_steps` is 0",
        ),
        (
            GanObjectiveConfig {
                weight_clip: Some(0.0),
                ..Default::default()
            },
            "`weight_clip` is 0",
        ),
        (
            GanObjectiveConfig {
                label_smoothing: 0.7,
                ..Default::default()
            },
            "`label_smoothing` is 0.7",
        ),
        (
            GanObjectiveConfig {
                auxiliary_weight: f64::NAN,
                ..Default::default()
            },
            "`auxiliary_weight` is NaN",
        ),
        (
            GanObjectiveConfig {
                lecam: Some(LeCam {
                    weight: 0.0,
                    decay: 0.9,
                }),
                ..Default::default()
            },
            "`lecam.weight`",
        ),
        (
            GanObjectiveConfig {
                monitor: Some(CollapseMonitor {
                    interval: 0,
                    ..Default::default()
                }),
                ..Default::default()
            },
            "`monitor.interval` is 0",
        ),
        (
            GanObjectiveConfig {
                augment: Augment::DiffAugment(DiffAugment {
                    cutout: 2.0,
                    ..Default::default()
                }),
                ..Default::default()
            },
            "`augment.diff_augment.cutout` is 2",
        ),
        (
            GanObjectiveConfig {
                augment: Augment::Adaptive(Ada {
                    adjustment_samples: 0.0,
                    ..Default::default()
                }),
                ..Default::default()
            },
            "`augment.adaptive.adjustment_samples` is 0",
        ),
    ] {
        let message = refused(config);
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn objective_rejects_batches_that_do_not_fit() {
    let shape = ImageShape::new(1, 8, 8);
    let small = DcganConfig {
        channels: vec![4, 6],
        ..DcganConfig::new(shape)
    };
    let classes = |count| {
        Some(ClassConditioning {
            generator: GeneratorConditioning::ConditionalBatchNorm,
            ..ClassConditioning::new(count)
        })
    };
    let fit = |config: DcganConfig, images: Vec<Image>, batch_size| -> Result<_> {
        let gan = GanConfig::Dcgan(config).init(&flex())?;
        let (run, _keep) = run_dir();
        let objective = GanObjective::new(GanObjectiveConfig::default(), &gan)?;
        Trainer::new(trainer(1)).fit(objective, gan, &batches(images, batch_size), &run)
    };
    let conditional = DcganConfig {
        classes: classes(2),
        ..small.clone()
    };
    let unlabelled = bars(shape, 8)
        .into_iter()
        .map(|image| Image {
            label: None,
            ..image
        })
        .collect();
    for (result, expected) in [
        (
            fit(small.clone(), bars(shape, 8), 1),
            "`batch_size` is 1, expected at least 2",
        ),
        (
            fit(small.clone(), bars(ImageShape::new(1, 8, 12), 8), 4),
            "`samples` is 1×8×12, expected 1×8×8",
        ),
        (
            fit(conditional.clone(), bars(shape, 8), 8),
            "`labels` is 2, expected below 2",
        ),
        (fit(conditional, unlabelled, 4), "`labels` is missing"),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(expected), "{message}");
    }
    assert!(
        fit(
            DcganConfig {
                norm: DiscriminatorNorm::None,
                ..small.clone()
            },
            bars(shape, 8),
            1
        )
        .is_err()
    );
}
