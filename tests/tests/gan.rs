//! Adversarial training as a user meets it.

use aigc_core::{
    CancelToken, Result,
    checkpoint::RunDir,
    data::{
        DataLoader, DataLoaderConfig, Image, ImageBatch, ImageShape, InMemory, SampleShape,
        collate_images,
    },
    device::device,
    nn::{Activation, Dropout, DropoutConfig, Initializer, Linear, LinearConfig},
    rng::{InitWeights, Rng},
    train::{
        EmaConfig, Event, LossOutput, Objective, OptimizerConfig, ParamGroupConfig, Phase,
        StartFrom, StepContext, Trainer, TrainerConfig,
    },
};
use aigc_gan::{
    Ada, AnyDiscriminator, AnyGan, AnyGenerator, Augment, ClassConditioning, ClassLabels,
    CollapseMonitor, DcganConfig, DiffAugment, Discriminator, DiscriminatorConditioning,
    DiscriminatorNorm, Gan, GanConfig, GanLoss, GanObjective, GanObjectiveConfig, GanSampler,
    Generator, GeneratorConditioning, GradientPenalty, LeCam, MlpGanConfig, R3ganConfig,
    ResnetGanConfig, standing_statistics,
    toy::{GaussianMixture, PointBatch, collate_points},
};
use aigc_tests::bits;
use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor},
};
use std::collections::BTreeSet;

fn flex() -> Device {
    device("flex").unwrap()
}

/// Images of three classes, each a bar at its own height, with some noise.
fn bars(shape: ImageShape, count: usize) -> Vec<Image> {
    let mut rng = Rng::new(9);
    let image = |k: usize| {
        let class = k % 3;
        let row = |pixel: usize| (pixel / shape.width) % shape.height;
        let lit = |pixel: usize| row(pixel) * 3 / shape.height == class;
        let pixels = (0..shape.numel()).map(|p| {
            if lit(p) {
                200 + rng.random_index(56) as u8
            } else {
                rng.random_index(56) as u8
            }
        });
        Image {
            shape,
            pixels: pixels.collect(),
            label: Some(class as u32),
        }
    };
    (0..count).map(image).collect()
}

