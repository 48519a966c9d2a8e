//! Events and cancellation of a call.

use super::{ImagesApiError, ImagesApiErrorKind, PartialImage};
use aigc_core::CancelToken;
use std::{fmt, ops::ControlFlow, time::Duration};

/// What happens during a call.
#[derive(Debug)]
#[non_exhaustive]
pub enum CallEvent<'a> {
    /// A request is about to be sent.
    Attempt {
        /// Its number, from 1.
        number: u32,
        /// The most requests that the call can send, unless fields are left out.
        max: u32,
    },
    /// A request failed, and is sent again after a wait.
    Retry {
        /// Why it failed.
        error: &'a ImagesApiError,
        /// The wait.
        wait: Duration,
    },
    /// A picture that is not finished.
    PartialImage(&'a PartialImage),
}

type OnEvent<'a> = Box<dyn FnMut(&CallEvent<'_>) -> ControlFlow<()> + 'a>;

/// Cancellation and events of a call.
#[derive(Default)]
pub struct CallOptions<'a> {
    /// Stops the call: its connection is closed, its wait ends.
    pub cancel: CancelToken,
    on_event: Option<OnEvent<'a>>,
}

impl<'a> CallOptions<'a> {
    /// Sets the token that stops the call.
    pub fn with_cancel(mut self, cancel: CancelToken) -> Self {
        self.cancel = cancel;
        self
    }

    /// Calls `callback` with what happens; `ControlFlow::Break` stops the call.
    pub fn with_callback(
        mut self,
        callback: impl FnMut(&CallEvent<'_>) -> ControlFlow<()> + 'a,
    ) -> Self {
        self.on_event = Some(Box::new(callback));
        self
    }

    pub(super) fn report(&mut self, event: &CallEvent<'_>) -> Result<(), ImagesApiError> {
        let flow = match &mut self.on_event {
            Some(callback) => callback(event),
            None => ControlFlow::Continue(()),
        };
        if flow.is_break() || self.cancel.is_cancelled() {
            return Err(ImagesApiError::new(
                ImagesApiErrorKind::Cancelled,
                "a request to an images API",
            ));
        }
        Ok(())
    }
}

impl fmt::Debug for CallOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallOptions")
            .field("cancel", &self.cancel)
            .field("on_event", &self.on_event.is_some())
            .finish()
    }
}
