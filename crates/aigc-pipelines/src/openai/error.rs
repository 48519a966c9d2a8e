//! Errors of an images API and of its client.

use super::{ApiKey, answer::Answer};
use aigc_core::Error;
use std::{fmt, time::Duration};

/// Bytes of a body that an error shows.
const BODY_SHOWN: usize = 500;

/// The cause of an [`ImagesApiError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ImagesApiErrorKind {
    /// The client cannot be used: no key, an address that is not encrypted, a bad setting.
    Configuration,
    /// A field of the request cannot be fulfilled. Without a status, nothing was sent.
    InvalidRequest,
    /// The prompt or a picture was refused by moderation.
    Moderation,
    /// The key is missing or wrong (401).
    Authentication,
    /// The key may not do this (403).
    Permission,
    /// There is no such model or address (404).
    NotFound,
    /// Too many requests (429). Retries are used up, or the server wants a longer wait.
    RateLimit,
    /// Credit or quota is used up; retries do not help.
    Quota,
    /// The server failed or is overloaded (408, 409, 5xx).
    Server,
    /// The server could not be reached, or the connection broke.
    Connection,
    /// The time limit has passed.
    Timeout,
    /// The answer is not that of an images API, or a picture in it is broken.
    InvalidAnswer,
    /// The answer or a picture is larger than the limits of the configuration.
    TooLarge,
    /// The caller cancelled.
    Cancelled,
}

/// Why moderation refused a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ModerationDetails {
    /// What was refused: `input` or `output`.
    pub stage: Option<String>,
    /// Names of the categories.
    pub categories: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Details {
    message: String,
    url: Option<String>,
    status: Option<u16>,
    error_type: Option<String>,
    code: Option<String>,
    param: Option<String>,
    request_id: Option<String>,
    body: Option<String>,
    moderation: Option<ModerationDetails>,
    retry_after: Option<Duration>,
    attempts: u32,
    /// Of a field that cannot be sent: its value, and what was expected.
    field: Option<(String, String)>,
}

/// An error of an images API or of its client. It never contains the key.
#[derive(Clone)]
pub struct ImagesApiError {
    kind: ImagesApiErrorKind,
    details: Box<Details>,
}

impl ImagesApiError {
    pub(super) fn new(kind: ImagesApiErrorKind, message: impl Into<String>) -> Self {
        let details = Box::new(Details {
            message: message.into(),
            ..Details::default()
        });
        Self { kind, details }
    }

    /// A field of the request that cannot be sent.
    pub(super) fn field(param: &str, value: impl fmt::Display, expected: &str) -> Self {
        let message = format!("it is {value}, expected {expected}");
        let mut error = Self::new(ImagesApiErrorKind::InvalidRequest, message);
        error.details.param = Some(param.into());
        error.details.field = Some((value.to_string(), expected.into()));
        error
    }

    /// The error as one of the crates: [`Error::InvalidArgument`] for a field that cannot be sent,
    /// under its name in an [`ImageRequest`](aigc_core::text_to_image::ImageRequest),
    /// [`Error::Cancelled`], or [`Error::Other`] with this error inside.
    pub(super) fn into_error(self) -> Error {
        if let (Some(param), Some((value, expected))) = (self.param(), &self.details.field) {
            let argument = if param == "mask" { "mask_image" } else { param };
            return Error::argument(argument, value, expected);
        }
        match self.kind {
            ImagesApiErrorKind::Cancelled => Error::cancelled(self.message()),
            _ => Error::other(self),
        }
    }

    pub(super) fn with_url(mut self, url: &str) -> Self {
        self.details.url.get_or_insert_with(|| url.into());
        self
    }

    /// The error with the key hidden in its message, which may quote what the server sent.
    pub(super) fn redacted(mut self, key: Option<&ApiKey>) -> Self {
        if let Some(key) = key {
            self.details.message = key.redact(&self.details.message);
        }
        self
    }

    pub(super) fn with_attempts(mut self, attempts: u32) -> Self {
        self.details.attempts = attempts;
        self
    }

