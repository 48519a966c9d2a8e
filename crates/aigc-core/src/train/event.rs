//! Events that a trainer emits, and the callbacks that receive them.

use crate::{Result, checkpoint::RunDir};
use std::{path::Path, time::Duration};

/// What happens in training. Steps count from 1: the number of steps made.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Training starts or resumes.
    Started {
        /// The run's directory.
        run: &'a RunDir,
        /// Steps made before.
        from_step: usize,
        /// Steps to be made in all.
        steps: usize,
        /// Number of trainable values.
        parameters: usize,
    },
    /// A step has been made.
    Step(&'a StepReport),
    /// The model has been evaluated.
    Evaluated {
        /// Steps made.
        step: usize,
        /// Named results.
        metrics: &'a [(String, f64)],
        /// Whether this is the best so far.
        best: bool,
    },
    /// The preview callback has run.
    Previewed {
        /// Steps made.
        step: usize,
    },
    /// A checkpoint is on disk.
    Saved {
        /// Steps made.
        step: usize,
        /// Its directory.
        dir: &'a Path,
    },
    /// Something a user should know, such as a file that was skipped.
    Warning(&'a str),
    /// The objective found something that needs attention, such as mode collapse.
    Alert {
        /// Steps made before the one that was being made.
        step: usize,
        /// What it is, for programs: `collapse`.
        kind: &'static str,
        /// What was found and what may help, for people.
        text: &'a str,
    },
    /// Training ends.
    Finished {
        /// Steps made.
        step: usize,
        /// Why.
        reason: StopReason,
        /// Time since this start.
        elapsed: Duration,
    },
}

/// What happened in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Steps made, this one included.
    pub step: usize,
    /// `loss` and its parts, by name; of several phases, `phase.name`.
    pub losses: Vec<(String, f64)>,
    /// Norm of all gradients before clipping, where it was computed.
    pub grad_norm: Option<f64>,
    /// Learning rate used.
    pub learning_rate: f64,
    /// Time since this start.
    pub elapsed: Duration,
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// All steps have been made.
    Completed,
    /// The time budget has ended.
    OutOfTime,
    /// Evaluations stopped improving.
    EarlyStopped,
    /// The run was cancelled.
    Interrupted,
}

/// Receives the events of a training.
pub trait Callback {
    /// Called for every event, in order.
    ///
    /// # Errors
    /// Stop training.
    fn on_event(&mut self, event: &Event<'_>) -> Result<()>;
}

impl<F: FnMut(&Event<'_>)> Callback for F {
    fn on_event(&mut self, event: &Event<'_>) -> Result<()> {
        self(event);
        Ok(())
    }
}
