//! The client as a `TextToImage`.

use super::*;
use crate::openai::{ImageOptions, ImagesApiErrorKind};
use aigc_core::{
    CancelToken, Error,
    text_to_image::{GenerationOptions, GenerationStage, ImageRequest, TextToImage},
};
use serde_json::json;
use std::ops::ControlFlow;

fn request() -> ImageRequest {
    ImageRequest::new("a cat")
        .with_size(6, 4)
        .with_seed(7)
        .with_guidance_scale(3.5)
        .with_num_inference_steps(20)
}

#[test]
fn unknown_models_get_every_field_that_is_set() {
    let server = Server::new(vec![good(1)]);
    let client = client(&server);
    let request = request().with_negative_prompt("a dog").with_first_image(2);
    let made = client.generate(&request).unwrap();
    let expected = json!({
        "prompt": "a cat", "size": "6x4", "seed": 7, "guidance_scale": 3.5,
        "num_inference_steps": 20, "negative_prompt": "a dog", "first_image": 2
    });
    assert_eq!(server.received()[0].json(), expected);
    assert_eq!(made.images.len(), 1);
    assert_eq!(made.images[0].index, 2);
    assert_eq!(made.images[0].image.to_rgb8(), picture(1).to_rgb8());
    assert_eq!((made.request.n, made.complete), (Some(1), true));
    assert!(made.warnings.is_empty(), "{:?}", made.warnings);
    assert_hidden(&format!("{made:?}"));
}

#[test]
fn known_models_warn_of_settings_and_refuse_what_changes_the_picture() {
    let server = Server::new(vec![good(1)]);
    let client = OpenAiImages::new(config(&server).with_model("gpt-image-1")).unwrap();
    let made = client.generate(&request()).unwrap();
    let expected = json!({"prompt": "a cat", "size": "6x4", "model": "gpt-image-1"});
    assert_eq!(server.received()[0].json(), expected);
    assert_eq!(made.warnings.len(), 3);
    assert!(made.warnings[0].contains("`seed`"), "{:?}", made.warnings);
    // What was not sent was not used.
    let used = &made.request;
    assert_eq!((used.seed, used.num_inference_steps), (None, None));
    assert_eq!((used.guidance_scale, used.n), (None, Some(1)));
    for (name, request) in [
        ("negative_prompt", request().with_negative_prompt("a dog")),
        ("first_image", request().with_first_image(1)),
        ("strength", request().with_image(picture(1), Some(0.5))),
        ("strength", {
            let mut request = request();
            request.strength = Some(0.5);
            request
        }),
        ("strength", request().with_image(picture(1), Some(1.5))),
        ("guidance_scale", request().with_guidance_scale(f64::NAN)),
        ("n", request().with_n(0)),
        ("n", request().with_n(usize::MAX)),
        ("prompt", ImageRequest::new("")),
    ] {
        match client.generate(&request).unwrap_err() {
            Error::InvalidArgument { argument, .. } => assert_eq!(argument, name),
            error => panic!("{error}"),
        }
    }
    let control = request().with_control_image(picture(1));
    assert!(matches!(
        client.generate(&control),
        Err(Error::Unsupported { .. })
    ));
    assert_eq!(server.received().len(), 1);
}

#[test]
fn images_become_edits_with_the_mask_of_the_api() {
    let server = Server::new(vec![good(1)]);
    let client = client(&server);
    let mut mask = image::GrayImage::new(6, 4);
    mask.put_pixel(0, 0, image::Luma([200]));
    let request = ImageRequest::new("a hat")
        .with_image(picture(1), Some(0.5))
        .with_mask_image(mask);
    client.generate(&request).unwrap();
    let sent = &server.received()[0];
    assert!(sent.head.starts_with("POST /v1/images/edits "));
    let start = |n: usize| {
        let mut starts = sent.body.windows(4).enumerate();
        let mut starts = starts.by_ref().filter(|(_, window)| *window == b"\x89PNG");
        starts.nth(n).unwrap().0
    };
    let mask = image::load_from_memory(&sent.body[start(1)..])
        .unwrap()
        .to_rgba8();
    assert_eq!(mask.get_pixel(0, 0)[3], 0);
    assert!(mask.pixels().skip(1).all(|pixel| pixel[3] == 255));
    let text = String::from_utf8_lossy(&sent.body);
    assert!(text.contains("name=\"strength\"\r\n\r\n0.5\r\n"));

    let wrong = request.with_mask_image(image::GrayImage::new(3, 3));
    match client.generate(&wrong).unwrap_err() {
        Error::InvalidArgument {
            argument, expected, ..
        } => {
            assert_eq!(argument, "mask_image");
            assert!(expected.contains("6x4"), "{expected}");
        }
        error => panic!("{error}"),
    }
}

