//! The loop, step by step.

use super::{
    Ema, Event, LossOutput, Objective, Phase, PreviewContext, StartFrom, StepContext, StepReport,
    StopReason, TrainOutput, Trainer,
    gradients::{grad_norm, scale_gradients},
    optimizer::{Group, learning_rates, resolve},
    readout::{GRAD_NORM, add, read},
    state::{
        EMA, MODEL, RunConfig, STATE, State, check_continues, optimizer_file, saved_optimizer_file,
    },
    survey::{not_finite, trainable},
};
use crate::{
    Error, Result,
    checkpoint::{
        Checkpoint, RunDir, RunLock, assign_path_ids_with, load_optimizer, read_json,
        save_optimizer, write_json,
    },
    data::{BatchIter, DataLoader},
    rng::{Rng, init_weights_with},
    weights::{RenamedField, load_renamed_weights, save_weights},
};
use burn::{
    module::{Module, ParamId},
    optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer},
    tensor::Device,
};
use std::time::Instant;

/// One turn with what it updates and how.
struct Player {
    turn: Phase,
    params: Vec<ParamId>,
    optimizer: ModuleOptimizer,
}

/// A training under way.
pub(super) struct Session<'a, 'b, M> {
    trainer: Trainer<'a, M>,
    run: &'b RunDir,
    device: Device,
    /// Always there between steps; an update takes it by value.
    model: Option<M>,
    players: Vec<Player>,
    ema: Option<Ema<M>>,
    pub(super) state: State,
    began: Instant,
    from_step: usize,
    last_saved: Option<usize>,
    last_evaluated: Option<usize>,
    last_previewed: Option<usize>,
    /// Warnings told so far.
    pub(super) warnings: usize,
    groups: Vec<Group>,
    renamed: Vec<RenamedField>,
    /// Held while training, so that no other process trains in this folder.
    _lock: RunLock,
}

