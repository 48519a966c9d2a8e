//! The training loop, step by step.

mod evaluate;
mod save;
mod start;
mod step;
#[cfg(all(test, feature = "flex"))]
mod tests;

use super::{
    Ema, Event, Objective, Phase, StopReason, TrainOutput, Trainer, TrainerConfig,
    optimizer::{Group, resolve},
    state::{MODEL, State, TIME, TimeSpent},
    survey::trainable,
};
use crate::{
    Error, Result,
    checkpoint::{Checkpoint, RunDir, RunLock, write_json},
    data::DataLoader,
    weights::{RenamedField, save_weights},
};
use burn::{
    module::{Module, ParamId},
    optim::ModuleOptimizer,
    tensor::Device,
};
use start::{build_phases, open_checkpoint, remove_newer, restore_ema, restore_model, run_config};
use std::time::Instant;

/// A phase with its parameters and its optimizer.
struct PhaseState {
    phase: Phase,
    params: Vec<ParamId>,
    optimizer: ModuleOptimizer,
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

    /// Calls the callbacks, and then hands on the problems that they have found. A problem that is
    /// found in an alert waits for the next event: alerts cannot go in circles.
    fn emit(&mut self, event: &Event<'_>) -> Result<()> {
        let step = self.state.step;
        let callbacks = &mut self.trainer.callbacks;
        let mut found = Vec::new();
        for callback in callbacks.iter_mut() {
            callback.on_event(event)?;
            found.extend(callback.take_alerts());
        }
        for (kind, text) in &found {
            let alert = Event::Alert { step, kind, text };
            callbacks
                .iter_mut()
                .try_for_each(|callback| callback.on_event(&alert))?;
        }
        Ok(())
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
}

fn max_seconds(config: &TrainerConfig) -> f64 {
    config
        .max_minutes
        .map_or(f64::INFINITY, |minutes| 60.0 * minutes)
}
