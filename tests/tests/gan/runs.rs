//! Runs: saved networks, former names, interruptions.

use super::*;

#[test]
fn pretrained_gan_equals_the_saved_one() {
    let config = GanConfig::Dcgan(DcganConfig {
        channels: vec![4, 6],
        norm: DiscriminatorNorm::Spectral,
        classes: Some(ClassConditioning::new(3)),
        ..DcganConfig::new(ImageShape::new(1, 8, 8))
    });
    let gan = config.init(&flex()).unwrap();
    let (run, _keep) = run_dir();
    let objective = GanObjective::new(GanObjectiveConfig::new(GanLoss::Hinge), &gan).unwrap();
    let fit = Trainer::new(trainer(2)).with_model_config(&config).unwrap();
    let trained = fit
        .fit(
            objective,
            gan,
            &batches(bars(ImageShape::new(1, 8, 8), 24), 12),
            &run,
        )
        .unwrap();
    let opened = AnyGan::from_pretrained(run.final_dir(), &flex()).unwrap();
    assert_eq!(bits(&opened.value), bits(&trained.model));
    assert!(opened.warnings().is_empty(), "{opened}");
    let copy = run.path().join("copy");
    opened.save_pretrained(&copy).unwrap();
    let copied = AnyGan::from_pretrained(&copy, &flex()).unwrap();
    assert_eq!(bits(&copied.value), bits(&trained.model));
    assert_eq!(copied.generator.config(), config);
}

/// A pair as earlier versions named it.
#[derive(Module, Debug)]
struct FormerGan {
    generator: AnyGenerator,
    critic: AnyDiscriminator,
}

impl FormerGan {
    fn now(&self) -> AnyGan {
        Gan {
            generator: self.generator.clone(),
            discriminator: self.critic.clone(),
        }
    }
}

/// The objective with the former names of phases and fields.
struct FormerObjective(GanObjective<AnyGenerator, AnyDiscriminator, ImageBatch>);

impl Objective for FormerObjective {
    type Model = FormerGan;
    type Batch = ImageBatch;

    fn phases(&self) -> Vec<Phase> {
        vec![
            Phase::new("critic").for_field("critic"),
            Phase::new("generator").for_field("generator").reuse_batch(),
        ]
    }

    fn losses(
        &mut self,
        model: &FormerGan,
        batch: &ImageBatch,
        context: &mut StepContext,
    ) -> Result<LossOutput> {
        self.0.losses(&model.now(), batch, context)
    }

    fn state(&self) -> serde_json::Value {
        self.0.state()
    }

    fn load_state(&mut self, state: serde_json::Value) -> Result<()> {
        self.0.load_state(state)
    }
}

#[test]
fn checkpoint_with_former_names_resumes_bit_for_bit() {
    let shape = ImageShape::new(1, 8, 8);
    let config = GanConfig::Dcgan(DcganConfig {
        channels: vec![4, 6],
        norm: DiscriminatorNorm::Spectral,
        ..DcganConfig::new(shape)
    });
    let loader = || batches(bars(shape, 24), 12);
    let settings = |steps| TrainerConfig {
        ema: Some(EmaConfig::new(0.9)),
        ..trainer(steps)
    };
    let gan = || config.init(&flex()).unwrap();
    let objective = || GanObjective::new(GanObjectiveConfig::r3gan(1.0), &gan()).unwrap();
    let (whole, _keep) = run_dir();
    let expected = Trainer::new(settings(6))
        .fit(objective(), gan(), &loader(), &whole)
        .unwrap();

    let (run, _keep) = run_dir();
    let stop = CancelToken::new();
    let cancel = stop.clone();
    let former = FormerGan {
        generator: gan().generator,
        critic: gan().discriminator,
    };
    Trainer::new(settings(6))
        .with_model_config(&config)
        .unwrap()
        .with_cancel(stop)
        .with_callback(move |event: &Event<'_>| {
            if matches!(event, Event::Step(report) if report.step == 3) {
                cancel.cancel();
            }
        })
        .fit(FormerObjective(objective()), former, &loader(), &run)
        .unwrap();
    let checkpoint = run.latest_checkpoint().unwrap();
    assert_eq!(checkpoint.step(), 3);
    assert!(checkpoint.path("optimizer-critic.bpk").exists());
    // Final weights with the former names open, too.
    let opened = AnyGan::from_pretrained(run.final_dir(), &flex()).unwrap();
    assert!(opened.unused_tensors.is_empty(), "{opened}");

    let resumed = Trainer::new(settings(6))
        .with_start(StartFrom::Resume)
        .with_model_config(&config)
        .unwrap()
        .fit(objective(), gan(), &loader(), &run)
        .unwrap();
    assert_eq!((resumed.step, resumed.steps_run), (6, 3));
    assert_eq!(bits(&resumed.model), bits(&expected.model));
}

