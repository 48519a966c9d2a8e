//! Preparation of a training run: settings, images and run directory.

use crate::Args;
use aigc_core::{
    CancelToken,
    burn::{module::Module, tensor::Tensor},
    checkpoint::RunDir,
    output::ImageGrid,
    train::{StartFrom, Trainer, TrainerConfig},
};
use aigc_examples::{Gallery, Images, ImagesConfig, outln};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

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

impl<M: Serialize + DeserializeOwned, O: Serialize + DeserializeOwned> Job<M, O> {
    /// Loads the settings of the run to resume, or uses those of model, trainer and objective that
    /// `defaults` returns for the images and the seed; applies lengths and intervals of the command
    /// line.
    pub(crate) fn prepare(
        args: &Args,
        name: &'static str,
        defaults: impl FnOnce(&Images, u64) -> Result<(M, TrainerConfig, O)>,
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
                let images = args.data.open(BATCH, options.seed)?;
                let (model, trainer, objective) = defaults(&images, options.seed)?;
                let settings = Settings {
                    model,
                    trainer,
                    objective,
                    data: args.data.recorded(&images),
                };
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

    /// A trainer with these settings, which it records in the run.
    pub(crate) fn trainer<'a, N: Module + 'static>(
        &self,
        args: &Args,
        stop: &CancelToken,
    ) -> Result<Trainer<'a, N>> {
        let settings = &self.settings;
        let trainer = args
            .run
            .trainer(settings.trainer.clone(), stop.clone(), 10)
            .with_model_config(&settings.model)?
            .with_objective_config(&settings.objective)?
            .with_data_config(&settings.data)?;
        Ok(trainer)
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

    /// Pictures of the model, of a family of models, with ten images per row; tiny images are
    /// interpolated.
    pub(crate) fn gallery(&self, family: &str) -> Gallery {
        let grid = ImageGrid::new(10, self.images.shape.width);
        let grid = if self.images.shape.width < 16 {
            grid.with_interpolation()
        } else {
            grid
        };
        Gallery::new(grid, family, self.name)
    }
}

/// Writes the reconstructions of an autoencoder.
pub(crate) fn save_reconstructions(
    rows: &Tensor<4>,
    gallery: &Gallery,
    run: &RunDir,
) -> aigc_core::Result<()> {
    let (file, content) = RECONSTRUCTIONS;
    let gallery = gallery.clone().with_setting("content", content);
    gallery.save(rows, &run.path().join(file))
}

/// The line of [`list`] for the reconstructions of an autoencoder.
pub(crate) const RECONSTRUCTIONS: (&str, &str) = (
    "reconstructions.png",
    "held-out originals, and below each its reconstruction",
);

/// Prints some files of a run, and then those of every training.
pub(crate) fn list_with_training(run: &RunDir, files: &[(&str, &str)]) {
    list(run, files);
    list(
        run,
        &[
            ("loss.svg", "the training losses"),
            ("metrics.jsonl", "the logged metrics"),
            (
                "final/model.safetensors",
                "the weights, which Python can also read",
            ),
        ],
    );
}

/// Prints the files of a run.
pub(crate) fn list(run: &RunDir, files: &[(&str, &str)]) {
    for (file, what) in files {
        outln!("  {:<60} {what}", run.path().join(file).display());
    }
}
