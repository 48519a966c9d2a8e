//! The client against servers that answer well and badly.

mod answers;
mod failures;
mod pictures;
mod retries;
mod server;
mod streams;
mod trait_of_core;

use super::{
    ApiKey, CallOptions, CreateImageRequest, ImagesApiError, ImagesResponse, OpenAiConfig,
    OpenAiImages,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage};
use server::{Reply, Server, reply};
use std::{io::Cursor, time::Duration};

const KEY: &str = "sk-very-secret-key";

const RATE_LIMIT: &str = r#"{"error": {"message": "slow down", "type": "requests",
    "param": null, "code": "rate_limit_exceeded"}}"#;

/// A picture in one colour.
fn picture(red: u8) -> DynamicImage {
    RgbImage::from_pixel(6, 4, Rgb([red, 20, 30])).into()
}

fn png(red: u8) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![]);
    picture(red).write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

fn png_base64(red: u8) -> String {
    STANDARD.encode(png(red))
}

/// An answer with one picture.
fn good(red: u8) -> Reply {
    json(
        200,
        &[],
        &format!(
            r#"{{"created": 1, "data": [{{"b64_json": "{}"}}]}}"#,
            png_base64(red)
        ),
    )
}

/// An answer in JSON.
fn json(status: u16, headers: &[&str], body: &str) -> Reply {
    let headers = [&["Content-Type: application/json"], headers].concat();
    reply(status, &headers, body)
}

fn config(server: &Server) -> OpenAiConfig {
    OpenAiConfig::new(server.url())
        .with_api_key(ApiKey::new(KEY).unwrap())
        .with_timeout(Duration::from_secs(20))
}

fn client(server: &Server) -> OpenAiImages {
    OpenAiImages::new(config(server)).unwrap()
}

/// Asks for a picture of a cat. The key is in nothing that can be shown.
fn ask(client: &OpenAiImages) -> Result<ImagesResponse, ImagesApiError> {
    let request = CreateImageRequest::new("a cat");
    let result = client.generations(&request, &mut CallOptions::default());
    assert_hidden(&format!("{client:?} {result:?}"));
    if let Err(error) = &result {
        assert_hidden(&error.to_string());
        let error = error.clone().into_error();
        assert_hidden(&format!("{error} {error:?}"));
    }
    result
}

fn assert_hidden(shown: &str) {
    assert!(!shown.contains(KEY), "{shown}");
}
