//! A pipeline on this machine and the same one behind the server make the same images.

mod common;

use aigc_core::{
    Result,
    device::device,
    text_to_image::{GenerationOptions, ImageRequest, TextToImage},
};
use aigc_examples_serve::{ServerConfig, start};
use aigc_pipelines::{
    openai::{
        CallOptions, CreateImageRequest, CreateImageVariationRequest, ImageFile, ImageOptions,
        OpenAiConfig, OpenAiImages,
    },
    text_to_image::{TextToImagePipeline, decode_png_settings},
};
use aigc_tests::folder_from;
use image::{DynamicImage, GrayImage, Luma, Rgb, RgbImage};
use std::{net::TcpListener, ops::ControlFlow, path::Path};

fn open(dir: &Path) -> Result<Box<dyn TextToImage>> {
    let pipeline = TextToImagePipeline::from_pretrained(dir, &device("flex")?)?;
    Ok(Box::new(pipeline.into_inner()))
}

#[test]
fn served_images_are_those_of_the_pipeline() {
    let Some(fixtures) = folder_from("AIGC_FIXTURES") else {
        return;
    };
    let dir = fixtures.join("pipelines/tiny-sd15");
    let local = open(&dir).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let opened = Box::new(move || open(&dir));
    let server = start(listener, ServerConfig::default(), opened).unwrap();
    assert_eq!(server.model(), "tiny-sd15");
    let options = ImageOptions {
        partial_images: Some(1),
        ..ImageOptions::default()
    };
    let config = OpenAiConfig::new(server.base_url());
    let plain = OpenAiImages::new(config.clone()).unwrap();
    let streaming = OpenAiImages::new(config.with_options(options)).unwrap();

    let image = RgbImage::from_fn(64, 64, |x, y| Rgb([x as u8 * 4, y as u8 * 4, 90]));
    let image: DynamicImage = image.into();
    let mask = GrayImage::from_fn(64, 64, |x, _| Luma([if x < 20 { 255 } else { 0 }]));
    let request = ImageRequest::new("a cat wearing a hat")
        .with_negative_prompt("a dog")
        .with_n(2)
        .with_size(64, 64)
        .with_seed(5)
        .with_guidance_scale(4.0)
        .with_num_inference_steps(4);
    let from_image = request.clone().with_image(image.clone(), Some(0.7));
    let masked = from_image.clone().with_mask_image(mask);
    for request in [request, from_image, masked] {
        let expected = local.generate(&request).unwrap();
        for client in [&plain, &streaming] {
            let mut previews = 0;
            let mut options = GenerationOptions::default().with_callback(|progress| {
                previews += progress.preview.map_or(0, |preview| preview().len());
                ControlFlow::Continue(())
            });
            let made = client.generate_with(&request, &mut options).unwrap();
            drop(options);
            assert_eq!(made.images.len(), 2);
            for (made, expected) in made.images.iter().zip(&expected.images) {
                assert_eq!(made.index, expected.index);
                assert_eq!(made.image.to_rgb8(), expected.image.to_rgb8());
            }
            assert_eq!(made.request.seed, expected.request.seed);
            assert_eq!(made.warnings, expected.warnings);
            let is_streaming = client.config().options.partial_images.is_some();
            assert_eq!(previews, if is_streaming { 2 } else { 0 });
        }
    }
    // The image alone says what a variation shows.
    let mut options = ImageOptions::default();
    options.extra.insert("seed".into(), 5.into());
    options.extra.insert("num_inference_steps".into(), 4.into());
    let file = ImageFile::from_image(&image).unwrap();
    let variation = CreateImageVariationRequest::new(file).with_options(options);
    let made = plain.variations(&variation, &mut CallOptions::default());
    let request = ImageRequest::new("")
        .with_image(image, Some(0.5))
        .with_seed(5)
        .with_num_inference_steps(4);
    let expected = local.generate(&request).unwrap();
    assert_eq!(
        made.unwrap().images[0].image.to_rgb8(),
        expected.images[0].image.to_rgb8()
    );
    // Without a size, the model's own; the file says how it was made.
    let options = ImageOptions {
        size: Some("auto".into()),
        extra: variation.options.extra.clone(),
        ..ImageOptions::default()
    };
    let own = CreateImageRequest::new("a cat").with_options(options);
    let made = plain.generations(&own, &mut CallOptions::default());
    let made = made.unwrap();
    let made = &made.images[0];
    let request = ImageRequest::new("a cat")
        .with_seed(5)
        .with_num_inference_steps(4);
    let expected = local.generate(&request).unwrap();
    assert_eq!(made.image.to_rgb8(), expected.images[0].image.to_rgb8());
    let settings = decode_png_settings(&made.bytes).unwrap();
    let mut request = expected.request.clone();
    request.first_image = None;
    assert_eq!(settings.request, request);
    assert_eq!(settings.model_hash, expected.model_hash);
    assert_eq!(settings.settings, expected.settings);
    // What the model cannot make is an error that names the field.
    let odd = ImageRequest::new("a cat").with_size(60, 61);
    let local = local.generate(&odd).unwrap_err().to_string();
    let served = plain.generate(&odd).unwrap_err().to_string();
    assert!(
        local.contains("`size`") && served.contains("`size`"),
        "{local} {served}"
    );
}
