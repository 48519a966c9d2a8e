//! The client of this workspace against the server, and the public Python client.

mod common;

use aigc_core::{
    CancelToken, Error,
    text_to_image::{GenerationOptions, GenerationStage, ImageRequest, TextToImage},
};
use aigc_examples_serve::{RunningServer, ServerConfig};
use aigc_pipelines::openai::{
    ApiKey, CallEvent, CallOptions, CreateImageEditRequest, CreateImageRequest,
    CreateImageVariationRequest, ImageFile, ImageOptions, ImagesApiErrorKind as Kind, OpenAiConfig,
    OpenAiImages, PictureFormat,
};
use aigc_tests::{python_with, run_script};
use common::{Counts, colour, serve, serve_with, wait_until};
use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};
use std::{ops::ControlFlow, time::Duration};

fn client_with(server: &RunningServer, options: ImageOptions) -> OpenAiImages {
    OpenAiImages::new(OpenAiConfig::new(server.base_url()).with_options(options)).unwrap()
}

fn client(server: &RunningServer) -> OpenAiImages {
    client_with(server, ImageOptions::default())
}

fn first_pixel(image: &DynamicImage) -> [u8; 3] {
    image.to_rgb8().get_pixel(0, 0).0
}

#[test]
fn generations_come_as_addresses_and_in_base64() {
    let server = serve();
    let client = client(&server);
    for format in [None, Some("url"), Some("b64_json")] {
        let options = ImageOptions {
            n: Some(3),
            size: Some("48x32".into()),
            response_format: format.map(Into::into),
            ..ImageOptions::default()
        };
        let request = CreateImageRequest::new("a cat").with_options(options);
        let answer = client
            .generations(&request, &mut CallOptions::default())
            .unwrap();
        assert_eq!(answer.images.len(), 3);
        for (i, image) in answer.images.iter().enumerate() {
            assert_eq!(first_pixel(&image.image), colour(3, i));
            assert_eq!((image.image.width(), image.image.height()), (48, 32));
            assert_eq!(image.url.is_some(), format != Some("b64_json"));
            assert_eq!(image.format, PictureFormat::Png);
        }
        assert_eq!((answer.seed, answer.attempts), (Some(3), 1));
        assert_eq!(answer.size.as_deref(), Some("48x32"));
        assert!(answer.request_id.is_some() && answer.usage.is_some());
        assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
    }
    for (name, format) in [("jpeg", PictureFormat::Jpeg), ("webp", PictureFormat::WebP)] {
        let options = ImageOptions {
            output_format: Some(name.into()),
            ..ImageOptions::default()
        };
        let request = CreateImageRequest::new("a cat").with_options(options);
        let answer = client.generations(&request, &mut CallOptions::default());
        let answer = answer.unwrap();
        assert_eq!(answer.images[0].format, format);
        assert!(answer.warnings.is_empty(), "{:?}", answer.warnings);
    }
}

#[test]
fn edits_paint_where_the_mask_is_white() {
    let server = serve();
    let client = client(&server);
    let image: DynamicImage = RgbImage::from_pixel(16, 8, Rgb([9, 8, 7])).into();
    let mut mask = GrayImage::new(16, 8);
    mask.put_pixel(0, 0, Luma([255]));
    let request = ImageRequest::new("a hat")
        .with_image(image.clone(), Some(0.5))
        .with_mask_image(mask.clone())
        .with_seed(5)
        .with_n(2);
    let made = client.generate(&request).unwrap();
    assert_eq!(made.images.len(), 2);
    for (i, made) in made.images.iter().enumerate() {
        let made = made.image.to_rgb8();
        assert_eq!(made.get_pixel(0, 0).0, colour(5, i));
        assert!(made.pixels().skip(1).all(|pixel| pixel.0 == [9, 8, 7]));
    }
    let file = ImageFile::from_image(&image).unwrap();
    let edit = CreateImageEditRequest::new(file.clone(), "a hat")
        .with_mask(ImageFile::from_mask(&mask).unwrap());
    let answer = client.edits(&edit, &mut CallOptions::default()).unwrap();
    assert_eq!(first_pixel(&answer.images[0].image), colour(3, 0));
    let variation = CreateImageVariationRequest::new(file);
    let answer = client.variations(&variation, &mut CallOptions::default());
    let answer = answer.unwrap();
    assert_eq!(first_pixel(&answer.images[0].image), colour(3, 0));
    assert_eq!(answer.images[0].image.width(), 16);
}