    /// Adds what is known of the answer: status, request id and the beginning of the body.
    pub(super) fn with_answer(mut self, answer: &Answer<'_>) -> Self {
        let details = &mut *self.details;
        details.status = Some(answer.status);
        details.request_id = answer.request_id.map(|id| answer.redacted(id));
        details.retry_after = answer.retry_after;
        let body = shown(&answer.redacted(&String::from_utf8_lossy(answer.body)));
        details.body = Some(body).filter(|body| !body.is_empty());
        self
    }

    /// Adds what an error object says.
    pub(super) fn with_object(
        mut self,
        error_type: Option<String>,
        code: Option<String>,
        param: Option<String>,
        moderation: Option<ModerationDetails>,
    ) -> Self {
        let details = &mut *self.details;
        details.error_type = error_type;
        details.code = code;
        details.param = param;
        details.moderation = moderation;
        self
    }

    /// The cause.
    pub fn kind(&self) -> ImagesApiErrorKind {
        self.kind
    }

    /// What happened: the server's message where there is one.
    pub fn message(&self) -> &str {
        &self.details.message
    }

    /// The address of the request.
    pub fn url(&self) -> Option<&str> {
        self.details.url.as_deref()
    }

    /// The HTTP status; `None` if there was no answer.
    pub fn status(&self) -> Option<u16> {
        self.details.status
    }

    /// The error's `type`, such as `invalid_request_error`.
    pub fn error_type(&self) -> Option<&str> {
        self.details.error_type.as_deref()
    }

    /// The error's `code`, such as `unknown_parameter`.
    pub fn code(&self) -> Option<&str> {
        self.details.code.as_deref()
    }

    /// The field of the request that the error is about.
    pub fn param(&self) -> Option<&str> {
        self.details.param.as_deref()
    }

    /// The server's name of the request, from the header `x-request-id`.
    pub fn request_id(&self) -> Option<&str> {
        self.details.request_id.as_deref()
    }

    /// The first bytes of the answer, as text.
    pub fn body(&self) -> Option<&str> {
        self.details.body.as_deref()
    }

    /// Why moderation refused the request, if the server says it.
    pub fn moderation(&self) -> Option<&ModerationDetails> {
        self.details.moderation.as_ref()
    }

    /// The delay before a retry that the server requested (`retry-after`).
    pub fn retry_after(&self) -> Option<Duration> {
        self.details.retry_after
    }

    /// Number of requests that were sent; a server may have charged for each.
    pub fn attempts(&self) -> u32 {
        self.details.attempts
    }
}

impl fmt::Display for ImagesApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let details = &*self.details;
        f.write_str("images API")?;
        if let Some(url) = &details.url {
            write!(f, " {url}")?;
        }
        if let Some(status) = details.status {
            write!(f, ": http status {status}")?;
        }
        for name in [&details.error_type, &details.code].into_iter().flatten() {
            write!(f, " {name}")?;
        }
        if let Some(param) = &details.param {
            write!(f, ", field `{param}`")?;
        }
        write!(f, ": {}", details.message)?;
        let moderation = details.moderation.as_ref();
        if let Some(moderation) = moderation.filter(|found| !found.categories.is_empty()) {
            write!(f, " (refused for {})", moderation.categories.join(", "))?;
        }
        if let Some(id) = &details.request_id {
            write!(f, " (request {id})")?;
        }
        if let Some(wait) = details.retry_after {
            write!(f, "; the server asks to wait {:.1} s", wait.as_secs_f64())?;
        }
        if details.attempts > 1 {
            write!(f, "; tried {} times", details.attempts)?;
        }
        Ok(())
    }
}

impl fmt::Debug for ImagesApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImagesApiError")
            .field("kind", &self.kind)
            .field("details", &self.details)
            .finish()
    }
}

impl std::error::Error for ImagesApiError {}

/// The first bytes of a text, with control characters replaced.
pub(super) fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(BODY_SHOWN);
    let is_plain = |c: char| !c.is_control();
    let text: String = text[..end]
        .chars()
        .map(|c| if is_plain(c) { c } else { ' ' })
        .collect();
    text.trim().into()
}
