//! The interface between a family of models and the trainer: losses, phases, state.

use crate::{Error, Result, rng::Rng, weights::RenamedField};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::collections::BTreeSet;

/// Computes the losses of a batch, and defines the updates of a step.
pub trait Objective {
    /// The model to train. Several networks are fields of one module.
    type Model: Module + 'static;
    /// A batch of the data loader, on the host.
    type Batch: Send + 'static;

    /// The updates of one step, in order; by default one update of the whole model. Adversarial
    /// objectives have one phase for each network.
    fn phases(&self) -> Vec<Phase> {
        vec![Phase::new("model")]
    }

    /// The losses of one batch for the phase `context.phase`. Called once per batch; the trainer
    /// averages over accumulated batches.
    ///
    /// # Errors
    /// Any error; it ends training.
    fn losses(
        &mut self,
        model: &Self::Model,
        batch: &Self::Batch,
        context: &mut StepContext,
    ) -> Result<LossOutput>;

    /// Called after every update with the updated model; returns the model to continue with. For
    /// example, weight clipping is done here.
    ///
    /// # Errors
    /// An error ends training.
    fn after_update(&mut self, model: Self::Model, phase: usize) -> Result<Self::Model> {
        let _ = phase;
        Ok(model)
    }

    /// State of the objective besides the model; it is saved in every checkpoint.
    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Restores a state that [`state`](Self::state) returned.
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

/// One update within a step, with a separate optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Name of the phase and its optimizer: a letter, then letters, digits and `_`.
    pub name: &'static str,
    /// Field of the model that is updated; the whole model if `None`.
    pub field: Option<&'static str>,
    /// Number of updates per step.
    pub repeat: usize,
    /// Whether the phase uses the batches of the previous phase instead of new ones.
    pub same_batch: bool,
    /// Name of the phase and its field in earlier versions.
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

    /// Updates only the field `field` of the model.
    pub const fn for_field(self, field: &'static str) -> Self {
        Self {
            field: Some(field),
            ..self
        }
    }

    /// Updates `times` times per step.
    pub const fn with_repeats(self, times: usize) -> Self {
        Self {
            repeat: times,
            ..self
        }
    }

    /// Sets the name that the phase and its field had in earlier versions. Random streams and ids
    /// of parameters keep it, so that runs of those versions resume exactly.
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

    /// Uses the batches of the previous phase.
    pub const fn reuse_batch(self) -> Self {
        Self {
            same_batch: true,
            ..self
        }
    }
}

/// Position of a batch in training.
#[derive(Debug)]
pub struct StepContext {
    /// Steps completed before this one.
    pub step: usize,
    /// Total number of steps.
    pub steps: usize,
    /// Index of the phase in [`Objective::phases`].
    pub phase: usize,
    /// Index of the repeated update.
    pub repetition: usize,
    /// Index of the accumulated batch.
    pub micro_batch: usize,
    /// The model's device, with autodiff.
    pub device: Device,
    /// Random numbers for this batch; a resumed run draws the same ones for the same step.
    pub rng: Rng,
    pub(super) alerts: Vec<(&'static str, String)>,
}

impl StepContext {
    /// The context of the first batch of the first phase of `step`, for calling
    /// [`Objective::losses`] without a trainer.
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

    /// Reports a problem in training ([`Event::Alert`](super::Event::Alert)): `kind` for programs,
    /// `text` for the user.
    pub fn alert(&mut self, kind: &'static str, text: impl Into<String>) {
        self.alerts.push((kind, text.into()));
    }
}

/// The loss of a batch, and named values to show and log.
#[derive(Clone, Debug)]
pub struct LossOutput {
    /// The value to minimise, `[1]`.
    pub loss: Tensor<1>,
    /// Named values of shape `[1]`; they are shown, logged and checked for NaN.
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

/// Names of phases are used as names of files and of random streams.
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
