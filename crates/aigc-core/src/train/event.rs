//! Events that a trainer emits, and the callbacks that receive them.

use crate::{Result, checkpoint::RunDir};
use std::{path::Path, time::Duration};

/// An event in training. Steps count from 1: they are the number of completed steps.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Training starts or resumes.
    Started {
        /// The run's directory.
        run: &'a RunDir,
        /// Steps completed before.
        from_step: usize,
        /// Total number of steps.
        steps: usize,
        /// Number of trainable values.
        parameters: usize,
    },
    /// A step was completed.
    Step(&'a StepReport),
    /// The model was evaluated.
    Evaluated {
        /// Steps completed.
        step: usize,
        /// Named results.
        metrics: &'a [(String, f64)],
        /// Whether this is the best evaluation so far.
        best: bool,
    },
    /// The preview callback was called.
    Previewed {
        /// Steps completed.
        step: usize,
    },
    /// A checkpoint was written.
    Saved {
        /// Steps completed.
        step: usize,
        /// Its directory.
        dir: &'a Path,
    },
    /// A message for the user, such as the name of a skipped file.
    Warning(&'a str),
    /// The objective or a callback detected a problem, such as mode collapse.
    Alert {
        /// Steps completed.
        step: usize,
        /// Kind of problem for programs, such as `collapse`.
        kind: &'static str,
        /// Description for the user: the problem, and what may help.
        text: &'a str,
    },
    /// Training ends.
    Finished {
        /// Steps completed.
        step: usize,
        /// Why training ended.
        reason: StopReason,
        /// Time since this call of [`Trainer::fit`](super::Trainer::fit) began.
        elapsed: Duration,
    },
}

/// Report of a training step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Steps completed, including this one.
    pub step: usize,
    /// `loss` and its metrics, by name; with several phases, `phase.name`.
    pub losses: Vec<(String, f64)>,
    /// Norm of all gradients before clipping, if it was computed.
    pub grad_norm: Option<f64>,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Time since this call of [`Trainer::fit`](super::Trainer::fit) began.
    pub elapsed: Duration,
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// All steps were completed.
    Completed,
    /// The time limit was reached.
    OutOfTime,
    /// The evaluations did not improve any more.
    EarlyStopped,
    /// The run was cancelled.
    Interrupted,
}

/// Receives the events of training.
pub trait Callback {
    /// Called for every event, in order.
    ///
    /// # Errors
    /// An error ends training.
    fn on_event(&mut self, event: &Event<'_>) -> Result<()>;

    /// Problems that the callback has found, each as a kind for programs and a text for the user.
    /// It is called after every event but alerts of callbacks; all callbacks then receive an
    /// [`Event::Alert`].
    fn take_alerts(&mut self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
}

impl<F: FnMut(&Event<'_>)> Callback for F {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        self(event);
        Ok(())
    }
}
