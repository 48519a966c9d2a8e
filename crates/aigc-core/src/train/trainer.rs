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
/// decides which model is best; without it, the first one does.
pub type Metrics = Vec<(String, f64)>;

/// Where training starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// At step 0, in a new run directory.
    #[default]
    Fresh,
    /// At the newest checkpoint of the run directory; at step 0 if the run ended before it had one.
    Resume,
    /// At the checkpoint of this step, for when a newer one is damaged. Newer ones are removed.
    ResumeAt(usize),
}

/// Where in training a preview happens.
#[derive(Debug)]
pub struct PreviewContext<'a> {
    /// Steps made.
    pub step: usize,
    /// The run's directory.
    pub run: &'a RunDir,
}

/// A trained model.
#[derive(Debug)]
pub struct TrainOutput<M> {
    /// The model of `final/`, without autodiff: the best one if the best is kept, else the average
    /// if there is one, else the last weights.
    pub model: M,
    /// Steps made, with those before a resume.
    pub step: usize,
    /// Steps made by this call.
    pub steps_run: usize,
    /// Time that this call took.
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

/// Trains any model by any [`Objective`].
///
/// ```no_run
/// # use aigc_core::{train::*, data::DataLoader, checkpoint::RunDir};
/// # fn example<O: Objective>(objective: O, model: O::Model, loader: DataLoader<O::Batch>) -> aigc_core::Result<()> {
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
    /// Seconds since training began; tests set it.
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

    /// Chooses where to start.
    pub fn with_start(mut self, start: StartFrom) -> Self {
        self.start = start;
        self
    }

    /// Stops after the step during which `token` is cancelled, and saves a checkpoint.
    pub fn with_cancel(mut self, token: CancelToken) -> Self {
        self.cancel = token;
        self
    }

    /// Writes `config` to the run's and the final model's `config.json`, so that weights never
    /// travel without it.
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

    /// Writes `config`, whatever describes the data, to the run's `config.json`. A resumed run must
    /// have the same; only a field `path` may change if a field `fingerprint` is the same.
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

    /// Writes `config`, the objective's own settings, to the run's `config.json`. A resumed run
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

    /// Uses `optimizer`, any of burn's or a custom one, for the phase called `phase` (`model`,
    /// unless the objective has several).
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

    /// Evaluates the model (the average, if there is one) every `eval_steps` steps and at the end.
    pub fn with_evaluation(mut self, evaluate: impl FnMut(&M) -> Result<Metrics> + 'a) -> Self {
        self.evaluate = Some(Box::new(evaluate));
        self
    }

    /// Calls `preview` with the model (the average, if there is one) every `preview_steps` steps and
    /// at the end.
    pub fn with_preview(
        mut self,
        preview: impl FnMut(&M, &PreviewContext<'_>) -> Result<()> + 'a,
    ) -> Self {
        self.preview = Some(Box::new(preview));
        self
    }

    /// Takes the time from `clock`, in seconds since training began.
    #[cfg(test)]
    pub(super) fn with_clock(mut self, clock: impl Fn() -> f64 + 'a) -> Self {
        self.clock = Some(Box::new(clock));
        self
    }

    /// Trains `model` on the batches of `loader` and writes everything to `run`. A fresh run that
    /// fails before its first step is removed again.
    ///
    /// Weights without a value are drawn from the configured seed first ([`InitWeights`]).
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range or, in a resumed run, other ones than it began
    /// with; [`Error::InvalidArgument`] for phases, optimizers and models that do not fit;
    /// [`Error::NotFinite`] if a loss or gradient is not finite; [`Error::Run`] and
    /// [`Error::Checkpoint`] if the run cannot be started or resumed; and whatever objective, data,
    /// callbacks and disk report.
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
        let mut session = match Session::begin(self, &phases, model, loader, run) {
            Ok(session) => session,
            Err(error) => {
                if fresh {
                    run.remove_unstarted();
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
                    run.remove_unstarted();
                }
                Err(error)
            }
        }
    }
}
