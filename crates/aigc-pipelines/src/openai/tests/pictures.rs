//! Pictures that are broken, too large, or somewhere else.

use super::*;
use crate::openai::ImagesApiErrorKind as Kind;

fn data(items: &[String]) -> Reply {
    json(200, &[], &format!(r#"{{"data": [{}]}}"#, items.join(",")))
}

fn base64_item(bytes: &[u8]) -> String {
    format!(r#"{{"b64_json": "{}"}}"#, STANDARD.encode(bytes))
}

fn url_item(url: &str) -> String {
    format!(r#"{{"url": "{url}"}}"#)
}

#[test]
fn broken_pictures_are_typed_errors() {
    let whole = png(1);
    for item in [
        base64_item(&whole[..whole.len() / 2]),
        base64_item(b"<html>not a picture</html>"),
        base64_item(b""),
        r#"{"b64_json": "%%%"}"#.into(),
        r#"{"b64_json": null, "url": null}"#.into(),
        r#"{"revised_prompt": "a cat"}"#.into(),
        "3".into(),
    ] {
        let server = Server::new(vec![data(std::slice::from_ref(&item))]);
        let error = ask(&client(&server)).unwrap_err();
        assert_eq!(
            (error.kind(), error.attempts()),
            (Kind::InvalidAnswer, 1),
            "{item}"
        );
    }
}

#[test]
fn good_pictures_survive_broken_ones() {
    let server = Server::new(vec![data(&[
        base64_item(&png(1)[..20]),
        base64_item(&png(2)),
        "{}".into(),
    ])]);
    let answer = ask(&client(&server)).unwrap();
    assert_eq!(answer.images.len(), 1);
    assert_eq!(
        (answer.images[0].index, answer.images[0].bytes.clone()),
        (1, png(2))
    );
    assert_eq!(answer.warnings.len(), 2);
    assert!(
        answer.warnings[0].starts_with("picture 0: "),
        "{:?}",
        answer.warnings
    );
}

#[test]
fn limits_on_size_are_kept() {
    let server = Server::new(vec![data(&[base64_item(&png(1))])]);
    for config in [
        OpenAiConfig {
            max_answer_bytes: 50,
            ..config(&server)
        },
        OpenAiConfig {
            max_image_bytes: 20,
            ..config(&server)
        },
        OpenAiConfig {
            max_pixels: 23,
            ..config(&server)
        },
    ] {
        let error = ask(&OpenAiImages::new(config).unwrap()).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge, "{error}");
        assert!(error.to_string().contains("max_"), "{error}");
    }
    // An answer without a length that does not end.
    let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(100_000));
    let server = Server::new(vec![Reply::Hold(endless.into_bytes())]);
    let config = OpenAiConfig {
        max_answer_bytes: 10_000,
        ..config(&server)
    };
    let error = ask(&OpenAiImages::new(config).unwrap()).unwrap_err();
    assert_eq!(error.kind(), Kind::TooLarge, "{error}");
}

#[test]
fn addresses_are_fetched_without_the_key() {
    let server = Server::answering(|_, request| {
        let path = request.head.split_whitespace().nth(1).unwrap();
        match path {
            "/v1/images/generations" => data(&[
                url_item("/files/a.png?sig=1"),
                url_item("b.png"),
                url_item("/moved"),
            ]),
            "/moved" => reply(302, &["Location: /files/c.png"], ""),
            "/files/a.png?sig=1" => reply(200, &["Content-Type: image/png"], png(1)),
            "/v1/images/b.png" => reply(200, &["Content-Type: image/webp"], png(2)),
            "/files/c.png" => reply(200, &[], png(3)),
            _ => reply(404, &[], ""),
        }
    });
    let answer = ask(&client(&server)).unwrap();
    let found: Vec<_> = answer
        .images
        .iter()
        .map(|image| image.bytes.clone())
        .collect();
    assert_eq!(found, [png(1), png(2), png(3)]);
    let url = answer.images[2].url.as_deref().unwrap();
    assert!(url.ends_with("/files/c.png"), "{url}");
    assert_eq!(
        answer.warnings,
        ["picture 1: declared as image/webp, but image/png"]
    );
    let received = server.received();
    assert_eq!(received.len(), 5);
    assert!(received[0].header("authorization").is_some());
    for request in &received[1..] {
        assert!(request.head.starts_with("GET "));
        assert!(!request.head.contains(KEY), "{}", request.head);
    }
}

#[test]
fn addresses_are_fetched_again_after_failures_that_may_pass() {
    let server = Server::new(vec![
        data(&[url_item("/x.png")]),
        reply(503, &["retry-after-ms: 1"], ""),
        Reply::Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n\x89PNG".to_vec()),
        reply(200, &[], png(1)),
    ]);
    assert_eq!(ask(&client(&server)).unwrap().images.len(), 1);
    assert_eq!(server.received().len(), 4);
}

#[test]
fn unsafe_addresses_are_not_fetched() {
    for location in [
        "http://192.0.2.1/x.png",
        "ftp://192.0.2.1/x.png",
        "file:///etc/passwd",
    ] {
        let server = Server::new(vec![data(&[url_item(location)])]);
        let error = ask(&client(&server)).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidAnswer);
        assert!(error.to_string().contains("not fetched"), "{error}");
        // A redirect leads nowhere else either.
        let server = Server::new(vec![
            data(&[url_item("/x.png?secret")]),
            reply(302, &[&format!("Location: {location}")], ""),
        ]);
        let error = ask(&client(&server)).unwrap_err();
        assert!(error.to_string().contains("not fetched"), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let server = Server::new(vec![
        data(&[url_item("/x.png")]),
        reply(302, &["Location: /x.png"], ""),
    ]);
    let error = ask(&client(&server)).unwrap_err();
    assert!(error.to_string().contains("more than 5 times"), "{error}");
    assert_eq!(server.received().len(), 7);
    let server = Server::new(vec![data(&[url_item("/x.png")]), reply(404, &[], "")]);
    let error = ask(&client(&server)).unwrap_err();
    assert_eq!((error.kind(), error.status()), (Kind::NotFound, Some(404)));
}

#[test]
fn addresses_that_repeat_the_key_do_not_show_it() {
    let item = || data(&[url_item(&format!("/{KEY}.png"))]);
    let server = Server::new(vec![item(), reply(404, &[], "")]);
    // `ask` checks everything that is shown.
    let error = ask(&client(&server)).unwrap_err();
    assert!(error.url().unwrap().ends_with("/[key].png"), "{error}");
    let server = Server::new(vec![item(), reply(200, &[], png(1))]);
    let answer = ask(&client(&server)).unwrap();
    let url = answer.images[0].url.as_deref().unwrap();
    assert!(url.ends_with("/[key].png"), "{url}");
    // Errors of pictures quote their first bytes.
    let server = Server::new(vec![data(&[base64_item(KEY.as_bytes())])]);
    let error = ask(&client(&server)).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidAnswer);
    assert!(!format!("{error:?}").contains(&KEY[..9]), "{error:?}");
}
