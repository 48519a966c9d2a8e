//! Preparation of a training run: settings, images and run directory.

use crate::Args;
use aigc_core::{
    checkpoint::RunDir,
    output::ImageGrid,
    train::{StartFrom, TrainerConfig},
};
use aigc_examples::{Images, ImagesConfig, outln};
use anyhow::{Context, Result};
use serde::{Deserialize, de::DeserializeOwned};

/// Batch size.
pub(crate) const BATCH: usize = 64;

/// Settings in the `config.json` of a run, which a resumed run uses.
#[derive(Deserialize)]
pub(crate) struct Settings<M, O> {
    pub(crate) model: M,
    pub(crate) trainer: TrainerConfig,
    pub(crate) objective: O,
    pub(crate) data: ImagesConfig,
}

/// A new run, or one to resume.
pub(crate) struct Job<M, O> {
    pub(crate) settings: Settings<M, O>,
    pub(crate) images: Images,
    /// Whether the time limit is that of the command line or of a new run, not a saved one.
    pub(crate) new_limit: bool,
    existing: Option<RunDir>,
    name: &'static str,
}

impl<M: DeserializeOwned, O: DeserializeOwned> Job<M, O> {
    /// Loads the settings of the run to resume, or uses `defaults`; applies lengths and intervals
    /// of the command line.
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
        // A run that was killed before it wrote its settings starts with the given ones.
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
        let new_limit = options.minutes.is_some() || saved.is_none();
        let (mut settings, images) = match saved {
            Some(saved) => {
                options.check_seed(saved.trainer.seed)?;
                let data = args.data.resumed(&saved.data)?;
                let images = data.open(BATCH, saved.trainer.seed)?;
                // Runs of older versions have no fingerprint.
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
            new_limit,
            existing,
            name,
        })
    }

    /// The run directory. Call this last, so that an earlier error leaves no directory behind.
    pub(crate) fn run_dir(&self, args: &Args) -> Result<RunDir> {
        let run = self
            .existing
            .clone()
            .map_or_else(|| args.run.run(self.name), Ok)?;
        self.images.print_summary(&run);
        Ok(run)
    }

    /// A grid with ten images per row; tiny images are interpolated.
    pub(crate) fn grid(&self) -> ImageGrid {
        let grid = ImageGrid::new(10, self.images.shape.width);
        if self.images.shape.width < 16 {
            grid.with_interpolation()
        } else {
            grid
        }
    }
}

/// Prints the files of a run.
pub(crate) fn list(run: &RunDir, files: &[(&str, &str)]) {
    for (file, what) in files {
        outln!("  {:<60} {what}", run.path().join(file).display());
    }
}
