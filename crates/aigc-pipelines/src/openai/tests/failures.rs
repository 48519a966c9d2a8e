//! Servers that refuse, fail, stall, or cannot be reached.

use super::*;
use crate::openai::{CallEvent, ImageOptions, ImagesApiErrorKind as Kind};
use aigc_core::CancelToken;
use std::{net::TcpListener, ops::ControlFlow, time::Instant};

const RATE_LIMIT: &str = r#"{"error": {"message": "slow down", "type": "requests",
    "param": null, "code": "rate_limit_exceeded"}}"#;

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
fn time_limit_ends_a_call_to_a_server_that_never_answers() {
    for reply in [
        Reply::Hold(vec![]),
        Reply::Hold(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()),
        Reply::Hold(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\"".to_vec()),
    ] {
        let server = Server::new(vec![reply]);
        let config = config(&server).with_timeout(Duration::from_millis(300));
        let start = Instant::now();
        let error = ask(&OpenAiImages::new(config).unwrap()).unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts()),
            (Kind::Timeout, 1),
            "{error}"
        );
        assert!(start.elapsed() < Duration::from_secs(5));
        assert!(error.to_string().contains("0.3 s"), "{error}");
    }
    // A wait beyond the limit is not begun.
    let server = Server::new(vec![json(429, &["retry-after: 30"], RATE_LIMIT)]);
    let error = ask(&client(&server)).unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (Kind::RateLimit, 1));
}

