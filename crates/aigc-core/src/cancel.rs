//! Cancelling long operations.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// Requests that a long operation stops: training finishes the current step and saves a checkpoint,
/// sampling returns the samples drawn so far. Clones share the request.
#[derive(Clone, Debug, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// A token that is not cancelled.
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests that the operation stops.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether cancellation was requested.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
