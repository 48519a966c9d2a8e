//! The server's answers byte by byte: shapes, errors, keys, streams.

mod common;

use aigc_examples_serve::{RunningServer, ServerConfig, start};
use common::{
    Counts, colour,
    http::{JSON, ask, connect, form, generate, png, send},
    serve, serve_with, wait_until,
};
use serde_json::{Value, json};
use std::{
    io::Read,
    net::TcpListener,
    sync::{Arc, Mutex},
    thread::sleep,
    time::Duration,
};

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
fn models_are_found_under_every_name() {
    let mut config = ServerConfig::default();
    config.aliases = ["dall-e-2", "squares", "mine"].map(String::from).into();
    let (server, _) = serve_with(config, Duration::ZERO);
    let list = ask(&server, "GET /v1/models", &[], b"").json();
    let models = list["data"].as_array().unwrap();
    let ids: Vec<_> = models.iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["squares", "dall-e-2", "mine"]);
    for model in models {
        let id = model["id"].as_str().unwrap();
        let found = ask(&server, &format!("GET /v1/models/{id}"), &[], b"");
        assert_eq!((found.status, &found.json()), (200, model));
        let made = generate(&server, &json!({"prompt": "a", "model": id}));
        assert_eq!(made.status, 200, "{id}");
    }
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
    for head in [
        "POST /v1/chat/completions",
        "GET /",
        "GET /v1/images",
        "GET /v1/files/%FF",
    ] {
        check(head, JSON, b"{}", 404, "not_found", "");
    }
    let model = "GET /v1/models/%FF";
    check(model, JSON, b"", 404, "model_not_found", "model");
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
fn images_without_a_size_are_no_larger_than_the_limit() {
    let mut config = ServerConfig::default();
    config.max_side = 64;
    let (server, counts) = serve_with(config, Duration::ZERO);
    let edit = |size: &str| {
        let (kind, body) = form(&[
            ("prompt", None, b"a"),
            ("size", None, size.as_bytes()),
            ("image", Some("x.png"), &png(72, 8)),
        ]);
        ask(&server, "POST /v1/images/edits", &[&kind], &body)
    };
    for size in ["", "auto"] {
        let refused = edit(size);
        let error = refused.error();
        assert_eq!((refused.status, &error["param"]), (400, &json!("image")));
        let message = error["message"].as_str().unwrap();
        assert!(
            message.contains("72x8") && message.contains("64"),
            "{message}"
        );
    }
    assert_eq!(Counts::of(&counts.begun), 0);
    assert_eq!(edit("64x8").status, 200);
}

