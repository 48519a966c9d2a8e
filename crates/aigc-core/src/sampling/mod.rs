//! What sampling has in common in all families: batch size, cancellation, progress, results.

mod classes;

pub use classes::ClassLabels;

use crate::{CancelToken, Error, Result};
use burn::tensor::Tensor;
use std::{
    cell::RefCell,
    ops::{ControlFlow, Range},
    rc::Rc,
};

/// Called during sampling; may stop it.
type OnProgress<'a, P> = Rc<RefCell<dyn FnMut(&P) -> ControlFlow<()> + 'a>>;

/// How samples are drawn, whatever draws them. `P` is what a callback receives.
pub struct SamplingOptions<'a, P> {
    /// Samples in one pass of the network: bounds the memory it needs, however many are requested.
    pub batch_size: usize,
    /// Stops sampling between two passes.
    pub cancel: CancelToken,
    on_progress: Option<OnProgress<'a, P>>,
}

impl<P> SamplingOptions<'_, P> {
    /// `batch_size` at once, without a callback.
    pub fn new(batch_size: usize) -> Self {
        Self {
            batch_size,
            cancel: CancelToken::new(),
            on_progress: None,
        }
    }
}

impl<'a, P> SamplingOptions<'a, P> {
    /// Calls `callback` with the progress; `ControlFlow::Break` stops sampling.
    pub fn on_progress(mut self, callback: impl FnMut(&P) -> ControlFlow<()> + 'a) -> Self {
        self.on_progress = Some(Rc::new(RefCell::new(callback)));
        self
    }

    /// Whether a callback wants to know of progress.
    pub fn has_callback(&self) -> bool {
        self.on_progress.is_some()
    }

    /// Reports progress; whether to go on.
    pub fn report(&self, progress: &P) -> ControlFlow<()> {
        if self.cancel.is_cancelled() {
            return ControlFlow::Break(());
        }
        match &self.on_progress {
            Some(callback) => (callback.borrow_mut())(progress),
            None => ControlFlow::Continue(()),
        }
    }

    /// The batches of `n` samples, by number.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if `n` or the batch size is 0.
    pub fn batches(&self, n: usize) -> Result<impl Iterator<Item = Range<usize>> + use<P>> {
        for (argument, value) in [("n", n), ("batch_size", self.batch_size)] {
            if value == 0 {
                return Err(Error::argument(argument, value, "at least 1"));
            }
        }
        let batch_size = self.batch_size;
        Ok((0..n)
            .step_by(batch_size)
            .map(move |start| start..(start + batch_size).min(n)))
    }
}

impl<P> Clone for SamplingOptions<'_, P> {
    fn clone(&self) -> Self {
        Self {
            batch_size: self.batch_size,
            cancel: self.cancel.clone(),
            on_progress: self.on_progress.clone(),
        }
    }
}

impl<P> std::fmt::Debug for SamplingOptions<'_, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SamplingOptions")
            .field("batch_size", &self.batch_size)
            .finish_non_exhaustive()
    }
}

/// Samples, and what is needed to draw them again.
#[derive(Clone, Debug)]
pub struct Samples<const D: usize = 4> {
    /// `[n, …]`; fewer than requested if sampling was stopped.
    pub values: Tensor<D>,
    /// The class of each sample of a class-conditional model.
    pub labels: Option<Vec<u32>>,
    /// The seed that they were drawn with.
    pub seed: u64,
    /// Whether all requested samples are there and finished.
    pub complete: bool,
}
