//! Networks of every kind: training, classes, sizes.

use super::*;

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
