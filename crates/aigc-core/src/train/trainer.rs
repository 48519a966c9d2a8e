//! The loop.

use super::{
    Ema, Event, Losses, Objective, Observer, StepContext, StepReport, StopReason, TrainerConfig, Turn,
    gradients::{global_norm, scale_gradients},
    optimizer::{Group, learning_rates, resolve},
};
use crate::{
    Error, Result,
    checkpoint::{
        Checkpoint, RunFolder, RunLock, load_optimizer, load_weights, read_json, save_optimizer, save_weights,
        stable_ids, write_json,
    },
    data::{Batches, Loader},
    params::{LookAt, look_at_all},
    rng::{Rng, Seeded},
};
use burn::{
    module::{Module, Param, ParamId},
    optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer},
    tensor::{Device, Tensor},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Named results of an evaluation; the first one decides which model is best.
pub type Metrics = Vec<(String, f64)>;

/// A flag that asks a trainer to finish its step, save, and stop.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks to stop.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether somebody asked to stop.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where training starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
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
    pub run: &'a RunFolder,
}

/// A trained model.
#[derive(Debug)]
pub struct Trained<M> {
    /// The model of `final/`, without autodiff: the best one if the best is kept, else the average if there is one,
    /// else the last weights.
    pub model: M,
    /// Steps made.
    pub step: usize,
    /// Why training ended.
    pub reason: StopReason,
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
/// # use aigc_core::{train::*, data::Loader, checkpoint::RunFolder};
/// # fn example<O: Objective>(objective: O, model: O::Model, loader: Loader<O::Batch>) -> aigc_core::Result<()> {
/// let run = RunFolder::create("runs/mine")?;
/// let trained = Trainer::new(TrainerConfig::new(2000)).observe(MetricsLog::every(10)).fit(objective, model, &loader, &run)?;
/// # Ok(()) }
/// ```
pub struct Trainer<'a, M> {
    config: TrainerConfig,
    start: Start,
    stop: StopFlag,
    model_config: serde_json::Value,
    data_config: serde_json::Value,
    objective_config: serde_json::Value,
    optimizers: BTreeMap<String, ModuleOptimizer>,
    observers: Vec<Box<dyn Observer + 'a>>,
    evaluate: Option<Evaluate<'a, M>>,
    preview: Option<Preview<'a, M>>,
}

impl<M> std::fmt::Debug for Trainer<'_, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Trainer").field("config", &self.config).field("start", &self.start).finish_non_exhaustive()
    }
}