#[test]
fn requests_arrive_whole_and_images_can_be_made_alone() {
    let server = serve();
    let client = client(&server);
    let request = ImageRequest::new("a cat")
        .with_n(3)
        .with_size(32, 32)
        .with_seed(2)
        .with_negative_prompt("a dog")
        .with_guidance_scale(2.5)
        .with_num_inference_steps(7);
    let all = client.generate(&request).unwrap();
    assert_eq!(all.request.seed, Some(2));
    assert!(all.warnings.is_empty() && all.complete);
    let third = request.clone().with_first_image(2).with_n(1);
    let third = client.generate(&third).unwrap();
    assert_eq!(third.images[0].index, 2);
    assert_eq!(
        third.images[0].image.to_rgb8(),
        all.images[2].image.to_rgb8()
    );
}

#[test]
fn partial_images_come_before_the_finished_one() {
    let server = serve();
    let options = ImageOptions {
        partial_images: Some(3),
        ..ImageOptions::default()
    };
    let client = client_with(&server, options);
    let mut seen = vec![];
    let mut options = GenerationOptions::default().with_callback(|progress| {
        if progress.stage == GenerationStage::Denoising {
            let pictures = progress.preview.unwrap()();
            seen.push((
                progress.images.clone(),
                progress.step,
                first_pixel(&pictures[0])[0],
            ));
        }
        ControlFlow::Continue(())
    });
    let request = ImageRequest::new("a cat")
        .with_num_inference_steps(8)
        .with_n(2);
    let made = client.generate_with(&request, &mut options).unwrap();
    drop(options);
    assert_eq!(made.images.len(), 2);
    assert_eq!(first_pixel(&made.images[1].image), colour(3, 1));
    let expected: Vec<_> = [(1, 20), (2, 40), (3, 60)]
        .into_iter()
        .flat_map(|(step, grey)| [(0..1, step, grey), (1..2, step, grey)])
        .collect();
    assert_eq!(seen, expected);
}

#[test]
fn errors_name_the_field() {
    let config = ServerConfig::default().with_api_key("sk-right").unwrap();
    let (server, _) = serve_with(config, Duration::ZERO);
    let ask = |key: Option<&str>, prompt: &str, options: ImageOptions| {
        let mut config = OpenAiConfig::new(server.base_url()).with_max_retries(0);
        config.api_key = key.map(|key| ApiKey::new(key).unwrap());
        let client = OpenAiImages::new(config).unwrap();
        let request = CreateImageRequest::new(prompt).with_options(options);
        let result = client.generations(&request, &mut CallOptions::default());
        let error = result.unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!key.is_some_and(|key| shown.contains(key)), "{shown}");
        assert!(error.request_id().is_some(), "{error}");
        (
            error.status().unwrap(),
            error.kind(),
            error.code().unwrap_or_default().to_string(),
            error.param().unwrap_or_default().to_string(),
        )
    };
    let none = ImageOptions::default;
    let with = |name: &str, value: serde_json::Value| {
        let mut options = none();
        options.extra.insert(name.into(), value);
        options
    };
    let right = Some("sk-right");
    for (key, prompt, options, status, kind, code, param) in [
        (
            None,
            "a",
            none(),
            401,
            Kind::Authentication,
            "invalid_api_key",
            "",
        ),
        (
            Some("sk-wrong"),
            "a",
            none(),
            401,
            Kind::Authentication,
            "invalid_api_key",
            "",
        ),
        (
            right,
            "a",
            with("odd", 1.into()),
            400,
            Kind::InvalidRequest,
            "unknown_parameter",
            "odd",
        ),
        (
            right,
            "a",
            with("seed", "x".into()),
            400,
            Kind::InvalidRequest,
            "invalid_value",
            "seed",
        ),
        (
            right,
            "a",
            ImageOptions {
                n: Some(11),
                ..none()
            },
            400,
            Kind::InvalidRequest,
            "invalid_value",
            "n",
        ),
        (
            right,
            "a",
            ImageOptions {
                size: Some("20x20".into()),
                ..none()
            },
            400,
            Kind::InvalidRequest,
            "invalid_value",
            "size",
        ),
        (
            right,
            "a",
            ImageOptions {
                model: Some("other".into()),
                ..none()
            },
            404,
            Kind::NotFound,
            "model_not_found",
            "model",
        ),
        (right, "fail", none(), 500, Kind::Server, "server_error", ""),
        (
            right,
            "panic",
            none(),
            500,
            Kind::Server,
            "server_error",
            "",
        ),
        (
            right,
            "fail",
            ImageOptions {
                stream: Some(true),
                ..none()
            },
            500,
            Kind::Server,
            "server_error",
            "",
        ),
        // The status was sent before.
        (
            right,
            "fail later",
            ImageOptions {
                stream: Some(true),
                ..none()
            },
            200,
            Kind::Server,
            "server_error",
            "",
        ),
    ] {
        let found = ask(key, prompt, options);
        assert_eq!(found, (status, kind, code.into(), param.into()));
    }
}

