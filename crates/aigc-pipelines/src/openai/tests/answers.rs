//! Good answers in the forms of several servers.

use super::*;
use crate::openai::{
    CreateImageEditRequest, CreateImageVariationRequest, ImageFile, ImageOptions, PictureFormat,
};
use serde_json::json;

fn edited(image: u8) -> ImageFile {
    ImageFile::from_image(&picture(image)).unwrap()
}

#[test]
fn generations_send_what_was_set_and_read_everything() {
    let body = json!({
        "created": 1_713_833_628, "id": "x", "background": "opaque", "output_format": "png",
        "size": "6x4", "quality": "high", "seed": 5,
        "data": [
            {"b64_json": png_base64(1), "revised_prompt": "a red cat", "embedding": null},
            {"b64_json": format!("data:image/png;base64,{}", png_base64(2)), "url": null},
            {"url": format!("data:image/png;base64,{}", png_base64(3))}
        ],
        "usage": {"total_tokens": 100, "output_token_details": {"image_tokens": 50}}
    });
    let id = "x-request-id: req_7";
    let server = Server::new(vec![super::json(200, &[id], &body.to_string())]);
    let options = ImageOptions {
        n: Some(3),
        size: Some("6x4".into()),
        user: Some("someone".into()),
        ..ImageOptions::default()
    };
    let request = CreateImageRequest::new("a cat").with_options(options);
    let config = OpenAiConfig {
        organization: Some("org-1".into()),
        project: Some("proj-1".into()),
        ..config(&server)
    };
    let client = OpenAiImages::new(config).unwrap();
    let answer = client
        .generations(&request, &mut CallOptions::default())
        .unwrap();
    assert_eq!(answer.images.len(), 3);
    for (i, image) in answer.images.iter().enumerate() {
        assert_eq!(image.image.to_rgb8(), picture(i as u8 + 1).to_rgb8());
        assert_eq!((image.bytes.clone(), image.index), (png(i as u8 + 1), i));
        assert_eq!(image.format, PictureFormat::Png);
    }
    assert_eq!(
        answer.images[0].revised_prompt.as_deref(),
        Some("a red cat")
    );
    assert_eq!(answer.created, Some(1_713_833_628));
    assert_eq!(answer.quality.as_deref(), Some("high"));
    assert_eq!(answer.usage.unwrap().output_image_tokens, Some(50));
    assert_eq!((answer.seed, answer.attempts), (Some(5), 1));
    assert_eq!(answer.request_id.as_deref(), Some("req_7"));
    assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);

    let sent = &server.received()[0];
    assert!(
        sent.head
            .starts_with("POST /v1/images/generations HTTP/1.1\r\n")
    );
    assert_eq!(sent.header("openai-organization"), Some("org-1"));
    assert_eq!(sent.header("openai-project"), Some("proj-1"));
    let expected = json!({"prompt": "a cat", "n": 3, "size": "6x4", "user": "someone"});
    assert_eq!(sent.json(), expected);
}

#[test]
fn base64_is_not_asked_of_models_that_always_answer_it() {
    let server = Server::new(vec![good(1)]);
    let options = ImageOptions {
        model: Some("gpt-image-1".into()),
        response_format: Some("b64_json".into()),
        ..ImageOptions::default()
    };
    let request = CreateImageRequest::new("a cat").with_options(options);
    let client = client(&server);
    client
        .generations(&request, &mut CallOptions::default())
        .unwrap();
    let expected = json!({"prompt": "a cat", "model": "gpt-image-1"});
    assert_eq!(server.received()[0].json(), expected);
}

#[test]
fn edits_and_variations_are_forms() {
    let server = Server::new(vec![good(1)]);
    let client = client(&server);
    let mask = image::GrayImage::from_pixel(6, 4, image::Luma([255]));
    let options = ImageOptions {
        n: Some(1),
        ..ImageOptions::default()
    };
    let edit = CreateImageEditRequest::new(edited(1), "a hat")
        .with_mask(ImageFile::from_mask(&mask).unwrap())
        .with_options(options.clone());
    client.edits(&edit, &mut CallOptions::default()).unwrap();
    let two = CreateImageEditRequest {
        images: vec![edited(1), edited(2)],
        mask: None,
        ..edit.clone()
    };
    client.edits(&two, &mut CallOptions::default()).unwrap();
    let variation = CreateImageVariationRequest::new(edited(3)).with_options(options);
    client
        .variations(&variation, &mut CallOptions::default())
        .unwrap();
    let received = server.received();
    let forms: Vec<(String, String)> = received
        .iter()
        .map(|r| {
            let path = r.head.split_whitespace().nth(1).unwrap();
            (path.into(), String::from_utf8_lossy(&r.body).into_owned())
        })
        .collect();
    let names = |form: &str| -> Vec<String> {
        let parts = form.split("form-data; name=\"").skip(1);
        parts
            .map(|part| part.split('"').next().unwrap().into())
            .collect()
    };
    assert_eq!(forms[0].0, "/v1/images/edits");
    assert_eq!(names(&forms[0].1), ["n", "prompt", "image", "mask"]);
    assert_eq!(names(&forms[1].1), ["n", "prompt", "image[]", "image[]"]);
    assert_eq!(forms[2].0, "/v1/images/variations");
    assert_eq!(names(&forms[2].1), ["n", "image"]);
    let sent = received[0].header("content-type").unwrap();
    assert!(sent.starts_with("multipart/form-data; boundary="));

    // A mask of another size is not sent.
    let small = image::GrayImage::new(3, 3);
    let wrong = edit.with_mask(ImageFile::from_mask(&small).unwrap());
    let error = client
        .edits(&wrong, &mut CallOptions::default())
        .unwrap_err();
    assert_eq!(error.param(), Some("mask"));
    assert!(error.to_string().contains("6x4"), "{error}");
    assert_eq!(server.received().len(), 3);
}