fn batches(images: Vec<Image>, batch_size: usize) -> DataLoader<ImageBatch> {
    let config = DataLoaderConfig {
        batch_size,
        shuffle_seed: Some(1),
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    DataLoader::new(InMemory(images), collate_images, config).unwrap()
}

fn trainer(steps: usize) -> TrainerConfig {
    TrainerConfig {
        learning_rate: 1e-3,
        optimizer: OptimizerConfig::adam(0.5, 0.99),
        seed: 2,
        save_steps: 0,
        ..TrainerConfig::new(steps)
    }
}

fn run_dir() -> (RunDir, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    (RunDir::create(dir.path().join("run")).unwrap(), dir)
}

/// Each kind of network, with each kind of class conditioning.
fn networks() -> Vec<GanConfig> {
    let mut all = Vec::new();
    let kinds = [
        DiscriminatorConditioning::Concat,
        DiscriminatorConditioning::Projection,
        DiscriminatorConditioning::Auxiliary,
    ];
    for critic in [None, Some(kinds[0]), Some(kinds[1]), Some(kinds[2])] {
        for generator in [
            GeneratorConditioning::Concat,
            GeneratorConditioning::ConditionalBatchNorm,
        ] {
            let classes = critic.map(|critic| ClassConditioning {
                num_classes: 3,
                generator,
                discriminator: critic,
            });
            let shape = ImageShape::new(1, 8, 8);
            for norm in [
                DiscriminatorNorm::None,
                DiscriminatorNorm::Batch,
                DiscriminatorNorm::Spectral,
            ] {
                all.push(GanConfig::Dcgan(DcganConfig {
                    channels: vec![4, 6],
                    norm,
                    classes,
                    ..DcganConfig::new(shape)
                }));
            }
            all.push(GanConfig::Resnet(ResnetGanConfig {
                channels: 16,
                levels: 2,
                attention_resolution: Some(4),
                classes,
                ..ResnetGanConfig::new(ImageShape::new(3, 8, 8))
            }));
            if generator == GeneratorConditioning::Concat {
                all.push(GanConfig::Mlp(MlpGanConfig {
                    hidden: vec![12],
                    discriminator_hidden: Some(vec![10, 6]),
                    num_fourier_frequencies: 2,
                    norm: true,
                    classes,
                    ..MlpGanConfig::new(shape)
                }));
                all.push(GanConfig::R3gan(R3ganConfig {
                    channels: vec![8, 4],
                    group_width: 4,
                    classes,
                    ..R3ganConfig::new(shape)
                }));
            }
        }
    }
    all
}

/// Share of samples that are nearest to the mean image of the class that was requested.
fn share_of_requested_class(gan: &AnyGan, shape: ImageShape) -> f64 {
    let samples = GanSampler::new(&gan.generator, &flex())
        .sample(120, 3)
        .unwrap();
    let values: Vec<f32> = samples.values.into_data().iter().collect();
    let brightness = |image: &[f32], class: usize| {
        let lit = |pixel: usize| (pixel / shape.width) % shape.height * 3 / shape.height == class;
        let (mut sum, mut count) = (0.0, 0);
        for (_, value) in image.iter().enumerate().filter(|(pixel, _)| lit(*pixel)) {
            (sum, count) = (sum + value, count + 1);
        }
        sum / count as f32
    };
    let labels = samples.labels.unwrap();
    let right = values.chunks_exact(shape.numel()).zip(&labels);
    let right = right.filter(|(image, label)| {
        let bars = [0, 1, 2].map(|class| brightness(image, class));
        (0..3).all(|class| bars[class] <= bars[**label as usize])
    });
    right.count() as f64 / labels.len() as f64
}

/// Not only do tensors change: the generator learns to draw the bar of the requested class.
#[test]
fn conditional_networks_learn_the_requested_class() {
    let shape = ImageShape::new(1, 8, 8);
    let classes = Some(ClassConditioning::new(3));
    let configs = [GanConfig::Dcgan(DcganConfig {
        channels: vec![16, 32],
        norm: DiscriminatorNorm::None,
        classes,
        ..DcganConfig::new(shape)
    })];
    for config in configs {
        let gan = config.init(&flex()).unwrap().init_weights(2);
        let before = share_of_requested_class(&gan, shape);
        let (run, _keep) = run_dir();
        let objective = GanObjective::new(GanObjectiveConfig::r3gan(0.1), &gan).unwrap();
        let trained = Trainer::new(trainer(150))
            .fit(objective, gan, &batches(bars(shape, 240), 24), &run)
            .unwrap();
        let after = share_of_requested_class(&trained.model, shape);
        assert!(
            before < 0.6 && after > 0.8,
            "{before} {after} of {config:?}"
        );
    }
}

#[test]
fn networks_train_every_parameter_and_keep_their_shape() {
    for config in networks() {
        let gan = config.init(&flex()).unwrap().init_weights(2);
        let shape = gan.generator.sample_shape().as_image().unwrap();
        let before = bits(&gan);
        let (run, _keep) = run_dir();
        let objective =
            GanObjective::new(GanObjectiveConfig::new(GanLoss::NonSaturating), &gan).unwrap();
        let trained = Trainer::new(trainer(3))
            .fit(objective, gan, &batches(bars(shape, 24), 12), &run)
            .unwrap();
        let after = bits(&trained.model);
        for (name, value) in &before {
            assert!(*value != after[name], "{name} of {config:?} did not change");
        }
        let sampler = GanSampler::new(&trained.model.generator, &flex());
        let samples = sampler.sample(5, 3).unwrap().values;
        assert_eq!(samples.dims(), SampleShape::from(shape).batched(5));
        let values: Vec<f32> = samples.into_data().iter::<f32>().collect();
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
    }
}

#[test]
fn default_configs_fit_usual_image_sizes() {
    for side in [28, 32, 64] {
        let shape = ImageShape::new(3, side, side);
        for config in [
            GanConfig::Dcgan(DcganConfig {
                channels: DcganConfig::new(shape).channels.iter().map(|_| 2).collect(),
                ..DcganConfig::new(shape)
            }),
            GanConfig::Resnet(ResnetGanConfig {
                channels: 8,
                ..ResnetGanConfig::new(shape)
            }),
            GanConfig::R3gan(R3ganConfig {
                group_width: 8,
                channels: R3ganConfig::new(shape).channels.iter().map(|_| 8).collect(),
                ..R3ganConfig::new(shape)
            }),
        ] {
            let gan = config.init(&flex()).unwrap().init_weights(1);
            let x = gan.generator.generate(
                Rng::new(1).normal([2, gan.generator.latent_dim()], &flex()),
                None,
            );
            assert_eq!(x.dims(), [2, 3, side, side]);
            assert_eq!(gan.discriminator.forward(x, None).dims(), [2]);
        }
    }
    assert_eq!(
        DcganConfig::new(ImageShape::new(1, 28, 28)).channels,
        [64, 128]
    );
    assert_eq!(
        DcganConfig::new(ImageShape::new(1, 64, 64)).channels,
        [64, 128, 256, 512]
    );
}

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

/// A custom generator that ignores its noise.
#[derive(Module, Debug)]
struct Constant {
    picture: Param<Tensor<4>>,
}

impl Generator for Constant {
    fn generate(&self, z: Tensor<2>, _class: Option<Tensor<1, Int>>) -> Tensor<4> {
        self.picture.val().tanh().repeat_dim(0, z.dims()[0])
    }

    fn latent_dim(&self) -> usize {
        1
    }

    fn sample_shape(&self) -> SampleShape {
        ImageShape::new(1, 8, 8).into()
    }
}

#[derive(Module, Debug)]
struct OneLayer {
    layer: Linear,
}

impl Discriminator for OneLayer {
    fn forward(&self, x: Tensor<4>, _class: Option<Tensor<1, Int>>) -> Tensor<1> {
        self.layer.forward(x.flatten::<2>(1, 3)).squeeze_dim(1)
    }
}

#[test]
fn custom_networks_train_and_collapse_raises_an_alert() {
    let gan = Gan {
        generator: Constant {
            picture: Initializer::ZEROS.param([1, 1, 8, 8], 1, 1, &flex()),
        },
        discriminator: OneLayer {
            layer: LinearConfig::new(64, 1).init(&flex()),
        },
    };
    let monitor = Some(CollapseMonitor {
        interval: 1,
        patience: 10,
        ..CollapseMonitor::default()
    });
    let objective = GanObjectiveConfig {
        monitor,
        ..GanObjectiveConfig::r3gan(1.0)
    };
    let (run, _keep) = run_dir();
    let mut alerts = Vec::new();
    Trainer::new(trainer(40))
        .with_callback(|event: &Event<'_>| {
            if let Event::Alert { step, kind, text } = event {
                alerts.push((*step, *kind, text.to_string()));
            }
        })
        .fit(
            GanObjective::new(objective, &gan).unwrap(),
            gan,
            &batches(bars(ImageShape::new(1, 8, 8), 24), 12),
            &run,
        )
        .unwrap();
    let collapse: Vec<_> = alerts
        .iter()
        .filter(|(_, kind, _)| *kind == "collapse")
        .collect();
    assert!(collapse.len() == 1 && collapse[0].0 == 9, "{alerts:?}");
    assert!(
        collapse[0].2.contains("the generator is collapsing"),
        "{alerts:?}"
    );
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
fn penalties_reject_a_discriminator_with_dropout() {
    #[derive(Module, Debug)]
    struct Dropping {
        dropout: Dropout,
        layer: Linear,
    }

    impl Discriminator for Dropping {
        fn forward(&self, x: Tensor<4>, _class: Option<Tensor<1, Int>>) -> Tensor<1> {
            self.layer
                .forward(self.dropout.forward(x.flatten::<2>(1, 3)))
                .squeeze_dim(1)
        }
    }

    let gan = Gan {
        generator: Constant {
            picture: Initializer::ZEROS.param([1, 1, 8, 8], 1, 1, &flex()),
        },
        discriminator: Dropping {
            dropout: DropoutConfig::new(0.5).init(),
            layer: LinearConfig::new(64, 1).init(&flex()),
        },
    };
    let refused = GanObjective::<_, _, ImageBatch>::new(GanObjectiveConfig::r3gan(1.0), &gan)
        .unwrap_err()
        .to_string();
    assert!(refused.contains("draws random numbers"), "{refused}");
    assert!(GanObjective::<_, _, ImageBatch>::new(GanObjectiveConfig::default(), &gan).is_ok());
}

/// All eight modes are found, by points in the plane.
#[test]
fn ring_of_gaussians_is_covered() {
    let mixture = GaussianMixture::ring(8, 1.0, 0.05).unwrap();
    let loader = DataLoaderConfig {
        batch_size: 256,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(
        mixture.clone().with_points(20_000, 1),
        collate_points,
        loader,
    )
    .unwrap();
    let gan = MlpGanConfig {
        latent_dim: 2,
        hidden: vec![64, 64],
        output_activation: Activation::Identity,
        norm: true,
        ..MlpGanConfig::new(PointBatch::shape())
    };
    let gan = gan.init::<2>(&flex()).unwrap();
    let (run, _keep) = run_dir();
    let trainer = TrainerConfig {
        learning_rate: 2e-3,
        optimizer: OptimizerConfig::adam(0.0, 0.99),
        ema: Some(EmaConfig::new(0.99)),
        ..trainer(800)
    };
    let objective = GanObjective::new(GanObjectiveConfig::r3gan(0.02), &gan).unwrap();
    let trained = Trainer::new(trainer)
        .fit(objective, gan, &loader, &run)
        .unwrap();
    let z = Rng::new(5).normal([2000, 2], &flex());
    let points: Vec<f32> = trained
        .model
        .generator
        .generate(z, None)
        .into_data()
        .iter::<f32>()
        .collect();
    let points: Vec<[f32; 2]> = points.chunks_exact(2).map(|p| [p[0], p[1]]).collect();
    let coverage = mixture.coverage(&points);
    println!("{coverage:?}");
    assert!(
        coverage.modes == 8 && coverage.high_quality_fraction > 0.5,
        "{coverage:?}"
    );
}

fn conditional_generator() -> aigc_gan::models::DcganGenerator {
    let config = DcganConfig {
        channels: vec![4, 6],
        classes: Some(ClassConditioning::new(3)),
        ..DcganConfig::new(ImageShape::new(1, 8, 8))
    };
    config.generator(&flex()).unwrap().init_weights(1)
}

fn values(x: Tensor<4>) -> Vec<f32> {
    x.into_data().iter::<f32>().collect()
}

#[test]
fn samples_depend_on_seed_and_index_only() {
    let generator = conditional_generator();
    let sampler = GanSampler::new(&generator, &flex());
    let sample = |n, seed| values(sampler.sample(n, seed).unwrap().values);
    assert!(sample(30, 1) == sample(30, 1) && sample(30, 1) != sample(30, 2));
    let batched = sampler.clone().with_batch_size(7).sample(30, 1).unwrap();
    let first = sampler.sample(5, 1).unwrap();
    assert_eq!(first.labels.unwrap(), batched.labels.unwrap()[..5]);
    // Convolutions of another batch size may round differently.
    let pairs = values(batched.values).into_iter().zip(sample(30, 1));
    assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-5);
    let pairs = values(first.values).into_iter().zip(sample(30, 1));
    assert!(pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) < 1e-5);
}

