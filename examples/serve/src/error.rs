//! Errors in the form of the API: `{"error": {"message", "type", "param", "code"}}`.

use aigc_core::Error;
use axum::{
    body::Body,
    http::{
        HeaderValue, Response, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::IntoResponse,
};
use serde_json::{Value, json};

const INVALID_REQUEST: &str = "invalid_request_error";

/// An error as clients see it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(crate) error_type: &'static str,
    pub(crate) code: Option<&'static str>,
    pub(crate) param: Option<String>,
    pub(crate) message: String,
    /// Seconds after which the client may try again.
    pub(crate) retry_after: Option<u64>,
    /// What the log shows and the client does not.
    pub(crate) cause: Option<String>,
}

impl ApiError {
    fn new(status: StatusCode, error_type: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            error_type,
            code: None,
            param: None,
            message: message.into(),
            retry_after: None,
            cause: None,
        }
    }

    fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(crate) fn with_param(mut self, param: &str) -> Self {
        self.param = Some(param.into());
        self
    }

    /// A request that cannot be read.
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, message)
    }

    /// A field with a value that is not possible; the message says which ones are.
    pub(crate) fn value(param: &str, value: &str, expected: &str) -> Self {
        let value: String = value.chars().take(100).collect();
        Self::bad_request(format!(
            "Invalid value for '{param}': {value:?}. Expected {expected}."
        ))
        .with_code("invalid_value")
        .with_param(param)
    }

    /// A field that is missing.
    pub(crate) fn missing(param: &str) -> Self {
        Self::bad_request(format!("Missing required parameter: '{param}'."))
            .with_code("missing_required_parameter")
            .with_param(param)
    }

    /// A field that the endpoint does not have.
    pub(crate) fn unknown(param: &str, known: &[&str]) -> Self {
        let shown: String = param.chars().take(100).collect();
        Self::bad_request(format!(
            "Unknown parameter: '{shown}'. Supported parameters: {}.",
            known.join(", ")
        ))
        .with_code("unknown_parameter")
        .with_param(&shown)
    }

    /// A missing or wrong key.
    pub(crate) fn key(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, INVALID_REQUEST, message).with_code("invalid_api_key")
    }

    /// A page of another site that sends requests without a key.
    pub(crate) fn origin(origin: &str) -> Self {
        let origin: String = origin.chars().take(100).collect();
        let message = format!(
            "Pages of {origin:?} may not use this server: it has no API key, and serves programs \
             of this machine only."
        );
        Self::new(StatusCode::FORBIDDEN, INVALID_REQUEST, message).with_code("origin_not_allowed")
    }

    /// A model that is not here.
    pub(crate) fn model(name: &str, served: &str) -> Self {
        let name: String = name.chars().take(100).collect();
        Self::new(
            StatusCode::NOT_FOUND,
            INVALID_REQUEST,
            format!("The model '{name}' does not exist. This server has '{served}'."),
        )
        .with_code("model_not_found")
        .with_param("model")
    }

    /// An address that does not exist.
    pub(crate) fn not_found(path: &str) -> Self {
        let path: String = path.chars().take(100).collect();
        let message = format!("Invalid URL ({path}).");
        Self::new(StatusCode::NOT_FOUND, INVALID_REQUEST, message).with_code("not_found")
    }

    /// A method that the address does not have.
    pub(crate) fn method(method: &str, path: &str) -> Self {
        let (method, path): (String, String) = (
            method.chars().take(20).collect(),
            path.chars().take(100).collect(),
        );
        let message = format!("Not allowed to {method} on {path}.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, message)
            .with_code("method_not_allowed")
    }

    /// A body of more bytes than allowed.
    pub(crate) fn too_large(limit: usize) -> Self {
        let message = format!("The request has more than {limit} bytes.");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID_REQUEST, message)
            .with_code("request_too_large")
    }

    /// A body that did not arrive in time.
    pub(crate) fn slow(seconds: f64) -> Self {
        let message = format!("The request did not arrive within {seconds} s.");
        Self::new(StatusCode::REQUEST_TIMEOUT, INVALID_REQUEST, message)
            .with_code("request_timeout")
    }

    /// A body of another media type.
    pub(crate) fn media_type(found: &str, expected: &str) -> Self {
        let found: String = found.chars().take(100).collect();
        let message = format!("Unsupported content type: '{found}'. Expected {expected}.");
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, message)
            .with_code("unsupported_content_type")
    }

    /// A full queue.
    pub(crate) fn busy(waiting: usize, retry_after: u64) -> Self {
        let message = format!(
            "The server is busy: {waiting} requests are waiting. Try again in {retry_after} s."
        );
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
            .with_code("rate_limit_exceeded");
        error.retry_after = Some(retry_after);
        error
    }

    /// A server that is shutting down.
    pub(crate) fn shutting_down() -> Self {
        let message = "The server is shutting down.";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
            .with_code("server_shutting_down")
    }

    /// A failure of the server. The cause may name files of this machine, so it goes to the log.
    pub(crate) fn internal(cause: impl Into<String>) -> Self {
        let message = "The server failed to make the image. Its log has the cause.";
        let mut error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
            .with_code("server_error");
        error.cause = Some(cause.into());
        error
    }

    /// The error of a model.
    pub(crate) fn of_model(error: Error) -> Self {
        match error {
            Error::InvalidArgument {
                argument,
                value,
                expected,
            } => Self::value(param(&argument), &value, &expected),
            Error::Unsupported { .. } => {
                Self::bad_request(error.to_string()).with_code("unsupported")
            }
            Error::Cancelled { .. } => Self::shutting_down(),
            error => Self::internal(error.to_string()),
        }
    }

    /// The error object.
    pub(crate) fn json(&self) -> Value {
        json!({
            "error": {
                "message": self.message,
                "type": self.error_type,
                "param": self.param,
                "code": self.code,
            }
        })
    }
}

/// The API's name of a field of a request.
fn param(argument: &str) -> &str {
    match argument {
        "mask_image" => "mask",
        argument => argument,
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let mut response = Response::new(Body::from(self.json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(cause) = self.cause {
            response.extensions_mut().insert(Cause(cause));
        }
        response
    }
}

/// The cause of an error, for the log.
#[derive(Clone, Debug)]
pub(crate) struct Cause(pub(crate) String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_the_four_keys() {
        for error in [
            ApiError::bad_request("m"),
            ApiError::value("n", "0", "1 to 10"),
            ApiError::missing("prompt"),
            ApiError::unknown("odd", &["n"]),
            ApiError::key("m"),
            ApiError::busy(3, 2),
            ApiError::internal("/home/someone/model"),
        ] {
            let json = error.json();
            let object = json["error"].as_object().unwrap();
            let mut keys: Vec<_> = object.keys().map(String::as_str).collect();
            keys.sort_unstable();
            assert_eq!(keys, ["code", "message", "param", "type"]);
            assert!(!json.to_string().contains("/home"), "{json}");
        }
    }

    #[test]
    fn errors_of_models_name_the_field() {
        let error = ApiError::of_model(Error::argument("mask_image", "3x3", "6x4"));
        assert_eq!(error.param.as_deref(), Some("mask"));
        assert_eq!(error.status, StatusCode::BAD_REQUEST);
        assert!(error.message.contains("6x4"));
        let error = ApiError::of_model(Error::weights("/home/x", "broken"));
        assert_eq!(error.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(error.cause.unwrap().contains("/home/x"));
    }
}