#[test]
fn cancelling_closes_the_connection_at_once() {
    for reply in [
        Reply::Hold(vec![]),
        Reply::Hold(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"data\"".to_vec()),
        Reply::Hold(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: x\n\n".to_vec()),
    ] {
        let server = Server::new(vec![reply]);
        let client = client(&server);
        let cancel = CancelToken::new();
        let start = Instant::now();
        let error = std::thread::scope(|scope| {
            let call = scope.spawn(|| {
                let mut options = CallOptions::default().with_cancel(cancel.clone());
                client.generations(&CreateImageRequest::new("a cat"), &mut options)
            });
            while server.received().is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
            std::thread::sleep(Duration::from_millis(50));
            cancel.cancel();
            call.join().unwrap().unwrap_err()
        });
        assert_eq!(error.kind(), Kind::Cancelled);
        assert!(start.elapsed() < Duration::from_secs(10));
        while server.hung_up() == 0 {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "the connection is open"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    // Also while it waits for the next try, and before the first one.
    let server = Server::new(vec![json(429, &["retry-after: 15"], RATE_LIMIT)]);
    let start = Instant::now();
    let mut options = CallOptions::default().with_callback(|event| match event {
        CallEvent::Retry { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let request = CreateImageRequest::new("a cat");
    let error = client(&server)
        .generations(&request, &mut options)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    let cancel = CancelToken::new();
    cancel.cancel();
    let mut options = CallOptions::default().with_cancel(cancel);
    let error = client(&server)
        .generations(&request, &mut options)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    assert_eq!(server.received().len(), 1);
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn lost_connections_are_tried_again_before_the_answer_only() {
    let server = Server::new(vec![Reply::Bytes(vec![]), good(1)]);
    assert_eq!(ask(&client(&server)).unwrap().attempts, 2);
    // The picture may be paid for.
    let half = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{\"data\": [".to_vec();
    let server = Server::new(vec![Reply::Bytes(half), good(1)]);
    let error = ask(&client(&server)).unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (Kind::Connection, 1),
        "{error}"
    );
    assert!(
        error.to_string().contains("middle of the answer"),
        "{error}"
    );
    // Nobody listens.
    let unused = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = unused.local_addr().unwrap();
    drop(unused);
    let config = OpenAiConfig::new(format!("http://{address}/v1")).with_max_retries(1);
    let error = ask(&OpenAiImages::new(config).unwrap()).unwrap_err();
    assert_eq!(
        (error.kind(), error.attempts()),
        (Kind::Connection, 2),
        "{error}"
    );
    assert!(
        error
            .url()
            .is_some_and(|url| url.ends_with("/v1/images/generations"))
    );
}

#[test]
fn redirects_of_requests_are_not_followed() {
    let other = Server::new(vec![good(1)]);
    let location = format!("Location: {}/images/generations", other.url());
    for status in [301, 302, 303, 307, 308] {
        let server = Server::new(vec![reply(status, &[&location], "")]);
        let error = ask(&client(&server)).unwrap_err();
        assert_eq!(
            (error.kind(), error.status()),
            (Kind::InvalidAnswer, Some(status))
        );
    }
    assert!(other.received().is_empty());
}

#[test]
fn other_programs_answers_are_typed_errors() {
    for (answer, kind) in [
        (
            reply(200, &["Content-Type: text/html"], "<html>log in</html>"),
            Kind::InvalidAnswer,
        ),
        (reply(200, &[], ""), Kind::InvalidAnswer),
        (
            reply(200, &["Content-Type: application/json"], "[1"),
            Kind::InvalidAnswer,
        ),
        (
            reply(404, &["Content-Type: text/html"], "<html>nginx</html>"),
            Kind::NotFound,
        ),
        (
            Reply::Bytes(b"SSH-2.0-OpenSSH_9.6\r\n\r\n".to_vec()),
            Kind::InvalidAnswer,
        ),
        (json(200, &[], "{}"), Kind::InvalidAnswer),
        (json(200, &[], r#"{"data": []}"#), Kind::InvalidAnswer),
        (json(200, &[], r#"{"error": "no model"}"#), Kind::Server),
    ] {
        let server = Server::new(vec![answer]);
        let error = ask(&client(&server)).unwrap_err();
        assert_eq!((error.kind(), error.attempts()), (kind, 1), "{error}");
    }
    let page = "<html><h1>Bad Gateway</h1>";
    let answer = reply(502, &["retry-after-ms: 1", "x-request-id: req_9"], page);
    let server = Server::new(vec![answer]);
    let error = ask(&client(&server)).unwrap_err();
    assert_eq!((error.kind(), error.status()), (Kind::Server, Some(502)));
    assert_eq!(
        (error.body(), error.request_id()),
        (Some(page), Some("req_9"))
    );
}

#[test]
fn servers_that_repeat_the_key_do_not_show_it() {
    let echo = format!(
        r#"{{"error": {{"message": "bad {KEY}", "type": "{KEY}", "code": "{KEY}",
        "param": "{KEY}", "moderation_details": {{"categories": ["{KEY}"]}}}}}}"#
    );
    let id = format!("x-request-id: {KEY}");
    let kind = format!("Content-Type: text/{KEY}");
    for answer in [
        json(401, &[&id], &echo),
        json(200, &[&id], &echo),
        reply(400, &[&kind], format!("<html>{KEY}")),
        reply(200, &[&kind], format!("<html>{KEY}")),
        reply(
            200,
            &["Content-Type: text/event-stream"],
            format!("data: {KEY}\n\n"),
        ),
        Reply::Bytes(format!("{KEY}\r\n\r\n").into_bytes()),
    ] {
        let server = Server::new(vec![answer]);
        // `ask` checks everything that is shown.
        let error = ask(&client(&server)).unwrap_err();
        assert!(
            error.to_string().contains("[key]") || error.status().is_none(),
            "{error}"
        );
        let sent = &server.received()[0];
        assert_eq!(
            sent.header("authorization"),
            Some(&*format!("Bearer {KEY}"))
        );
    }
}

#[test]
fn requests_that_cannot_be_fulfilled_are_not_sent() {
    let server = Server::new(vec![good(1)]);
    let client = client(&server);
    let model = |options: ImageOptions| ImageOptions {
        model: Some("gpt-image-1".into()),
        ..options
    };
    for (prompt, options, param) in [
        (" ", ImageOptions::default(), "prompt"),
        (
            "a",
            ImageOptions {
                n: Some(0),
                ..Default::default()
            },
            "n",
        ),
        (
            "a",
            ImageOptions {
                output_compression: Some(101),
                ..Default::default()
            },
            "output_compression",
        ),
        (
            "a",
            model(ImageOptions {
                style: Some("vivid".into()),
                ..Default::default()
            }),
            "style",
        ),
    ] {
        let request = CreateImageRequest::new(prompt).with_options(options);
        let error = client
            .generations(&request, &mut CallOptions::default())
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.param()),
            (Kind::InvalidRequest, Some(param))
        );
        assert_eq!((error.status(), error.attempts()), (None, 0));
    }
    assert!(server.received().is_empty());
    let remote = OpenAiConfig::new("http://10.0.0.1/v1").with_api_key(ApiKey::new(KEY).unwrap());
    let error = OpenAiImages::new(remote).unwrap_err();
    assert_eq!(error.kind(), Kind::Configuration);
    assert!(error.to_string().contains("not encrypted"), "{error}");
    let keyless = OpenAiImages::new(OpenAiConfig::default()).unwrap_err();
    assert!(keyless.to_string().contains("OPENAI_API_KEY"), "{keyless}");
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
}