#[test]
fn sampler_generates_the_requested_classes() {
    let generator = conditional_generator();
    let sampler = GanSampler::new(&generator, &flex());
    let labels = sampler.sample(300, 1).unwrap().labels.unwrap();
    assert_eq!(labels.iter().collect::<BTreeSet<_>>().len(), 3);
    let twos = sampler.clone().with_classes(ClassLabels::All(2));
    assert_eq!(twos.sample(4, 1).unwrap().labels.unwrap(), [2; 4]);
    // Columns of a grid share their noise.
    let grid = sampler.class_grid(2, 4).unwrap();
    assert_eq!(grid.labels.unwrap(), [0, 0, 1, 1, 2, 2]);
    let z = sampler.sample_latents(2, 4).unwrap();
    let second = sampler.generate(z, Some(&[1, 1])).unwrap();
    assert_eq!(values(grid.values.narrow(0, 2, 2)), values(second));
}

#[test]
fn truncation_bounds_the_noise() {
    let generator = conditional_generator();
    let sampler = GanSampler::new(&generator, &flex()).with_truncation(0.5);
    let latents = sampler.sample_latents(200, 1).unwrap().into_data();
    let latents: Vec<f32> = latents.iter().collect();
    assert!(latents.iter().all(|z| z.abs() <= 0.5) && latents.iter().any(|z| z.abs() > 0.45));
}

