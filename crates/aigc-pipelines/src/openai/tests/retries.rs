//! When requests are sent again, and when not.

use super::*;
use crate::openai::{CallEvent, ImageOptions, ImagesApiErrorKind as Kind};
use std::{ops::ControlFlow, time::Instant};

#[test]
fn retry_waits_as_asked_with_the_same_idempotency_key() {
    let server = Server::new(vec![
        json(429, &["retry-after-ms: 120"], RATE_LIMIT),
        json(503, &["retry-after: 0.05"], RATE_LIMIT),
        good(7),
    ]);
    let client = client(&server);
    let mut events = vec![];
    let mut options = CallOptions::default().with_callback(|event| {
        events.push(match event {
            CallEvent::Attempt { number, max } => format!("{number} of {max}"),
            CallEvent::Retry { error, wait } => {
                format!(
                    "{} {:?} {}",
                    error.status().unwrap(),
                    error.kind(),
                    wait.as_millis()
                )
            }
            CallEvent::PartialImage(_) => "partial".into(),
        });
        ControlFlow::Continue(())
    });
    let start = Instant::now();
    let answer = client.generations(&CreateImageRequest::new("a cat"), &mut options);
    let answer = answer.unwrap();
    drop(options);
    assert!(start.elapsed() >= Duration::from_millis(170));
    assert_eq!(answer.attempts, 3);
    assert_eq!(
        events,
        [
            "1 of 3",
            "429 RateLimit 120",
            "2 of 3",
            "503 Server 50",
            "3 of 3"
        ]
    );
    let received = server.received();
    let keys: Vec<_> = received
        .iter()
        .map(|r| r.header("idempotency-key"))
        .collect();
    assert!(keys[0].is_some_and(|key| key.len() > 20));
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert!(received.iter().all(|r| r.body == received[0].body));
    // Another call has another key.
    ask(&client).unwrap();
    assert_ne!(server.received()[3].header("idempotency-key"), keys[0]);
}

#[test]
fn retries_are_bounded() {
    let server = Server::new(vec![json(
        500,
        &["retry-after-ms: 1"],
        r#"{"error": "boom"}"#,
    )]);
    let error = ask(&client(&server)).unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (Kind::Server, 3));
    assert_eq!(server.received().len(), 3);
    assert!(error.to_string().contains("tried 3 times"), "{error}");
    let once = OpenAiImages::new(config(&server).with_max_retries(0)).unwrap();
    assert_eq!(ask(&once).unwrap_err().attempts(), 1);
}

#[test]
fn what_retries_cannot_help_is_sent_once() {
    let error = |code: &str| format!(r#"{{"error": {{"message": "m", "code": "{code}"}}}}"#);
    for (status, headers, code, kind) in [
        (
            429,
            &["retry-after: 300"][..],
            "rate_limit_exceeded",
            Kind::RateLimit,
        ),
        (
            429,
            &["retry-after-ms: 1"],
            "insufficient_quota",
            Kind::Quota,
        ),
        (
            429,
            &["retry-after-ms: 1"],
            "credit_balance_exhausted",
            Kind::Quota,
        ),
        (
            429,
            &["x-should-retry: true"],
            "insufficient_quota",
            Kind::Quota,
        ),
        (
            500,
            &["x-should-retry: false"],
            "server_error",
            Kind::Server,
        ),
        (400, &[], "moderation_blocked", Kind::Moderation),
        (400, &[], "invalid_value", Kind::InvalidRequest),
        (401, &[], "invalid_api_key", Kind::Authentication),
        (
            403,
            &[],
            "unsupported_country_region_territory",
            Kind::Permission,
        ),
        (404, &[], "model_not_found", Kind::NotFound),
        (413, &[], "too_large", Kind::InvalidRequest),
    ] {
        let server = Server::new(vec![json(status, headers, &error(code))]);
        let found = ask(&client(&server)).unwrap_err();
        assert_eq!(
            (found.kind(), found.attempts()),
            (kind, 1),
            "{status} {code}"
        );
        assert_eq!((found.status(), found.code()), (Some(status), Some(code)));
        assert_eq!(server.received().len(), 1, "{status} {code}");
    }
    let server = Server::new(vec![json(429, &["retry-after: 300"], RATE_LIMIT)]);
    let error = ask(&client(&server)).unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(300)));
    // A header may ask for a retry where the status does not.
    let server = Server::new(vec![
        json(400, &["x-should-retry: true", "retry-after-ms: 1"], "{}"),
        good(1),
    ]);
    assert_eq!(ask(&client(&server)).unwrap().attempts, 2);
}

#[test]
fn fields_that_the_server_does_not_know_are_left_out_on_request() {
    let answer = |_: usize, request: &super::server::Received| {
        let sent = request.json();
        match ["style", "seed"]
            .iter()
            .find(|name| sent.get(name).is_some())
        {
            Some(name) => json(
                400,
                &[],
                &format!(
                    r#"{{"error": {{"message": "Unknown parameter: '{name}'.", "type":
                    "invalid_request_error", "param": "{name}", "code": "unknown_parameter"}}}}"#
                ),
            ),
            None => good(1),
        }
    };
    let server = Server::answering(answer);
    let mut options = ImageOptions {
        style: Some("vivid".into()),
        ..ImageOptions::default()
    };
    options.extra.insert("seed".into(), 7.into());
    let request = CreateImageRequest::new("a cat").with_options(options);
    let error = client(&server)
        .generations(&request, &mut CallOptions::default())
        .unwrap_err();
    assert_eq!((error.param(), error.attempts()), (Some("style"), 1));
    let config = config(&server)
        .with_drop_unsupported_fields(true)
        .with_max_retries(0);
    let lenient = OpenAiImages::new(config).unwrap();
    let answer = lenient
        .generations(&request, &mut CallOptions::default())
        .unwrap();
    assert_eq!(answer.attempts, 3);
    assert_eq!(
        answer.warnings,
        [
            "`style` was left out: the server does not know it",
            "`seed` was left out: the server does not know it"
        ]
    );
    assert_eq!(answer.dropped, ["style", "seed"]);
}
