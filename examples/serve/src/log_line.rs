//! The line of a request in the log.

use crate::{error::Cause, server::Shared};
use axum::{
    body::Body,
    http::{Response, StatusCode, request::Parts},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// The cause of a request that ends without its answer: its client has hung up, or took nothing, or
/// had its time when the server stopped.
const CLOSED: &str = "the connection was closed";

/// The line of a request. It is written when nothing has it any more: when the answer is ready,
/// when the job of a stream has ended, or when the request is dropped before.
pub(crate) struct LogLine {
    shared: Arc<Shared>,
    start: Instant,
    /// Method and path.
    request: String,
    /// Name of the request.
    id: String,
    outcome: Mutex<Outcome>,
}

/// What is known of the answer.
#[derive(Default)]
struct Outcome {
    status: Option<StatusCode>,
    cause: Option<String>,
}

impl LogLine {
    /// The line of the request with a head and a name.
    pub(crate) fn new(shared: Arc<Shared>, parts: &Parts, id: String) -> Self {
        let path = parts.uri.path();
        // Names of files are permissions.
        let path = match path.strip_prefix("/v1/files/") {
            Some(_) => "/v1/files/…".to_string(),
            None => path.chars().take(100).collect(),
        };
        Self {
            shared,
            start: Instant::now(),
            request: format!("{} {path}", parts.method),
            id,
            outcome: Mutex::default(),
        }
    }

    fn outcome(&self) -> MutexGuard<'_, Outcome> {
        self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the answer.
    pub(crate) fn answer(&self, response: &Response<Body>) {
        let cause = response.extensions().get::<Cause>();
        *self.outcome() = Outcome {
            status: Some(response.status()),
            cause: cause.map(|cause| cause.0.clone()),
        };
    }

    /// Records the cause of a failed stream, whose HTTP status was sent before the failure.
    pub(crate) fn fail(&self, cause: &str) {
        self.outcome().cause = Some(cause.into());
    }

    /// Notes that a stream is dropped before its end.
    pub(crate) fn close(&self) {
        self.fail(CLOSED);
    }
}

impl Drop for LogLine {
    fn drop(&mut self) {
        let outcome = std::mem::take(&mut *self.outcome());
        let (status, cause) = match outcome.status {
            Some(status) => (status.as_u16().to_string(), outcome.cause),
            None => ("-".to_string(), Some(CLOSED.to_string())),
        };
        let seconds = self.start.elapsed().as_secs_f64();
        let cause = cause.map_or(String::new(), |cause| format!(": {cause}"));
        let (request, id) = (&self.request, &self.id);
        let line = format!("{request} {status} {seconds:.2} s {id}{cause}");
        self.shared.config.log(&line);
    }
}
