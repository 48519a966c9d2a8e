//! Gaussians in the plane.

use crate::{Common, Method};
use aigc_core::{
    data::{Loader, LoaderConfig},
    nn::Activation,
    output::save_scatter,
    rng::Rng,
    train::{MetricsLog, ParamGroupConfig, ProgressBar, Schedule, StopFlag, StopReason, Trainer, TrainerConfig},
};
use aigc_examples::say_how_to_go_on;
use aigc_gan::{
    AnyGan, AnyGenerator, GanConfig, GanObjective, Generator, Mixture, MlpGanConfig, PointBatch, collate_points,
    standing_statistics,
};
use clap::{Args, ValueEnum};

/// Options of `gaussians`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Which mixture.
    #[arg(value_enum)]
    mixture: Kind,
    /// Which game.
    #[arg(long, value_enum, default_value = "r3gan")]
    method: Method,
    /// Weight of the penalties.
    #[arg(long)]
    gamma: Option<f64>,
    /// Learning rate.
    #[arg(long)]
    rate: Option<f64>,
    /// Weight of the penalties at the last step.
    #[arg(long)]
    gamma_end: Option<f64>,
    /// Width of the hidden layers.
    #[arg(long, default_value_t = 128)]
    width: usize,
    /// Samples of a step.
    #[arg(long, default_value_t = 256)]
    batch: usize,
    /// Factor on the generator's learning rate.
    #[arg(long, default_value_t = 1.0)]
    generator_rate: f64,
    /// Updates of the critic per update of the generator.
    #[arg(long)]
    critic_steps: Option<usize>,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// 8 on a circle of radius 1.
    Ring,
    /// 5×5, 2 apart.
    Grid,
}

const POINTS: usize = 10_000;

pub(crate) fn run(options: &Options, stop: StopFlag) -> anyhow::Result<()> {
    let common = &options.common;
    let device = common.device()?;
    let mixture = match options.mixture {
        Kind::Ring => Mixture::ring(8, 1.0, 0.05)?,
        Kind::Grid => Mixture::grid(5, 2.0, 0.05)?,
    };
    let data = mixture.clone().with_points(100_000, common.seed);
    let loader = LoaderConfig { batch_size: options.batch, shuffle: Some(common.seed), ..LoaderConfig::default() };
    let loader = Loader::new(data, collate_points, loader)?;
    let model = GanConfig::Mlp(MlpGanConfig {
        latent: 2,
        hidden: vec![options.width; 3],
        norm: true,
        output: Activation::Identity,
        ..MlpGanConfig::new(PointBatch::SHAPE)
    });
    let gan = model.init(&device)?;
    let gamma = options.gamma.unwrap_or(0.1);
    let mut objective = options.method.objective(gamma);
    for penalty in &mut objective.penalties {
        penalty.weight_at_end = options.gamma_end;
    }
    objective.critic_steps = options.critic_steps.unwrap_or(objective.critic_steps);
    let trainer = common.trainer(10_000, options.rate.unwrap_or(5e-4), [0.0, 0.99], Schedule::cosine(0));
    let trainer =
        TrainerConfig { groups: vec![ParamGroupConfig::new(r"^generator\.", options.generator_rate)], ..trainer };
    let run = common.run("gaussians")?;
    let points = |generator: &AnyGenerator| -> Vec<[f32; 2]> {
        let z = Rng::keyed(common.seed, "points", 0).normal([POINTS, generator.latent()], &device);
        let values = generator.generate(z, None).into_data().iter::<f32>().collect::<Vec<_>>();
        values.chunks_exact(2).map(|point| [point[0], point[1]]).collect()
    };
    let trained = Trainer::new(trainer)
        .start(common.start())
        .stop_flag(stop)
        .model_config(&model)?
        .objective_config(&objective)?
        .observe(ProgressBar::new())
        .observe(MetricsLog::every(100))
        .evaluate(|gan: &AnyGan| {
            let coverage = mixture.coverage(&points(&gan.generator));
            Ok(vec![("within".into(), coverage.within), ("modes".into(), coverage.modes as f64)])
        })
        .fit(GanObjective::new(objective, &gan)?, gan, &loader, &run)?;
    if trained.reason == StopReason::Interrupted {
        say_how_to_go_on(trained.step, &run);
        return Ok(());
    }
    let mut rng = Rng::keyed(common.seed, "standing", 0);
    let made = points(&standing_statistics(&trained.model.generator, 50, 256, &mut rng, &device)?);
    let real = mixture.clone().with_points(2000, 1);
    let real: Vec<[f32; 2]> = (0..2000).map(|i| aigc_core::data::Dataset::get(&real, i)).collect::<Result<_, _>>()?;
    let picture = run.path().join("points.svg");
    save_scatter(&[("real", &real), ("generated", &made[..2000])], &picture)?;
    let coverage = mixture.coverage(&made);
    println!(
        "{:?} {:?} seed {}: {} of {} modes, {:.2} % of {POINTS} samples within 3 sigma (98.89 % at best), {} steps; {}",
        options.mixture,
        options.method,
        common.seed,
        coverage.modes,
        mixture.modes(),
        100.0 * coverage.within,
        trained.step,
        picture.display()
    );
    Ok(())
}
