//! Limits of the server: its queue, connections, slow and lost clients, stopping.

mod common;

use aigc_examples_serve::ServerConfig;
use common::{
    Counts,
    http::{JSON, ask, connect, generate, read, send},
    serve_with, wait_until,
};
use serde_json::json;
use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    time::{Duration, Instant},
};

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

/// Waits until the server closes a connection, and returns how long that took.
fn until_closed(mut stream: TcpStream) -> Duration {
    let start = Instant::now();
    let _ = stream.read_to_end(&mut vec![]);
    start.elapsed()
}

#[test]
fn headers_that_do_not_end_close_the_connection() {
    let mut config = ServerConfig::default();
    config.header_timeout = Duration::from_millis(200);
    let (server, _) = serve_with(config, Duration::ZERO);
    for sent in ["", "POST /v1/ima", "GET / HTTP/1.1\r\nHost: x\r\nX-Long: "] {
        let mut stream = connect(&server);
        stream.write_all(sent.as_bytes()).unwrap();
        let time = until_closed(stream);
        assert!(time < Duration::from_secs(10), "{sent:?}: {time:?}");
    }
    // The time does not begin anew with every header.
    let (mut stream, start) = (connect(&server), Instant::now());
    stream.write_all(b"GET /v1/models HTTP/1.1\r\n").unwrap();
    while stream.write_all(b"X: y\r\n").is_ok() {
        assert!(start.elapsed() < Duration::from_secs(10), "it is open");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Others are served.
    assert_eq!(ask(&server, "GET /v1/models", &[], b"").status, 200);
}

#[test]
fn connections_have_a_bound() {
    let mut config = ServerConfig::default();
    config.max_connections = 2;
    let (server, _) = serve_with(config, Duration::ZERO);
    let mut silent = vec![connect(&server), connect(&server)];
    let mut third = connect(&server);
    send(&mut third, "GET /v1/models", &[], b"");
    third
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    assert!(third.peek(&mut [0]).is_err(), "it is answered at once");
    // A place that becomes free is the next one's.
    silent.pop();
    third
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(read(third).status, 200);
}

#[test]
fn clients_that_take_nothing_lose_their_answer() {
    let mut config = ServerConfig::default();
    config.write_timeout = Duration::from_millis(200);
    let (server, _) = serve_with(config, Duration::ZERO);
    // More than the buffers of the connection hold.
    let body = json!({
        "prompt": "noise", "n": 4, "size": "1024x1024", "response_format": "b64_json"
    });
    let mut stream = connect(&server);
    send(
        &mut stream,
        "POST /v1/images/generations",
        &[JSON],
        body.to_string().as_bytes(),
    );
    // The answer begins, and is then left alone.
    stream.peek(&mut [0]).unwrap();
    std::thread::sleep(Duration::from_millis(1500));
    let answer = read(stream);
    let length: usize = answer.header("content-length").unwrap().parse().unwrap();
    assert!(answer.body.len() < length, "{length} bytes arrived");
}

#[test]
fn stopping_does_not_wait_for_clients_that_are_silent() {
    let mut config = ServerConfig::default();
    config.stop_timeout = Duration::from_millis(200);
    let (server, _) = serve_with(config, Duration::ZERO);
    let idle = connect(&server);
    let mut half = connect(&server);
    half.write_all(b"POST /v1/images/generations HTTP/1.1\r\nHost")
        .unwrap();
    // The server has seen both.
    assert_eq!(ask(&server, "GET /v1/models", &[], b"").status, 200);
    let start = Instant::now();
    server.stop().unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    drop((idle, half));
}

#[test]
fn large_bodies_of_refused_requests_do_not_hide_the_answer() {
    let mut config = ServerConfig::default().with_api_key("sk-right").unwrap();
    config.max_body_bytes = 2_000_000;
    let (server, _) = serve_with(config, Duration::ZERO);
    let large = vec![b' '; 8_000_000];
    let (edits, right) = ("POST /v1/images/edits", "Authorization: Bearer sk-right");
    for (headers, status) in [
        (vec![JSON], 401),
        (vec!["Content-Type: text/plain", right], 415),
        (vec![JSON, right], 413),
    ] {
        assert_eq!(ask(&server, edits, &headers, &large).status, status);
    }
    // Requests without images are short.
    let text = json!({"prompt": "a", "user": "x".repeat(1_500_000)}).to_string();
    let headers = [JSON, right];
    let answer = ask(
        &server,
        "POST /v1/images/generations",
        &headers,
        text.as_bytes(),
    );
    assert_eq!(
        (answer.status, &answer.error()["code"]),
        (413, &json!("request_too_large"))
    );
}
