//! GANs on mixtures of Gaussians in the plane.

use crate::{Method, trainer};
use aigc_core::{
    CancelToken, Result,
    burn::tensor::{Tensor, TensorData},
    data::{DataLoader, DataLoaderConfig, Dataset},
    nn::Activation,
    output::save_scatter,
    train::{DiversityWatch, LrSchedule, Metrics, TrainerConfig},
};
use aigc_examples::{RunOptions, after_training, outln, unless_stopped};
use aigc_gan::{
    Gan, GanConfig, GanObjective, GanSampler, MlpGanConfig,
    models::{MlpDiscriminator, MlpGenerator},
    standing_statistics,
    toy::{GaussianMixtureData, PointBatch, collate_points},
};
use clap::{Args, ValueEnum};

/// Options of `gaussians`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Mixture to learn.
    #[arg(value_enum)]
    mixture: Kind,
    /// Loss and penalties.
    #[arg(long, value_enum, default_value = "r3gan")]
    method: Method,
    /// Weight of the penalties; 0.02 for `r3gan`, 0.1 for `wgan-gp` by default.
    #[arg(long)]
    gamma: Option<f64>,
    /// Steps between evaluations of the penalties, which also multiply their weight; 4 for `r3gan`,
    /// 1 for `wgan-gp` by default.
    #[arg(long)]
    every: Option<usize>,
    /// Updates of the discriminator per update of the generator; 2 for `wgan-gp`, else 1 by
    /// default.
    #[arg(long)]
    discriminator_steps: Option<usize>,
    /// Learning rate of both networks.
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
    /// Batch size.
    #[arg(long, default_value_t = 256)]
    batch: usize,
    /// Width of the hidden layers.
    #[arg(long, default_value_t = 128)]
    width: usize,
    /// Number of hidden layers of the generator, by default 5 for the ring and 7 for the grid; the
    /// discriminator has three.
    #[arg(long)]
    depth: Option<usize>,
    #[command(flatten)]
    run: RunOptions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// 8 Gaussians on a circle of radius 1.
    Ring,
    /// 5×5 Gaussians, 2 apart.
    Grid,
}

const POINTS: usize = 10_000;
/// Points whose diversity is compared with that of real ones, and that are drawn.
const SHOWN: usize = 2000;

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let seed = options.run.seed;
    let device = options.run.device()?;
    // Bad samples are those between the modes, so a generator has to be steep there, seven times as
    // steep for the grid as for the ring. Steepness takes depth rather than width.
    let (mixture, depth) = match options.mixture {
        Kind::Ring => (GaussianMixtureData::ring(8, 1.0, 0.05)?, 5),
        Kind::Grid => (GaussianMixtureData::grid(5, 2.0, 0.05)?, 7),
    };
    let (gamma, every, discriminator_steps) = match options.method {
        Method::Plain => (0.0, 1, 1),
        Method::WganGp => (0.1, 1, 2),
        Method::R3gan => (0.02, 4, 1),
    };
    let steps = match (options.mixture, options.method) {
        (Kind::Ring, Method::WganGp) => 10_000,
        (Kind::Grid, Method::Plain | Method::R3gan) => 50_000,
        _ => 12_000,
    };
    let data = mixture.clone().with_points(100_000, seed);
    let loader = DataLoaderConfig {
        batch_size: options.batch,
        shuffle_seed: Some(seed),
        ..DataLoaderConfig::default()
    };
    let loader = DataLoader::new(data, collate_points, loader)?;
    let config = MlpGanConfig {
        latent_dim: 2,
        hidden: vec![options.width; options.depth.unwrap_or(depth)],
        discriminator_hidden: Some(vec![options.width; 3]),
        norm: true,
        output_activation: Activation::Identity,
        ..MlpGanConfig::new(PointBatch::shape())
    };
    let gan = config.init::<2>(&device)?;
    let model = GanConfig::Mlp(config);
    let mut objective = options.method.objective(options.gamma.unwrap_or(gamma));
    objective.discriminator_steps = options.discriminator_steps.unwrap_or(discriminator_steps);
    for penalty in &mut objective.penalties {
        penalty.interval = options.every.unwrap_or(every);
    }
    let trainer_config = options.run.config(TrainerConfig {
        eval_steps: 5000,
        ..trainer(
            seed,
            steps,
            options.rate,
            [0.0, 0.99],
            LrSchedule::cosine(0),
        )
    })?;
    let learning = GanObjective::new(objective.clone(), &gan)?;
    let real = mixture.clone().with_points(SHOWN, 1);
    let real = (0..SHOWN)
        .map(|i| real.get(i))
        .collect::<Result<Vec<[f32; 2]>>>()?;
    let tensor = |points: &[[f32; 2]]| {
        let data = TensorData::new(points.concat(), [points.len(), 2]);
        Tensor::<2>::from_data(data, &device)
    };
    let watch = DiversityWatch::new(&tensor(&real))?;
    let run = options.run.run("gaussians")?;
    let points = |generator: &MlpGenerator<2>| -> Result<Vec<[f32; 2]>> {
        let sampler = GanSampler::new(generator, &device).with_batch_size(POINTS);
        let values = sampler.sample(POINTS, seed)?.values.into_data();
        let values: Vec<f32> = values.iter().collect();
        let pairs = values.chunks_exact(2);
        Ok(pairs.map(|point| [point[0], point[1]]).collect())
    };
    let trained = options
        .run
        .trainer(trainer_config, stop.clone(), 100)
        .with_callback(watch.clone())
        .with_model_config(&model)?
        .with_objective_config(&objective)?
        .with_evaluation(|gan: &Gan<MlpGenerator<2>, MlpDiscriminator<2>>| {
            unless_stopped(&stop, || {
                let generated = points(&gan.generator)?;
                let coverage = mixture.coverage(&generated);
                let mut metrics: Metrics = vec![
                    ("within".into(), coverage.high_quality_fraction),
                    ("modes".into(), coverage.modes as f64),
                    ("rarest".into(), coverage.rarest_mode_ratio),
                ];
                metrics.extend(watch.metrics(&tensor(&generated[..SHOWN]))?);
                Ok(metrics)
            })
        })
        .fit(learning, gan, &loader, &run)?;
    after_training(trained, &run, &stop, |trained| {
        let generator = standing_statistics(&trained.model.generator, 50, 256, seed, &device)?;
        let generated = points(&generator)?;
        let picture = run.path().join("points.svg");
        save_scatter(
            &[("real", &real), ("generated", &generated[..SHOWN])],
            &picture,
        )?;
        let coverage = mixture.coverage(&generated);
        outln!(
            "{:?} {:?} seed {}: {} of {} modes, {:.2} % of {POINTS} samples within 3 sigma (98.89 % at best), \
             the rarest mode has {:.2} of an even share, {} steps; {}",
            options.mixture,
            options.method,
            seed,
            coverage.modes,
            mixture.modes(),
            100.0 * coverage.high_quality_fraction,
            coverage.rarest_mode_ratio,
            trained.step,
            picture.display()
        );
        Ok(())
    })
}
