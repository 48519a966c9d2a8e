//! What a user says to a trainer.

use super::{
    Callback, Event, Objective, StopReason, TrainerConfig, objective::check_turns, session::Session,
};
#[cfg(doc)]
use crate::rng::InitWeights;
use crate::{CancelToken, Error, Result, checkpoint::RunDir, data::DataLoader};
use burn::{module::Module, optim::ModuleOptimizer};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// Named results of an evaluation; the first one decides which model is best.
pub type Metrics = Vec<(String, f64)>;

/// Where training starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StartFrom {
    /// At step 0, in a new run folder.
    #[default]
    Fresh,
    /// At the newest checkpoint of the run folder; at step 0 if the run ended before it had one.
    Resume,
    /// At the checkpoint of this step, for when a newer one is damaged. Newer ones are removed.
    ResumeAt(usize),
}

/// What a preview callback knows.
#[derive(Debug)]
pub struct PreviewContext<'a> {
    /// Steps made.
    pub step: usize,
    /// The run's folder.
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
    /// What this call took.
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
/// let trained = Trainer::new(TrainerConfig::new(2000)).observe(MetricsLogger::every(10)).fit(objective, model, &loader, &run)?;
/// # Ok(()) }
/// ```
pub struct Trainer<'a, M> {
    pub(super) config: TrainerConfig,
    pub(super) start: StartFrom,
    pub(super) stop: CancelToken,
    pub(super) with_model_config: serde_json::Value,
    pub(super) with_data_config: serde_json::Value,
    pub(super) with_objective_config: serde_json::Value,
    pub(super) optimizers: BTreeMap<String, ModuleOptimizer>,
    pub(super) observers: Vec<Box<dyn Callback + 'a>>,
    pub(super) evaluate: Option<Evaluate<'a, M>>,
    pub(super) preview: Option<Preview<'a, M>>,
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
    /// A trainer that nobody observes yet.
    pub fn new(config: TrainerConfig) -> Self {
        Self {
            config,
            start: StartFrom::Fresh,
            stop: CancelToken::new(),
            with_model_config: serde_json::Value::Null,
            with_data_config: serde_json::Value::Null,
            with_objective_config: serde_json::Value::Null,
            optimizers: BTreeMap::new(),
            observers: Vec::new(),
            evaluate: None,
            preview: None,
        }
    }

    /// Chooses where to start.
    pub fn with_start(mut self, start: StartFrom) -> Self {
        self.start = start;
        self
    }

    /// Stops after the step during which `flag` is raised.
    pub fn with_cancel(mut self, flag: CancelToken) -> Self {
        self.stop = flag;
        self
    }

    /// Writes `config` to the run's and the final model's `config.json`, so that weights never
    /// travel without it.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be written as JSON.
    pub fn with_model_config(mut self, config: &impl Serialize) -> Result<Self> {
        self.with_model_config = to_json("model", config)?;
        Ok(self)
    }

    /// Writes `config`, whatever describes the data, to the run's `config.json`. A resumed run must
    /// have the same.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be written as JSON.
    pub fn with_data_config(mut self, config: &impl Serialize) -> Result<Self> {
        self.with_data_config = to_json("data", config)?;
        Ok(self)
    }

    /// Writes `config`, the objective's own settings, to the run's `config.json`. A resumed run
    /// must have the same.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be written as JSON.
    pub fn with_objective_config(mut self, config: &impl Serialize) -> Result<Self> {
        self.with_objective_config = to_json("objective", config)?;
        Ok(self)
    }

    /// Uses `optimizer`, any of burn's or one's own, for the turn called `turn` (`model`, unless
    /// the objective has several).
    pub fn with_optimizer(mut self, turn: &str, optimizer: ModuleOptimizer) -> Self {
        self.optimizers.insert(turn.to_string(), optimizer);
        self
    }

    /// Adds an observer, such as a closure on `&Event`.
    pub fn with_callback(mut self, observer: impl Callback + 'a) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Judges the model (the average, if there is one) every `eval_steps` steps and at the end.
    pub fn with_evaluation(mut self, judge: impl FnMut(&M) -> Result<Metrics> + 'a) -> Self {
        self.evaluate = Some(Box::new(judge));
        self
    }

    /// Shows what the model (the average, if there is one) makes, every `preview_steps` steps and
    /// at the end.
    pub fn with_preview(
        mut self,
        show: impl FnMut(&M, &PreviewContext<'_>) -> Result<()> + 'a,
    ) -> Self {
        self.preview = Some(Box::new(show));
        self
    }

    /// Trains `model` on the batches of `loader` and leaves everything in `run`.
    ///
    /// Weights without a value are drawn from the configured seed first ([`InitWeights`]).
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range, [`Error::NotFinite`] if a loss or gradient is,
    /// [`Error::Checkpoint`] if the run cannot be resumed, and whatever objective, data, callbacks
    /// and disk report.
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
        let turns = objective.phases();
        check_turns(&turns)?;
        let mut session = Session::begin(self, &turns, model, loader, run)?;
        if session.state.step > 0 {
            objective.load_state(session.state.objective.clone())?;
        }
        let mut batches = loader.iter_from(session.state.batches);
        let reason = loop {
            if let Some(reason) = session.reason_to_stop() {
                break reason;
            }
            let report = session.step(&mut objective, &mut batches)?;
            for message in loader.skipped_since(session.warnings) {
                session.warn(&message)?;
            }
            session.tell(&Event::Step(&report))?;
            session.after_step()?;
        };
        session.end(reason)
    }
}

fn to_json(field: &str, value: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value)
        .map_err(|error| Error::config(field, error, "something JSON can hold"))
}