#[test]
fn interpolation_begins_at_the_samples_of_its_seed() {
    let generator = conditional_generator();
    let sampler = GanSampler::new(&generator, &flex());
    let frames = sampler.interpolate(3, 5, 6).unwrap();
    assert_eq!((frames.len(), frames[0].dims()), (5, [3, 1, 8, 8]));
    let difference = (frames[0].clone() - sampler.sample(3, 6).unwrap().values).abs();
    assert!(difference.max().into_scalar::<f32>() < 1e-5);
    let moved = (frames[0].clone() - frames[4].clone()).abs();
    assert!(moved.max().into_scalar::<f32>() > 1e-3);
}

#[test]
fn sampling_is_cancelled_between_batches() {
    let generator = conditional_generator();
    let cancel = CancelToken::new();
    let sampler = GanSampler::new(&generator, &flex())
        .with_batch_size(4)
        .with_cancel(cancel.clone())
        .with_callback(|progress| {
            if progress.done == 8 {
                cancel.cancel();
            }
            std::ops::ControlFlow::Continue(())
        });
    let samples = sampler.sample(20, 1).unwrap();
    assert!(!samples.complete);
    assert_eq!(
        (samples.values.dims()[0], samples.labels.unwrap().len()),
        (8, 8)
    );
}

#[test]
fn standing_statistics_are_those_of_the_generator() {
    let config = DcganConfig {
        channels: vec![4, 6],
        ..DcganConfig::new(ImageShape::new(1, 8, 8))
    };
    let generator = config.generator(&flex()).unwrap().init_weights(1);
    let before = bits(&generator);
    // One pass is enough for the old statistics to be gone.
    let measured = standing_statistics(&generator, 1, 4000, 1, &flex()).unwrap();
    let after = bits(&measured);
    let of = |name: &str| {
        after[name]
            .iter()
            .map(|b| f32::from_bits(*b))
            .collect::<Vec<_>>()
    };
    for (name, value) in &before {
        assert_eq!(name.contains("running"), *value != after[name], "{name}");
    }
    assert_eq!(bits(&generator), before, "the generator itself was changed");
    // The first layer is linear in normal noise: each channel's variance is the mean over pixels of
    // Σ w².
    let weights = measured.valid();
    let first = bits(&weights)["layers.0.weight"].clone();
    let weights: Vec<f64> = first
        .iter()
        .map(|b| f64::from(f32::from_bits(*b)))
        .collect();
    let (latent, channels, pixels) = (64, 6, 4);
    for channel in 0..channels {
        let square = |i: usize| {
            (0..pixels)
                .map(|p| weights[(i * channels + channel) * pixels + p].powi(2))
                .sum::<f64>()
        };
        let expected = (0..latent).map(square).sum::<f64>() / pixels as f64;
        let got = f64::from(of("norms.0.norm.running_var")[channel]);
        assert!((got / expected - 1.0).abs() < 0.1, "{got} {expected}");
    }
}

