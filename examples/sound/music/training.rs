//! Settings of trainings, and the training itself.

use crate::{
    Args,
    model::{NoteLm, NoteLmConfig},
    notation::Notation,
    objective::{NoteObjective, total_nats},
    windows::{NoteBatch, Windows},
};
use aigc_core::{
    CancelToken, Error, Result,
    burn::{module::Module, tensor::Device},
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig},
    train::{LrSchedule, OptimizerConfig, ParamGroupConfig, StartFrom, TrainOutput, TrainerConfig},
};
use aigc_examples::{outln, unless_stopped};
use clap::Args as ClapArgs;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

const NAME: &str = "music";

/// Sizes of a model and its training; by default those of the kind of music.
#[derive(Clone, Debug, ClapArgs)]
pub(crate) struct ModelOptions {
    /// Number of blocks.
    #[arg(long, value_name = "N")]
    layers: Option<usize>,
    /// Number of heads.
    #[arg(long, value_name = "N")]
    heads: Option<usize>,
    /// Width of the model.
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    /// Context length, in tokens.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(16..=65_536))]
    context: Option<u32>,
    /// Dropout.
    #[arg(long, value_name = "P")]
    dropout: Option<f64>,
    /// Batch size.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Learning rate.
    #[arg(long, value_name = "RATE")]
    learning_rate: Option<f64>,
}

/// The `config.json` of a run.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Settings {
    pub(crate) model: NoteLmConfig,
    pub(crate) trainer: TrainerConfig,
    pub(crate) data: DataConfig,
}

/// What a run was trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct DataConfig {
    /// Directory of the chorales.
    pub(crate) path: Option<PathBuf>,
    /// Hash of the file, or the description of the grammar's pieces.
    pub(crate) fingerprint: String,
    /// Batch size.
    batch: usize,
}

/// A training that is to begin or to go on.
pub(crate) struct Job<'a> {
    pub(crate) args: &'a Args,
    pub(crate) device: Device,
    pub(crate) stop: CancelToken,
    pub(crate) settings: Settings,
    run: Option<RunDir>,
}

/// Held-out pieces with start and end, and what their nats are counted for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeldOut<'a> {
    pub(crate) pieces: &'a [Vec<u32>],
    /// Number of notes, frames or tokens.
    pub(crate) units: usize,
    /// Name of the result.
    pub(crate) name: &'a str,
}

impl<'a> Job<'a> {
    /// The settings of the command line, or those of the run that is resumed.
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range; [`Error::Run`] without a run to resume;
    /// [`Error::InvalidArgument`] for another seed, or data, than those that a run began with.
    pub(crate) fn new(args: &'a Args, stop: CancelToken) -> Result<Self> {
        let device = args.run.device()?;
        let run = match args.run.start() {
            StartFrom::Fresh => None,
            _ => Some(args.run.existing_run(NAME)?),
        };
        // A run that was killed before it wrote its settings starts with the given ones.
        let begun = run.as_ref().filter(|run| run.config_path().exists());
        let mut settings = match begun {
            None => usual(args.notation(), args),
            Some(run) => {
                let saved: Settings = run.config()?;
                args.run.check_seed(saved.trainer.seed)?;
                saved
            }
        };
        args.model_options.change(&mut settings);
        if args.grid.is_some() {
            settings.model.notation = args.notation();
        }
        if let Some(data) = &args.data {
            if settings.model.notation == Notation::Melodies {
                let expected = "left out: the run began with melodies of the grammar";
                return Err(Error::argument("--data", data.display(), expected));
            }
            settings.data.path = Some(data.clone());
        }
        settings.model.validate()?;
        args.sampling.check(settings.model.notation)?;
        settings.trainer = args.run.config(settings.trainer)?;
        Ok(Self {
            args,
            device,
            stop,
            settings,
            run,
        })
    }

    /// Trains on windows. Held-out pieces are evaluated in between and decide which model is best.
    ///
    /// # Errors
    /// Errors of settings and files.
    pub(crate) fn train(
        &self,
        windows: Windows,
        held_out: HeldOut<'_>,
    ) -> Result<(TrainOutput<NoteLm>, RunDir)> {
        let Settings {
            model,
            trainer,
            data,
        } = &self.settings;
        let config = DataLoaderConfig {
            batch_size: data.batch,
            shuffle_seed: Some(trainer.seed),
            ..DataLoaderConfig::default()
        };
        let loader = DataLoader::new(windows, NoteBatch::collate, config)?;
        let network = model.init(&self.device)?;
        let options = &self.args.run;
        let run = match &self.run {
            Some(run) => run.clone(),
            None => options.run(NAME)?,
        };
        outln!(
            "{} parameters; run directory: {}",
            network.num_params(),
            run.path().display()
        );
        let stride = model.n_positions / 2;
        let trained = options
            .trainer(trainer.clone(), self.stop.clone(), 10)
            .with_model_config(model)?
            .with_data_config(data)?
            .with_evaluation(|model| {
                unless_stopped(&self.stop, || {
                    let nats = total_nats(model, held_out.pieces, stride, &self.stop)?;
                    let each = nats / held_out.units.max(1) as f64;
                    Ok(vec![(held_out.name.to_string(), each)])
                })
            })
            .fit(NoteObjective, network, &loader, &run)?;
        Ok((trained, run))
    }
}

impl ModelOptions {
    /// Replaces what is given.
    fn change(&self, settings: &mut Settings) {
        let (model, trainer) = (&mut settings.model, &mut settings.trainer);
        model.n_layer = self.layers.unwrap_or(model.n_layer);
        model.n_head = self.heads.unwrap_or(model.n_head);
        model.n_embd = self.width.unwrap_or(model.n_embd);
        model.n_positions = self.context.map_or(model.n_positions, |n| n as usize);
        model.dropout = self.dropout.unwrap_or(model.dropout);
        trainer.learning_rate = self.learning_rate.unwrap_or(trainer.learning_rate);
        settings.data.batch = self.batch.unwrap_or(settings.data.batch);
    }
}

/// Settings of a kind of music: AdamW with weight decay on matrices only, half a cosine, gradients
/// clipped to norm 1.
fn usual(notation: Notation, args: &Args) -> Settings {
    let size = |n_positions, n_embd, dropout| NoteLmConfig {
        notation,
        n_positions,
        n_embd,
        dropout,
        ..NoteLmConfig::default()
    };
    let (model, batch, steps, learning_rate) = match notation {
        Notation::Melodies => (size(192, 128, 0.0), 16, 1500, 3e-3),
        Notation::Sixteenths => (size(512, 192, 0.1), 8, 3000, 2e-3),
        Notation::Quarters => (size(256, 128, 0.2), 16, 4000, 2e-3),
    };
    // Endless pieces cannot be learnt by heart; chorales can.
    let eval_steps = match notation {
        Notation::Melodies => 0,
        _ => 250,
    };
    let steps = args.run.steps.unwrap_or(steps);
    let optimizer = OptimizerConfig::adam_w(0.9, 0.99, 0.1);
    let trainer = TrainerConfig {
        seed: args.run.seed,
        learning_rate,
        lr_schedule: LrSchedule {
            min_lr_ratio: 0.05,
            ..LrSchedule::cosine(100.min(steps / 10))
        },
        param_groups: vec![ParamGroupConfig::no_weight_decay_for_1d(&optimizer)],
        optimizer,
        max_grad_norm: Some(1.0),
        eval_steps,
        load_best_model_at_end: eval_steps > 0,
        ..TrainerConfig::new(steps)
    };
    Settings {
        model,
        trainer,
        data: DataConfig {
            batch,
            ..DataConfig::default()
        },
    }
}
