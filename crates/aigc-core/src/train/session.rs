//! The training loop, step by step.

use super::{
    Ema, Event, LossOutput, Objective, Phase, PreviewContext, StartFrom, StepContext, StepReport,
    StopReason, TrainOutput, Trainer, TrainerConfig,
    gradients::{grad_norm, scale_gradients},
    optimizer::{Group, learning_rates, resolve},
    readout::{GRAD_NORM, add, read},
    schedule::planned_steps,
    state::{
        ConfigRecords, EMA, LoaderRecord, MODEL, RunConfig, STATE, State, TIME, TimeSpent,
        check_continues, optimizer_file, saved_optimizer_file,
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

/// A phase with its parameters and its optimizer.
struct PhaseState {
    phase: Phase,
    params: Vec<ParamId>,
    optimizer: ModuleOptimizer,
}

/// The losses of an update, and the norm of its gradients if it was computed.
struct UpdateReport {
    losses: Vec<(String, f64)>,
    grad_norm: Option<f64>,
}

/// The state of a training run.
pub(super) struct Session<'a, 'b, M> {
    trainer: Trainer<'a, M>,
    run: &'b RunDir,
    device: Device,
    /// `None` only during an update, which takes the model by value.
    model: Option<M>,
    phases: Vec<PhaseState>,
    ema: Option<Ema<M>>,
    pub(super) state: State,
    began: Instant,
    /// Seconds that earlier starts of the run took.
    seconds_before: f64,
    from_step: usize,
    last_saved: Option<usize>,
    last_evaluated: Option<usize>,
    last_previewed: Option<usize>,
    /// Number of skipped items that were reported so far.
    warnings: usize,
    groups: Vec<Group>,
    /// Fields that had other names in earlier versions.
    renamed: Vec<RenamedField>,
    /// Held while training, so that no other process trains in this directory.
    _lock: RunLock,
}

impl<'a, 'b, M: Module + 'static> Session<'a, 'b, M> {
    pub(super) fn begin<B: Send + 'static>(
        mut trainer: Trainer<'a, M>,
        phases: &[Phase],
        model: M,
        loader: &DataLoader<B>,
        run: &'b RunDir,
    ) -> Result<Self> {
        let lock = run.lock()?;
        run.recover()?;
        let checkpoint = open_checkpoint(run, trainer.start)?;
        let run_config = run_config(&trainer, loader, run)?;
        let config = &trainer.config;
        let renamed: Vec<RenamedField> = phases.iter().filter_map(Phase::renamed_field).collect();
        let (plain, state) = restore_model(model, config, &renamed, checkpoint.as_ref(), run)?;
        let device = plain
            .devices()
            .first()
            .cloned()
            .ok_or_else(|| Error::argument("model", "empty", "a model with parameters"))?
            .autodiff();
        let model = plain.clone().train();
        let groups = resolve(&config.param_groups, &model)?;
        let phases = build_phases(
            &mut trainer,
            phases,
            &model,
            &groups,
            checkpoint.as_ref(),
            run,
        )?;
        let ema = restore_ema(
            &trainer.config,
            &model,
            plain,
            &renamed,
            &state,
            checkpoint.as_ref(),
            run,
        )?;
        let mut spent = TimeSpent::default();
        if let Some(checkpoint) = &checkpoint {
            // Checkpoints of older versions do not have this file.
            if checkpoint.path(TIME).is_file() {
                spent = checkpoint.read_json(TIME)?;
            }
            remove_newer(run, checkpoint.step())?;
        }
        write_json(&run.config_path(), &run_config)?;
        let (from_step, parameters) = (state.step, trainable(&model, None).1);
        let steps = trainer.config.max_steps;
        let mut session = Self {
            trainer,
            run,
            device,
            model: Some(model),
            phases,
            ema,
            last_saved: checkpoint.as_ref().map(Checkpoint::step),
            last_evaluated: None,
            last_previewed: None,
            state,
            began: Instant::now(),
            seconds_before: spent.seconds,
            from_step,
            warnings: 0,
            groups,
            renamed,
            _lock: lock,
        };
        session.emit(&Event::Started {
            run,
            from_step,
            steps,
            parameters,
        })?;
        Ok(session)
    }

    /// Trains until a condition ends it.
    pub(super) fn run<O: Objective<Model = M>>(
        &mut self,
        objective: &mut O,
        loader: &DataLoader<O::Batch>,
    ) -> Result<StopReason> {
        if self.state.step > 0 {
            objective.load_state(self.state.objective.clone())?;
        }
        let mut batches = loader.iter_from(self.state.batches);
        loop {
            if let Some(reason) = self.reason_to_stop() {
                return Ok(reason);
            }
            let report = self.step(objective, &mut batches)?;
            for message in loader.skipped_since(self.warnings) {
                self.warnings += 1;
                self.emit(&Event::Warning(&format!("skipped {message}")))?;
            }
            self.emit(&Event::Step(&report))?;
            self.after_step()?;
        }
    }

    fn model(&self) -> &M {
        self.model
            .as_ref()
            .expect("the model is only away during an update")
    }

    fn emit(&mut self, event: &Event<'_>) -> Result<()> {
        self.trainer
            .callbacks
            .iter_mut()
            .try_for_each(|callback| callback.on_event(event))
    }

    /// Seconds that training has taken, over all starts.
    fn seconds(&self) -> f64 {
        let now = match &self.trainer.clock {
            Some(clock) => clock(),
            None => self.began.elapsed().as_secs_f64(),
        };
        self.seconds_before + now
    }

    fn reason_to_stop(&self) -> Option<StopReason> {
        let config = &self.trainer.config;
        if self.state.step >= config.max_steps {
            Some(StopReason::Completed)
        } else if self.trainer.cancel.is_cancelled() {
            Some(StopReason::Interrupted)
        } else if self.seconds() >= max_seconds(config) {
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

    /// Whether something that happens every `interval` steps is due after `step` steps.
    fn due(interval: usize, step: usize) -> bool {
        interval > 0 && step.is_multiple_of(interval)
    }

    /// The learning rate of the next step.
    fn learning_rate(&self) -> f64 {
        let (config, step) = (&self.trainer.config, self.state.step);
        let steps = match config.max_minutes {
            Some(_) => planned_steps(step, self.seconds(), config.max_steps, max_seconds(config)),
            None => config.max_steps,
        };
        config.learning_rate * config.lr_schedule.lr_factor(step, steps)
    }

    fn step<O: Objective<Model = M>>(
        &mut self,
        objective: &mut O,
        batches: &mut BatchIter<O::Batch>,
    ) -> Result<StepReport> {
        let learning_rate = self.learning_rate();
        // Dropout draws from the backend's generator: reseeded, so that it draws the same numbers
        // whenever this step is run.
        let seed = Rng::stream(self.trainer.config.seed, "device", self.state.step as u64);
        self.device.seed({ seed }.next_u64());
        let mut drawn: Vec<O::Batch> = Vec::new();
        let (mut losses, mut largest_norm) = (Vec::new(), None::<f64>);
        let several = self.phases.len() > 1;
        for phase in 0..self.phases.len() {
            let Phase {
                name,
                repeat,
                same_batch,
                ..
            } = self.phases[phase].phase;
            let mut last = Vec::new();
            for repetition in 0..repeat.max(1) {
                if !same_batch || drawn.is_empty() {
                    self.draw(batches, &mut drawn)?;
                }
                let update = self.update(objective, &drawn, phase, repetition, learning_rate)?;
                largest_norm = [largest_norm, update.grad_norm]
                    .into_iter()
                    .flatten()
                    .reduce(f64::max);
                last = update.losses;
            }
            // For a repeated update, the losses of the last repetition are reported.
            losses.extend(
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
            losses,
            grad_norm: largest_norm,
            learning_rate,
            elapsed: self.began.elapsed(),
        })
    }

    /// Replaces `drawn` by the batches of the next update.
    fn draw<B>(&mut self, batches: &mut BatchIter<B>, drawn: &mut Vec<B>) -> Result<()> {
        drawn.clear();
        for _ in 0..self.trainer.config.gradient_accumulation_steps {
            drawn.push(batches.next_batch()?);
        }
        self.state.batches = batches.position();
        Ok(())
    }

    /// Runs one update of one phase.
    fn update<O: Objective<Model = M>>(
        &mut self,
        objective: &mut O,
        batches: &[O::Batch],
        phase: usize,
        repetition: usize,
        learning_rate: f64,
    ) -> Result<UpdateReport> {
        let (mut losses, gradients) = self.accumulate(objective, batches, phase, repetition)?;
        let (gradients, grad_norm) = self.clip(gradients);
        losses.extend(grad_norm.map(|norm| (GRAD_NORM.to_string(), norm)));
        self.check_finite(&losses)?;
        losses.retain(|(name, _)| name != GRAD_NORM);
        let rates = learning_rates(learning_rate, &self.groups);
        let model = self
            .model
            .take()
            .expect("the model is only away during an update");
        let model = self.phases[phase].optimizer.step(rates, model, gradients);
        self.model = Some(objective.after_update(model, phase)?);
        Ok(UpdateReport { losses, grad_norm })
    }

    /// Mean losses and mean gradients over the batches of an update.
    fn accumulate<O: Objective<Model = M>>(
        &mut self,
        objective: &mut O,
        batches: &[O::Batch],
        phase: usize,
        repetition: usize,
    ) -> Result<(Vec<(String, f64)>, GradientsParams)> {
        let repeat = self.phases[phase].phase.repeat;
        let (step, accumulate) = (self.state.step, batches.len());
        let stream = self.phases[phase].phase.stream();
        let mut sums: Vec<(String, f64)> = Vec::new();
        let mut accumulated = GradientsAccumulator::new();
        let mut single = GradientsParams::new();
        for (micro_batch, batch) in batches.iter().enumerate() {
            let draw = (step * repeat.max(1) + repetition) * accumulate + micro_batch;
            let mut context = StepContext {
                step,
                steps: self.trainer.config.max_steps,
                phase,
                repetition,
                micro_batch,
                device: self.device.clone(),
                rng: Rng::stream(self.trainer.config.seed, &stream, draw as u64),
                alerts: Vec::new(),
            };
            let losses = objective.losses(self.model(), batch, &mut context)?;
            for (kind, text) in &context.alerts {
                self.emit(&Event::Alert { step, kind, text })?;
            }
            let gradients = self.gradients(phase, &losses, accumulate);
            if accumulate == 1 {
                single = gradients;
            } else {
                accumulated.accumulate(self.model(), gradients);
            }
            add(&mut sums, read(&losses)?, accumulate);
        }
        let gradients = if accumulate == 1 {
            single
        } else {
            accumulated.grads()
        };
        Ok((sums, gradients))
    }

    /// Gradients of the mean over accumulated batches, for the parameters of this phase.
    fn gradients(&self, phase: usize, losses: &LossOutput, accumulate: usize) -> GradientsParams {
        let mut gradients = if accumulate == 1 {
            losses.loss.backward()
        } else {
            (losses.loss.clone() / accumulate as f64).backward()
        };
        GradientsParams::from_params(&mut gradients, self.model(), &self.phases[phase].params)
    }

    /// Scales gradients down to the allowed norm, by the rule of PyTorch's `clip_grad_norm_`;
    /// returns the norm before, if this step needs it.
    fn clip(&self, gradients: GradientsParams) -> (GradientsParams, Option<f64>) {
        let (config, step) = (&self.trainer.config, self.state.step);
        let needed = config.max_grad_norm.is_some()
            || step.is_multiple_of(10)
            || Self::due(config.save_steps, step + 1)
            || Self::due(config.eval_steps, step + 1);
        let norm = needed
            .then(|| grad_norm(self.model(), &gradients))
            .flatten()
            .map(|norm| f64::from(norm.into_scalar::<f32>()));
        match (norm, config.max_grad_norm) {
            (Some(norm), Some(limit)) if norm > limit && norm.is_finite() => {
                let scaled = scale_gradients(self.model(), gradients, limit / (norm + 1e-6));
                (scaled, Some(norm))
            }
            _ => (gradients, norm),
        }
    }

    fn check_finite(&self, values: &[(String, f64)]) -> Result<()> {
        match values.iter().find(|(_, value)| !value.is_finite()) {
            None => Ok(()),
            Some((name, value)) => Err(self.not_finite(self.state.step + 1, name.clone(), *value)),
        }
    }

    /// Fails if a weight is not finite: a run could not resume from its checkpoint.
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
        let best = evaluate && self.evaluate()?;
        if preview {
            self.preview()?;
        }
        if save || (best && self.trainer.config.load_best_model_at_end) {
            self.save()?;
        }
        Ok(())
    }

    /// The model for evaluations and previews, without autodiff.
    fn evaluated_model(&self) -> M {
        self.ema
            .as_ref()
            .map_or_else(|| self.model().valid(), |ema| ema.model().clone())
    }

    /// Evaluates the model; returns whether it is the best so far.
    fn evaluate(&mut self) -> Result<bool> {
        let (step, model) = (self.state.step, self.evaluated_model());
        let Some(evaluate) = &mut self.trainer.evaluate else {
            return Ok(false);
        };
        self.last_evaluated = Some(step);
        let metrics = evaluate(&model)?;
        let value = self.deciding_metric(&metrics)?;
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
        self.emit(&Event::Evaluated {
            step,
            metrics: &metrics,
            best,
        })?;
        Ok(best)
    }

    /// The value of the metric that decides which model is best.
    fn deciding_metric(&self, metrics: &[(String, f64)]) -> Result<Option<f64>> {
        let Some(name) = &self.trainer.config.metric_for_best_model else {
            return Ok(metrics.first().map(|(_, value)| *value));
        };
        match metrics.iter().find(|(metric, _)| metric == name) {
            Some((_, value)) => Ok(Some(*value)),
            None => {
                let names: Vec<_> = metrics.iter().map(|(name, _)| name.as_str()).collect();
                Err(Error::config(
                    "metric_for_best_model",
                    name,
                    format!("a metric of the evaluation: {}", names.join(", ")),
                ))
            }
        }
    }

    fn preview(&mut self) -> Result<()> {
        let (step, model, run) = (self.state.step, self.evaluated_model(), self.run);
        let Some(preview) = &mut self.trainer.preview else {
            return Ok(());
        };
        self.last_previewed = Some(step);
        preview(&model, &PreviewContext { step, run })?;
        self.emit(&Event::Previewed { step })
    }

    fn save(&mut self) -> Result<()> {
        let step = self.state.step;
        if self.last_saved == Some(step) {
            return Ok(());
        }
        // `valid` includes the last update of the running statistics, which saving the live model
        // would miss.
        let live = self.model().valid();
        self.check_weights(&live)?;
        let writer = self.run.write_checkpoint(step)?;
        writer.write_json(STATE, &self.state)?;
        let seconds = self.seconds();
        writer.write_json(TIME, &TimeSpent { seconds })?;
        save_weights(&live, &writer.path(MODEL))?;
        if let Some(ema) = &self.ema {
            save_weights(ema.model(), &writer.path(EMA))?;
        }
        for phase in &self.phases {
            save_optimizer(
                &phase.optimizer,
                &writer.path(&optimizer_file(&phase.phase)),
            )?;
        }
        let dir = writer.commit(step)?;
        self.last_saved = Some(step);
        let best = self
            .state
            .best
            .filter(|_| self.trainer.config.load_best_model_at_end)
            .map(|(step, _)| step);
        self.run
            .prune(self.trainer.config.save_total_limit, best.as_slice())?;
        self.emit(&Event::Saved { step, dir: &dir })
    }

    pub(super) fn end(mut self, reason: StopReason) -> Result<TrainOutput<M>> {
        let step = self.state.step;
        // Saved before anything else that can fail, and before an evaluation that a longer run
        // would not have done: a run that is extended later continues as if it had not ended here.
        self.save()?;
        let interrupted = reason == StopReason::Interrupted;
        if !interrupted && self.last_evaluated != Some(step) {
            self.evaluate()?;
        }
        if !interrupted && self.last_previewed != Some(step) {
            self.preview()?;
        }
        let model = self.final_model()?;
        let dir = self.run.final_dir();
        save_weights(&model, &dir.join(MODEL))?;
        write_json(&dir.join("config.json"), &self.trainer.model_config.json)?;
        let elapsed = self.began.elapsed();
        self.emit(&Event::Finished {
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
        let steps_run = step - self.from_step;
        Ok(TrainOutput {
            model,
            step,
            steps_run,
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
            None => Ok(self.evaluated_model()),
            Some(step) if !self.run.checkpoint_steps()?.contains(&step) => {
                let text = format!(
                    "the checkpoint of the best model, of step {step}, was not kept; the last model is used instead"
                );
                self.emit(&Event::Warning(&text))?;
                Ok(self.evaluated_model())
            }
            Some(step) => {
                let file = if self.ema.is_some() { EMA } else { MODEL };
                let path = self.run.checkpoint(step)?.path(file);
                load_renamed_weights(self.model().valid(), &path, &self.renamed)
            }
        }
    }
}

fn max_seconds(config: &TrainerConfig) -> f64 {
    config
        .max_minutes
        .map_or(f64::INFINITY, |minutes| 60.0 * minutes)
}

/// The checkpoint to start from; `None` to start from the beginning.
fn open_checkpoint(run: &RunDir, start: StartFrom) -> Result<Option<Checkpoint>> {
    match start {
        StartFrom::Fresh if !run.checkpoint_steps()?.is_empty() => Err(Error::run(
            run.path(),
            "it already has checkpoints, which a fresh start would overwrite; resume the run, or \
             choose another directory",
        )),
        StartFrom::Fresh => Ok(None),
        // Killed before its first checkpoint: training starts from the beginning.
        StartFrom::Resume if run.checkpoint_steps()?.is_empty() => Ok(None),
        StartFrom::Resume => run.latest_checkpoint().map(Some),
        StartFrom::ResumeAt(step) => run.checkpoint(step).map(Some),
    }
}

/// The configuration to write. For a resumed run, checks that it is compatible with the saved one.
fn run_config<M, B: Send + 'static>(
    trainer: &Trainer<'_, M>,
    loader: &DataLoader<B>,
    run: &RunDir,
) -> Result<RunConfig> {
    let records = ConfigRecords {
        model: &trainer.model_config,
        objective: &trainer.objective_config,
        data: &trainer.data_config,
    };
    let loader = LoaderRecord::new(loader.num_items(), loader.config());
    if trainer.start != StartFrom::Fresh && run.config_path().exists() {
        let saved = read_json(&run.config_path())?;
        check_continues(&trainer.config, &records, &loader, &saved)?;
    }
    Ok(RunConfig {
        model: records.model.json.clone(),
        trainer: trainer.config.clone(),
        objective: records.objective.json.clone(),
        data: records.data.json.clone(),
        loader,
    })
}

/// The model without autodiff, and its training state: initial, or from the checkpoint.
fn restore_model<M: Module + 'static>(
    model: M,
    config: &TrainerConfig,
    renamed: &[RenamedField],
    checkpoint: Option<&Checkpoint>,
    run: &RunDir,
) -> Result<(M, State)> {
    let model = init_weights_with(model, config.seed, renamed);
    let model = assign_path_ids_with(model.valid(), renamed);
    let Some(checkpoint) = checkpoint else {
        return Ok((model, State::default()));
    };
    let offer = |error| run.with_fallback(checkpoint.step(), error);
    let state: State = checkpoint.read_json(STATE).map_err(offer)?;
    if state.step != checkpoint.step() {
        let reason = format!(
            "it is of step {}, expected {}",
            state.step,
            checkpoint.step()
        );
        return Err(offer(Error::checkpoint(checkpoint.path(STATE), reason)));
    }
    let model = load_renamed_weights(model, &checkpoint.path(MODEL), renamed).map_err(offer)?;
    Ok((assign_path_ids_with(model, renamed), state))
}

/// The phases with their parameters and optimizers.
fn build_phases<M: Module + 'static>(
    trainer: &mut Trainer<'_, M>,
    phases: &[Phase],
    model: &M,
    groups: &[Group],
    checkpoint: Option<&Checkpoint>,
    run: &RunDir,
) -> Result<Vec<PhaseState>> {
    let mut states = Vec::with_capacity(phases.len());
    for phase in phases {
        let (params, _) = trainable(model, phase.field);
        if params.is_empty() {
            let part = phase.field.unwrap_or("the model");
            return Err(Error::argument(
                "phase",
                phase.name,
                format!("a phase with something to train; {part} has no trainable parameter"),
            ));
        }
        let optimizer = match trainer.optimizers.remove(phase.name) {
            Some(optimizer) => optimizer,
            None => trainer.config.optimizer.init(groups),
        };
        let optimizer = match checkpoint {
            Some(checkpoint) => {
                load_optimizer(optimizer, model, &saved_optimizer_file(phase, checkpoint))
                    .map_err(|error| run.with_fallback(checkpoint.step(), error))?
            }
            None => optimizer,
        };
        states.push(PhaseState {
            phase: *phase,
            params,
            optimizer,
        });
    }
    if let Some(unknown) = trainer.optimizers.keys().next() {
        let known: Vec<_> = phases.iter().map(|phase| phase.name).collect();
        return Err(Error::argument(
            "optimizer",
            unknown,
            format!("the name of a phase: {}", known.join(", ")),
        ));
    }
    Ok(states)
}

/// The average of the weights, if it is configured.
fn restore_ema<M: Module + 'static>(
    config: &TrainerConfig,
    model: &M,
    plain: M,
    renamed: &[RenamedField],
    state: &State,
    checkpoint: Option<&Checkpoint>,
    run: &RunDir,
) -> Result<Option<Ema<M>>> {
    Ok(match (config.ema, checkpoint) {
        (None, _) => None,
        (Some(ema), None) => Some(Ema::new(model, ema)),
        (Some(ema), Some(checkpoint)) => {
            // Loaded into separate tensors: `valid` copies running statistics.
            let average = load_renamed_weights(plain.valid(), &checkpoint.path(EMA), renamed)
                .map_err(|error| run.with_fallback(checkpoint.step(), error))?;
            Some(Ema::resume(model, average, ema, state.ema_updates))
        }
    })
}

