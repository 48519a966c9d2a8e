//! What every kind of model does before it trains: settings, images, a folder.

use crate::Args;
use aigc_core::{
    checkpoint::RunDir,
    output::ImageGrid,
    train::{StartFrom, TrainerConfig},
};
use aigc_examples::{Images, ImagesConfig};
use anyhow::Result;
use serde::{Deserialize, de::DeserializeOwned};

/// Images of a step.
pub(crate) const BATCH: usize = 64;

/// What a run's `config.json` says of it; a resumed run takes it from there.
#[derive(Deserialize)]
pub(crate) struct Settings<M, O> {
    pub(crate) model: M,
    pub(crate) trainer: TrainerConfig,
    pub(crate) objective: O,
    pub(crate) data: ImagesConfig,
}

/// A run that is about to begin or to go on.
pub(crate) struct Job<M, O> {
    pub(crate) settings: Settings<M, O>,
    pub(crate) images: Images,
    existing: Option<RunDir>,
    name: &'static str,
}

impl<M: DeserializeOwned, O: DeserializeOwned> Job<M, O> {
    /// Settings from the run to resume, or `defaults`; lengths and cadences from the command line.
    pub(crate) fn prepare(
        args: &Args,
        name: &'static str,
        defaults: impl FnOnce() -> Result<(Settings<M, O>, Images)>,
    ) -> Result<Self> {
        let options = &args.run;
        let existing = if options.start() == StartFrom::Fresh {
            None
        } else {
            Some(options.existing_run(name)?)
        };
        // A run that was killed before it wrote its settings begins with the given ones.
        let saved = existing
            .as_ref()
            .filter(|run| run.config_path().exists())
            .map(RunDir::config)
            .transpose()?;
        let (mut settings, images) = match saved {
            Some(saved) => {
                let saved: Settings<M, O> = saved;
                let images = saved.data.open(BATCH, saved.trainer.seed)?;
                (saved, images)
            }
            None => defaults()?,
        };
        settings.trainer = options.config(settings.trainer)?;
        Ok(Self {
            settings,
            images,
            existing,
            name,
        })
    }

    /// The run's folder. Asked for last, so that a mistake elsewhere leaves no empty one behind.
    pub(crate) fn folder(&self, args: &Args) -> Result<RunDir> {
        let run = self
            .existing
            .clone()
            .map_or_else(|| args.run.run(self.name), Ok)?;
        self.images.say(&run);
        Ok(run)
    }

    /// Ten images a row; tiny ones are smoothed.
    pub(crate) fn grid(&self) -> ImageGrid {
        let grid = ImageGrid::new(10, self.images.shape.width);
        if self.images.shape.width < 16 {
            grid.with_interpolation()
        } else {
            grid
        }
    }
}

/// Lists what a run has left.
pub(crate) fn list(run: &RunDir, files: &[(&str, &str)]) {
    for (file, what) in files {
        println!("  {:<60} {what}", run.path().join(file).display());
    }
}
