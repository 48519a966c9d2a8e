//! Fields of requests, good and bad.

use super::*;
use serde_json::{Value, json};

fn read(endpoint: Endpoint, values: Value, files: &[&str]) -> Result<ImagesCall, ApiError> {
    let Value::Object(values) = values else {
        unreachable!()
    };
    let files = files
        .iter()
        .map(|name| (name.to_string(), Bytes::from_static(&[1])));
    let fields = Fields::new(values, files.collect(), false);
    let config = ServerConfig {
        aliases: vec!["dall-e-2".into()],
        ..ServerConfig::default()
    };
    read_call(endpoint, fields, "squares", &config)
}

#[test]
fn fields_become_the_request() {
    let call = read(
        Endpoint::Generations,
        json!({
            "prompt": "a cat", "model": "dall-e-2", "n": 2, "size": "64x32", "quality": "low",
            "response_format": "b64_json", "style": "vivid", "background": "auto",
            "output_format": "jpeg", "output_compression": 80, "moderation": "low",
            "user": "me", "seed": 7, "negative_prompt": "a dog", "guidance_scale": 3.5,
            "first_image": 1, "stream": null
        }),
        &[],
    )
    .unwrap();
    let expected = ImageRequest::new("a cat")
        .with_n(2)
        .with_size(64, 32)
        .with_seed(7)
        .with_negative_prompt("a dog")
        .with_guidance_scale(3.5)
        .with_first_image(1)
        .with_num_inference_steps(10);
    assert_eq!(call.request, expected);
    assert_eq!(call.output, OutputFormat::Jpeg(80));
    assert_eq!(call.response_format, ResponseFormat::Base64);
    assert_eq!(
        (call.quality, call.stream, call.partial_images),
        ("low", false, 0)
    );

    let call = read(
        Endpoint::Generations,
        json!({"prompt": "a cat", "size": "auto"}),
        &[],
    );
    let call = call.unwrap();
    assert_eq!(call.request, ImageRequest::new("a cat"));
    assert_eq!(call.response_format, ResponseFormat::Url);
    let call = read(
        Endpoint::Edits,
        json!({"prompt": "a", "input_fidelity": "high"}),
        &["image[]"],
    );
    assert_eq!(call.unwrap().request.strength, Some(0.5));
    let call = read(Endpoint::Variations, json!({"n": 2}), &["image"]).unwrap();
    assert_eq!(
        call.request.prompt,
        ServerConfig::default().variation_prompt
    );
    let streamed = json!({"prompt": "a", "stream": true, "partial_images": 3});
    let call = read(Endpoint::Generations, streamed, &[]).unwrap();
    assert_eq!((call.stream, call.partial_images), (true, 3));
    assert_eq!(call.response_format, ResponseFormat::Base64);
}

/// Code of the error of a request with a field that is not possible, and checks its name.
fn code(endpoint: Endpoint, values: Value, files: &[&str], param: &str) -> &'static str {
    let error = read(endpoint, values, files).unwrap_err();
    assert_eq!(error.param.as_deref(), Some(param), "{}", error.message);
    assert!(error.message.contains(param), "{}", error.message);
    error.code.unwrap()
}

#[test]
fn values_that_are_not_possible_are_named() {
    let long = "é".repeat(32_001);
    for (param, value) in [
        ("prompt", json!(" ")),
        ("prompt", json!(3)),
        ("prompt", json!(long)),
        ("negative_prompt", json!(long)),
        ("n", json!(0)),
        ("n", json!(11)),
        ("n", json!("2")),
        ("size", json!("64")),
        ("size", json!("0x64")),
        ("size", json!("4096x64")),
        ("quality", json!("best")),
        ("response_format", json!("png")),
        ("style", json!("natural")),
        ("background", json!("transparent")),
        ("output_format", json!("gif")),
        ("output_compression", json!(50)),
        ("moderation", json!("high")),
        ("partial_images", json!(1)),
        ("stream", json!(1)),
        ("seed", json!(-1)),
        ("guidance_scale", json!("x")),
        ("num_inference_steps", json!(201)),
    ] {
        let mut values = json!({"prompt": "a cat"});
        values[param] = value;
        let found = code(Endpoint::Generations, values, &[], param);
        assert_eq!(found, "invalid_value", "{param}");
    }
    let streamed = json!({"prompt": "a", "stream": true, "response_format": "url"});
    let found = code(Endpoint::Generations, streamed, &[], "response_format");
    assert_eq!(found, "invalid_value");
}

#[test]
fn fields_that_are_missing_or_unknown_are_named() {
    use Endpoint::{Edits, Generations, Variations};
    let (missing, unknown) = ("missing_required_parameter", "unknown_parameter");
    let invalid = "invalid_value";
    let a = || json!({"prompt": "a"});
    let with = |name: &str, value: Value| {
        let mut values = a();
        values[name] = value;
        values
    };
    for (endpoint, values, files, param, expected) in [
        (Generations, json!({}), &[][..], "prompt", missing),
        (Generations, json!({"prompt": null}), &[], "prompt", missing),
        (
            Generations,
            with("model", json!("other")),
            &[],
            "model",
            "model_not_found",
        ),
        (
            Generations,
            with("strength", json!(0.5)),
            &[],
            "strength",
            unknown,
        ),
        (Generations, with("odd", json!(1)), &[], "odd", unknown),
        (Generations, a(), &["image"], "image", unknown),
        (Edits, a(), &[], "image", missing),
        (Edits, with("image", json!("x")), &[], "image", invalid),
        (Edits, a(), &["image[]", "image[]"], "image", invalid),
        (Edits, a(), &["image", "mask", "mask"], "mask", invalid),
        (
            Edits,
            with("strength", json!(1.5)),
            &["image"],
            "strength",
            invalid,
        ),
        (
            Edits,
            with("style", json!("vivid")),
            &["image"],
            "style",
            unknown,
        ),
        (Variations, a(), &["image"], "prompt", unknown),
        (Variations, json!({}), &["image", "mask"], "mask", unknown),
        (
            Variations,
            json!({"stream": true}),
            &["image"],
            "stream",
            unknown,
        ),
    ] {
        assert_eq!(code(endpoint, values, files, param), expected, "{param}");
    }
}
