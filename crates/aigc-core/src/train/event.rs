//! What a trainer tells.

use crate::{Result, checkpoint::RunDir};
use std::{path::Path, time::Duration};

/// What a trainer tells its observers. Steps are counted from 1 and say how many have been made.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// Training starts or goes on.
    Started {
        /// The run's folder.
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
    /// The model has been judged.
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
        /// Its folder.
        folder: &'a Path,
    },
    /// Something a user should know, such as a file that was skipped.
    Warning(&'a str),
    /// The objective sees something that needs attention, such as a generator that collapses.
    Alert {
        /// Steps made before the one that was being made.
        step: usize,
        /// What it is, for programs: `collapse`.
        kind: &'static str,
        /// What it is and what may help, for people.
        text: &'a str,
    },
    /// Training ends.
    Finished {
        /// Steps made.
        step: usize,
        /// Why.
        reason: StopReason,
        /// Time of this start, not of earlier ones.
        elapsed: Duration,
    },
}

/// What happened in a step.
#[derive(Clone, Debug, PartialEq)]
pub struct StepReport {
    /// Steps made, this one included.
    pub step: usize,
    /// `loss` and its parts, by name; of several turns, `turn.name`.
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
    /// All steps were made.
    Completed,
    /// The time was up.
    OutOfTime,
    /// Evaluations stopped improving.
    EarlyStopped,
    /// Someone asked for it.
    Interrupted,
}

/// Listens to a trainer.
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