#[test]
fn key_is_required_where_it_is_set() {
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let mut config = ServerConfig::default()
        .with_api_key("sk-very-secret")
        .unwrap();
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
fn pages_of_other_sites_need_the_key() {
    let server = serve();
    let (foreign, local) = (
        "Origin: https://example.org",
        "Origin: http://localhost:3000",
    );
    let models = |headers: &[&str]| ask(&server, "GET /v1/models", headers, b"");
    let refused = models(&[foreign]);
    assert_eq!(
        (refused.status, &refused.error()["code"]),
        (403, &json!("origin_not_allowed"))
    );
    assert_eq!(models(&[local]).status, 200);
    let config = ServerConfig::default().with_api_key("sk-right").unwrap();
    let (server, _) = serve_with(config, Duration::ZERO);
    let headers = [foreign, "Authorization: Bearer sk-right"];
    assert_eq!(ask(&server, "GET /v1/models", &headers, b"").status, 200);
}

#[test]
fn methods_are_those_of_http() {
    let server = serve();
    let head = ask(&server, "HEAD /v1/models", &[], b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let head = ask(&server, "HEAD /v1/images/generations", &[], b"");
    assert_eq!((head.status, head.body.len()), (405, 0));
    let other = ask(&server, "GET /v1/images/generations", &[], b"");
    assert_eq!((other.status, other.header("allow")), (405, Some("POST")));
}

/// A server whose steps take a time, and the lines of its log.
fn serve_with_log(step: Duration) -> (RunningServer, Arc<Mutex<Vec<String>>>) {
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let mut config = ServerConfig::default();
    config.log = Some({
        let lines = lines.clone();
        Arc::new(move |line| lines.lock().unwrap().push(line.into()))
    });
    (serve_with(config, step).0, lines)
}

#[test]
fn causes_go_to_the_log_and_not_to_the_client() {
    let (server, lines) = serve_with_log(Duration::ZERO);
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
fn every_request_has_one_line_in_the_log() {
    let (server, lines) = serve_with_log(Duration::from_millis(20));
    for is_stream in [false, true] {
        let body = json!({"prompt": "a", "num_inference_steps": 200, "stream": is_stream});
        let body = body.to_string();
        let mut client = connect(&server);
        let head = "POST /v1/images/generations";
        send(&mut client, head, &[JSON], body.as_bytes());
        match is_stream {
            // The stream has begun.
            true => client.read_exact(&mut [0; 15]).unwrap(),
            false => wait_until("the request arrives", || server.load() == 1),
        }
        drop(client);
        wait_until("the model is stopped", || server.load() == 0);
    }
    for body in [
        json!({"prompt": "fail later", "stream": true}),
        json!({"prompt": "a", "stream": true}),
        json!({"prompt": "a"}),
    ] {
        assert_eq!(generate(&server, &body).status, 200);
    }
    server.stop().unwrap();
    let lines = lines.lock().unwrap();
    let closed = ": the connection was closed";
    let expected = [
        ("-", closed),
        ("200", closed),
        ("200", "/models/secret-place: broken"),
        ("200", ""),
        ("200", ""),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, (status, end)) in lines.iter().zip(expected) {
        let start = format!("POST /v1/images/generations {status} ");
        assert!(line.starts_with(&start), "{line}");
        let (_, rest) = line.split_once(" s req_").unwrap();
        assert_eq!(rest.contains(": "), !end.is_empty(), "{line}");
        assert!(rest.contains(end), "{line}");
    }
}

/// The events of a stream, each with its data.
fn events(text: &str) -> Vec<(&str, Value)> {
    // Pieces have lengths between them, which no event needs.
    let events = text.split("event: ").skip(1);
    events
        .map(|event| {
            let (name, rest) = event.split_once('\n').unwrap();
            let mut lines = rest.split('\n');
            let data = lines.find_map(|line| line.strip_prefix("data: "));
            (name, serde_json::from_str(data.unwrap()).unwrap())
        })
        .collect()
}

#[test]
fn streams_end_with_an_error_after_the_first_step() {
    let (server, lines) = serve_with_log(Duration::ZERO);
    let request = json!({"prompt": "fail later", "stream": true, "partial_images": 3});
    let answer = generate(&server, &request);
    assert_eq!(answer.status, 200);
    let text = answer.text();
    assert!(!text.contains("secret-place"), "{text}");
    let events = events(&text);
    let names: Vec<&str> = events.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["image_generation.partial_image", "error"], "{text}");
    let data = &events[1].1;
    assert_eq!(data["type"], "error");
    let error = data["error"].as_object().unwrap();
    assert_eq!(error.len(), 4, "{error:?}");
    assert_eq!(
        (&error["type"], &error["code"], &error["param"]),
        (&json!("server_error"), &json!("server_error"), &Value::Null)
    );
    assert!(error["message"].is_string(), "{error:?}");
    // The cause is in the log, with the name of the request.
    let lines = lines.lock().unwrap();
    let id = answer.header("x-request-id").unwrap();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("secret-place") && lines[0].contains(id),
        "{lines:?}"
    );
}

#[test]
fn streams_of_models_that_tell_of_no_step_end_well() {
    let request = json!({"prompt": "no steps", "stream": true});
    let answer = generate(&serve(), &request);
    let text = answer.text();
    let events = events(&text);
    let names: Vec<&str> = events.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["image_generation.completed"], "{text}");
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
    let text = answer.text();
    let events = events(&text);
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
fn model_that_cannot_be_opened_is_the_error_of_the_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let open = Box::new(|| Err(aigc_core::Error::weights("x", "broken")));
    let error = start(listener, ServerConfig::default(), open).unwrap_err();
    assert!(error.to_string().contains("broken"), "{error}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let panicking = Box::new(|| panic!("as asked"));
    assert!(start(listener, ServerConfig::default(), panicking).is_err());
}