#[test]
fn progress_has_tries_and_previews() {
    let event = |kind: &str, red: u8, index: usize| {
        format!(
            "data: {{\"type\": \"image_generation.{kind}\", \"b64_json\": \"{}\", \
             \"partial_image_index\": {index}}}\n\n",
            png_base64(red)
        )
    };
    let text = [
        event("partial_image", 1, 0),
        event("partial_image", 2, 1),
        event("completed", 3, 0),
    ];
    let server = Server::new(vec![
        json(503, &["retry-after-ms: 1"], "{}"),
        reply(200, &["Content-Type: text/event-stream"], text.concat()),
    ]);
    let options = ImageOptions {
        partial_images: Some(2),
        ..ImageOptions::default()
    };
    let client = OpenAiImages::new(config(&server).with_options(options)).unwrap();
    let mut seen = vec![];
    let mut options = GenerationOptions::default().with_callback(|progress| {
        let previews = progress.preview.map(|preview| preview());
        let red = previews.map(|previews| previews[0].to_rgb8().get_pixel(0, 0)[0]);
        seen.push((progress.stage, progress.step, progress.num_steps, red));
        ControlFlow::Continue(())
    });
    let made = client.generate_with(&ImageRequest::new("a cat"), &mut options);
    let made = made.unwrap();
    drop(options);
    assert_eq!(made.images[0].image.to_rgb8(), picture(3).to_rgb8());
    assert_eq!(
        seen,
        [
            (GenerationStage::Waiting, 0, 3, None),
            (GenerationStage::Waiting, 1, 3, None),
            (GenerationStage::Waiting, 1, 3, None),
            (GenerationStage::Denoising, 1, 2, Some(1)),
            (GenerationStage::Denoising, 2, 2, Some(2)),
        ]
    );
}

#[test]
fn number_of_images_may_be_that_of_the_configuration() {
    let body = format!(
        r#"{{"data": [{{"b64_json": "{}"}}, {{"b64_json": "{}"}}]}}"#,
        png_base64(1),
        png_base64(2)
    );
    let server = Server::new(vec![super::json(200, &[], &body)]);
    let with_n = |n: u32| {
        let options = ImageOptions {
            n: Some(n),
            ..ImageOptions::default()
        };
        OpenAiImages::new(config(&server).with_options(options)).unwrap()
    };
    let made = with_n(2).generate(&ImageRequest::new("a cat")).unwrap();
    assert_eq!((made.images.len(), made.request.n), (2, Some(2)));
    assert_eq!(
        made.request.size.map(|size| size.to_string()),
        Some("6x4".into())
    );
    assert!(made.complete && made.warnings.is_empty());
    let one = with_n(2).generate(&ImageRequest::new("a cat").with_n(1));
    assert_eq!(one.unwrap().request.n, Some(1));
    assert_eq!(server.received()[1].json()["n"], 1);
    let none = with_n(0).generate(&ImageRequest::new("a cat"));
    assert!(matches!(none, Err(Error::InvalidArgument { .. })));
}

#[test]
fn fields_of_the_request_replace_those_of_the_configuration() {
    let server = Server::new(vec![good(1)]);
    let extra = json!({
        "seed": 1, "guidance_scale": 1.5, "num_inference_steps": 1, "negative_prompt": "a bird",
        "first_image": 5, "strength": 0.25, "sampler": "euler"
    });
    let options = ImageOptions {
        extra: extra.as_object().unwrap().clone(),
        ..ImageOptions::default()
    };
    let client = OpenAiImages::new(config(&server).with_options(options)).unwrap();
    let request = request().with_negative_prompt("a dog");
    let made = client.generate(&request.clone().with_first_image(2));
    assert_eq!(made.unwrap().request.seed, Some(7));
    let expected = json!({
        "prompt": "a cat", "size": "6x4", "seed": 7, "guidance_scale": 3.5,
        "num_inference_steps": 20, "negative_prompt": "a dog", "first_image": 2,
        "strength": 0.25, "sampler": "euler"
    });
    assert_eq!(server.received()[0].json(), expected);
    // The default is not sent, and is not that of the configuration.
    client.generate(&request.with_first_image(0)).unwrap();
    assert_eq!(server.received()[1].json().get("first_image"), None);
    let edit = ImageRequest::new("a hat").with_image(picture(1), Some(0.5));
    client.generate(&edit).unwrap();
    let sent = server.received()[2].body.clone();
    let text = String::from_utf8_lossy(&sent);
    assert!(text.contains("name=\"strength\"\r\n\r\n0.5\r\n"));
    // What is not set is that of the configuration.
    assert!(text.contains("name=\"seed\"\r\n\r\n1\r\n"));
}

