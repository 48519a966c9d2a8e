//! Reads an error out of whatever a server answers.

use super::{ApiKey, ImagesApiError, ImagesApiErrorKind, ModerationDetails, error::shown};
use serde_json::{Map, Value};
use std::time::Duration;

/// An answer in an unexpected format: not JSON, no images, or damaged ones.
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    pub(super) content_type: Option<&'a str>,
    pub(super) request_id: Option<&'a str>,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: &'a [u8],
    pub(super) key: Option<&'a ApiKey>,
}

impl Answer<'_> {
    pub(super) fn redacted(&self, text: &str) -> String {
        match self.key {
            Some(key) => key.redact(text),
            None => text.into(),
        }
    }

    /// The error that the answer is.
    pub(super) fn error(&self) -> ImagesApiError {
        let json = serde_json::from_slice::<Value>(self.body).ok();
        let found = json.as_ref().and_then(Described::find);
        let Some(found) = found else {
            return self.undescribed();
        };
        let text = |value: Option<String>| value.map(|value| self.redacted(&value));
        let (error_type, code) = (text(found.error_type), text(found.code));
        let kind = match kind(self.status, error_type.as_deref(), code.as_deref()) {
            // An error object with the status of success.
            ImagesApiErrorKind::InvalidAnswer if self.status < 300 => ImagesApiErrorKind::Server,
            kind => kind,
        };
        let message = text(found.message).unwrap_or_else(|| "the server gives no reason".into());
        let moderation = found.moderation.map(|found| ModerationDetails {
            stage: text(found.stage),
            categories: found
                .categories
                .iter()
                .map(|category| self.redacted(category))
                .collect(),
        });
        ImagesApiError::new(kind, message)
            .with_answer(self)
            .with_object(error_type, code, text(found.param), moderation)
    }

    /// An answer without an error object: HTML of a proxy, nothing, another program.
    fn undescribed(&self) -> ImagesApiError {
        let what = match self.content_type {
            _ if self.body.is_empty() => "nothing".into(),
            Some(kind) => self.redacted(kind),
            None => "no content type".into(),
        };
        let start = shown(&self.redacted(&String::from_utf8_lossy(self.body)));
        let start: String = start.chars().take(80).collect();
        let message = match start.is_empty() {
            true => format!("the server answers {what}, not an error object"),
            false => format!("the server answers {what}, not an error object: {start:?}"),
        };
        ImagesApiError::new(kind(self.status, None, None), message).with_answer(self)
    }
}

/// Whether there is an error in a body with a status of success. Some servers add an empty object
/// or text to every answer, which is none.
pub(super) fn has_error(body: &Value) -> bool {
    match body.get("error") {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Object(fields)) => !fields.values().all(Value::is_null),
        Some(Value::Bool(failed)) => *failed,
        Some(_) => true,
    }
}

/// What an error object says.
#[derive(Default)]
struct Described {
    message: Option<String>,
    error_type: Option<String>,
    code: Option<String>,
    param: Option<String>,
    moderation: Option<ModerationDetails>,
}

impl Described {
    /// Finds the description in a body of any of the known forms.
    fn find(body: &Value) -> Option<Self> {
        let body = match body {
            // Some gateways wrap the object in an array.
            Value::Array(items) => items.first()?,
            body => body,
        }
        .as_object()?;
        match body.get("error") {
            Some(Value::Object(error)) => return Some(Self::of_object(error)),
            Some(Value::String(text)) => {
                return Some(Self {
                    message: Some(text.clone()),
                    ..Self::of_object(body)
                });
            }
            _ => {}
        }
        // FastAPI: a text, or one object for each field.
        match body.get("detail") {
            Some(Value::Array(details)) => return details.first().map(Self::of_detail),
            Some(Value::Object(detail)) => return Some(Self::of_object(detail)),
            Some(detail) => {
                return Some(Self {
                    message: text(Some(detail)),
                    ..Self::default()
                });
            }
            None => {}
        }
        if let Some(Value::Object(error)) = body.get("errors").and_then(|errors| errors.get(0)) {
            return Some(Self::of_object(error));
        }
        let found = Self::of_object(body);
        found.message.is_some().then_some(found)
    }

