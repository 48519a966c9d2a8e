//! Training of a classifier of digits or of speakers.

use crate::{
    fsdd::{DataOptions, Label, SECOND, Split, spoken},
    measures::{Measure, Report},
    reader::{Reader, largest_share, right},
    size::Size,
};
use aigc_core::{
    CancelToken,
    eval::sound_classifier::{SoundAugmentation, SoundClassifierObjective},
    train::{LrSchedule, TrainerConfig},
};
use aigc_examples::{RunOptions, after_training};
use clap::Args;

/// Options of `classifier`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    #[command(flatten)]
    data: DataOptions,
    /// What it tells apart.
    #[arg(long, value_enum, default_value = "digit")]
    label: Label,
    /// Size of the network.
    #[arg(long, value_enum, default_value = "full")]
    size: Size,
    /// Batch size.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Learning rate after warm-up.
    #[arg(long, default_value_t = 1e-3)]
    rate: f64,
    #[command(flatten)]
    run: RunOptions,
}

/// Name of the runs with this label.
pub(crate) fn run_name(label: Label) -> &'static str {
    match label {
        Label::Digit => "sound-digits",
        Label::Speaker => "sound-speakers",
    }
}

pub(crate) fn run(options: &Options, stop: CancelToken) -> anyhow::Result<()> {
    let (device, seed) = (options.run.device()?, options.run.seed);
    let fsdd = options.data.open()?;
    let config = options.size.classifier(fsdd.classes(options.label));
    let trainer = options.run.config(TrainerConfig {
        seed,
        learning_rate: options.rate,
        lr_schedule: LrSchedule::cosine(50),
        ..TrainerConfig::new(1_500)
    })?;
    let augmentation = SoundAugmentation::default();
    let objective = SoundClassifierObjective::new().with_augmentation(augmentation)?;
    let loader = fsdd.loader(options.label, SECOND, options.batch as usize, seed)?;
    let run = options.run.run(run_name(options.label))?;
    let trained = options
        .run
        .trainer(trainer, stop.clone(), 50)
        .with_model_config(&config)?
        .with_objective_config(&augmentation)?
        .with_data_config(fsdd.record())?
        .fit(objective, config.init(&device)?, &loader, &run)?;
    after_training(trained, &run, &stop, |trained| {
        let mut report = Report::new(trained.step, trained.elapsed);
        let clips = fsdd.clips(Split::Test)?;
        let labels: Vec<u32> = match options.label {
            Label::Digit => clips.iter().map(|clip| clip.digit).collect(),
            Label::Speaker => clips.iter().map(|clip| clip.speaker).collect(),
        };
        let reader = Reader::new(trained.model, &device);
        let found = right(&reader.read(&spoken(&clips)?)?, &labels)?;
        let measure = Measure::share("test clips read rightly", &found);
        report.push(measure.with_floor(largest_share(&labels)));
        report.finish(&run)?;
        Ok(())
    })
}
