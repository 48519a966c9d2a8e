//! The server's answers byte by byte: shapes of errors, limits, streams, hanging up.

mod common;

use aigc_examples_serve::{RunningServer, ServerConfig, start};
use common::{Counts, colour, serve, serve_with, wait_until};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread::sleep,
    time::Duration,
};

/// An answer.
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", self.text()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim())
    }

    /// The error object, after checks of its form.
    fn error(&self) -> Value {
        let json = self.json();
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(self.header("x-request-id").is_some_and(|id| id.len() == 36));
        let error = &json["error"];
        let keys: Vec<_> = error.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys.len(), 4, "{keys:?}");
        for key in ["message", "type", "param", "code"] {
            assert!(error.get(key).is_some(), "{error}");
        }
        error.clone()
    }
}

fn connect(server: &RunningServer) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    let limit = Some(Duration::from_secs(20));
    stream.set_read_timeout(limit).unwrap();
    stream
}

/// Sends a request and reads the answer until the server closes the connection.
fn ask(server: &RunningServer, head: &str, headers: &[&str], body: &[u8]) -> Answer {
    let mut stream = connect(server);
    send(&mut stream, head, headers, body);
    read(stream)
}

fn send(stream: &mut TcpStream, head: &str, headers: &[&str], body: &[u8]) {
    let mut bytes = format!("{head} HTTP/1.1\r\nHost: local\r\nConnection: close\r\n").into_bytes();
    for header in headers {
        bytes.extend_from_slice(format!("{header}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    let _ = stream.write_all(&bytes);
}

fn read(mut stream: TcpStream) -> Answer {
    let mut bytes = vec![];
    let _ = stream.read_to_end(&mut bytes);
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    Answer {
        status,
        head,
        body: bytes[end + 4..].to_vec(),
    }
}

const JSON: &str = "Content-Type: application/json";

fn generate(server: &RunningServer, body: &Value) -> Answer {
    let body = body.to_string();
    ask(
        server,
        "POST /v1/images/generations",
        &[JSON],
        body.as_bytes(),
    )
}

/// A form of texts and files.
fn form(parts: &[(&str, Option<&str>, &[u8])]) -> (String, Vec<u8>) {
    let mut body = vec![];
    for (name, file, content) in parts {
        let file = file.map_or(String::new(), |file| format!("; filename=\"{file}\""));
        let head =
            format!("--xyz\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--xyz--\r\n");
    (
        "Content-Type: multipart/form-data; boundary=xyz".into(),
        body,
    )
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(vec![]);
    let image = image::DynamicImage::new_rgba8(width, height);
    image.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
    bytes.into_inner()
}

#[test]
fn answers_have_the_shape_of_the_api() {
    let server = serve();
    let request = json!({"prompt": "warn", "n": 2, "size": "64x32", "response_format": "b64_json"});
    let answer = generate(&server, &request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let body = answer.json();
    assert!(body["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(body["size"], "64x32");
    assert_eq!(body["quality"], "medium");
    assert_eq!(
        (&body["background"], &body["output_format"]),
        (&json!("opaque"), &json!("png"))
    );
    assert_eq!(body["usage"]["total_tokens"], 0);
    assert_eq!(body["seed"], 3);
    assert_eq!(body["warnings"], json!(["a part of the prompt was cut"]));
    assert_eq!(body["data"].as_array().unwrap().len(), 2);
    assert!(body["data"][1]["b64_json"].is_string() && body["data"][1].get("url").is_none());

    let models = ask(&server, "GET /v1/models", &[], b"").json();
    assert_eq!(models["object"], "list");
    assert_eq!(models["data"][0]["id"], "squares");
    let model = ask(&server, "GET /v1/models/squares", &[], b"");
    assert_eq!(
        (model.status, &model.json()["object"]),
        (200, &json!("model"))
    );
    let other = ask(&server, "GET /v1/models/other", &[], b"");
    assert_eq!(
        (other.status, &other.error()["code"]),
        (404, &json!("model_not_found"))
    );
}

#[test]
fn addresses_of_pictures_are_kept_for_their_time() {
    let server = serve();
    let answer = generate(&server, &json!({"prompt": "a"}));
    let body = answer.json();
    let url = body["data"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix("http://local").unwrap();
    assert!(path.starts_with("/v1/files/") && path.len() == "/v1/files/.png".len() + 32);
    let file = ask(&server, &format!("GET {path}"), &[], b"");
    assert_eq!(
        (file.status, file.header("content-type")),
        (200, Some("image/png"))
    );
    let picture = image::load_from_memory(&file.body).unwrap().to_rgb8();
    assert_eq!(picture.get_pixel(0, 0).0, colour(3, 0));
    let other = ask(&server, "GET /v1/files/0123456789abcdef.png", &[], b"");
    assert_eq!(
        (other.status, &other.error()["code"]),
        (404, &json!("not_found"))
    );

    let mut config = ServerConfig::default();
    config.url_lifetime = Duration::from_millis(1);
    config.public_url = Some("https://pictures.example/".into());
    let (server, _) = serve_with(config, Duration::ZERO);
    let body = generate(&server, &json!({"prompt": "a"})).json();
    let url = body["data"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix("https://pictures.example").unwrap();
    sleep(Duration::from_millis(20));
    assert_eq!(ask(&server, &format!("GET {path}"), &[], b"").status, 404);
}

#[test]
fn every_error_has_its_status_and_the_form_of_the_api() {
    let mut config = ServerConfig::default();
    config.max_body_bytes = 100_000;
    let (server, _) = serve_with(config, Duration::ZERO);
    let check = |head: &str, kind: &str, body: &[u8], status: u16, code: &str, param: &str| {
        let answer = ask(&server, head, &[kind], body);
        let error = answer.error();
        assert_eq!(answer.status, status, "{head}: {error}");
        let text = |name: &str| error[name].as_str().unwrap_or_default();
        assert_eq!(
            (text("code"), text("param")),
            (code, param),
            "{head}: {error}"
        );
        assert!(!error.to_string().contains("secret-place"), "{error}");
    };
    for head in [
        "GET /v1/images/generations",
        "DELETE /v1/models",
        "POST /v1/files/x",
    ] {
        check(head, JSON, b"", 405, "method_not_allowed", "");
    }
    for head in ["POST /v1/chat/completions", "GET /", "GET /v1/images"] {
        check(head, JSON, b"{}", 404, "not_found", "");
    }
    let (generations, edits) = ("POST /v1/images/generations", "POST /v1/images/edits");
    let (form_type, body) = form(&[("prompt", None, b"a")]);
    for (head, kind) in [
        (generations, "X: y"),
        (generations, &form_type),
        ("POST /v1/images/variations", JSON),
        (edits, "Content-Type: text/plain"),
    ] {
        check(head, kind, b"{}", 415, "unsupported_content_type", "");
    }
    let large = vec![b' '; 100_001];
    check(generations, JSON, &large, 413, "request_too_large", "");
    for (body, status, code, param) in [
        ("{", 400, "", ""),
        ("[]", 400, "", ""),
        ("{}", 400, "missing_required_parameter", "prompt"),
        (
            r#"{"prompt": "a", "size": "20x20"}"#,
            400,
            "invalid_value",
            "size",
        ),
        (
            r#"{"prompt": "a", "size": "20x20", "stream": true}"#,
            400,
            "invalid_value",
            "size",
        ),
        (
            r#"{"prompt": "a", "odd": 1}"#,
            400,
            "unknown_parameter",
            "odd",
        ),
        (
            r#"{"prompt": "a", "model": "gpt-image-1"}"#,
            404,
            "model_not_found",
            "model",
        ),
        (r#"{"prompt": "fail"}"#, 500, "server_error", ""),
        (r#"{"prompt": "panic"}"#, 500, "server_error", ""),
    ] {
        check(generations, JSON, body.as_bytes(), status, code, param);
    }
    let (_, html) = form(&[("prompt", None, b"a"), ("image", Some("x.png"), b"<html>")]);
    check(
        edits,
        &form_type,
        &body,
        400,
        "missing_required_parameter",
        "image",
    );
    check(edits, &form_type, &html, 400, "invalid_value", "image");
    check(edits, &form_type, b"no form", 400, "", "");
    check(edits, "Content-Type: multipart/form-data", b"", 400, "", "");
    // The model goes on after all of it.
    assert_eq!(generate(&server, &json!({"prompt": "a"})).status, 200);
}

#[test]
fn images_that_are_too_large_are_refused_by_their_header() {
    let mut config = ServerConfig::default();
    config.max_input_pixels = 100;
    let (server, counts) = serve_with(config, Duration::ZERO);
    let (kind, body) = form(&[
        ("prompt", None, b"a"),
        ("image", Some("x.png"), &png(11, 10)),
    ]);
    let answer = ask(&server, "POST /v1/images/edits", &[&kind], &body);
    let error = answer.error();
    assert_eq!((answer.status, &error["param"]), (400, &json!("image")));
    assert!(
        error["message"].as_str().unwrap().contains("11x10"),
        "{error}"
    );
    assert_eq!(Counts::of(&counts.begun), 0);
}

#[test]
fn key_is_required_where_it_is_set() {
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let mut config = ServerConfig::default().with_api_key("sk-very-secret");
    config.log = Some({
        let lines = lines.clone();
        Arc::new(move |line| lines.lock().unwrap().push(line.into()))
    });
    assert!(!format!("{config:?}").contains("secret"));
    let (server, _) = serve_with(config, Duration::ZERO);
    assert!(!format!("{server:?}").contains("secret"));
    let body = br#"{"prompt": "a"}"#;
    for key in [
        None,
        Some("Authorization: Bearer sk-wrong"),
        Some("Authorization: Basic sk-very-secret"),
    ] {
        let headers: Vec<&str> = [JSON].into_iter().chain(key).collect();
        for head in [
            "POST /v1/images/generations",
            "POST /v1/images/edits",
            "GET /v1/models",
        ] {
            let answer = ask(&server, head, &headers, body);
            assert_eq!(
                (answer.status, &answer.error()["code"]),
                (401, &json!("invalid_api_key"))
            );
        }
    }
    let headers = [JSON, "Authorization: Bearer sk-very-secret"];
    let answer = ask(&server, "POST /v1/images/generations", &headers, body);
    let body = answer.json();
    assert_eq!(answer.status, 200);
    // The address of a picture is permission enough.
    let url = body["data"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix("http://local").unwrap();
    assert_eq!(ask(&server, &format!("GET {path}"), &[], b"").status, 200);
    server.stop().unwrap();
    let lines = lines.lock().unwrap();
    assert_eq!(lines.len(), 11);
    assert!(
        lines[9].starts_with("POST /v1/images/generations 200 "),
        "{}",
        lines[9]
    );
    for line in lines.iter() {
        assert!(
            !line.contains("secret") && !line.contains("sk-wrong"),
            "{line}"
        );
        assert!(!line.contains(path), "{line}");
    }
}

#[test]
fn causes_go_to_the_log_and_not_to_the_client() {
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let mut config = ServerConfig::default();
    config.log = Some({
        let lines = lines.clone();
        Arc::new(move |line| lines.lock().unwrap().push(line.into()))
    });
    let (server, _) = serve_with(config, Duration::ZERO);
    let answer = generate(&server, &json!({"prompt": "fail"}));
    assert!(!answer.text().contains("secret-place"));
    let lines = lines.lock().unwrap();
    assert!(
        lines[0].contains("/models/secret-place: broken"),
        "{}",
        lines[0]
    );
    assert!(lines[0].contains(answer.header("x-request-id").unwrap()));
}

#[test]
fn full_queue_refuses_with_a_wait() {
    let mut config = ServerConfig::default();
    config.queue = 1;
    let (server, counts) = serve_with(config, Duration::from_millis(300));
    let body = br#"{"prompt": "a"}"#;
    let mut waiting = vec![];
    for load in 1..=2 {
        let mut stream = connect(&server);
        send(&mut stream, "POST /v1/images/generations", &[JSON], body);
        waiting.push(stream);
        wait_until("the request arrives", || server.load() == load);
    }
    let refused = generate(&server, &json!({"prompt": "a"}));
    let error = refused.error();
    assert_eq!(
        (refused.status, &error["code"]),
        (429, &json!("rate_limit_exceeded"))
    );
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=120).contains(&wait));
    for stream in waiting {
        assert_eq!(read(stream).status, 200);
    }
    assert_eq!(Counts::of(&counts.finished), 2);
    assert_eq!(generate(&server, &json!({"prompt": "a"})).status, 200);
}

#[test]
fn hanging_up_frees_the_work() {
    let (server, counts) = serve_with(ServerConfig::default(), Duration::from_millis(20));
    let plain = r#"{"prompt": "a", "num_inference_steps": 200}"#;
    let streamed = r#"{"prompt": "a", "num_inference_steps": 200, "stream": true}"#;
    for (i, body) in [plain, streamed].into_iter().enumerate() {
        let mut running = connect(&server);
        send(
            &mut running,
            "POST /v1/images/generations",
            &[JSON],
            body.as_bytes(),
        );
        wait_until("the first request is made", || {
            Counts::of(&counts.begun) == i + 1
        });
        let mut waiting = connect(&server);
        send(
            &mut waiting,
            "POST /v1/images/generations",
            &[JSON],
            body.as_bytes(),
        );
        wait_until("the second request waits", || server.load() == 2);
        if i == 1 {
            // The stream has begun.
            running.read_exact(&mut [0; 15]).unwrap();
        }
        // The one that waits leaves the queue; the other one is stopped within a step or two.
        drop(waiting);
        wait_until("the second request is gone", || server.load() == 1);
        running.shutdown(Shutdown::Both).unwrap();
        wait_until("the first request is stopped", || server.load() == 0);
        assert_eq!(Counts::of(&counts.cancelled), i + 1);
    }
    assert_eq!(
        (Counts::of(&counts.begun), Counts::of(&counts.finished)),
        (2, 0)
    );
    assert!(Counts::of(&counts.steps) < 200);
}

#[test]
fn slow_requests_end() {
    let mut config = ServerConfig::default();
    config.body_timeout = Duration::from_millis(100);
    config.queue = 0;
    let (server, _) = serve_with(config, Duration::ZERO);
    let mut stream = connect(&server);
    let head = format!("POST /v1/images/generations HTTP/1.1\r\nHost: x\r\n{JSON}\r\n");
    let head = format!("{head}Content-Length: 100\r\nConnection: close\r\n\r\n{{");
    stream.write_all(head.as_bytes()).unwrap();
    let answer = read(stream);
    assert_eq!(
        (answer.status, &answer.error()["code"]),
        (408, &json!("request_timeout"))
    );
    // Its place in the queue is free again.
    assert_eq!(generate(&server, &json!({"prompt": "a"})).status, 200);
}

#[test]
fn streams_have_the_events_of_the_api() {
    let server = serve();
    let request = json!({
        "prompt": "warn", "n": 2, "stream": true, "partial_images": 2, "num_inference_steps": 6,
        "size": "32x32", "quality": "high", "output_format": "webp"
    });
    let answer = generate(&server, &request);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    // Pieces have lengths between them, which no event needs.
    let text = answer.text();
    let events: Vec<(&str, Value)> = text
        .split("event: ")
        .skip(1)
        .map(|event| {
            let (name, rest) = event.split_once('\n').unwrap();
            let data = rest
                .split('\n')
                .find_map(|line| line.strip_prefix("data: "));
            (name, serde_json::from_str(data.unwrap()).unwrap())
        })
        .collect();
    let names: Vec<_> = events
        .iter()
        .map(|(name, data)| (*name, &data["index"], &data["partial_image_index"]))
        .collect();
    let (partial, completed) = (
        "image_generation.partial_image",
        "image_generation.completed",
    );
    assert_eq!(
        names,
        [
            (partial, &json!(0), &json!(0)),
            (partial, &json!(1), &json!(0)),
            (partial, &json!(0), &json!(1)),
            (partial, &json!(1), &json!(1)),
            (completed, &json!(0), &Value::Null),
            (completed, &json!(1), &Value::Null),
        ]
    );
    for (name, data) in &events {
        assert_eq!(data["type"], *name);
        assert_eq!(
            (&data["size"], &data["quality"]),
            (&json!("32x32"), &json!("high"))
        );
        assert_eq!(data["output_format"], "webp");
        assert!(data["created_at"].is_u64() && data["b64_json"].is_string());
    }
    assert_eq!(events[4].1["usage"]["total_tokens"], 0);
    assert_eq!(
        events[4].1["warnings"],
        json!(["a part of the prompt was cut"])
    );

    let (kind, body) = form(&[
        ("prompt", None, b"a"),
        ("stream", None, b"true"),
        ("image", Some("x.png"), &png(8, 8)),
    ]);
    let answer = ask(&server, "POST /v1/images/edits", &[&kind], &body);
    assert!(
        answer.text().contains("event: image_edit.completed\n"),
        "{}",
        answer.text()
    );
}

#[test]
fn stopping_finishes_what_is_made_and_refuses_what_waits() {
    let (server, counts) = serve_with(ServerConfig::default(), Duration::from_millis(300));
    let body = br#"{"prompt": "a"}"#;
    let mut running = connect(&server);
    send(&mut running, "POST /v1/images/generations", &[JSON], body);
    wait_until("the first request is made", || {
        Counts::of(&counts.begun) == 1
    });
    let mut waiting = connect(&server);
    send(&mut waiting, "POST /v1/images/generations", &[JSON], body);
    wait_until("the second request waits", || server.load() == 2);
    let address = server.address();
    server.stop().unwrap();
    assert_eq!(read(running).status, 200);
    let refused = read(waiting);
    assert_eq!(
        (refused.status, &refused.error()["code"]),
        (503, &json!("server_shutting_down"))
    );
    assert!(TcpStream::connect(address).is_err());
    assert_eq!(Counts::of(&counts.begun), 1);
}

#[test]
fn model_that_cannot_be_opened_is_the_error_of_the_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = Box::new(|| Err(aigc_core::Error::weights("x", "broken")));
    let error = start(listener, ServerConfig::default(), open).unwrap_err();
    assert!(error.to_string().contains("broken"), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let panicking = Box::new(|| panic!("as asked"));
    assert!(start(listener, ServerConfig::default(), panicking).is_err());
}