    fn of_object(error: &Map<String, Value>) -> Self {
        let moderation = error.get("moderation_details").map(|details| {
            let categories = details.get("categories").and_then(Value::as_array);
            ModerationDetails {
                stage: text(details.get("moderation_stage")),
                categories: categories
                    .into_iter()
                    .flatten()
                    .filter_map(|category| text(Some(category)))
                    .collect(),
            }
        });
        Self {
            message: text(error.get("message"))
                .or_else(|| text(error.get("msg")))
                .or_else(|| text(error.get("detail"))),
            error_type: text(error.get("type")),
            code: text(error.get("code")),
            param: text(error.get("param")),
            moderation,
        }
    }

    fn of_detail(detail: &Value) -> Self {
        let path = detail.get("loc").and_then(Value::as_array);
        Self {
            message: text(detail.get("msg")).or_else(|| text(Some(detail))),
            error_type: text(detail.get("type")),
            param: path.and_then(|path| text(path.last())),
            ..Self::default()
        }
    }
}

/// A text, or a number or another value as text; `None` where it is null, empty or missing.
fn text(value: Option<&Value>) -> Option<String> {
    match value? {
        Value::Null => None,
        Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
        value => Some(value.to_string()),
    }
}

fn kind(status: u16, error_type: Option<&str>, code: Option<&str>) -> ImagesApiErrorKind {
    use ImagesApiErrorKind as Kind;
    let is = |names: &[&str]| {
        [error_type, code]
            .iter()
            .flatten()
            .any(|n| names.contains(n))
    };
    match status {
        _ if is(&[
            "moderation_blocked",
            "content_policy_violation",
            "content_filter",
            "image_generation_user_error",
        ]) =>
        {
            Kind::Moderation
        }
        _ if is(&[
            "insufficient_quota",
            "credit_balance_exhausted",
            "billing_hard_limit_reached",
        ]) =>
        {
            Kind::Quota
        }
        402 => Kind::Quota,
        401 => Kind::Authentication,
        403 => Kind::Permission,
        404 | 405 => Kind::NotFound,
        408 | 409 => Kind::Server,
        429 => Kind::RateLimit,
        400..=499 => Kind::InvalidRequest,
        500.. => Kind::Server,
        // An error in an answer with the status of success, or a redirect.
        _ if is(&["rate_limit_exceeded"]) => Kind::RateLimit,
        _ if is(&["invalid_request_error"]) => Kind::InvalidRequest,
        _ if is(&["server_error", "server_is_overloaded", "slow_down"]) => Kind::Server,
        _ => Kind::InvalidAnswer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ImagesApiErrorKind as Kind;

    fn read(status: u16, body: &str) -> ImagesApiError {
        let key = ApiKey::new("sk-secret").unwrap();
        let answer = Answer {
            status,
            content_type: Some("text/html"),
            request_id: Some("req_1"),
            retry_after: None,
            body: body.as_bytes(),
            key: Some(&key),
        };
        let error = answer.error();
        assert_eq!(error.status(), Some(status));
        assert_eq!(error.request_id(), Some("req_1"));
        for shown in [format!("{error}"), format!("{error:?}")] {
            assert!(!shown.contains("sk-secret"), "{shown}");
        }
        error
    }

    #[test]
    fn error_objects_of_all_forms_are_read() {
        let error = read(
            400,
            r#"{"error": {"message": "Unknown parameter: 'response_format'.", "type":
            "invalid_request_error", "param": "response_format", "code": "unknown_parameter"}}"#,
        );
        assert_eq!(error.kind(), Kind::InvalidRequest);
        assert_eq!(error.param(), Some("response_format"));
        assert_eq!(error.code(), Some("unknown_parameter"));
        assert_eq!(error.error_type(), Some("invalid_request_error"));
        assert_eq!(
            error.to_string(),
            "images API: http status 400 invalid_request_error unknown_parameter, field \
             `response_format`: Unknown parameter: 'response_format'. (request req_1)"
        );
        for (status, body, kind, message) in [
            (
                500,
                r#"{"error": "no model sk-secret"}"#,
                Kind::Server,
                "no model [key]",
            ),
            (
                500,
                r#"{"error": {"code": 500, "message": "boom", "type": ""}}"#,
                Kind::Server,
                "boom",
            ),
            (
                404,
                r#"{"detail": "Not Found"}"#,
                Kind::NotFound,
                "Not Found",
            ),
            (
                422,
                r#"{"detail": [{"loc": ["body", "n"], "msg": "too large", "type": "error"}]}"#,
                Kind::InvalidRequest,
                "too large",
            ),
            (
                400,
                r#"{"message": "bad", "code": 7}"#,
                Kind::InvalidRequest,
                "bad",
            ),
            (
                400,
                r#"{"errors": [{"message": "bad"}]}"#,
                Kind::InvalidRequest,
                "bad",
            ),
            (
                400,
                r#"[{"error": {"message": "bad"}}]"#,
                Kind::InvalidRequest,
                "bad",
            ),
            (
                401,
                r#"{"error": {"message": null}}"#,
                Kind::Authentication,
                "the server gives no reason",
            ),
        ] {
            let error = read(status, body);
            assert_eq!((error.kind(), error.message()), (kind, message), "{body}");
        }
        let numbered = read(
            500,
            r#"{"error": {"code": 500, "message": "boom", "type": ""}}"#,
        );
        assert_eq!(
            (numbered.code(), numbered.error_type()),
            (Some("500"), None)
        );
        let field = read(
            422,
            r#"{"detail": [{"loc": ["body", "n"], "msg": "too large"}]}"#,
        );
        assert_eq!(field.param(), Some("n"));
    }

    #[test]
    fn refusals_and_quota_are_kinds_of_their_own() {
        let error = read(
            400,
            r#"{"error": {"message": "refused", "type": "image_generation_user_error", "param":
            null, "code": "moderation_blocked", "moderation_details": {"moderation_stage": "input",
            "categories": ["violence"]}}}"#,
        );
        assert_eq!(error.kind(), Kind::Moderation);
        let moderation = error.moderation().unwrap();
        assert_eq!(moderation.stage.as_deref(), Some("input"));
        assert_eq!(moderation.categories, ["violence"]);
        assert!(error.to_string().contains("(refused for violence)"));
        for (status, code, kind) in [
            (400, "content_policy_violation", Kind::Moderation),
            (400, "billing_hard_limit_reached", Kind::Quota),
            (429, "insufficient_quota", Kind::Quota),
            (429, "credit_balance_exhausted", Kind::Quota),
            (429, "rate_limit_exceeded", Kind::RateLimit),
            (200, "server_error", Kind::Server),
            (200, "odd", Kind::Server),
        ] {
            let body = format!(r#"{{"error": {{"message": "m", "type": "{code}"}}}}"#);
            assert_eq!(read(status, &body).kind(), kind, "{code}");
            let body = format!(r#"{{"error": {{"message": "m", "code": "{code}"}}}}"#);
            assert_eq!(read(status, &body).kind(), kind, "{code}");
        }
    }

    #[test]
    fn empty_errors_are_none() {
        for (body, expected) in [
            (r#"{"error": {"message": "boom"}}"#, true),
            (r#"{"error": "boom"}"#, true),
            (r#"{"error": true}"#, true),
            (r#"{"error": 3}"#, true),
            (r#"{"error": {"message": null, "code": null}}"#, false),
            (r#"{"error": {}}"#, false),
            (r#"{"error": ""}"#, false),
            (r#"{"error": false}"#, false),
            (r#"{"error": null}"#, false),
            ("{}", false),
            ("[]", false),
        ] {
            let body: Value = serde_json::from_str(body).unwrap();
            assert_eq!(has_error(&body), expected, "{body}");
        }
    }

    #[test]
    fn other_answers_show_their_beginning() {
        let html = format!("<html>\n<h1>sk-secret</h1>{}", "é".repeat(5000));
        let error = read(502, &html);
        assert_eq!(error.kind(), Kind::Server);
        assert!(error.message().contains("text/html"), "{error}");
        let body = error.body().unwrap();
        assert!(body.starts_with("<html> <h1>[key]</h1>"), "{body}");
        assert!(body.len() <= 500);
        let error = read(503, "");
        assert!(error.message().contains("nothing"), "{error}");
        assert_eq!(error.body(), None);
        assert_eq!(read(302, "").kind(), Kind::InvalidAnswer);
    }
}