impl<'a, 'b, M: Module + 'static> Session<'a, 'b, M> {
    pub(super) fn begin<B: Send + 'static>(
        mut trainer: Trainer<'a, M>,
        turns: &[Phase],
        model: M,
        loader: &DataLoader<B>,
        run: &'b RunDir,
    ) -> Result<Self> {
        let config = &trainer.config;
        let lock = run.lock()?;
        run.recover()?;
        let checkpoint = match trainer.start {
            StartFrom::Fresh => None,
            // Killed before its first checkpoint: the beginning is where it goes on.
            StartFrom::Resume if run.checkpoint_steps()?.is_empty() => None,
            StartFrom::Resume => Some(run.latest_checkpoint()?),
            StartFrom::ResumeAt(step) => Some(run.checkpoint(step)?),
        };
        let run_config = RunConfig {
            model: trainer.with_model_config.clone(),
            trainer: config.clone(),
            objective: trainer.with_objective_config.clone(),
            data: trainer.with_data_config.clone(),
            loader: serde_json::json!({
                "items": loader.num_items(),
                "batch_size": loader.config().batch_size,
                "shuffle": loader.config().shuffle_seed,
                "on_read_error": loader.config().on_read_error,
            }),
        };
        if trainer.start != StartFrom::Fresh && run.config_path().exists() {
            check_continues(&run_config, &read_json(&run.config_path())?)?;
        } else if trainer.start == StartFrom::Fresh && !run.checkpoint_steps()?.is_empty() {
            return Err(Error::config(
                "start",
                "fresh",
                "resume, since the run folder already has checkpoints",
            ));
        }
        // A plain model first, whatever device it was made on: weights are loaded into that.
        let renamed: Vec<RenamedField> = turns.iter().filter_map(Phase::renamed_field).collect();
        let model = init_weights_with(model, config.seed, &renamed);
        let mut model = assign_path_ids_with(model.valid(), &renamed);
        let mut state = State::default();
        if let Some(checkpoint) = &checkpoint {
            let offer = |error| run.with_fallback(checkpoint.step(), error);
            state = checkpoint.read_json(STATE).map_err(offer)?;
            if state.step != checkpoint.step() {
                let reason = format!(
                    "it is of step {}, expected {}",
                    state.step,
                    checkpoint.step()
                );
                return Err(offer(Error::checkpoint(checkpoint.path(STATE), reason)));
            }
            model =
                load_renamed_weights(model, &checkpoint.path(MODEL), &renamed).map_err(offer)?;
            model = assign_path_ids_with(model, &renamed);
        }
        let device = model
            .devices()
            .first()
            .cloned()
            .ok_or_else(|| Error::config("model", "empty", "parameters"))?;
        let device = device.autodiff();
        let plain = model.clone();
        let model = model.train();
        let groups = resolve(&config.param_groups, &model)?;
        let players = turns
            .iter()
            .map(|turn| {
                let (params, _) = trainable(&model, turn.field);
                if params.is_empty() {
                    let of = turn.field.unwrap_or("the model");
                    return Err(Error::config(
                        "turn",
                        turn.name,
                        format!("something to train; {of} has nothing"),
                    ));
                }
                let optimizer = match trainer.optimizers.remove(turn.name) {
                    Some(optimizer) => optimizer,
                    None => config.optimizer.init(&groups),
                };
                let optimizer = match &checkpoint {
                    Some(checkpoint) => {
                        load_optimizer(optimizer, &model, &saved_optimizer_file(turn, checkpoint))
                            .map_err(|error| run.with_fallback(checkpoint.step(), error))?
                    }
                    None => optimizer,
                };
                Ok(Player {
                    turn: turn.clone(),
                    params,
                    optimizer,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        if let Some(unknown) = trainer.optimizers.keys().next() {
            let known: Vec<_> = turns.iter().map(|t| t.name).collect();
            return Err(Error::config(
                "optimizer",
                unknown,
                format!("the name of a turn: {}", known.join(", ")),
            ));
        }
        let ema = match (config.ema, &checkpoint) {
            (None, _) => None,
            (Some(ema), None) => Some(Ema::new(&model, ema)),
            (Some(ema), Some(checkpoint)) => {
                // Loaded into tensors of its own: `valid` has made fresh running statistics.
                let average = load_renamed_weights(plain.valid(), &checkpoint.path(EMA), &renamed)
                    .map_err(|error| run.with_fallback(checkpoint.step(), error))?;
                Some(Ema::resume(&model, average, ema, state.ema_updates))
            }
        };
        if let Some(checkpoint) = &checkpoint {
            // Newest first: were this to be interrupted, the newest left would still be the one to
            // go on from.
            for newer in run
                .checkpoint_steps()?
                .into_iter()
                .rev()
                .filter(|s| *s > checkpoint.step())
            {
                run.remove(newer)?;
            }
        }
        write_json(&run.config_path(), &run_config)?;
        let (from_step, steps, parameters) =
            (state.step, config.max_steps, trainable(&model, None).1);
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
            from_step,
            warnings: 0,
            groups,
            renamed,
            _lock: lock,
        };
        session.tell(&Event::Started {
            run,
            from_step,
            steps,
            parameters,
        })?;
        Ok(session)
    }

    fn model(&self) -> &M {
        self.model
            .as_ref()
            .expect("the model is only away during an update")
    }

    pub(super) fn tell(&mut self, event: &Event<'_>) -> Result<()> {
        self.trainer
            .observers
            .iter_mut()
            .try_for_each(|observer| observer.on_event(event))
    }

    pub(super) fn warn(&mut self, message: &str) -> Result<()> {
        self.warnings += 1;
        self.tell(&Event::Warning(&format!("skipped {message}")))
    }

    pub(super) fn reason_to_stop(&self) -> Option<StopReason> {
        let config = &self.trainer.config;
        let out_of_time = |minutes: f64| self.began.elapsed().as_secs_f64() >= 60.0 * minutes;
        if self.state.step >= config.max_steps {
            Some(StopReason::Completed)
        } else if self.trainer.stop.is_cancelled() {
            Some(StopReason::Interrupted)
        } else if config.max_minutes.is_some_and(out_of_time) {
            Some(StopReason::OutOfTime)
        } else if config
            .early_stopping_patience
            .is_some_and(|patience| self.state.since_best >= patience)
        {
            Some(StopReason::EarlyStopped)
        } else {
            None
        }
    }

    /// Whether something that happens every `every` steps is due after `step` steps.
    fn due(every: usize, step: usize) -> bool {
        every > 0 && step.is_multiple_of(every)
    }

    pub(super) fn step<O: Objective<Model = M>>(
        &mut self,
        objective: &mut O,
        batches: &mut BatchIter<O::Batch>,
    ) -> Result<StepReport> {
        let config = self.trainer.config.clone();
        let (step, accumulate) = (self.state.step, config.gradient_accumulation_steps);
        let learning_rate =
            config.learning_rate * config.lr_schedule.lr_factor(step, config.max_steps);
        // Dropout draws from the backend's own generator: the same draws whenever this step is
        // made.
        self.device
            .seed(Rng::stream(config.seed, "device", step as u64).next_u64());
        let watch_norm = config.max_grad_norm.is_some()
            || step.is_multiple_of(10)
            || Self::due(config.save_steps, step + 1)
            || Self::due(config.eval_steps, step + 1);
        let mut drawn: Vec<O::Batch> = Vec::new();
        let mut named = Vec::new();
        let mut largest_norm: Option<f64> = None;
        for turn in 0..self.players.len() {
            let phase = self.players[turn].turn.clone();
            let (stream, name) = (phase.stream(), phase.name);
            let Phase {
                repeat, same_batch, ..
            } = phase;
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
                        steps: config.max_steps,
                        phase: turn,
                        repetition,
                        micro_batch: micro,
                        device: self.device.clone(),
                        rng: Rng::stream(config.seed, &stream, draw),
                        alerts: Vec::new(),
                    };
                    let losses = objective.losses(self.model(), batch, &mut context)?;
                    for (kind, text) in &context.alerts {
                        self.tell(&Event::Alert { step, kind, text })?;
                    }
                    let gradients = self.gradients(turn, &losses, accumulate);
                    if accumulate == 1 {
                        single = gradients;
                    } else {
                        accumulated.accumulate(self.model(), gradients);
                    }
                    add(&mut sums, read(&losses)?, accumulate);
                }
                let mut gradients = if accumulate == 1 {
                    single
                } else {
                    accumulated.grads()
                };
                if watch_norm && let Some(norm) = grad_norm(self.model(), &gradients) {
                    let norm = f64::from(norm.into_scalar::<f32>());
                    sums.push((GRAD_NORM.into(), norm));
                    largest_norm = Some(largest_norm.map_or(norm, |n| n.max(norm)));
                    // The same rule as PyTorch's `clip_grad_norm_`.
                    if let Some(limit) = config.max_grad_norm
                        && norm > limit
                        && norm.is_finite()
                    {
                        gradients = scale_gradients(self.model(), gradients, limit / (norm + 1e-6));
                    }
                }
                self.check_finite(&sums)?;
                let rates = learning_rates(learning_rate, &self.groups);
                let model = self
                    .model
                    .take()
                    .expect("the model is only away during an update");
                let model = self.players[turn].optimizer.step(rates, model, gradients);
                self.model = Some(objective.after_update(model, turn)?);
                sums.retain(|(name, _)| name != GRAD_NORM);
                last = sums;
            }
            // Of a repeated update, the last one's losses are told.
            let several = self.players.len() > 1;
            named.extend(
                last.into_iter()
                    .map(|(n, v)| (if several { format!("{name}.{n}") } else { n }, v)),
            );
        }
        if let (Some(ema), Some(model)) = (&mut self.ema, &self.model) {
            ema.update(model);
            self.state.ema_updates = ema.updates();
        }
        self.state.step += 1;
        self.state.objective = objective.state();
        Ok(StepReport {
            step: self.state.step,
            losses: named,
            grad_norm: largest_norm,
            learning_rate,
            elapsed: self.began.elapsed(),
        })
    }

    /// Gradients of the mean over accumulated batches, for the parameters of this turn.
    fn gradients(&self, turn: usize, losses: &LossOutput, accumulate: usize) -> GradientsParams {
        let mut gradients = if accumulate == 1 {
            losses.loss.backward()
        } else {
            (losses.loss.clone() / accumulate as f64).backward()
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
        let average = self.ema.as_ref().map(Ema::model);
        let models: Vec<&M> = std::iter::once(live).chain(average).collect();
        match not_finite(&models) {
            None => Ok(()),
            Some((name, value)) => Err(self.not_finite(self.state.step, name, value)),
        }
    }

    fn not_finite(&self, step: usize, name: String, value: f64) -> Error {
        let last_good = self.last_saved.map(|step| self.run.checkpoint_path(step));
        Error::NotFinite {
            step,
            name,
            value,
            last_good,
        }
    }

    pub(super) fn after_step(&mut self) -> Result<()> {
        let (config, step) = (&self.trainer.config, self.state.step);
        let (evaluate, preview, save) = (
            Self::due(config.eval_steps, step),
            Self::due(config.preview_steps, step),
            Self::due(config.save_steps, step),
        );
        let best = evaluate && self.judge()?;
        if preview {
            self.show()?;
        }
        if save || (best && self.trainer.config.load_best_model_at_end) {
            self.save()?;
        }
        Ok(())
    }

    /// The model to judge and to show.
    fn shown(&self) -> M {
        self.ema
            .as_ref()
            .map_or_else(|| self.model().valid(), |ema| ema.model().clone())
    }

    /// Evaluates; says whether it was the best so far.
    fn judge(&mut self) -> Result<bool> {
        let (step, model) = (self.state.step, self.shown());
        let Some(evaluate) = &mut self.trainer.evaluate else {
            return Ok(false);
        };
        self.last_evaluated = Some(step);
        let metrics = evaluate(&model)?;
        let value = metrics.first().map(|(_, value)| *value);
        let better = |value: f64, best: f64| {
            if self.trainer.config.greater_is_better {
                value > best
            } else {
                value < best
            }
        };
        let best = value.is_some_and(|v| {
            v.is_finite() && self.state.best.is_none_or(|(_, best)| better(v, best))
        });
        if let (true, Some(value)) = (best, value) {
            self.state.best = Some((step, value));
            self.state.since_best = 0;
        } else {
            self.state.since_best += 1;
        }
        self.state.metrics = metrics
            .iter()
            .map(|(n, v)| (n.clone(), Some(*v).filter(|v| v.is_finite())))
            .collect();
        self.tell(&Event::Evaluated {
            step,
            metrics: &metrics,
            best,
        })?;
        Ok(best)
    }

    fn show(&mut self) -> Result<()> {
        let (step, model, run) = (self.state.step, self.shown(), self.run);
        let Some(preview) = &mut self.trainer.preview else {
            return Ok(());
        };
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
        writer.write_json(STATE, &self.state)?;
        save_weights(&live, &writer.path(MODEL))?;
        if let Some(ema) = &self.ema {
            save_weights(ema.model(), &writer.path(EMA))?;
        }
        for player in &self.players {
            save_optimizer(
                &player.optimizer,
                &writer.path(&optimizer_file(&player.turn)),
            )?;
        }
        let folder = writer.commit(step)?;
        self.last_saved = Some(step);
        let best = self
            .state
            .best
            .filter(|_| self.trainer.config.load_best_model_at_end)
            .map(|(step, _)| step);
        self.run
            .prune(self.trainer.config.save_total_limit, best.as_slice())?;
        self.tell(&Event::Saved {
            step,
            folder: &folder,
        })
    }

    pub(super) fn end(mut self, reason: StopReason) -> Result<TrainOutput<M>> {
        let step = self.state.step;
        // Saved before anything else that can fail, and before an evaluation that a longer run
        // would not have made: a run that goes on later goes on as if it had not stopped.
        self.save()?;
        let interrupted = reason == StopReason::Interrupted;
        if !interrupted && self.last_evaluated != Some(step) {
            self.judge()?;
        }
        if !interrupted && self.last_previewed != Some(step) {
            self.show()?;
        }
        let model = self.final_model()?;
        let folder = self.run.final_dir();
        save_weights(&model, &folder.join(MODEL))?;
        write_json(&folder.join("config.json"), &self.trainer.with_model_config)?;
        let elapsed = self.began.elapsed();
        self.tell(&Event::Finished {
            step,
            reason,
            elapsed,
        })?;
        let metrics = self
            .state
            .metrics
            .into_iter()
            .map(|(n, v)| (n, v.unwrap_or(f64::NAN)))
            .collect();
        let made = step - self.from_step;
        Ok(TrainOutput {
            model,
            step,
            steps_run: made,
            elapsed,
            stop_reason: reason,
            metrics,
            best: self.state.best,
        })
    }

    fn final_model(&mut self) -> Result<M> {
        let best = self
            .state
            .best
            .map(|(step, _)| step)
            .filter(|step| *step != self.state.step);
        match best.filter(|_| self.trainer.config.load_best_model_at_end) {
            None => Ok(self.shown()),
            Some(step) if !self.run.checkpoint_steps()?.contains(&step) => {
                let text = format!(
                    "the best model, of step {step}, was not kept; the last one takes its place"
                );
                self.tell(&Event::Warning(&text))?;
                Ok(self.shown())
            }
            Some(step) => {
                let file = if self.ema.is_some() { EMA } else { MODEL };
                let path = self.run.checkpoint(step)?.path(file);
                load_renamed_weights(self.model().valid(), &path, &self.renamed)
            }
        }
    }
}
