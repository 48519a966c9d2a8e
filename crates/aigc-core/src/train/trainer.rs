//! The trainer: its settings and its entry point.

use super::{
    Callback, Objective, StopReason, TrainerConfig, objective::check_phases, session::Session,
    state::ConfigRecord,
};
use crate::{CancelToken, Result, checkpoint::RunDir, data::DataLoader};
#[cfg(doc)]
use crate::{Error, rng::InitWeights, train::Event};
use burn::{module::Module, optim::ModuleOptimizer};
use serde::{Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, time::Duration};

/// Named results of an evaluation. [`TrainerConfig::metric_for_best_model`] names the one that
/// decides which model is best; by default it is the first one.
pub type Metrics = Vec<(String, f64)>;

/// Where training starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// At step 0, in a new run directory.
    #[default]
    Fresh,
    /// At the newest checkpoint of the run directory; at step 0 if there is no checkpoint yet.
    Resume,
    /// At the checkpoint of this step, if a newer one is damaged. Newer checkpoints are removed.
    ResumeAt(usize),
}

/// Position of a preview in training.
#[derive(Debug)]
pub struct PreviewContext<'a> {
    /// Steps completed.
    pub step: usize,
    /// The run's directory.
    pub run: &'a RunDir,
}

/// A trained model.
#[derive(Debug)]
pub struct TrainOutput<M> {
    /// The model of `final/`, without autodiff: the best model with `load_best_model_at_end`, else
    /// the average if it is configured, else the last weights.
    pub model: M,
    /// Steps completed, including those before a resume.
    pub step: usize,
    /// Steps run by this call.
    pub steps_run: usize,
    /// Duration of this call.
    pub elapsed: Duration,
    /// Why training ended.
    pub stop_reason: StopReason,
    /// Results of the last evaluation.
    pub metrics: Metrics,
    /// Step and value of the best evaluation.
    pub best: Option<(usize, f64)>,
}

type Evaluate<'a, M> = Box<dyn FnMut(&M) -> Result<Metrics> + 'a>;
type Preview<'a, M> = Box<dyn FnMut(&M, &PreviewContext<'_>) -> Result<()> + 'a>;

/// Trains a model with an [`Objective`].
///
/// ```no_run
/// # use aigc_core::{train::*, data::DataLoader, checkpoint::RunDir};
/// # fn example<O: Objective>(
/// #     objective: O, model: O::Model, loader: DataLoader<O::Batch>,
/// # ) -> aigc_core::Result<()> {
/// let run = RunDir::create("runs/mine")?;
/// let trainer = Trainer::new(TrainerConfig::new(2000)).with_callback(MetricsLogger::new(10));
/// let trained = trainer.fit(objective, model, &loader, &run)?;
/// # Ok(()) }
/// ```
pub struct Trainer<'a, M> {
    pub(super) config: TrainerConfig,
    pub(super) start: StartFrom,
    pub(super) cancel: CancelToken,
    pub(super) model_config: ConfigRecord,
    pub(super) data_config: ConfigRecord,
    pub(super) objective_config: ConfigRecord,
    pub(super) optimizers: BTreeMap<String, ModuleOptimizer>,
    pub(super) callbacks: Vec<Box<dyn Callback + 'a>>,
    pub(super) evaluate: Option<Evaluate<'a, M>>,
    pub(super) preview: Option<Preview<'a, M>>,
    /// Returns the seconds since training began; set by tests.
    pub(super) clock: Option<Box<dyn Fn() -> f64 + 'a>>,
}

impl<M> std::fmt::Debug for Trainer<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer")
            .field("config", &self.config)
            .field("start", &self.start)
            .finish_non_exhaustive()
    }
}