#[test]
fn networks_reject_out_of_range_configs() {
    let shape = ImageShape::new(1, 8, 8);
    let small = DcganConfig {
        channels: vec![4, 6],
        ..DcganConfig::new(shape)
    };
    let message = |config: GanConfig| config.init(&flex()).unwrap_err().to_string();
    let classes = |count| {
        Some(ClassConditioning {
            generator: GeneratorConditioning::ConditionalBatchNorm,
            ..ClassConditioning::new(count)
        })
    };
    for (config, expected) in [
        (
            GanConfig::Dcgan(DcganConfig {
                channels: vec![4; 4],
                ..DcganConfig::new(shape)
            }),
            "a multiple of 16",
        ),
        (
            GanConfig::Dcgan(DcganConfig {
                channels: vec![],
                ..small.clone()
            }),
            "`channels` is []",
        ),
        (
            GanConfig::Dcgan(DcganConfig {
                channels: vec![0],
                ..small.clone()
            }),
            "1 to 4096 each",
        ),
        (
            GanConfig::Dcgan(DcganConfig {
                latent_dim: 0,
                ..small.clone()
            }),
            "`latent_dim` is 0",
        ),
        (
            GanConfig::Dcgan(DcganConfig {
                init_std: Some(-1.0),
                ..small.clone()
            }),
            "`init_std` is -1",
        ),
        (
            GanConfig::Dcgan(DcganConfig {
                classes: classes(0),
                ..small.clone()
            }),
            "`classes.num_classes` is 0",
        ),
        (
            GanConfig::Dcgan(DcganConfig {
                shape: ImageShape::new(1, 8, 16),
                ..small.clone()
            }),
            "a square image",
        ),
        (
            GanConfig::Dcgan(DcganConfig::new(ImageShape::new(1, 7, 7))),
            "`channels` is []",
        ),
        (
            GanConfig::Mlp(MlpGanConfig {
                classes: classes(3),
                ..MlpGanConfig::new(shape)
            }),
            "has no conditional norms",
        ),
        (
            GanConfig::Mlp(MlpGanConfig {
                num_fourier_frequencies: 99,
                ..MlpGanConfig::new(shape)
            }),
            "`num_fourier_frequencies` is 99",
        ),
        (
            GanConfig::Mlp(MlpGanConfig {
                discriminator_hidden: Some(vec![0]),
                ..MlpGanConfig::new(shape)
            }),
            "`discriminator_hidden` is 0",
        ),
        (
            GanConfig::Resnet(ResnetGanConfig {
                levels: 4,
                ..ResnetGanConfig::new(shape)
            }),
            "a multiple of 16",
        ),
        (
            GanConfig::Resnet(ResnetGanConfig {
                norm: DiscriminatorNorm::Batch,
                ..ResnetGanConfig::new(shape)
            }),
            "spectral",
        ),
        (
            GanConfig::Resnet(ResnetGanConfig {
                levels: 2,
                attention_resolution: Some(5),
                ..ResnetGanConfig::new(shape)
            }),
            "one of the maps' sides [4]",
        ),
        (
            GanConfig::R3gan(R3ganConfig {
                group_width: 7,
                ..R3ganConfig::new(shape)
            }),
            "`group_width` is 7",
        ),
        (
            GanConfig::R3gan(R3ganConfig {
                channels: vec![16; 5],
                ..R3ganConfig::new(shape)
            }),
            "a multiple of 16",
        ),
        // Each within its bounds, together more than memory holds.
        (
            GanConfig::Dcgan(DcganConfig {
                channels: vec![64],
                ..DcganConfig::new(ImageShape::new(1, 2048, 2048))
            }),
            "`channels` is 64·64·1024·1024",
        ),
        (
            GanConfig::Mlp(MlpGanConfig {
                hidden: vec![4096],
                ..MlpGanConfig::new(ImageShape::new(1, 1024, 1024))
            }),
            "`hidden` is 4096·1048576·1",
        ),
    ] {
        let message = message(config);
        assert!(message.contains(expected), "{message}");
    }
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
            "`images` is 1×8×12, expected 1×8×8",
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

#[test]
fn points_are_not_augmented() {
    let gan = MlpGanConfig::new(PointBatch::shape()).init::<2>(&flex());
    let config = GanObjectiveConfig {
        augment: Augment::DiffAugment(DiffAugment::default()),
        ..GanObjectiveConfig::default()
    };
    let error = GanObjective::<_, _, PointBatch, 2>::new(config, &gan.unwrap()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("augmentation of samples of shape 2"),
        "{error}"
    );
    let error = MlpGanConfig::new(PointBatch::shape())
        .init::<4>(&flex())
        .unwrap_err();
    assert!(error.to_string().contains("`shape` is 2"), "{error}");
}

#[test]
fn sampler_rejects_invalid_arguments() {
    let config = DcganConfig {
        channels: vec![4, 6],
        ..DcganConfig::new(ImageShape::new(1, 8, 8))
    };
    let generator = config.generator(&flex()).unwrap().init_weights(1);
    let sampler = GanSampler::new(&generator, &flex());
    fn error<T: std::fmt::Debug>(result: Result<T>) -> String {
        result.unwrap_err().to_string()
    }
    assert!(error(sampler.sample(0, 1)).contains("`n` is 0"));
    assert!(error(sampler.clone().with_batch_size(0).sample(1, 1)).contains("`batch_size` is 0"));
    assert!(error(sampler.class_grid(2, 1)).contains("without classes"));
    let ones = sampler.clone().with_classes(ClassLabels::All(1));
    assert!(error(ones.sample(2, 1)).contains("no classes"));
    let z = Tensor::zeros([2, 3], &flex());
    assert!(error(sampler.generate(z, None)).contains("64 latent dimensions"));
    assert!(error(sampler.interpolate(2, 1, 1)).contains("`frames` is 1"));
    let nan = sampler.clone().with_truncation(f64::NAN);
    assert!(error(nan.sample(1, 1)).contains("`truncation` is NaN"));
    let statistics = standing_statistics(&generator, 1, 1, 1, &flex());
    assert!(error(statistics).contains("`batch_size` is 1"));
}