/// Removes the checkpoints after `step`, newest first: if this is interrupted, the newest remaining
/// one is still valid.
fn remove_newer(run: &RunDir, step: usize) -> Result<()> {
    let steps = run.checkpoint_steps()?;
    let newer = steps.into_iter().rev().filter(|other| *other > step);
    newer.into_iter().try_for_each(|newer| run.remove(newer))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::{
        CancelToken,
        data::{DataLoaderConfig, InMemory},
        nn::{Linear, LinearConfig},
        train::{EmaConfig, LrSchedule},
    };
    use burn::tensor::Tensor;
    use std::{cell::Cell, path::Path, rc::Rc};

    struct Regression;

    impl Objective for Regression {
        type Model = Linear;
        type Batch = Vec<f32>;

        fn losses(
            &mut self,
            model: &Linear,
            batch: &Vec<f32>,
            context: &mut StepContext,
        ) -> Result<LossOutput> {
            let x = Tensor::<1>::from_floats(batch.as_slice(), &context.device).reshape([-1, 1]);
            let noise = context.rng.normal([batch.len(), 1], &context.device);
            let loss = (model.forward(x) - noise).square().mean();
            Ok(LossOutput::new(loss))
        }
    }

    /// Trains for at most a minute of a clock that advances one second per step; cancels after
    /// `stop` steps. Returns the learning rates.
    fn train(dir: &Path, start: StartFrom, max_steps: usize, stop: usize) -> Result<Vec<f64>> {
        let run = match start {
            StartFrom::Fresh => RunDir::create(dir)?,
            _ => RunDir::open(dir)?,
        };
        let config = TrainerConfig {
            max_minutes: Some(1.0),
            lr_schedule: LrSchedule::linear(0),
            learning_rate: 0.1,
            ema: Some(EmaConfig::new(0.9)),
            save_steps: 0,
            metric_for_best_model: Some("second".into()),
            eval_steps: 20,
            ..TrainerConfig::new(max_steps)
        };
        let loader = DataLoader::new(
            InMemory((0..8).map(|i| i as f32).collect()),
            |items| items,
            DataLoaderConfig {
                batch_size: 4,
                num_workers: 0,
                ..DataLoaderConfig::default()
            },
        )?;
        let cancel = CancelToken::new();
        let raise = cancel.clone();
        let (rates, steps) = (Rc::new(Cell::new(Vec::new())), Rc::new(Cell::new(0)));
        let (seen, made) = (rates.clone(), steps.clone());
        Trainer::new(config)
            .with_start(start)
            .with_cancel(cancel)
            .with_clock(move || steps.get() as f64)
            .with_evaluation(|_| Ok(vec![("first".into(), 1.0), ("second".into(), 2.0)]))
            .with_callback(move |event: &Event<'_>| {
                if let Event::Step(report) = event {
                    made.set(made.get() + 1);
                    let mut all = seen.take();
                    all.push(report.learning_rate);
                    seen.set(all);
                    if report.step == stop {
                        raise.cancel();
                    }
                }
            })
            .fit(
                Regression,
                LinearConfig::new(1, 1).init(&Device::flex()),
                &loader,
                &run,
            )
            .map(|trained| {
                assert_eq!(trained.best.map(|(_, value)| value), Some(2.0));
            })?;
        Ok(rates.take())
    }

    #[test]
    fn schedule_follows_the_budget_that_ends_first() {
        let dir = tempfile::tempdir().unwrap();
        // The steps end first: the rates do not depend on time.
        let rates = train(&dir.path().join("steps"), StartFrom::Fresh, 30, 0).unwrap();
        for (step, rate) in rates.iter().enumerate() {
            assert_eq!(*rate, 0.1 * LrSchedule::linear(0).lr_factor(step, 30));
        }
        // The minute ends first, after 60 of 1,000 steps.
        let rates = train(&dir.path().join("time"), StartFrom::Fresh, 1000, 0).unwrap();
        assert_eq!(rates.len(), 60);
        for (step, rate) in rates.iter().enumerate().skip(3) {
            assert_eq!(*rate, 0.1 * LrSchedule::linear(0).lr_factor(step, 60));
        }
    }

    #[test]
    fn time_budget_resumes_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
        let expected = train(&whole, StartFrom::Fresh, 1000, 0).unwrap();
        let mut rates = train(&parts, StartFrom::Fresh, 1000, 23).unwrap();
        rates.extend(train(&parts, StartFrom::Resume, 1000, 0).unwrap());
        assert_eq!(rates, expected);
        for file in ["model.safetensors", "ema.safetensors", "state.json"] {
            let read = |run: &Path| std::fs::read(run.join("checkpoints/step-000060").join(file));
            assert_eq!(read(&whole).unwrap(), read(&parts).unwrap(), "{file}");
        }
    }

    #[test]
    fn unknown_metric_for_best_model_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let run = RunDir::create(dir.path().join("run")).unwrap();
        let loader =
            DataLoader::new(InMemory(vec![1.0f32]), |x| x, DataLoaderConfig::default()).unwrap();
        let config = TrainerConfig {
            metric_for_best_model: Some("fid".into()),
            ..TrainerConfig::new(1)
        };
        let error = Trainer::new(config)
            .with_evaluation(|_| Ok(vec![("loss".into(), 1.0)]))
            .fit(
                Regression,
                LinearConfig::new(1, 1).init(&Device::flex()),
                &loader,
                &run,
            )
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`metric_for_best_model` is fid") && error.contains("loss"),
            "{error}"
        );
    }

    #[test]
    fn failed_start_leaves_no_run_behind() {
        struct Fails;
        impl Objective for Fails {
            type Model = Linear;
            type Batch = Vec<f32>;
            fn losses(
                &mut self,
                _: &Linear,
                _: &Vec<f32>,
                _: &mut StepContext,
            ) -> Result<LossOutput> {
                Err(Error::other("a bad image"))
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let loader =
            DataLoader::new(InMemory(vec![1.0f32]), |x| x, DataLoaderConfig::default()).unwrap();
        let fit = |run: &RunDir| {
            let model = LinearConfig::new(1, 1).init(&Device::flex());
            Trainer::new(TrainerConfig::new(2)).fit(Fails, model, &loader, run)
        };
        assert!(fit(&RunDir::create(&path).unwrap()).is_err());
        assert!(!path.exists());
        // Other files in the directory are kept.
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("notes.txt"), "mine").unwrap();
        assert!(fit(&RunDir::create(&path).unwrap()).is_err());
        let names: Vec<_> = std::fs::read_dir(&path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["notes.txt"]);
        // A directory left by a killed start is reused, but not one that contains a run.
        let run = RunDir::create(&path).unwrap();
        std::fs::write(run.config_path(), "{}").unwrap();
        assert!(RunDir::create(&path).is_ok());
        let lock = run.lock().unwrap();
        let in_use = RunDir::create(&path).unwrap_err().to_string();
        assert!(in_use.contains("in use"), "{in_use}");
        drop(lock);
        run.write_checkpoint(2).unwrap().commit(2).unwrap();
        let taken = RunDir::create(&path).unwrap_err().to_string();
        assert!(taken.contains("a run in it already"), "{taken}");
    }
}