impl<'a, M: Module + 'static> Trainer<'a, M> {
    /// A trainer that nobody observes yet.
    pub fn new(config: TrainerConfig) -> Self {
        Self {
            config,
            start: Start::Fresh,
            stop: StopFlag::new(),
            model_config: serde_json::Value::Null,
            data_config: serde_json::Value::Null,
            objective_config: serde_json::Value::Null,
            optimizers: BTreeMap::new(),
            observers: Vec::new(),
            evaluate: None,
            preview: None,
        }
    }

    /// Chooses where to start.
    pub fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Stops after the step during which `flag` is raised.
    pub fn stop_flag(mut self, flag: StopFlag) -> Self {
        self.stop = flag;
        self
    }

    /// Writes `config` to the run's and the final model's `config.json`, so that weights never travel without it.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be written as JSON.
    pub fn model_config(mut self, config: &impl Serialize) -> Result<Self> {
        self.model_config = to_json("model", config)?;
        Ok(self)
    }

    /// Writes `config`, whatever describes the data, to the run's `config.json`. A resumed run must have the same.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be written as JSON.
    pub fn data_config(mut self, config: &impl Serialize) -> Result<Self> {
        self.data_config = to_json("data", config)?;
        Ok(self)
    }

    /// Writes `config`, the objective's own settings, to the run's `config.json`. A resumed run must have the same.
    ///
    /// # Errors
    /// [`Error::Config`] if it cannot be written as JSON.
    pub fn objective_config(mut self, config: &impl Serialize) -> Result<Self> {
        self.objective_config = to_json("objective", config)?;
        Ok(self)
    }

    /// Uses `optimizer`, any of burn's or one's own, for the turn called `turn` (`model`, unless the objective has
    /// several).
    pub fn optimizer(mut self, turn: &str, optimizer: ModuleOptimizer) -> Self {
        self.optimizers.insert(turn.to_string(), optimizer);
        self
    }

    /// Adds an observer, such as a closure on `&Event`.
    pub fn observe(mut self, observer: impl Observer + 'a) -> Self {
        self.observers.push(Box::new(observer));
        self
    }

    /// Judges the model (the average, if there is one) every `evaluate_every` steps and at the end.
    pub fn evaluate(mut self, judge: impl FnMut(&M) -> Result<Metrics> + 'a) -> Self {
        self.evaluate = Some(Box::new(judge));
        self
    }

    /// Shows what the model (the average, if there is one) makes, every `preview_every` steps and at the end.
    pub fn preview(mut self, show: impl FnMut(&M, &PreviewContext<'_>) -> Result<()> + 'a) -> Self {
        self.preview = Some(Box::new(show));
        self
    }

    /// Trains `model` on the batches of `loader` and leaves everything in `run`.
    ///
    /// Weights without a value are drawn from the configured seed first ([`Seeded`]).
    ///
    /// # Errors
    /// [`Error::Config`] for values out of range, [`Error::NotFinite`] if a loss or gradient is,
    /// [`Error::Checkpoint`] if the run cannot be resumed, and whatever objective, data, callbacks and disk report.
    pub fn fit<O>(
        self,
        mut objective: O,
        model: O::Model,
        loader: &Loader<O::Batch>,
        run: &RunFolder,
    ) -> Result<Trained<M>>
    where
        O: Objective<Model = M>,
    {
        self.config.validate()?;
        let turns = objective.turns();
        check_turns(&turns)?;
        let mut session = Session::begin(self, &turns, model, loader, run)?;
        let mut batches = loader.batches(session.state.batches);
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

/// Names of turns are names of files and of random streams.
fn check_turns(turns: &[Turn]) -> Result<()> {
    let plain = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let names: BTreeSet<_> = turns.iter().map(|turn| turn.name).collect();
    if turns.is_empty() || names.len() < turns.len() || !names.iter().all(|name| plain(name)) {
        let names: Vec<_> = turns.iter().map(|turn| turn.name).collect();
        let expected = "at least one, of different names made of letters, digits and `_`";
        return Err(Error::config("turns", format!("{names:?}"), expected));
    }
    Ok(())
}

fn to_json(field: &str, value: &impl Serialize) -> Result<serde_json::Value> {
    serde_json::to_value(value).map_err(|error| Error::config(field, error, "something JSON can hold"))
}

/// What the run's `config.json` holds.
#[derive(Serialize, Deserialize)]
struct RunConfig {
    model: serde_json::Value,
    trainer: TrainerConfig,
    objective: serde_json::Value,
    data: serde_json::Value,
    loader: serde_json::Value,
}

/// What a checkpoint remembers beside tensors.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct State {
    /// Steps made.
    step: usize,
    /// Batches drawn.
    batches: usize,
    /// Updates of the average.
    ema_updates: usize,
    /// Step and value of the best evaluation.
    best: Option<(usize, f64)>,
    /// Evaluations since the best.
    since_best: usize,
    /// Results of the last evaluation; JSON has no infinity, so what is not finite is `null`.
    metrics: Vec<(String, Option<f64>)>,
}

const STATE: &str = "state.json";
const MODEL: &str = "model.safetensors";
const EMA: &str = "ema.safetensors";

fn optimizer_file(turn: &Turn) -> String {
    format!("optimizer-{}.bpk", turn.name)
}

/// One turn with what it updates and how.
struct Player {
    turn: Turn,
    params: Vec<ParamId>,
    optimizer: ModuleOptimizer,
}

/// A training under way.
struct Session<'a, 'b, M> {
    trainer: Trainer<'a, M>,
    run: &'b RunFolder,
    device: Device,
    /// Always there between steps; an update takes it by value.
    model: Option<M>,
    players: Vec<Player>,
    ema: Option<Ema<M>>,
    state: State,
    began: Instant,
    last_saved: Option<usize>,
    last_evaluated: Option<usize>,
    last_previewed: Option<usize>,
    /// Warnings told so far.
    warnings: usize,
    groups: Vec<Group>,
    /// Held while training, so that no other process trains in this folder.
    _lock: RunLock,
}

impl<'a, 'b, M: Module + 'static> Session<'a, 'b, M> {
    fn begin<B: Send + 'static>(
        mut trainer: Trainer<'a, M>,
        turns: &[Turn],
        model: M,
        loader: &Loader<B>,
        run: &'b RunFolder,
    ) -> Result<Self> {
        let config = &trainer.config;
        let lock = run.lock()?;
        run.recover()?;
        let checkpoint = match trainer.start {
            Start::Fresh => None,
            // Killed before its first checkpoint: the beginning is where it goes on.
            Start::Resume if run.steps()?.is_empty() => None,
            Start::Resume => Some(run.latest()?),
            Start::ResumeAt(step) => Some(run.at(step)?),
        };
        let run_config = RunConfig {
            model: trainer.model_config.clone(),
            trainer: config.clone(),
            objective: trainer.objective_config.clone(),
            data: trainer.data_config.clone(),
            loader: serde_json::json!({
                "items": loader.items(),
                "batch_size": loader.config().batch_size,
                "shuffle": loader.config().shuffle,
                "bad_items": loader.config().bad_items,
            }),
        };
        if trainer.start != Start::Fresh && run.config_path().exists() {
            check_continues(&run_config, &read_json(&run.config_path())?)?;
        } else if trainer.start == Start::Fresh && !run.steps()?.is_empty() {
            return Err(Error::config("start", "fresh", "resume, since the run folder already has checkpoints"));
        }
        // A plain model first, whatever device it was made on: weights are loaded into that.
        let mut model = stable_ids(model.seeded(config.seed).valid());
        let mut state = State::default();
        if let Some(checkpoint) = &checkpoint {
            let offer = |error| run.offer_previous(checkpoint.step(), error);
            state = checkpoint.json(STATE).map_err(offer)?;
            if state.step != checkpoint.step() {
                let reason = format!("it is of step {}, expected {}", state.step, checkpoint.step());
                return Err(offer(Error::checkpoint(checkpoint.file(STATE), reason)));
            }
            model = stable_ids(load_weights(model, &checkpoint.file(MODEL)).map_err(offer)?);
        }
        let device = model.devices().first().cloned().ok_or_else(|| Error::config("model", "empty", "parameters"))?;
        let device = device.autodiff();
        let plain = model.clone();
        let model = model.train();
        let groups = resolve(&config.groups, &model)?;
        let players = turns
            .iter()
            .map(|turn| {
                let (params, _) = trainable(&model, turn.field);
                if params.is_empty() {
                    let of = turn.field.unwrap_or("the model");
                    return Err(Error::config("turn", turn.name, format!("something to train; {of} has nothing")));
                }
                let optimizer = match trainer.optimizers.remove(turn.name) {
                    Some(optimizer) => optimizer,
                    None => config.optimizer.init(&groups),
                };
                let optimizer = match &checkpoint {
                    Some(checkpoint) => load_optimizer(optimizer, &model, &checkpoint.file(&optimizer_file(turn)))
                        .map_err(|error| run.offer_previous(checkpoint.step(), error))?,
                    None => optimizer,
                };
                Ok(Player { turn: turn.clone(), params, optimizer })
            })
            .collect::<Result<Vec<_>>>()?;
        if let Some(unknown) = trainer.optimizers.keys().next() {
            let known: Vec<_> = turns.iter().map(|t| t.name).collect();
            return Err(Error::config("optimizer", unknown, format!("the name of a turn: {}", known.join(", "))));
        }
        let ema = match (config.ema, &checkpoint) {
            (None, _) => None,
            (Some(ema), None) => Some(Ema::new(&model, ema)),
            (Some(ema), Some(checkpoint)) => {
                // Loaded into tensors of its own: `valid` has made fresh running statistics.
                let average = load_weights(plain.valid(), &checkpoint.file(EMA))
                    .map_err(|error| run.offer_previous(checkpoint.step(), error))?;
                Some(Ema::resume(&model, average, ema, state.ema_updates))
            }
        };
        if let Some(checkpoint) = &checkpoint {
            // Newest first: were this to be interrupted, the newest left would still be the one to go on from.
            for newer in run.steps()?.into_iter().rev().filter(|s| *s > checkpoint.step()) {
                run.remove(newer)?;
            }
        }
        write_json(&run.config_path(), &run_config)?;
        let (from_step, steps, parameters) = (state.step, config.steps, trainable(&model, None).1);
        let mut session = Self {
            trainer,
            run,
            device,
            model: Some(model),
            players,
            ema,
            last_saved: checkpoint.as_ref().map(Checkpoint::step),
            last_evaluated: None,
            last_previewed: None,
            state,
            began: Instant::now(),
            warnings: 0,
            groups,
            _lock: lock,
        };
        session.tell(&Event::Started { run, from_step, steps, parameters })?;
        Ok(session)
    }

    fn model(&self) -> &M {
        self.model.as_ref().expect("the model is only away during an update")
    }

    fn tell(&mut self, event: &Event<'_>) -> Result<()> {
        self.trainer.observers.iter_mut().try_for_each(|observer| observer.on_event(event))
    }

    fn warn(&mut self, message: &str) -> Result<()> {
        self.warnings += 1;
        self.tell(&Event::Warning(&format!("skipped {message}")))
    }

    fn reason_to_stop(&self) -> Option<StopReason> {
        let config = &self.trainer.config;
        let out_of_time = |minutes: f64| self.began.elapsed().as_secs_f64() >= 60.0 * minutes;
        if self.state.step >= config.steps {
            Some(StopReason::Completed)
        } else if self.trainer.stop.is_raised() {
            Some(StopReason::Interrupted)
        } else if config.minutes.is_some_and(out_of_time) {
            Some(StopReason::OutOfTime)
        } else if config.patience.is_some_and(|patience| self.state.since_best >= patience) {
            Some(StopReason::EarlyStopped)
        } else {
            None
        }
    }

    /// Whether something that happens every `every` steps is due after `step` steps.
    fn due(every: usize, step: usize) -> bool {
        every > 0 && step.is_multiple_of(every)
    }

    fn step<O: Objective<Model = M>>(
        &mut self,
        objective: &mut O,
        batches: &mut Batches<O::Batch>,
    ) -> Result<StepReport> {
        let config = self.trainer.config.clone();
        let (step, accumulate) = (self.state.step, config.accumulate);
        let learning_rate = config.learning_rate * config.schedule.factor(step, config.steps);
        // Dropout draws from the backend's own generator: the same draws whenever this step is made.
        self.device.seed(Rng::keyed(config.seed, "device", step as u64).bits());
        let watch_norm = config.clip_norm.is_some()
            || step.is_multiple_of(10)
            || Self::due(config.checkpoint_every, step + 1)
            || Self::due(config.evaluate_every, step + 1);
        let mut drawn: Vec<O::Batch> = Vec::new();
        let mut named = Vec::new();
        let mut largest_norm: Option<f64> = None;
        for turn in 0..self.players.len() {
            let Turn { name, repeat, same_batch, .. } = self.players[turn].turn.clone();
            let mut last = Vec::new();
            for repetition in 0..repeat.max(1) {
                if !same_batch || drawn.is_empty() {
                    drawn.clear();
                    for _ in 0..accumulate {
                        drawn.push(batches.next_batch()?);
                    }
                    self.state.batches = batches.position();
                }
                let mut sums: Vec<(String, f64)> = Vec::new();
                let mut accumulated = GradientsAccumulator::new();
                let mut single = GradientsParams::new();
                for (micro, batch) in drawn.iter().enumerate() {
                    let draw = ((step * repeat.max(1) + repetition) * accumulate + micro) as u64;
                    let mut context = StepContext {
                        step,
                        steps: config.steps,
                        turn,
                        micro,
                        device: self.device.clone(),
                        rng: Rng::keyed(config.seed, &format!("turn/{name}"), draw),
                    };
                    let losses = objective.losses(self.model(), batch, &mut context)?;
                    let gradients = self.gradients(turn, &losses, accumulate);
                    if accumulate == 1 {
                        single = gradients;
                    } else {
                        accumulated.accumulate(self.model(), gradients);
                    }
                    add(&mut sums, read(&losses)?, accumulate);
                }
                let mut gradients = if accumulate == 1 { single } else { accumulated.grads() };
                if watch_norm && let Some(norm) = global_norm(self.model(), &gradients) {
                    let norm = f64::from(norm.into_scalar::<f32>());
                    sums.push((GRAD_NORM.into(), norm));
                    largest_norm = Some(largest_norm.map_or(norm, |n| n.max(norm)));
                    // The same rule as PyTorch's `clip_grad_norm_`.
                    if let Some(limit) = config.clip_norm
                        && norm > limit
                        && norm.is_finite()
                    {
                        gradients = scale_gradients(self.model(), gradients, limit / (norm + 1e-6));
                    }
                }
                self.check_finite(&sums)?;
                let rates = learning_rates(learning_rate, &self.groups);
                let model = self.model.take().expect("the model is only away during an update");
                self.model = Some(self.players[turn].optimizer.step(rates, model, gradients));
                sums.retain(|(name, _)| name != GRAD_NORM);
                last = sums;
            }
            // Of a repeated update, the last one's losses are told.
            let several = self.players.len() > 1;
            named.extend(last.into_iter().map(|(n, v)| (if several { format!("{name}.{n}") } else { n }, v)));
        }
        if let (Some(ema), Some(model)) = (&mut self.ema, &self.model) {
            ema.update(model);
            self.state.ema_updates = ema.updates();
        }
        self.state.step += 1;
        Ok(StepReport {
            step: self.state.step,
            losses: named,
            grad_norm: largest_norm,
            learning_rate,
            elapsed: self.began.elapsed(),
        })
    }

    /// Gradients of the mean over accumulated batches, for the parameters of this turn.
    fn gradients(&self, turn: usize, losses: &Losses, accumulate: usize) -> GradientsParams {
        let mut gradients = if accumulate == 1 {
            losses.total.backward()
        } else {
            (losses.total.clone() / accumulate as f64).backward()
        };
        GradientsParams::from_params(&mut gradients, self.model(), &self.players[turn].params)
    }

    fn check_finite(&self, values: &[(String, f64)]) -> Result<()> {
        match values.iter().find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((name, value)) => Err(self.not_finite(self.state.step + 1, name.clone(), *value)),
        }
    }

    /// Refuses weights that are not finite: a checkpoint must be something to go on from.
    fn check_weights(&self, live: &M) -> Result<()> {
        let mut sums = Sums::default();
        look_at_all(live, &mut sums);
        if let Some(ema) = &self.ema {
            look_at_all(ema.model(), &mut sums);
        }
        let values: Vec<f64> = Tensor::cat(sums.sums, 0).into_data().iter::<f64>().collect();
        match sums.paths.into_iter().zip(values).find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((name, value)) => Err(self.not_finite(self.state.step, name, value)),
        }
    }

    fn not_finite(&self, step: usize, name: String, value: f64) -> Error {
        let last_good = self.last_saved.map(|step| self.run.checkpoint_path(step));
        Error::NotFinite { step, name, value, last_good }
    }

    fn after_step(&mut self) -> Result<()> {
        let (config, step) = (&self.trainer.config, self.state.step);
        let (evaluate, preview, save) = (
            Self::due(config.evaluate_every, step),
            Self::due(config.preview_every, step),
            Self::due(config.checkpoint_every, step),
        );
        let best = evaluate && self.judge()?;
        if preview {
            self.show()?;
        }
        if save || (best && self.trainer.config.keep_best) {
            self.save()?;
        }
        Ok(())
    }

    /// The model to judge and to show.
    fn shown(&self) -> M {
        self.ema.as_ref().map_or_else(|| self.model().valid(), |ema| ema.model().clone())
    }

    /// Evaluates; says whether it was the best so far.
    fn judge(&mut self) -> Result<bool> {
        let (step, model) = (self.state.step, self.shown());
        let Some(evaluate) = &mut self.trainer.evaluate else { return Ok(false) };
        self.last_evaluated = Some(step);
        let metrics = evaluate(&model)?;
        let value = metrics.first().map(|(_, value)| *value);
        let better = |value: f64, best: f64| if self.trainer.config.maximize { value > best } else { value < best };
        let best = value.is_some_and(|v| v.is_finite() && self.state.best.is_none_or(|(_, best)| better(v, best)));
        if let (true, Some(value)) = (best, value) {
            self.state.best = Some((step, value));
            self.state.since_best = 0;
        } else {
            self.state.since_best += 1;
        }
        self.state.metrics = metrics.iter().map(|(n, v)| (n.clone(), Some(*v).filter(|v| v.is_finite()))).collect();
        self.tell(&Event::Evaluated { step, metrics: &metrics, best })?;
        Ok(best)
    }

    fn show(&mut self) -> Result<()> {
        let (step, model, run) = (self.state.step, self.shown(), self.run);
        let Some(preview) = &mut self.trainer.preview else { return Ok(()) };
        self.last_previewed = Some(step);
        preview(&model, &PreviewContext { step, run })?;
        self.tell(&Event::Previewed { step })
    }

    fn save(&mut self) -> Result<()> {
        let step = self.state.step;
        if self.last_saved == Some(step) {
            return Ok(());
        }
        // `valid` takes the running statistics' last update in, which a plain save would miss.
        let live = self.model().valid();
        self.check_weights(&live)?;
        let writer = self.run.write_checkpoint(step)?;
        writer.json(STATE, &self.state)?;
        save_weights(&live, &writer.file(MODEL))?;
        if let Some(ema) = &self.ema {
            save_weights(ema.model(), &writer.file(EMA))?;
        }
        for player in &self.players {
            save_optimizer(&player.optimizer, &writer.file(&optimizer_file(&player.turn)))?;
        }
        let folder = writer.finish(step)?;
        self.last_saved = Some(step);
        let best = self.state.best.filter(|_| self.trainer.config.keep_best).map(|(step, _)| step);
        self.run.prune(self.trainer.config.keep_last, best.as_slice())?;
        self.tell(&Event::Saved { step, folder: &folder })
    }

    fn end(mut self, reason: StopReason) -> Result<Trained<M>> {
        let step = self.state.step;
        // Saved before anything else that can fail, and before an evaluation that a longer run would not have made:
        // a run that goes on later goes on as if it had not stopped.
        self.save()?;
        let interrupted = reason == StopReason::Interrupted;
        if !interrupted && self.last_evaluated != Some(step) {
            self.judge()?;
        }
        if !interrupted && self.last_previewed != Some(step) {
            self.show()?;
        }
        let model = self.final_model()?;
        let folder = self.run.final_folder();
        save_weights(&model, &folder.join(MODEL))?;
        write_json(&folder.join("config.json"), &self.trainer.model_config)?;
        let elapsed = self.began.elapsed();
        self.tell(&Event::Finished { step, reason, elapsed })?;
        let metrics = self.state.metrics.into_iter().map(|(n, v)| (n, v.unwrap_or(f64::NAN))).collect();
        Ok(Trained { model, step, reason, metrics, best: self.state.best })
    }

    fn final_model(&mut self) -> Result<M> {
        let best = self.state.best.map(|(step, _)| step).filter(|step| *step != self.state.step);
        match best.filter(|_| self.trainer.config.keep_best) {
            None => Ok(self.shown()),
            Some(step) if !self.run.steps()?.contains(&step) => {
                let text = format!("the best model, of step {step}, was not kept; the last one takes its place");
                self.tell(&Event::Warning(&text))?;
                Ok(self.shown())
            }
            Some(step) => {
                let file = if self.ema.is_some() { EMA } else { MODEL };
                load_weights(self.model().valid(), &self.run.at(step)?.file(file))
            }
        }
    }
}

