//! The models with latent vectors: configurations and settings of their training.

use crate::{
    Args, Kind,
    experiment::{Bound, Experiment, Recipe},
    table::Published,
};
use aigc_core::{
    Error,
    data::ImageBatch,
    eval::LeNet5,
    train::{AdamConfig, EmaConfig, LrSchedule, OptimizerConfig, TrainerConfig},
};
use aigc_vae::{
    AnyVae, ConditionKind, ConvVaeConfig, GradientEstimator, HierarchicalLevel, HierarchicalVae,
    HierarchicalVaeConfig, IwaeObjective, IwaeObjectiveConfig, KlWeight, MlpVaeConfig, VaeConfig,
    VaeObjective,
};

/// The fully connected model that is compared with that of PyTorch.
pub(crate) fn mlp(experiment: &Experiment<'_>) -> anyhow::Result<()> {
    let model = MlpVaeConfig::new(experiment.images.shape);
    plain(experiment, VaeConfig::Mlp(model))
}

/// The convolutional model that is compared with that of PyTorch.
pub(crate) fn conv(experiment: &Experiment<'_>) -> anyhow::Result<()> {
    let model = ConvVaeConfig::new(experiment.images.shape);
    plain(experiment, VaeConfig::Conv(model))
}

fn plain(experiment: &Experiment<'_>, model: VaeConfig) -> anyhow::Result<()> {
    let recipe = Recipe {
        model,
        trainer: TrainerConfig {
            save_steps: 5000,
            ..trainer(experiment.args, 31_000)
        },
        objective: None,
        published: None,
    };
    by_elbo(experiment, &recipe, KlWeight::default())
}

/// The network with one stochastic layer of Burda et al. 2016. Their learning rate falls in eight
/// stages to a thousandth; here it falls along half a cosine.
pub(crate) fn iwae(experiment: &Experiment<'_>) -> anyhow::Result<()> {
    /// Passes over the training images in the paper, 3⁰ + … + 3⁷.
    const PASSES: usize = 3280;
    let (args, train) = (experiment.args, &experiment.images.train);
    let in_pass = (train.num_items() / train.config().batch_size).max(1);
    let recipe = |objective, published: Option<&'static str>| Recipe {
        model: VaeConfig::Mlp(MlpVaeConfig::iwae(experiment.images.shape)),
        trainer: TrainerConfig {
            max_minutes: args.default_minutes(60.0),
            lr_schedule: LrSchedule::cosine(0),
            optimizer: OptimizerConfig::Adam(AdamConfig::new().with_epsilon(1e-4)),
            save_steps: 5000,
            ..trainer(args, PASSES * in_pass)
        },
        objective: Some(objective),
        published: published.map(|value| Published {
            value,
            source: "Burda et al. 2016",
        }),
    };
    let default = if args.model == Kind::Iwae1 { 1 } else { 5 };
    match (args.k.unwrap_or(default), args.estimator) {
        // The ELBO with the divergence in closed form: the same bound.
        (1, None) => {
            let weight = KlWeight::default();
            let recipe = recipe(Bound::Elbo(weight), Some("86.76"));
            by_elbo(experiment, &recipe, weight)
        }
        (k, estimator) => {
            let config = IwaeObjectiveConfig {
                num_samples: k,
                estimator: estimator.map_or_else(GradientEstimator::default, Into::into),
            };
            let published = match k {
                1 => Some("86.76"),
                5 => Some("85.54"),
                _ => None,
            };
            let recipe = recipe(Bound::ImportanceWeighted(config), published);
            let objective = IwaeObjective::<AnyVae, ImageBatch, 4, 2>::new(config)?;
            experiment.run(&recipe, VaeConfig::init, objective)
        }
    }
}

/// Groups of latents on maps of a quarter of the sides, and of one pixel: finer maps take most of a
/// step's time, and their latents are hardly used.
pub(crate) fn hierarchical(experiment: &Experiment<'_>) -> anyhow::Result<()> {
    let (args, shape) = (experiment.args, experiment.images.shape);
    let mut model = HierarchicalVaeConfig::new(shape);
    let level = |stride, channels, hidden_channels, latent_channels| HierarchicalLevel {
        stride,
        channels,
        hidden_channels,
        encoder_blocks: 2,
        groups: 3,
        latent_channels,
    };
    model.levels = vec![level(4, 64, 32, 4), level(shape.height / 4, 256, 64, 16)];
    // The latents come into use before their divergence has its full weight.
    let weight = KlWeight::new(1.0).with_warmup(700);
    let recipe = Recipe {
        model,
        trainer: TrainerConfig {
            learning_rate: args.rate.unwrap_or(2e-3),
            max_minutes: args.default_minutes(60.0),
            lr_schedule: LrSchedule::cosine(200),
            max_grad_norm: Some(200.0),
            ema: Some(EmaConfig::new(0.999)),
            save_steps: 1000,
            ..trainer(args, 100_000)
        },
        objective: Some(Bound::Elbo(weight)),
        published: Some(Published {
            value: "78.01",
            source: "NVAE, Vahdat and Kautz 2020",
        }),
    };
    let objective = VaeObjective::<HierarchicalVae, ImageBatch, 4, 2>::new(weight)?;
    experiment.run(&recipe, HierarchicalVaeConfig::init, objective)
}

/// A convolutional model with the digit as its condition.
pub(crate) fn conditional(experiment: &Experiment<'_>) -> anyhow::Result<()> {
    let (args, images) = (experiment.args, experiment.images);
    let classes = images.classes()?;
    if experiment.classifier.is_some() && classes != LeNet5::CLASSES {
        let expected = format!(
            "{}, the classes of a LeNet-5; or leave --classifier out",
            LeNet5::CLASSES
        );
        return Err(Error::config("classes", classes, expected).into());
    }
    let condition = ConditionKind {
        num_classes: Some(classes),
        ..ConditionKind::default()
    };
    let weight = KlWeight::default();
    let recipe = Recipe {
        model: VaeConfig::Conv(ConvVaeConfig {
            condition,
            ..ConvVaeConfig::new(images.shape)
        }),
        trainer: TrainerConfig {
            lr_schedule: LrSchedule::cosine(100),
            ema: Some(EmaConfig::new(0.999)),
            save_steps: 1000,
            ..trainer(args, 15_000)
        },
        objective: Some(Bound::Elbo(weight)),
        published: None,
    };
    by_elbo(experiment, &recipe, weight)
}

fn by_elbo(
    experiment: &Experiment<'_>,
    recipe: &Recipe<VaeConfig>,
    weight: KlWeight,
) -> anyhow::Result<()> {
    let objective = VaeObjective::<AnyVae, ImageBatch, 4, 2>::new(weight)?;
    experiment.run(recipe, VaeConfig::init, objective)
}

/// Adam with the seed and the learning rate of the command line.
pub(crate) fn trainer(args: &Args, steps: usize) -> TrainerConfig {
    TrainerConfig {
        seed: args.run.seed,
        learning_rate: args.rate.unwrap_or(1e-3),
        ..TrainerConfig::new(steps)
    }
}
