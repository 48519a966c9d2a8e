//! The interface between a family of models and the trainer: losses, phases, state.

use crate::{Error, Result, rng::Rng, weights::RenamedField};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::collections::BTreeSet;

/// The losses of a batch, and the updates that a step consists of.
pub trait Objective {
    /// Everything that is trained; several networks are the fields of one module.
    type Model: Module + 'static;
    /// A batch of the loader, on the host.
    type Batch: Send + 'static;

    /// The updates of one step, in order; by default one update of the whole model. Adversarial
    /// objectives have one for each network.
    fn phases(&self) -> Vec<Phase> {
        vec![Phase::new("model")]
    }

    /// The losses of one batch for the phase `context.phase`. Called once per batch; the trainer
    /// averages over accumulated batches.
    ///
    /// # Errors
    /// Whatever keeps the batch from being used.
    fn losses(
        &mut self,
        model: &Self::Model,
        batch: &Self::Batch,
        context: &mut StepContext,
    ) -> Result<LossOutput>;

    /// Called after every update with the updated model, which is replaced by the returned one.
    /// Weight clipping belongs here.
    ///
    /// # Errors
    /// Stop training.
    fn after_update(&mut self, model: Self::Model, phase: usize) -> Result<Self::Model> {
        let _ = phase;
        Ok(model)
    }

    /// What the objective needs beside the model to resume exactly; part of every checkpoint.
    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Restores what [`state`](Self::state) returned when the checkpoint was written.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not a state of this objective.
    fn load_state(&mut self, state: serde_json::Value) -> Result<()> {
        match state {
            serde_json::Value::Null => Ok(()),
            other => Err(Error::config(
                "state.objective",
                other,
                "null; this objective has no state",
            )),
        }
    }
}

/// One update within a step, with its own optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Name of the optimizer; a letter first, then letters, digits and `_`.
    pub name: &'static str,
    /// Field of the model that is updated; everything if `None`.
    pub field: Option<&'static str>,
    /// Updates per step.
    pub repeat: usize,
    /// Whether it uses the batches of the phase before instead of new ones.
    pub same_batch: bool,
    /// Name that the phase and its field had in earlier versions.
    pub former_name: Option<&'static str>,
}

impl Phase {
    /// One update of the whole model on a new batch.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            field: None,
            repeat: 1,
            same_batch: false,
            former_name: None,
        }
    }

    /// Updates only the model's field called `field`.
    pub const fn for_field(self, field: &'static str) -> Self {
        Self {
            field: Some(field),
            ..self
        }
    }

    /// Makes `times` updates per step.
    pub const fn with_repeats(self, times: usize) -> Self {
        Self {
            repeat: times,
            ..self
        }
    }

    /// The name that the phase and its field had in earlier versions. Random streams and ids of
    /// parameters keep it, so that runs that were begun then resume bit for bit.
    pub const fn with_former_name(self, name: &'static str) -> Self {
        Self {
            former_name: Some(name),
            ..self
        }
    }

    /// Name of the random stream.
    pub(super) fn stream(&self) -> String {
        format!("turn/{}", self.former_name.unwrap_or(self.name))
    }

    /// The field, if it was renamed.
    pub(super) fn renamed_field(&self) -> Option<RenamedField> {
        Some(RenamedField {
            name: self.field?,
            former: self.former_name?,
        })
    }

    /// Uses the batches of the phase before.
    pub const fn reuse_batch(self) -> Self {
        Self {
            same_batch: true,
            ..self
        }
    }
}

/// Where in training a batch is.
#[derive(Debug)]
pub struct StepContext {
    /// Steps made before this one.
    pub step: usize,
    /// Steps to be made in all.
    pub steps: usize,
    /// Which of [`Objective::phases`].
    pub phase: usize,
    /// Which of the phase's repeated updates.
    pub repetition: usize,
    /// Which of the accumulated batches.
    pub micro_batch: usize,
    /// The model's device, with autodiff.
    pub device: Device,
    /// Noise for this batch alone: the same when a resumed run makes this step again.
    pub rng: Rng,
    pub(super) alerts: Vec<(&'static str, String)>,
}

impl StepContext {
    /// The first batch of the first phase of `step`, for calling [`Objective::losses`] without a
    /// trainer.
    pub fn new(step: usize, steps: usize, device: Device, rng: Rng) -> Self {
        Self {
            step,
            steps,
            phase: 0,
            repetition: 0,
            micro_batch: 0,
            device,
            rng,
            alerts: Vec::new(),
        }
    }

    /// Reports that something in training needs attention
    /// ([`Event::Alert`](super::Event::Alert)): `kind` for programs, `text` for people.
    pub fn alert(&mut self, kind: &'static str, text: impl Into<String>) {
        self.alerts.push((kind, text.into()));
    }
}

/// The loss of a batch, and named values to show and log beside it.
#[derive(Clone, Debug)]
pub struct LossOutput {
    /// What is minimised, `[1]`.
    pub loss: Tensor<1>,
    /// Named values of shape `[1]`, shown and logged and watched for NaN.
    pub metrics: Vec<(&'static str, Tensor<1>)>,
}

impl LossOutput {
    /// A loss without metrics.
    pub fn new(total: Tensor<1>) -> Self {
        Self {
            loss: total,
            metrics: Vec::new(),
        }
    }

    /// Adds a metric, of shape `[1]`.
    pub fn with_metric(mut self, name: &'static str, value: Tensor<1>) -> Self {
        self.metrics.push((name, value));
        self
    }
}

/// Names of phases are names of files and of random streams.
pub(super) fn check_phases(phases: &[Phase]) -> Result<()> {
    let plain = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let names: BTreeSet<_> = phases.iter().map(|phase| phase.name).collect();
    if phases.is_empty() || names.len() < phases.len() || !names.iter().all(|name| plain(name)) {
        let names: Vec<_> = phases.iter().map(|phase| phase.name).collect();
        let expected = "at least one phase, of different names of letters, digits and `_`";
        return Err(Error::argument("phases", format!("{names:?}"), expected));
    }
    Ok(())
}
