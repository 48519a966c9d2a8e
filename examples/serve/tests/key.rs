//! The key is in no log. A process has one logger, so this test has a process of its own.

mod common;

use aigc_examples_serve::ServerConfig;
use aigc_pipelines::openai::{
    ApiKey, CallOptions, CreateImageRequest, ImageOptions, ImagesApiErrorKind, OpenAiConfig,
    OpenAiImages,
};
use common::serve_with;
use log::{LevelFilter, Log, Metadata, Record};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

const KEY: &str = "sk-very-secret-key-of-the-test";

/// Keeps what is logged.
struct Kept(Mutex<String>);

impl Log for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        let line = format!("{} {}\n", record.target(), record.args());
        self.0.lock().unwrap().push_str(&line);
    }

    fn flush(&self) {}
}

static LOGGER: Kept = Kept(Mutex::new(String::new()));

#[test]
fn key_is_in_no_log_error_or_debug_output() {
    log::set_logger(&LOGGER).unwrap();
    log::set_max_level(LevelFilter::Debug);
    let mut config = ServerConfig::default().with_api_key(KEY).unwrap();
    config.log = Some(Arc::new(|line| log::info!("{line}")));
    let (server, _) = serve_with(config, Duration::ZERO);
    let config = OpenAiConfig::new(server.base_url())
        .with_api_key(ApiKey::new(KEY).unwrap())
        .with_max_retries(1);
    let client = OpenAiImages::new(config.clone()).unwrap();
    let mut shown = format!("{config:?} {client:?} {server:?}");
    for (prompt, size) in [("a cat", "64x64"), ("a cat", "20x20"), ("fail", "64x64")] {
        let options = ImageOptions {
            size: Some(size.into()),
            ..ImageOptions::default()
        };
        let request = CreateImageRequest::new(prompt).with_options(options);
        let mut options = CallOptions::default();
        match client.generations(&request, &mut options) {
            Ok(answer) => shown += &format!("{answer:?}"),
            Err(error) => shown += &format!("{error} {error:?} {error:#?}"),
        }
    }
    // A server that is not there, and a wrong key.
    let wrong = format!("{KEY}-wrong");
    let other = OpenAiConfig::new(server.base_url()).with_api_key(ApiKey::new(&wrong).unwrap());
    let other = OpenAiImages::new(other).unwrap();
    let request = CreateImageRequest::new("a cat");
    let error = other.generations(&request, &mut CallOptions::default());
    shown += &format!("{:?}", error.unwrap_err());
    drop(server);
    let error = client.generations(&request, &mut CallOptions::default());
    shown += &format!("{:?}", error.unwrap_err());

    let logged = LOGGER.0.lock().unwrap().clone();
    assert!(logged.contains("ureq"), "the HTTP library logs: {logged}");
    assert!(
        logged.contains("POST /v1/images/generations 200"),
        "{logged}"
    );
    // Pieces of it neither: some logs are cut into rows.
    for piece in [KEY, &KEY[..12], &KEY[KEY.len() - 12..]] {
        assert!(!shown.contains(piece), "{shown}");
        assert!(!logged.contains(piece), "{logged}");
    }

    // At the lowest level the HTTP library would log the bytes of requests.
    log::set_max_level(LevelFilter::Trace);
    let error = client.generations(&request, &mut CallOptions::default());
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ImagesApiErrorKind::Configuration);
    assert!(error.to_string().contains("ureq_proto"), "{error}");
}
