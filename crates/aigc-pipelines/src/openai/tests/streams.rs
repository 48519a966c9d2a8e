//! Streams of events.

use super::*;
use crate::openai::{CallEvent, ImageOptions, ImagesApiErrorKind as Kind};
use std::ops::ControlFlow;

fn stream(text: &str) -> Reply {
    reply(
        200,
        &["Content-Type: text/event-stream; charset=utf-8"],
        text,
    )
}

fn partial(red: u8, index: usize) -> String {
    format!(
        r#"{{"type": "image_generation.partial_image", "b64_json": "{}", "created_at": 1,
        "partial_image_index": {index}}}"#,
        png_base64(red)
    )
    .replace('\n', " ")
}

fn completed(red: u8) -> String {
    format!(
        r#"{{"type": "image_generation.completed", "b64_json": "{}", "created_at": 2,
        "quality": "low", "usage": {{"total_tokens": 5}}}}"#,
        png_base64(red)
    )
    .replace('\n', " ")
}

/// Partial images and their numbers.
type Partial = Vec<(usize, Vec<u8>)>;

/// The result of a streamed request, and the partial images.
fn streamed(server: &Server, n: u32) -> (Result<ImagesResponse, ImagesApiError>, Partial) {
    let options = ImageOptions {
        n: Some(n),
        stream: Some(true),
        partial_images: Some(2),
        ..ImageOptions::default()
    };
    let request = CreateImageRequest::new("a cat").with_options(options);
    let mut partial = vec![];
    let mut call = CallOptions::default().with_callback(|event| {
        if let CallEvent::PartialImage(image) = event {
            partial.push((image.partial_image_index, image.bytes.clone()));
        }
        ControlFlow::Continue(())
    });
    let result = client(server).generations(&request, &mut call);
    drop(call);
    (result, partial)
}

#[test]
fn partial_and_finished_pictures_arrive() {
    let (first, second, last) = (partial(1, 0), partial(2, 1), completed(3));
    for text in [
        format!(
            "event: image_generation.partial_image\ndata: {first}\n\nevent: \
             image_generation.partial_image\ndata: {second}\n\nevent: \
             image_generation.completed\ndata: {last}\n\n"
        ),
        // Without names, spaces and line feeds, with keep-alives and an end.
        format!(
            ": keep-alive\r\n\r\ndata:{first}\r\n\r\n:\r\ndata:{second}\r\n\r\ndata:{last}\r\n\r\n\
             data: [DONE]\r\n\r\n"
        ),
        // With a field for errors that has none.
        format!(
            "data: {}\n\ndata: {second}\n\ndata: {}\n\n",
            first.replacen('{', "{\"error\": {\"message\": null}, ", 1),
            last.replacen('{', "{\"error\": \"\", ", 1)
        ),
        // In several lines of data, with unknown events between.
        format!(
            "data: {}\ndata: {}\n\ndata: {second}\n\ndata: {{\"type\": \"other\"}}\n\n\
             data: {last}\n\n",
            &first[..1],
            &first[1..]
        ),
    ] {
        let server = Server::new(vec![stream(&text)]);
        let (answer, partial) = streamed(&server, 1);
        let answer = answer.unwrap();
        assert_eq!(partial, [(0, png(1)), (1, png(2))]);
        assert_eq!(answer.images[0].bytes, png(3));
        assert_eq!(answer.quality.as_deref(), Some("low"));
        assert_eq!(answer.usage.unwrap().total_tokens, Some(5));
        assert_eq!(server.received()[0].json()["stream"], true);
    }
}

#[test]
fn finished_pictures_end_the_call_though_the_connection_stays() {
    let mut bytes = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec();
    bytes.extend_from_slice(format!("data: {}\n\n", completed(1)).as_bytes());
    let server = Server::new(vec![Reply::Hold(bytes)]);
    let (answer, partial) = streamed(&server, 1);
    assert_eq!(answer.unwrap().images.len(), 1);
    assert!(partial.is_empty());
}

#[test]
fn streams_without_a_finished_picture_are_errors() {
    let overloaded = r#"{"error": {"message": "overloaded", "code": "server_is_overloaded"}}"#;
    let refused = r#"{"message": "no", "code": "moderation_blocked"}"#;
    let failed = r#"{"type": "error", "error": {"message": "boom"}}"#;
    let first = partial(1, 0);
    for (text, kind) in [
        (format!("data: {first}\n\n"), Kind::InvalidAnswer),
        (
            format!("data: {first}\n\ndata: [DONE]\n\n"),
            Kind::InvalidAnswer,
        ),
        // The event is not complete.
        (format!("data: {}\n", completed(1)), Kind::InvalidAnswer),
        (String::new(), Kind::InvalidAnswer),
        ("data: <html>\n\n".into(), Kind::InvalidAnswer),
        (format!("data: {overloaded}\n\n"), Kind::Server),
        (
            format!("event: error\ndata: {refused}\n\n"),
            Kind::Moderation,
        ),
        (format!("event: error\ndata: {failed}\n\n"), Kind::Server),
    ] {
        let server = Server::new(vec![stream(&text)]);
        let (answer, _) = streamed(&server, 1);
        let error = answer.unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts()),
            (kind, 1),
            "{text:.100}: {error}"
        );
    }
}

#[test]
fn reasons_without_an_error_object_are_kept() {
    let failed = r#"{"type": "error", "message": "no memory", "code": "server_error"}"#;
    for text in [
        format!("data: {failed}\n\n"),
        format!("event: error\ndata: {failed}\n\n"),
        format!("data: {}\n\ndata: {failed}\n\n", partial(1, 0)),
    ] {
        let server = Server::new(vec![stream(&text)]);
        let error = streamed(&server, 1).0.unwrap_err();
        assert_eq!(
            (error.kind(), error.message(), error.code()),
            (Kind::Server, "no memory", Some("server_error"))
        );
    }
}

#[test]
fn finished_pictures_survive_the_rest_of_the_stream() {
    let text = format!(
        "data: {}\n\ndata: {{\"error\": {{\"message\": \"boom\"}}}}\n\n",
        completed(1)
    );
    let server = Server::new(vec![stream(&text)]);
    let (answer, _) = streamed(&server, 2);
    let answer = answer.unwrap();
    assert_eq!(answer.images.len(), 1);
    assert!(answer.warnings[0].contains("boom"), "{:?}", answer.warnings);
    let text = format!("data: {}\n\ndata: {}\n\n", completed(1), completed(2));
    let server = Server::new(vec![stream(&text)]);
    let images = streamed(&server, 2).0.unwrap().images;
    assert_eq!(
        images.iter().map(|i| i.bytes.clone()).collect::<Vec<_>>(),
        [png(1), png(2)]
    );
}

#[test]
fn a_server_may_ignore_the_wish_for_a_stream() {
    let server = Server::new(vec![good(1)]);
    let (answer, partial) = streamed(&server, 1);
    assert_eq!(answer.unwrap().images[0].bytes, png(1));
    assert!(partial.is_empty());
}
