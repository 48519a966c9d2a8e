//! Points in the plane.

use super::*;

/// All eight modes are found, by points in the plane.
#[test]
fn ring_of_gaussians_is_covered() {
    let mixture = GaussianMixtureData::ring(8, 1.0, 0.05).unwrap();
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

/// Points that are declared to lie in `[0, 1]`.
struct UnitPoints(PointBatch);

impl SampleBatch<2> for UnitPoints {
    fn to_tensor(&self, device: &Device) -> Tensor<2> {
        self.0.to_tensor(device)
    }

    fn len(&self) -> usize {
        self.0.len()
    }

    fn sample_shape(&self) -> SampleShape {
        self.0.sample_shape()
    }

    fn value_range(&self) -> ValueRange {
        ValueRange::Unit
    }
}

#[test]
fn objective_rejects_batches_of_another_value_range() {
    let mixture = GaussianMixtureData::ring(8, 1.0, 0.05).unwrap();
    let loader = DataLoaderConfig {
        batch_size: 16,
        num_workers: 0,
        ..DataLoaderConfig::default()
    };
    let collate = |points| UnitPoints(collate_points(points));
    let loader = DataLoader::new(mixture.with_points(64, 1), collate, loader).unwrap();
    let gan = MlpGanConfig::new(PointBatch::shape()).init::<2>(&flex());
    let gan = gan.unwrap();
    let (run, _keep) = run_dir();
    let objective = GanObjective::new(GanObjectiveConfig::default(), &gan).unwrap();
    let error = Trainer::new(trainer(1))
        .fit(objective, gan, &loader, &run)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`value_range` is Unit, expected Unbounded"),
        "{error}"
    );
}

/// In files of earlier versions, points are images of one pixel.
#[test]
fn points_of_one_pixel_open_as_points() {
    let config = MlpGanConfig {
        hidden: vec![8],
        classes: Some(ClassConditioning {
            discriminator: DiscriminatorConditioning::Concat,
            ..ClassConditioning::new(3)
        }),
        ..MlpGanConfig::new(ImageShape::new(2, 1, 1))
    };
    let former = GanConfig::Mlp(config.clone()).init(&flex()).unwrap();
    let former = former.init_weights(1);
    let dir = tempfile::tempdir().unwrap();
    former.save_pretrained(dir.path()).unwrap();
    let opened =
        Gan::<MlpGenerator<2>, MlpDiscriminator<2>>::from_pretrained(dir.path(), &flex()).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    let opened = opened.into_inner();
    assert_eq!(opened.generator.sample_shape(), PointBatch::shape());
    let z: Tensor<2> = Rng::new(3).normal([5, config.latent_dim], &flex());
    let class = Tensor::<1, Int>::from_ints([0, 1, 2, 0, 1], &flex());
    let x = former.generator.generate(z.clone(), Some(class.clone()));
    let points = opened.generator.generate(z, Some(class.clone()));
    assert_eq!(points.dims(), [5, 2]);
    assert_eq!(points.to_data(), x.clone().flatten::<2>(1, 3).into_data());
    assert_eq!(
        opened
            .discriminator
            .forward(points, Some(class.clone()))
            .into_data(),
        former.discriminator.forward(x, Some(class)).into_data()
    );
}

/// Fully connected networks of every rank are saved and opened.
#[test]
fn sound_networks_are_saved_and_opened() {
    let config = MlpGanConfig {
        hidden: vec![8],
        ..MlpGanConfig::new(SampleShape::new(&[1, 6]))
    };
    let gan = config.init::<3>(&flex()).unwrap().init_weights(1);
    let dir = tempfile::tempdir().unwrap();
    gan.save_pretrained(dir.path()).unwrap();
    let opened =
        Gan::<MlpGenerator<3>, MlpDiscriminator<3>>::from_pretrained(dir.path(), &flex()).unwrap();
    assert_eq!(bits(&opened.into_inner()), bits(&gan));
    let error = Gan::<MlpGenerator<2>, MlpDiscriminator<2>>::from_pretrained(dir.path(), &flex())
        .unwrap_err();
    assert!(error.to_string().contains("`shape` is 1×6"), "{error}");
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
