//! Progress of evaluations.

use aigc_core::{
    CancelToken, Error, Result,
    sampling::{BatchProgress, Samples},
};
use aigc_diffusion::StepProgress;
use indicatif::{ProgressBar, ProgressStyle};
use std::ops::ControlFlow;

/// Progress of an evaluation: a bar, hidden without a terminal, and the token that stops the
/// evaluation. The bar disappears when this is dropped.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    stop: CancelToken,
}

impl Progress {
    /// A bar up to `total`.
    pub fn new(what: &'static str, total: usize, stop: &CancelToken) -> Self {
        let style = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} ETA {eta}");
        let bar = ProgressBar::new(total as u64)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_message(what);
        Self {
            bar,
            stop: stop.clone(),
        }
    }

    /// Advances the bar by `n`.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the evaluation is to stop.
    pub fn add(&self, n: usize) -> Result<()> {
        self.bar.inc(n as u64);
        match self.flow() {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::cancelled("the evaluation")),
        }
    }

    /// Callback of a sampler that draws batch by batch.
    pub fn on_batch(&self, at: &BatchProgress) -> ControlFlow<()> {
        self.bar.set_position(at.done as u64);
        self.flow()
    }

    /// Callback of a diffusion sampler.
    pub fn on_step(&self, at: &StepProgress<'_>) -> ControlFlow<()> {
        let done = at.images.start + at.images.len() * at.step / at.num_steps;
        self.bar.set_position(done as u64);
        self.flow()
    }

    fn flow(&self) -> ControlFlow<()> {
        if self.stop.is_cancelled() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The samples, if all that were requested were drawn.
///
/// # Errors
/// [`Error::Cancelled`] if sampling was stopped.
pub fn complete<const D: usize>(samples: Samples<D>) -> Result<Samples<D>> {
    if samples.complete {
        Ok(samples)
    } else {
        Err(Error::cancelled("sampling"))
    }
}