#[test]
fn busy_server_is_asked_again() {
    let mut config = ServerConfig::default();
    config.queue = 0;
    let (server, counts) = serve_with(config, Duration::from_millis(300));
    let client = client(&server);
    let ask = || {
        let request = CreateImageRequest::new("a cat");
        let answer = client.generations(&request, &mut CallOptions::default());
        answer.unwrap().attempts
    };
    std::thread::scope(|scope| {
        let first = scope.spawn(ask);
        wait_until("the first request is made", || {
            Counts::of(&counts.begun) == 1
        });
        assert!(ask() > 1);
        assert_eq!(first.join().unwrap(), 1);
    });
    assert_eq!(Counts::of(&counts.finished), 2);
}

#[test]
fn cancelling_the_client_stops_the_model() {
    for partial_images in [None, Some(3)] {
        let (server, counts) = serve_with(ServerConfig::default(), Duration::from_millis(20));
        let options = ImageOptions {
            partial_images,
            ..ImageOptions::default()
        };
        let client = client_with(&server, options);
        let cancel = CancelToken::new();
        let result = std::thread::scope(|scope| {
            let call = scope.spawn(|| {
                let mut options = GenerationOptions::default().with_cancel(cancel.clone());
                let request = ImageRequest::new("a cat").with_num_inference_steps(200);
                client.generate_with(&request, &mut options)
            });
            wait_until("the request is made", || Counts::of(&counts.begun) == 1);
            cancel.cancel();
            call.join().unwrap()
        });
        assert!(matches!(result, Err(Error::Cancelled { .. })), "{result:?}");
        wait_until("the model is stopped", || server.load() == 0);
        assert_eq!(Counts::of(&counts.cancelled), 1);
        assert!(Counts::of(&counts.steps) < 200);
    }
    // A callback stops it, too.
    let (server, counts) = serve_with(ServerConfig::default(), Duration::from_millis(20));
    let options = ImageOptions {
        stream: Some(true),
        partial_images: Some(3),
        ..ImageOptions::default()
    };
    let mut request = CreateImageRequest::new("a cat").with_options(options);
    let steps = serde_json::Value::from(40);
    request
        .options
        .extra
        .insert("num_inference_steps".into(), steps);
    let mut options = CallOptions::default().with_callback(|event| match event {
        CallEvent::PartialImage(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let error = client(&server)
        .generations(&request, &mut options)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Cancelled);
    wait_until("the model is stopped", || server.load() == 0);
    assert_eq!(
        (Counts::of(&counts.cancelled), Counts::of(&counts.finished)),
        (1, 0)
    );
}

#[test]
fn openai_python_client_is_served() {
    let Some(python) = python_with("openai") else {
        return;
    };
    let mut config = ServerConfig::default().with_api_key("sk-right").unwrap();
    config.queue = 0;
    config.max_body_bytes = 1_000_000;
    let (server, counts) = serve_with(config, Duration::from_millis(20));
    let folder = tempfile::tempdir().unwrap();
    let open = serve();
    let case = serde_json::json!({
        "base_url": server.base_url(), "api_key": "sk-right", "open_url": open.base_url()
    });
    std::fs::write(folder.path().join("serve.json"), case.to_string()).unwrap();
    let printed = run_script(&python, "openai_client.py", folder.path());
    let report: serde_json::Value = serde_json::from_str(&printed).unwrap();
    let passed: Vec<&str> = report["passed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert_eq!(
        passed,
        [
            "models",
            "generations_url",
            "generations_base64",
            "output_formats",
            "edits",
            "edits_with_mask",
            "edits_without_mask_channel",
            "variations",
            "streaming",
            "streaming_edits",
            "raw_answer",
            "asynchronous",
            "error_authentication",
            "error_permission",
            "error_invalid_value",
            "error_unknown_parameter",
            "error_missing_parameter",
            "error_model_not_found",
            "error_not_found",
            "error_method",
            "error_too_large",
            "error_content_type",
            "error_image",
            "error_server",
            "error_busy",
            "error_stream",
            "error_in_stream",
            "hanging_up",
        ]
    );
    wait_until("nothing is left to do", || server.load() == 0);
    assert!(Counts::of(&counts.cancelled) >= 1);
}
