//! One HTTP request and its answer, with a time limit and cancellation.

use super::{
    ApiKey, ImagesApiError, ImagesApiErrorKind, OpenAiConfig,
    answer::Answer,
    error::shown,
    request::RequestBody,
    retry::{asked_wait, is_temporary},
    url::{BaseUrl, resolve},
};
use aigc_core::CancelToken;
use std::{
    io::Read,
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant, SystemTime},
};
use ureq::{
    Agent, Body, Timeout,
    http::{HeaderMap, HeaderValue, Response},
};

/// Bytes of an error that are read.
const MAX_ERROR_BYTES: u64 = 1 << 16;

/// Redirects of a picture's address.
const MAX_REDIRECTS: usize = 5;

/// Time between two looks at the cancellation.
const POLL: Duration = Duration::from_millis(25);

/// A request that failed.
pub(super) struct Failure {
    pub(super) error: ImagesApiError,
    /// Whether the same request may succeed later.
    pub(super) is_temporary: bool,
}

impl Failure {
    fn lasting(error: ImagesApiError) -> Self {
        Self {
            error,
            is_temporary: false,
        }
    }
}

/// What all requests of a call have in common.
pub(super) struct Exchange<'a> {
    config: &'a OpenAiConfig,
    agent: Agent,
    is_loopback: bool,
    deadline: Instant,
    pub(super) cancel: CancelToken,
}

impl<'a> Exchange<'a> {
    /// Prepares the requests of a call, whose time begins now.
    pub(super) fn new(config: &'a OpenAiConfig, base: &BaseUrl, cancel: CancelToken) -> Self {
        let is_loopback = base.is_loopback();
        let builder = Agent::config_builder()
            .user_agent(concat!("aigc/", env!("CARGO_PKG_VERSION")))
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .https_only(!is_loopback)
            .timeout_connect(Some(config.connect_timeout))
            .timeout_resolve(Some(config.connect_timeout));
        let builder = match is_loopback {
            // A proxy would receive what is sent without encryption.
            true => builder.proxy(None),
            false => builder,
        };
        Self {
            config,
            agent: builder.build().into(),
            is_loopback,
            deadline: Instant::now() + config.timeout,
            cancel,
        }
    }

