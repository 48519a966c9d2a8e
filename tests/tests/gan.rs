//! Adversarial training as a user meets it.

use aigc_core::{
    CancelToken, Result,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, Image, ImageBatch, ImageShape, InMemory, collate_images},
    device::device,
    nn::{Activation, Dropout, DropoutConfig, Initializer, Linear, LinearConfig},
    rng::{InitWeights, Rng},
    train::{
        EmaConfig, Event, OptimizerConfig, ParamGroupConfig, StartFrom, Trainer, TrainerConfig,
    },
};
use aigc_gan::{
    Ada, AnyGan, Augment, ClassConditioning, ClassLabels, CollapseMonitor, DcganConfig,
    DiffAugment, Discriminator, DiscriminatorConditioning, DiscriminatorNorm, Gan, GanConfig,
    GanLoss, GanObjective, GanObjectiveConfig, GanSampler, GaussianMixture, Generator,
    GeneratorConditioning, GradientPenalty, LeCam, MlpGanConfig, PointBatch, R3ganConfig,
    ResnetGanConfig, collate_points, standing_statistics,
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

fn run_folder() -> (RunDir, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    (RunDir::create(folder.path().join("run")).unwrap(), folder)
}

/// Each kind of network, with each way to tell it a class.
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
                attention: Some(4),
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

#[test]
fn every_network_makes_its_shape_and_all_of_it_learns() {
    for config in networks() {
        let gan = config.init(&flex()).unwrap().init_weights(2);
        let shape = gan.generator.sample_shape();
        let before = bits(&gan);
        let (run, _keep) = run_folder();
        let objective =
            GanObjective::new(GanObjectiveConfig::new(GanLoss::NonSaturating), &gan).unwrap();
        let trained = Trainer::new(trainer(3))
            .fit(objective, gan, &batches(bars(shape, 24), 12), &run)
            .unwrap();
        let after = bits(&trained.model);
        for (name, value) in &before {
            assert!(*value != after[name], "{name} of {config:?} did not move");
        }
        let sampler = GanSampler::new(&trained.model.generator, &flex());
        let pictures = sampler.sample(5, &mut Rng::new(3)).unwrap();
        assert_eq!(
            pictures.dims(),
            [5, shape.channels, shape.height, shape.width]
        );
        let values: Vec<f32> = pictures.into_data().iter::<f32>().collect();
        assert!(values.iter().all(|v| (0.0..=1.0).contains(v)));
    }
}

#[test]
fn sides_of_28_32_and_64_pixels_fit_by_themselves() {
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
            assert_eq!(gan.discriminator.score(x, None).dims(), [2]);
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
fn a_saved_pair_is_opened_by_its_folder() {
    let config = GanConfig::Dcgan(DcganConfig {
        channels: vec![4, 6],
        norm: DiscriminatorNorm::Spectral,
        classes: Some(ClassConditioning::new(3)),
        ..DcganConfig::new(ImageShape::new(1, 8, 8))
    });
    let gan = config.init(&flex()).unwrap();
    let (run, _keep) = run_folder();
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
    let opened = aigc_gan::load(&run.final_dir(), &flex()).unwrap();
    assert_eq!(bits(&opened), bits(&trained.model));
}

/// Everything with a memory of its own at once: spectral norms, LeCam's anchors, ADA's probability,
/// the monitor, two updates of the critic, accumulated batches, averaged weights.
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
            speed: 50.0,
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
    let (run, _keep) = run_folder();
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
fn a_stopped_game_ends_like_one_that_never_stopped() {
    let (whole, state) = train_with_everything(&[]);
    assert!(state["augment"].as_f64().unwrap() > 0.1, "{state}");
    assert!(
        state["anchors"]["begun"].as_bool().unwrap()
            && state["watch"]["looks"].as_u64().unwrap() == 6,
        "{state}"
    );
    for stops in [&[5][..], &[1, 6, 10]] {
        let (resumed, resumed_state) = train_with_everything(stops);
        assert_eq!(bits(&resumed), bits(&whole), "stops at {stops:?}");
        assert_eq!(resumed_state, state);
    }
}

#[test]
fn weights_are_clipped_after_every_update_of_the_critic() {
    let gan = GanConfig::Mlp(MlpGanConfig {
        hidden: vec![16],
        ..MlpGanConfig::new(ImageShape::new(1, 8, 8))
    });
    let gan = gan.init(&flex()).unwrap();
    let objective = GanObjectiveConfig {
        weight_clip: Some(0.02),
        ..GanObjectiveConfig::new(GanLoss::Wasserstein)
    };
    let (run, _keep) = run_folder();
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
    assert_eq!(most("critic"), 0.02);
    assert!(most("generator") > 0.1);
}

/// A generator that has nothing to say, and a critic of a user's own.
#[derive(Module, Debug)]
struct Silent {
    picture: Param<Tensor<4>>,
}

impl Generator for Silent {
    fn generate(&self, z: Tensor<2>, _class: Option<Tensor<1, Int>>) -> Tensor<4> {
        self.picture.val().tanh().repeat_dim(0, z.dims()[0])
    }

    fn latent_dim(&self) -> usize {
        1
    }

    fn sample_shape(&self) -> ImageShape {
        ImageShape::new(1, 8, 8)
    }
}

#[derive(Module, Debug)]
struct OneLayer {
    layer: Linear,
}

impl Discriminator for OneLayer {
    fn score(&self, x: Tensor<4>, _class: Option<Tensor<1, Int>>) -> Tensor<1> {
        self.layer.forward(x.flatten::<2>(1, 3)).squeeze_dim(1)
    }
}

#[test]
fn ones_own_players_plug_in_and_a_collapse_is_told() {
    let gan = Gan {
        generator: Silent {
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
    let (run, _keep) = run_folder();
    let mut told = Vec::new();
    Trainer::new(trainer(40))
        .with_callback(|event: &Event<'_>| {
            if let Event::Alert { step, kind, text } = event {
                told.push((*step, *kind, text.to_string()));
            }
        })
        .fit(
            GanObjective::new(objective, &gan).unwrap(),
            gan,
            &batches(bars(ImageShape::new(1, 8, 8), 24), 12),
            &run,
        )
        .unwrap();
    let collapse: Vec<_> = told
        .iter()
        .filter(|(_, kind, _)| *kind == "collapse")
        .collect();
    assert!(collapse.len() == 1 && collapse[0].0 == 9, "{told:?}");
    assert!(
        collapse[0].2.contains("the generator is collapsing"),
        "{told:?}"
    );
}

/// Every update of the critic sees a batch of its own, the generator the last of them; rates differ
/// where groups say so.
#[test]
fn the_critic_moves_as_often_and_as_fast_as_it_should() {
    let shape = ImageShape::new(1, 8, 8);
    let train = |discriminator_steps, critic_rate, steps| {
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
        let groups = vec![ParamGroupConfig::new("^critic\\.", critic_rate)];
        let trainer = TrainerConfig {
            param_groups: groups,
            optimizer: OptimizerConfig::sgd(),
            ..trainer(steps)
        };
        let (run, _keep) = run_folder();
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
            moved("critic"),
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
fn penalties_refuse_a_critic_that_draws_at_random() {
    #[derive(Module, Debug)]
    struct Dropping {
        dropout: Dropout,
        layer: Linear,
    }

    impl Discriminator for Dropping {
        fn score(&self, x: Tensor<4>, _class: Option<Tensor<1, Int>>) -> Tensor<1> {
            self.layer
                .forward(self.dropout.forward(x.flatten::<2>(1, 3)))
                .squeeze_dim(1)
        }
    }

    let gan = Gan {
        generator: Silent {
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
    assert!(refused.contains("draws at random"), "{refused}");
    assert!(GanObjective::<_, _, ImageBatch>::new(GanObjectiveConfig::default(), &gan).is_ok());
}

/// The game is won: all eight modes are found, by points that lie where the data lie.
#[test]
fn a_ring_is_learned() {
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
    let gan = GanConfig::Mlp(MlpGanConfig {
        latent: 2,
        hidden: vec![64, 64],
        output: Activation::Identity,
        norm: true,
        ..MlpGanConfig::new(PointBatch::SHAPE)
    });
    let gan = gan.init(&flex()).unwrap();
    let (run, _keep) = run_folder();
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

#[test]
fn a_seed_is_a_picture_and_classes_are_what_was_asked_for() {
    let classes = Some(ClassConditioning::new(3));
    let config = DcganConfig {
        channels: vec![4, 6],
        classes,
        ..DcganConfig::new(ImageShape::new(1, 8, 8))
    };
    let generator = config.generator(&flex()).unwrap().init_weights(1);
    let sampler = GanSampler::new(&generator, &flex());
    let values = |x: Tensor<4>| x.into_data().iter::<f32>().collect::<Vec<_>>();
    let sample = |seed| values(sampler.sample(300, &mut Rng::new(seed)).unwrap());
    assert!(sample(1) == sample(1) && sample(1) != sample(2));
    let (_, asked) = sampler.sample_with_labels(300, &mut Rng::new(1)).unwrap();
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 3);
    let (_, asked) = sampler
        .clone()
        .with_classes(ClassLabels::All(2))
        .sample_with_labels(4, &mut Rng::new(1))
        .unwrap();
    assert_eq!(asked, [2; 4]);
    // A grid's columns share their noise: the same class and noise, the same picture.
    let grid = sampler.class_grid(2, &mut Rng::new(4)).unwrap();
    let z = sampler.sample_latents(2, &mut Rng::new(4));
    let second = sampler.decode(z, Some(vec![1, 1])).unwrap();
    assert_eq!(values(grid.narrow(0, 2, 2)), values(second));
    let latents: Vec<f32> = sampler
        .clone()
        .with_truncation(0.5)
        .unwrap()
        .sample_latents(200, &mut Rng::new(1))
        .into_data()
        .iter::<f32>()
        .collect();
    assert!(latents.iter().all(|z| z.abs() <= 0.5) && latents.iter().any(|z| z.abs() > 0.45));
    let walk = sampler.interpolate(3, 5, &mut Rng::new(6)).unwrap();
    assert_eq!((walk.len(), walk[0].dims()), (5, [3, 1, 8, 8]));
    let mut rng = Rng::new(6);
    let first = sampler.sample_latents(3, &mut rng);
    let _ = sampler.sample_latents(3, &mut rng);
    let drawn: Vec<u32> = (0..3).map(|_| rng.random_index(3) as u32).collect();
    let difference = (walk[0].clone() - sampler.decode(first, Some(drawn)).unwrap())
        .abs()
        .max();
    assert!(difference.into_scalar::<f32>() < 1e-5);
}

#[test]
fn standing_statistics_are_those_of_the_generator_s_own_maps() {
    let config = DcganConfig {
        channels: vec![4, 6],
        ..DcganConfig::new(ImageShape::new(1, 8, 8))
    };
    let generator = config.generator(&flex()).unwrap().init_weights(1);
    let before = bits(&generator);
    // One pass is enough for the old statistics to be gone.
    let measured = standing_statistics(&generator, 1, 4000, &mut Rng::new(1), &flex()).unwrap();
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
fn mistakes_are_told_at_the_door() {
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
                latent: 0,
                ..small.clone()
            }),
            "`latent` is 0",
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
            "`classes.count` is 0",
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
            "has no norms",
        ),
        (
            GanConfig::Mlp(MlpGanConfig {
                num_fourier_frequencies: 99,
                ..MlpGanConfig::new(shape)
            }),
            "`octaves` is 99",
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
                attention: Some(5),
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

    // Players that were put together from two pairs.
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
            error.contains("`classes` is 3 of the critic") && error.contains(expected),
            "{error}"
        );
    }

    let gan = GanConfig::Dcgan(small.clone()).init(&flex()).unwrap();
    let refused = |config: GanObjectiveConfig| {
        GanObjective::<_, _, ImageBatch>::new(config, &gan)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(GanObjectiveConfig::r3gan(1.0)).contains("the critic has batch normalisation"));
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
            "`monitor.every` is 0",
        ),
        (
            GanObjectiveConfig {
                augment: Augment::DiffAugment(DiffAugment {
                    cutout: 2.0,
                    ..Default::default()
                }),
                ..Default::default()
            },
            "`augment.diff.cutout` is 2",
        ),
        (
            GanObjectiveConfig {
                augment: Augment::Adaptive(Ada {
                    speed: 0.0,
                    ..Default::default()
                }),
                ..Default::default()
            },
            "`augment.adaptive.speed` is 0",
        ),
    ] {
        let message = refused(config);
        assert!(message.contains(expected), "{message}");
    }

    let fit = |config: DcganConfig, images: Vec<Image>, batch_size| -> Result<_> {
        let gan = GanConfig::Dcgan(config).init(&flex())?;
        let (run, _keep) = run_folder();
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

    let generator = small.generator(&flex()).unwrap().init_weights(1);
    let sampler = GanSampler::new(&generator, &flex());
    let rng = &mut Rng::new(1);
    let error = |result: Result<Tensor<4>>| result.unwrap_err().to_string();
    assert!(error(sampler.sample(0, rng)).contains("`n` is 0"));
    assert!(error(sampler.class_grid(2, rng)).contains("no classes"));
    assert!(
        error(
            sampler
                .clone()
                .with_classes(ClassLabels::All(1))
                .sample(2, rng)
        )
        .contains("no classes")
    );
    assert!(
        error(sampler.decode(Tensor::zeros([2, 3], &flex()), None))
            .contains("64 latent dimensions")
    );
    assert!(
        sampler
            .interpolate(2, 1, rng)
            .unwrap_err()
            .to_string()
            .contains("`frames` is 1")
    );
    assert!(sampler.clone().with_truncation(f64::NAN).is_err());
    assert!(standing_statistics(&generator, 1, 1, rng, &flex()).is_err());
}