impl<'a, M: Module + 'static> Trainer<'a, M> {
    /// A trainer without callbacks.
    pub fn new(config: TrainerConfig) -> Self {
        Self {
            config,
            start: StartFrom::Fresh,
            cancel: CancelToken::new(),
            model_config: ConfigRecord::none(),
            data_config: ConfigRecord::none(),
            objective_config: ConfigRecord::none(),
            optimizers: BTreeMap::new(),
            callbacks: Vec::new(),
            evaluate: None,
            preview: None,
            clock: None,
        }
    }

    /// Sets where training starts.
    pub fn with_start(mut self, start: StartFrom) -> Self {
        self.start = start;
        self
    }

    /// Stops after the step during which `token` is cancelled, and saves a checkpoint.
    pub fn with_cancel(mut self, token: CancelToken) -> Self {
        self.cancel = token;
        self
    }

    /// Writes `config`, the model's configuration, to the `config.json` of the run and of the final
    /// model.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it cannot be written as JSON.
    pub fn with_model_config<C>(mut self, config: &C) -> Result<Self>
    where
        C: Serialize + DeserializeOwned,
    {
        self.model_config = ConfigRecord::new("model", config)?;
        Ok(self)
    }

    /// Writes `config`, a description of the data, to the run's `config.json`. A resumed run must
    /// have the same; only a field `path` may change if a field `fingerprint` stays the same.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it cannot be written as JSON.
    pub fn with_data_config<C>(mut self, config: &C) -> Result<Self>
    where
        C: Serialize + DeserializeOwned,
    {
        self.data_config = ConfigRecord::new("data", config)?;
        Ok(self)
    }

    /// Writes `config`, the settings of the objective, to the run's `config.json`. A resumed run
    /// must have the same.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if it cannot be written as JSON.
    pub fn with_objective_config<C>(mut self, config: &C) -> Result<Self>
    where
        C: Serialize + DeserializeOwned,
    {
        self.objective_config = ConfigRecord::new("objective", config)?;
        Ok(self)
    }

    /// Uses `optimizer`, one of burn's or a custom one, for the phase `phase` (`model`, unless the
    /// objective has several phases).
    pub fn with_optimizer(mut self, phase: &str, optimizer: ModuleOptimizer) -> Self {
        self.optimizers.insert(phase.to_string(), optimizer);
        self
    }

    /// Adds a callback, such as a closure on `&Event`. Callbacks are called in the order in which
    /// they were added.
    pub fn with_callback(mut self, callback: impl Callback + 'a) -> Self {
        self.callbacks.push(Box::new(callback));
        self
    }

    /// Evaluates the model (its average, if configured) every `eval_steps` steps and at the end.
    pub fn with_evaluation(mut self, evaluate: impl FnMut(&M) -> Result<Metrics> + 'a) -> Self {
        self.evaluate = Some(Box::new(evaluate));
        self
    }

    /// Calls `preview` with the model (its average, if configured) every `preview_steps` steps and
    /// at the end.
    pub fn with_preview(
        mut self,
        preview: impl FnMut(&M, &PreviewContext<'_>) -> Result<()> + 'a,
    ) -> Self {
        self.preview = Some(Box::new(preview));
        self
    }

    /// Reads the time from `clock`, in seconds since training began.
    #[cfg(test)]
    pub(super) fn with_clock(mut self, clock: impl Fn() -> f64 + 'a) -> Self {
        self.clock = Some(Box::new(clock));
        self
    }

    /// Trains `model` on the batches of `loader` and writes all files to `run`. If a fresh run
    /// fails before its first step, what was created for it is removed again.
    ///
    /// Weights without a value are first drawn from the configured seed ([`InitWeights`]).
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range or, in a resumed run, values that differ from the
    /// saved ones; [`Error::InvalidArgument`] for phases, optimizers and models that do not fit;
    /// [`Error::NotFinite`] if a loss or gradient is not finite; [`Error::Run`] and
    /// [`Error::Checkpoint`] if the run cannot be started or resumed; errors of the objective,
    /// data, callbacks and disk.
    pub fn fit<O>(
        self,
        mut objective: O,
        model: O::Model,
        loader: &DataLoader<O::Batch>,
        run: &RunDir,
    ) -> Result<TrainOutput<M>>
    where
        O: Objective<Model = M>,
    {
        self.config.validate()?;
        let phases = objective.phases();
        check_phases(&phases)?;
        let fresh = self.start == StartFrom::Fresh;
        let before = run.files_before_start();
        let mut session = match Session::begin(self, &phases, model, loader, run) {
            Ok(session) => session,
            Err(error) => {
                if fresh {
                    run.remove_unstarted(&before);
                }
                return Err(error);
            }
        };
        match session.run(&mut objective, loader) {
            Ok(reason) => session.end(reason),
            Err(error) => {
                let unstarted = fresh && session.state.step == 0;
                drop(session); // and its lock
                if unstarted {
                    run.remove_unstarted(&before);
                }
                Err(error)
            }
        }
    }
}