/// Everything with a state at once: spectral norms, LeCam's running means, ADA's probability, the
/// monitor, two updates of the discriminator, accumulated batches, averaged weights.
fn train_with_everything(stops: &[usize]) -> (AnyGan, serde_json::Value) {
    let config = GanConfig::Resnet(ResnetGanConfig {
        channels: 8,
        levels: 2,
        classes: Some(ClassConditioning::new(3)),
        ..ResnetGanConfig::new(ImageShape::new(1, 8, 8))
    });
    let objective = GanObjectiveConfig {
        lecam: Some(LeCam::default()),
        augment: Augment::Adaptive(Ada {
            adjustment_samples: 50.0,
            target: -0.5,
            ..Ada::default()
        }),
        penalties: vec![GradientPenalty::r1(1.0).with_interval(3)],
        discriminator_steps: 2,
        monitor: Some(CollapseMonitor {
            interval: 2,
            ..CollapseMonitor::default()
        }),
        ..GanObjectiveConfig::new(GanLoss::NonSaturating)
    };
    let (run, _keep) = run_dir();
    let mut model = None;
    for (attempt, stop) in stops.iter().chain([&usize::MAX]).enumerate() {
        let flag = CancelToken::new();
        let raise = flag.clone();
        let gan = config.init(&flex()).unwrap();
        let trainer = TrainerConfig {
            gradient_accumulation_steps: 2,
            ema: Some(EmaConfig::new(0.9)),
            save_steps: 4,
            ..trainer(11)
        };
        let trained = Trainer::new(trainer)
            .with_start(if attempt == 0 {
                StartFrom::Fresh
            } else {
                StartFrom::Resume
            })
            .with_cancel(flag)
            .with_objective_config(&objective)
            .unwrap()
            .with_callback(move |event: &Event<'_>| {
                if let Event::Step(report) = event
                    && report.step == *stop
                {
                    raise.cancel();
                }
            })
            .fit(
                GanObjective::new(objective.clone(), &gan).unwrap(),
                gan,
                &batches(bars(ImageShape::new(1, 8, 8), 48), 6),
                &RunDir::open(run.path()).unwrap(),
            )
            .unwrap();
        model = Some(trained.model);
    }
    let state: serde_json::Value = run
        .latest_checkpoint()
        .unwrap()
        .read_json("state.json")
        .unwrap();
    (model.unwrap(), state["objective"].clone())
}

#[test]
fn interrupted_training_equals_uninterrupted() {
    let (whole, state) = train_with_everything(&[]);
    assert!(state["augment"].as_f64().unwrap() > 0.1, "{state}");
    assert!(
        state["anchors"]["begun"].as_bool().unwrap()
            && state["watch"]["observations"].as_u64().unwrap() == 6,
        "{state}"
    );
    for stops in [&[5][..], &[1, 6, 10]] {
        let (resumed, resumed_state) = train_with_everything(stops);
        assert_eq!(bits(&resumed), bits(&whole), "stops at {stops:?}");
        assert_eq!(resumed_state, state);
    }
}