/// Zero times every tensor, summed: finite exactly if the tensor is.
#[derive(Default)]
struct Sums {
    paths: Vec<String>,
    sums: Vec<Tensor<1>>,
}

impl LookAt for Sums {
    fn look_at<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        self.paths.push(path.to_string());
        self.sums.push((param.val() * 0.0).sum());
    }
}

/// Ids of the trained parameters under `field`, or of all, and how many values they hold.
fn trainable<M: Module>(model: &M, field: Option<&str>) -> (Vec<ParamId>, usize) {
    let mut found = Trainable { field, ids: Vec::new(), values: 0 };
    look_at_all(model, &mut found);
    (found.ids, found.values)
}

struct Trainable<'a> {
    field: Option<&'a str>,
    ids: Vec<ParamId>,
    values: usize,
}

impl LookAt for Trainable<'_> {
    fn look_at<const D: usize>(&mut self, path: &str, param: &Param<Tensor<D>>) {
        let inside = self.field.is_none_or(|field| path.split('.').next() == Some(field));
        if inside && param.val().is_require_grad() {
            self.ids.push(param.id);
            self.values += param.lazy_shape().num_elements();
        }
    }
}

/// The name under which the norm of the gradients is reported.
const GRAD_NORM: &str = "grad_norm";

/// The values of the losses, in one transfer from the device.
fn read(losses: &Losses) -> Result<Vec<(String, f64)>> {
    let names: Vec<&str> = std::iter::once("loss").chain(losses.parts.iter().map(|(name, _)| *name)).collect();
    let distinct: BTreeSet<&str> = names.iter().copied().chain([GRAD_NORM]).collect();
    if distinct.len() <= names.len() {
        return Err(Error::config(
            "losses",
            format!("{names:?}"),
            "parts of different names, none `loss` or `grad_norm`",
        ));
    }
    let values = std::iter::once(&losses.total).chain(losses.parts.iter().map(|(_, value)| value));
    let values = Tensor::cat(values.map(|v| v.clone().detach()).collect(), 0).into_data();
    Ok(names.into_iter().map(String::from).zip(values.iter::<f64>()).collect())
}

/// Adds values to their means over `count` batches.
fn add(means: &mut Vec<(String, f64)>, values: Vec<(String, f64)>, count: usize) {
    for (name, value) in values {
        let value = value / count as f64;
        match means.iter_mut().find(|(n, _)| *n == name) {
            Some((_, mean)) => *mean += value,
            None => means.push((name, value)),
        }
    }
}

fn check_continues(ours: &RunConfig, saved: &RunConfig) -> Result<()> {
    ours.trainer.continues(&saved.trainer)?;
    for (field, ours, saved) in [
        ("model", &ours.model, &saved.model),
        ("objective", &ours.objective, &saved.objective),
        ("data", &ours.data, &saved.data),
        ("loader", &ours.loader, &saved.loader),
    ] {
        if ours != saved {
            return Err(Error::config(field, ours, format!("{saved}, with which the run began")));
        }
    }
    Ok(())
}