    /// Does `work`, and closes all connections when the call is cancelled meanwhile: the server
    /// sees that nobody waits any longer.
    pub(super) fn watched<T>(&self, work: impl FnOnce() -> T) -> T {
        let (done, is_done) = mpsc::channel::<()>();
        let (agent, cancel) = (self.agent.clone(), self.cancel.clone());
        thread::scope(|scope| {
            scope.spawn(move || {
                while is_done.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
                    if cancel.is_cancelled() {
                        agent.shutdown();
                        return;
                    }
                }
            });
            let result = work();
            drop(done);
            result
        })
    }

    /// Time that is left of the call.
    pub(super) fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Waits, unless the call is cancelled first.
    pub(super) fn wait(&self, wait: Duration) -> Result<(), ImagesApiError> {
        let end = Instant::now() + wait;
        loop {
            self.check_cancelled()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(POLL));
        }
    }

    pub(super) fn check_cancelled(&self) -> Result<(), ImagesApiError> {
        match self.cancel.is_cancelled() {
            true => Err(ImagesApiError::new(
                ImagesApiErrorKind::Cancelled,
                "a request to an images API",
            )),
            false => Ok(()),
        }
    }

    fn key(&self) -> Option<&ApiKey> {
        self.config.api_key.as_ref()
    }

    /// An address for errors, without the key and without what may be a signature.
    fn shown(&self, url: &str) -> String {
        let url = url.split(['?', '#']).next().unwrap_or_default();
        self.key().map_or_else(|| url.into(), |key| key.redact(url))
    }

    /// Time left for one request.
    fn time(&self) -> Result<Duration, Failure> {
        self.check_cancelled().map_err(Failure::lasting)?;
        match self.time_left() {
            left if left.is_zero() => Err(Failure::lasting(self.timed_out())),
            left => Ok(left),
        }
    }

    fn timed_out(&self) -> ImagesApiError {
        let seconds = self.config.timeout.as_secs_f64();
        let message = format!("the answer was not complete within {seconds} s (timeout)");
        ImagesApiError::new(ImagesApiErrorKind::Timeout, message)
    }

    /// The error of a request or an answer that broke.
    fn broken(&self, error: ureq::Error, answered: bool) -> Failure {
        use ImagesApiErrorKind as Kind;
        if let Err(error) = self.check_cancelled() {
            return Failure::lasting(error);
        }
        let reason = match self.key() {
            Some(key) => key.redact(&error.to_string()),
            None => error.to_string(),
        };
        let (kind, message, is_temporary) = match &error {
            ureq::Error::Timeout(Timeout::Connect | Timeout::Resolve) => {
                let message = format!("the server could not be reached ({reason})");
                (Kind::Connection, message, true)
            }
            ureq::Error::Timeout(_) => return Failure::lasting(self.timed_out()),
            ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => {
                let message = format!("the server does not answer by the rules of HTTP ({reason})");
                (Kind::InvalidAnswer, message, false)
            }
            // An unknown certificate is an I/O error too.
            ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let message = format!("the connection is not safe ({reason})");
                (Kind::Connection, message, false)
            }
            ureq::Error::Io(_) | ureq::Error::ConnectionFailed | ureq::Error::HostNotFound => {
                let message = match answered {
                    true => format!("the connection broke in the middle of the answer ({reason})"),
                    false => format!("there was no answer ({reason})"),
                };
                (Kind::Connection, message, !answered)
            }
            _ => (Kind::Connection, reason, false),
        };
        Failure {
            error: ImagesApiError::new(kind, message),
            is_temporary,
        }
    }

    /// Sends a request to an endpoint. An answer with another status than success is a failure.
    pub(super) fn post(
        &self,
        url: &str,
        body: &RequestBody,
        idempotency_key: &str,
    ) -> Result<Response<Body>, Failure> {
        let time = self.time()?;
        let mut request = self
            .agent
            .post(url)
            .config()
            .timeout_global(Some(time))
            .build()
            .header("Content-Type", &body.content_type)
            .header("Accept", "application/json, text/event-stream")
            .header("Idempotency-Key", idempotency_key);
        if let Some(key) = self.key() {
            // Keys are ASCII.
            if let Ok(mut value) = HeaderValue::from_str(&key.bearer()) {
                value.set_sensitive(true);
                request = request.header("Authorization", value);
            }
        }
        for (name, value) in [
            ("OpenAI-Organization", &self.config.organization),
            ("OpenAI-Project", &self.config.project),
        ] {
            if let Some(value) = value {
                request = request.header(name, value);
            }
        }
        let response = request
            .send(&body.bytes[..])
            .map_err(|error| self.broken(error, false))?;
        match response.status().is_success() {
            true => Ok(response),
            false => Err(self.refused(url, response)),
        }
    }

    /// The failure that an answer from `url` is.
    fn refused(&self, url: &str, response: Response<Body>) -> Failure {
        use ImagesApiErrorKind as Kind;
        let (head, body) = response.into_parts();
        let mut bytes = vec![];
        // What can be read of the error is better than why the rest cannot.
        let _ = body
            .into_reader()
            .take(MAX_ERROR_BYTES)
            .read_to_end(&mut bytes);
        if let Err(error) = self.check_cancelled() {
            return Failure::lasting(error);
        }
        let status = head.status.as_u16();
        let answer = self.answer(status, &head.headers, &bytes);
        let location = header(&head.headers, "location");
        let error = match location.filter(|_| head.status.is_redirection()) {
            Some(location) => self.redirected(url, location).with_answer(&answer),
            None => answer.error(),
        };
        let is_final = matches!(error.kind(), Kind::Quota | Kind::Moderation);
        Failure {
            is_temporary: is_temporary(status, &head.headers) && !is_final,
            error,
        }
    }

    /// The error of a redirect, which requests do not follow: whoever answers may send them
    /// anywhere, and they have the key.
    fn redirected(&self, from: &str, location: &str) -> ImagesApiError {
        let to = resolve(from, location, self.is_loopback);
        let to = shown(&self.shown(to.as_deref().unwrap_or(location)));
        let message = format!(
            "the server redirects to {to}, and requests are not sent there: if it is the API, give \
             the part before `/images` as the base URL"
        );
        ImagesApiError::new(ImagesApiErrorKind::InvalidAnswer, message)
    }

    /// An answer that is to become an error.
    pub(super) fn answer<'b>(
        &'b self,
        status: u16,
        headers: &'b HeaderMap,
        body: &'b [u8],
    ) -> Answer<'b> {
        Answer {
            status,
            content_type: header(headers, "content-type"),
            request_id: header(headers, "x-request-id"),
            retry_after: asked_wait(headers, SystemTime::now()),
            body,
            key: self.key(),
        }
    }

    /// Reads a whole body of at most `limit` bytes; `what` names the limit.
    pub(super) fn read_all(
        &self,
        body: Body,
        limit: u64,
        what: &str,
    ) -> Result<Vec<u8>, ImagesApiError> {
        let too_large = || {
            let message = format!("the answer has more than {limit} bytes ({what})");
            ImagesApiError::new(ImagesApiErrorKind::TooLarge, message)
        };
        if body.content_length().is_some_and(|bytes| bytes > limit) {
            return Err(too_large());
        }
        let mut bytes = vec![];
        body.into_reader()
            .take(limit.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(|error| self.broken(error.into(), true).error)?;
        // A connection that is closed here can look like the end of the answer.
        self.check_cancelled()?;
        match bytes.len() as u64 > limit {
            true => Err(too_large()),
            false => Ok(bytes),
        }
    }

    /// Reads the next piece of a body into `piece`; 0 at its end.
    pub(super) fn read_piece(
        &self,
        reader: &mut impl Read,
        piece: &mut [u8],
    ) -> Result<usize, ImagesApiError> {
        let bytes = reader
            .read(piece)
            .map_err(|error| self.broken(error.into(), true).error)?;
        self.check_cancelled()?;
        Ok(bytes)
    }

    /// Fetches a picture that an answer from `from` names by its address. The key is not sent.
    pub(super) fn fetch(&self, from: &str, reference: &str) -> Result<Fetched, Failure> {
        let fail = |url: &str, kind, message: String| {
            Failure::lasting(ImagesApiError::new(kind, message).with_url(&self.shown(url)))
        };
        let (mut from, mut reference) = (from.to_string(), reference.to_string());
        for _ in 0..=MAX_REDIRECTS {
            let url = resolve(&from, &reference, self.is_loopback).map_err(|reason| {
                let message = format!("the picture is not fetched: {reason}");
                fail(&reference, ImagesApiErrorKind::InvalidAnswer, message)
            })?;
            let time = self.time()?;
            let response = self
                .agent
                .get(&url)
                .config()
                .timeout_global(Some(time))
                .build()
                .header("Accept", "image/*")
                .call()
                .map_err(|error| {
                    let failure = self.broken(error, false);
                    Failure {
                        error: failure.error.with_url(&self.shown(&url)),
                        ..failure
                    }
                })?;
            let next = header(response.headers(), "location").map(str::to_string);
            if let (true, Some(next)) = (response.status().is_redirection(), next) {
                (from, reference) = (url, next);
                continue;
            }
            if !response.status().is_success() {
                let failure = self.refused(&url, response);
                return Err(Failure {
                    error: failure.error.with_url(&self.shown(&url)),
                    ..failure
                });
            }
            let content_type = header(response.headers(), "content-type").map(str::to_string);
            let limit = self.config.max_image_bytes;
            let bytes = self
                .read_all(response.into_body(), limit, "max_image_bytes")
                .map_err(|error| Failure {
                    // A download has no effect on the server: it may be tried again.
                    is_temporary: error.kind() == ImagesApiErrorKind::Connection,
                    error: error.with_url(&self.shown(&url)),
                })?;
            return Ok(Fetched {
                bytes,
                content_type,
                url,
            });
        }
        let message = format!("the picture is redirected more than {MAX_REDIRECTS} times");
        Err(fail(&from, ImagesApiErrorKind::InvalidAnswer, message))
    }
}

/// A picture's file, and where it came from.
pub(super) struct Fetched {
    pub(super) bytes: Vec<u8>,
    pub(super) content_type: Option<String>,
    pub(super) url: String,
}

pub(super) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
