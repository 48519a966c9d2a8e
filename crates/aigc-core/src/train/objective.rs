//! What a family means by a step.

use crate::{Error, Result, rng::Rng, weights::RenamedField};
use burn::{
    module::Module,
    tensor::{Device, Tensor},
};
use std::collections::BTreeSet;

/// What a family means by a step: losses for a batch, and who is updated by them.
pub trait Objective {
    /// Everything that is trained; several networks are the fields of one module.
    type Model: Module + 'static;
    /// What the loader hands out, on the host.
    type Batch: Send + 'static;

    /// The updates of one step, in order. One update of everything, unless an adversarial family
    /// says otherwise.
    fn phases(&self) -> Vec<Phase> {
        vec![Phase::new("model")]
    }

    /// The losses of one batch for the turn `context.turn`. Called once per batch; the trainer
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

    /// Called after every update with the updated model; what it returns takes its place. Clipping
    /// weights belongs here.
    ///
    /// # Errors
    /// Stop training.
    fn after_update(&mut self, model: Self::Model, turn: usize) -> Result<Self::Model> {
        let _ = turn;
        Ok(model)
    }

    /// What the objective must remember beside the model for a resumed run to go on exactly; part
    /// of every checkpoint.
    fn state(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Goes on from what [`state`](Self::state) gave when the checkpoint was written.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not a state of this objective.
    fn load_state(&mut self, state: serde_json::Value) -> Result<()> {
        match state {
            serde_json::Value::Null => Ok(()),
            other => Err(Error::config(
                "state.objective",
                other,
                "nothing; this objective remembers nothing",
            )),
        }
    }
}

/// One update within a step, with an optimizer of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phase {
    /// Name of the optimizer; a letter first, then letters, digits and `_`.
    pub name: &'static str,
    /// Field of the model that is updated; everything if `None`.
    pub field: Option<&'static str>,
    /// How often the update is made per step.
    pub repeat: usize,
    /// Whether it sees the batches of the turn before instead of new ones.
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

    /// Makes the update `times` times per step.
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

    /// Sees the batches of the turn before.
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
    /// Which of the turn's repeated updates.
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
    /// The first batch of the first turn of `step`, for calling [`Objective::losses`] without a
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

    /// Tells the observers that something in training needs attention
    /// ([`Event::Alert`](super::Event::Alert)): `kind` for programs, `text` for people.
    pub fn alert(&mut self, kind: &'static str, text: impl Into<String>) {
        self.alerts.push((kind, text.into()));
    }
}

/// The loss of a batch, and the parts of it that people want to see.
#[derive(Clone, Debug)]
pub struct LossOutput {
    /// What is minimised, `[1]`.
    pub loss: Tensor<1>,
    /// Named values of shape `[1]`, shown and logged and watched for NaN.
    pub metrics: Vec<(&'static str, Tensor<1>)>,
}

impl LossOutput {
    /// A loss without parts.
    pub fn new(total: Tensor<1>) -> Self {
        Self {
            loss: total,
            metrics: Vec::new(),
        }
    }

    /// Adds a part.
    pub fn with_metric(mut self, name: &'static str, value: Tensor<1>) -> Self {
        self.metrics.push((name, value));
        self
    }
}

/// Names of turns are names of files and of random streams.
pub(super) fn check_turns(turns: &[Phase]) -> Result<()> {
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
