//! What is prepared before training: settings, images, a run directory.

use crate::Args;
use aigc_core::{
    checkpoint::RunDir,
    output::ImageGrid,
    train::{StartFrom, TrainerConfig},
};
use aigc_examples::{Images, ImagesConfig};
use anyhow::{Context, Result};
use serde::{Deserialize, de::DeserializeOwned};

/// Images per step.
pub(crate) const BATCH: usize = 64;

/// The `config.json` of a run; a resumed run takes its settings from there.
#[derive(Deserialize)]
pub(crate) struct Settings<M, O> {
    pub(crate) model: M,
    pub(crate) trainer: TrainerConfig,
    pub(crate) objective: O,
    pub(crate) data: ImagesConfig,
}

/// A run that is about to begin or to be resumed.
pub(crate) struct Job<M, O> {
    pub(crate) settings: Settings<M, O>,
    pub(crate) images: Images,
    existing: Option<RunDir>,
    name: &'static str,
}

impl<M: DeserializeOwned, O: DeserializeOwned> Job<M, O> {
    /// Settings of the run to resume, or `defaults`; lengths and intervals of the command line.
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
            .map(|run| {
                let saved = run.config::<Settings<M, O>>();
                saved.with_context(|| {
                    let path = run.path().display();
                    format!("{path} cannot be resumed as {name}; is --model as before?")
                })
            })
            .transpose()?;
        let (mut settings, images) = match saved {
            Some(saved) => {
                options.check_seed(saved.trainer.seed)?;
                let data = args.data.resumed(&saved.data)?;
                let images = data.open(BATCH, saved.trainer.seed)?;
                // A run of an older version has none.
                let data = match &saved.data.fingerprint {
                    Some(_) => data.recorded(&images),
                    None => data,
                };
                (Settings { data, ..saved }, images)
            }
            None => {
                let (mut settings, images) = defaults()?;
                settings.data = settings.data.recorded(&images);
                (settings, images)
            }
        };
        settings.trainer = options.config(settings.trainer)?;
        Ok(Self {
            settings,
            images,
            existing,
            name,
        })
    }

    /// The run's directory. Called last: a mistake elsewhere then leaves none behind.
    pub(crate) fn folder(&self, args: &Args) -> Result<RunDir> {
        let run = self
            .existing
            .clone()
            .map_or_else(|| args.run.run(self.name), Ok)?;
        self.images.say(&run);
        Ok(run)
    }

    /// Ten images per row; tiny ones are interpolated.
    pub(crate) fn grid(&self) -> ImageGrid {
        let grid = ImageGrid::new(10, self.images.shape.width);
        if self.images.shape.width < 16 {
            grid.with_interpolation()
        } else {
            grid
        }
    }
}

/// Lists the files of a run.
pub(crate) fn list(run: &RunDir, files: &[(&str, &str)]) {
    for (file, what) in files {
        println!("  {:<60} {what}", run.path().join(file).display());
    }
}
