//! Servers that fail, stall, or cannot be reached.

use super::*;
use crate::openai::{CallEvent, ImageOptions, ImagesApiErrorKind as Kind};
use aigc_core::CancelToken;
use std::{net::TcpListener, ops::ControlFlow, time::Instant};

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
fn redirects_name_the_address_for_the_base_url() {
    let to = "https://api.example.com/v2/images/generations";
    let query = format!("{to}?sig={KEY}#x");
    let path = format!("{to}/{KEY}");
    let long = format!("{to}/{}", "x".repeat(1000));
    let server = Server::answering(move |k, _| {
        let location = [to, "/v2/images/generations", &query, &path, &long][k];
        reply(308, &[&format!("Location: {location}")], "")
    });
    let client = client(&server);
    let local = server.url().replace("/v1", "/v2/images/generations");
    // `ask` checks everything that is shown.
    for expected in [to, &local, to, &format!("{to}/[key]")] {
        let error = ask(&client).unwrap_err();
        let expected = format!("redirects to {expected}, ");
        assert!(error.message().contains(&expected), "{error}");
        assert!(error.message().contains("base URL"), "{error}");
        assert_eq!((error.status(), error.attempts()), (Some(308), 1));
    }
    assert!(ask(&client).unwrap_err().message().len() < 1000);
    // Without an address there is nothing to follow.
    let server = Server::new(vec![reply(301, &[], "")]);
    let error = ask(&super::client(&server)).unwrap_err();
    assert!(error.message().contains("nothing"), "{error}");
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
                partial_images: Some(4),
                ..Default::default()
            },
            "partial_images",
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