#[test]
fn fields_that_the_server_refused_are_not_in_the_result() {
    const REFUSED: [&str; 6] = [
        "negative_prompt",
        "seed",
        "first_image",
        "guidance_scale",
        "num_inference_steps",
        "size",
    ];
    let server = Server::answering(|_, request| {
        let sent = request.json();
        match REFUSED.iter().find(|name| sent.get(**name).is_some()) {
            Some(name) => super::json(
                400,
                &[],
                &format!(
                    r#"{{"error": {{"message": "m", "param": "{name}",
                    "code": "unknown_parameter"}}}}"#
                ),
            ),
            None => good(1),
        }
    });
    let config = config(&server).with_drop_unsupported_fields(true);
    let client = OpenAiImages::new(config).unwrap();
    let request = request()
        .with_size(60, 40)
        .with_negative_prompt("a dog")
        .with_first_image(2);
    let made = client.generate(&request).unwrap();
    assert_eq!(made.warnings.len(), REFUSED.len(), "{:?}", made.warnings);
    let used = &made.request;
    assert_eq!((used.seed, used.first_image), (None, None));
    assert_eq!(
        (used.guidance_scale, used.num_inference_steps),
        (None, None)
    );
    assert_eq!(used.negative_prompt, None);
    assert_eq!(
        used.size.map(|size| size.to_string()),
        Some("6x4".to_string())
    );
    assert_eq!(made.images[0].index, 0);
}

#[test]
fn numbers_of_servers_may_be_of_any_size() {
    let event = |kind: &str| {
        format!(
            "data: {{\"type\": \"image_generation.{kind}\", \"b64_json\": \"{}\", \
             \"partial_image_index\": 18446744073709551615, \"index\": 18446744073709551615}}\n\n",
            png_base64(1)
        )
    };
    let text = event("partial_image") + &event("completed");
    let server = Server::new(vec![reply(200, &["Content-Type: text/event-stream"], text)]);
    let options = ImageOptions {
        partial_images: Some(1),
        ..ImageOptions::default()
    };
    let client = OpenAiImages::new(config(&server).with_options(options)).unwrap();
    let mut previews = 0;
    let mut options = GenerationOptions::default().with_callback(|progress| {
        assert!(progress.images.end <= progress.total);
        previews += usize::from(progress.preview.is_some());
        ControlFlow::Continue(())
    });
    let made = client.generate_with(&ImageRequest::new("a cat"), &mut options);
    let made = made.unwrap();
    drop(options);
    assert_eq!((made.images[0].index, previews), (0, 1));
}

#[test]
fn fewer_images_and_errors_are_said() {
    let server = Server::new(vec![good(1)]);
    let made = client(&server).generate(&ImageRequest::new("a cat").with_n(2));
    let made = made.unwrap();
    assert!(!made.complete);
    assert!(made.warnings[0].contains("1 of 2"), "{:?}", made.warnings);

    let body = r#"{"error": {"message": "m", "code": "moderation_blocked"}}"#;
    let server = Server::new(vec![super::json(400, &[], body)]);
    match client(&server)
        .generate(&ImageRequest::new("a cat"))
        .unwrap_err()
    {
        Error::Other(error) => {
            let error = error.downcast_ref::<ImagesApiError>().unwrap();
            assert_eq!(error.kind(), ImagesApiErrorKind::Moderation);
        }
        error => panic!("{error}"),
    }
    let cancel = CancelToken::new();
    cancel.cancel();
    let mut options = GenerationOptions::default().with_cancel(cancel);
    let stopped = client(&server).generate_with(&ImageRequest::new("a cat"), &mut options);
    assert!(matches!(stopped, Err(Error::Cancelled { .. })));
}
