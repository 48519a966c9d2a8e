//! Trainings inside of a run, beside that of its own model.

use crate::data::DataConfig;
use aigc_core::{
    CancelToken, Error, Result,
    burn::{module::Module, tensor::Device},
    checkpoint::RunDir,
    train::{StartFrom, StopReason, TrainOutput, Trainer, TrainerConfig},
};
use aigc_examples::{RunOptions, outln};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Settings in the `config.json` of a training, which a resumed one uses.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Settings<M, O> {
    pub(crate) model: M,
    pub(crate) trainer: TrainerConfig,
    pub(crate) objective: O,
}

/// What all trainings inside of a run have in common.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    /// The run; each training has a directory of its name in it.
    pub(crate) run: &'a RunDir,
    /// The data of the run.
    pub(crate) data: &'a DataConfig,
    /// Seed of the run.
    pub(crate) seed: u64,
    /// Lengths and intervals of the command line; the time limit is that of all trainings.
    pub(crate) options: &'a RunOptions,
    pub(crate) device: &'a Device,
    pub(crate) stop: &'a CancelToken,
}

/// A training that is about to begin or to go on.
#[derive(Debug)]
pub(crate) struct Prepared<M, O> {
    pub(crate) settings: Settings<M, O>,
    pub(crate) run: RunDir,
    start: StartFrom,
}

impl Stage<'_> {
    /// The training `name`, with the given settings or those that it began with, and with `share`
    /// of the time limit.
    ///
    /// # Errors
    /// If its directory cannot be used, or a length is out of range.
    pub(crate) fn prepare<M, O>(
        &self,
        name: &str,
        share: f64,
        given: Settings<M, O>,
    ) -> Result<Prepared<M, O>>
    where
        M: DeserializeOwned,
        O: DeserializeOwned,
    {
        let options = self.options.with_share_of_time(share);
        options.config(given.trainer.clone())?;
        let dir = self.run.path().join(name);
        let (run, start) = match dir.join("config.json").is_file() {
            true => (RunDir::open(dir)?, StartFrom::Resume),
            false => (RunDir::create(dir)?, StartFrom::Fresh),
        };
        let mut settings = match start {
            StartFrom::Fresh => given,
            _ => run.config()?,
        };
        settings.trainer = options.config(settings.trainer)?;
        Ok(Prepared {
            settings,
            run,
            start,
        })
    }

    /// A trainer with these settings, which it records.
    ///
    /// # Errors
    /// If a configuration cannot be written.
    pub(crate) fn trainer<'t, N, M, O>(&self, prepared: &Prepared<M, O>) -> Result<Trainer<'t, N>>
    where
        N: Module + 'static,
        M: Serialize + DeserializeOwned,
        O: Serialize + DeserializeOwned,
    {
        let settings = &prepared.settings;
        outln!("training in {}", prepared.run.path().display());
        self.options
            .trainer(settings.trainer.clone(), self.stop.clone(), 10)
            .with_start(prepared.start)
            .with_model_config(&settings.model)?
            .with_objective_config(&settings.objective)?
            .with_data_config(self.data)
    }

    /// The model of a training that came to its end.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if it was interrupted.
    pub(crate) fn finished<N>(&self, what: &str, trained: TrainOutput<N>) -> Result<N> {
        if trained.stop_reason == StopReason::Interrupted || self.stop.is_cancelled() {
            return Err(Error::cancelled(format!("training of {what}")));
        }
        Ok(trained.model)
    }
}
