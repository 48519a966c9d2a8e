//! ControlNets of pipelines: several at once, images of their own, directories, Stable Diffusion
//! XL.

use crate::tiny_pipelines::{apart, latent_scale, open, picture, pixels, request, tiny};
use aigc_core::{
    Error, Result,
    device::device,
    params::{ParamMapper, map_params},
    rng::{InitWeights, Rng},
    text_to_image::{GenerationOptions, ImageRequest, TextToImage},
};
use aigc_diffusion::{AnyDenoiser, ControlNetConfig, ControlNetModel};
use aigc_pipelines::text_to_image::{ControlSettings, PipelineOptions, TextToImagePipeline};
use burn::{module::Param, tensor::Tensor};
use image::{DynamicImage, Rgb, RgbImage};
use serde_json::Value;
use std::path::Path;

/// Changes the last convolutions, which are zero before training.
struct Change(Rng);

impl ParamMapper for Change {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !path.starts_with("controlnet_") {
            return param;
        }
        let value = param.val();
        let drawn = self.0.normal(value.dims(), &value.device()) * 0.3;
        param.map(|value| value + drawn)
    }
}

fn changed(network: ControlNetModel) -> ControlNetModel {
    map_params(network, &mut Change(Rng::new(4)))
}

/// The ControlNet of the fixtures for Stable Diffusion 1.
fn first() -> Option<ControlNetModel> {
    let dir = tiny("tiny-sd15-controlnet")?;
    let opened = ControlNetModel::from_pretrained(dir, &device("flex").unwrap());
    Some(opened.unwrap().into_inner())
}

fn other_picture() -> DynamicImage {
    let pixel = |x: u32, y: u32| Rgb([(6 * y) as u8, 200, (3 * x) as u8]);
    DynamicImage::ImageRgb8(RgbImage::from_fn(32, 32, pixel))
}

fn own(image: DynamicImage, scale: f64) -> ControlSettings {
    ControlSettings::default()
        .with_image(image)
        .with_conditioning_scale(scale)
}

fn run(
    pipeline: &TextToImagePipeline,
    request: &ImageRequest,
    control: &[ControlSettings],
) -> Result<RgbImage> {
    let mut options = PipelineOptions::default();
    options.control = control.to_vec();
    let mut generation = GenerationOptions::default();
    let result = pipeline.generate_with_options(request, &options, &mut generation)?;
    Ok(pixels(&result).remove(0))
}

/// Writes a pipeline and opens it again, with as many ControlNets.
fn again(pipeline: &TextToImagePipeline, dir: &Path, class: &str) -> TextToImagePipeline {
    pipeline.save_pretrained(dir).unwrap();
    let text = std::fs::read_to_string(dir.join("model_index.json")).unwrap();
    let index: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(index["controlnet"][1], class);
    let opened = TextToImagePipeline::from_pretrained(dir, &device("flex").unwrap()).unwrap();
    assert!(
        opened.unused_fields.is_empty() && opened.unused_tensors.is_empty(),
        "{opened}"
    );
    let count = |pipeline: &TextToImagePipeline| {
        let parts = pipeline.report().parts;
        parts
            .iter()
            .filter(|part| part.name == "controlnet")
            .count()
    };
    assert_eq!(count(&opened), count(pipeline));
    opened.into_inner()
}

#[test]
fn two_controlnets_follow_images_of_their_own() {
    let (Some(first), Some(pipeline)) = (first(), open("tiny-sd15")) else {
        return;
    };
    let second = changed(first.clone());
    let (a, b) = (picture(32, 32), other_picture());
    let request = request();
    let with_first = open("tiny-sd15").unwrap().with_controlnet(first.clone());
    let with_second = open("tiny-sd15").unwrap().with_controlnet(second.clone());
    let both = pipeline.with_controlnet(first).with_controlnet(second);
    let run = |pipeline: &TextToImagePipeline, control: &[ControlSettings]| {
        run(pipeline, &request, control).unwrap()
    };

    // An image of its own is as one of the request.
    let one = run(&with_first, &[own(a.clone(), 1.0)]);
    let of_request = request.clone().with_control_image(a.clone());
    assert_eq!(self::run(&with_first, &of_request, &[]).unwrap(), one);
    let two = run(&with_second, &[own(b.clone(), 1.0)]);
    let together = run(&both, &[own(a.clone(), 1.0), own(b.clone(), 1.0)]);
    let swapped = run(&both, &[own(b.clone(), 1.0), own(a.clone(), 1.0)]);
    for other in [&one, &two, &swapped] {
        assert_ne!(&together, other);
    }
    // One that adds nothing is as none.
    let found = run(&both, &[own(a.clone(), 1.0), own(b.clone(), 0.0)]);
    assert_eq!(found, one);
    let found = run(&both, &[own(a.clone(), 0.0), own(b.clone(), 1.0)]);
    assert_eq!(found, two);

    // The image of the request is that of those without one, and one is needed.
    let of_request = request.clone().with_control_image(b);
    let settings = [own(a, 1.0)];
    let found = self::run(&both, &of_request, &settings).unwrap();
    assert_eq!(found, together);
    let error = self::run(&both, &request, &settings).unwrap_err();
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("for ControlNet 1"), "{message}");
}

/// What they add is summed: two parts of one ControlNet are the whole.
#[test]
fn controlnets_are_summed() {
    let (Some(network), Some(pipeline)) = (first(), open("tiny-sd15")) else {
        return;
    };
    let pipeline = pipeline.with_controlnet(network.clone());
    let request = request().with_control_image(picture(32, 32));
    let whole = run(&pipeline, &request, &[]).unwrap();
    let twice = pipeline.with_controlnet(network);
    let parts = [0.25, 0.75].map(|part| own(picture(32, 32), part));
    let found = run(&twice, &request, &parts).unwrap();
    assert!(apart(&found, &whole) <= 1, "{}", apart(&found, &whole));
}

#[test]
fn directories_hold_one_or_several_controlnets() {
    let (Some(first), Some(pipeline)) = (first(), open("tiny-sd15")) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let second = changed(first.clone());
    let settings = [own(picture(32, 32), 1.0), own(other_picture(), 0.7)];
    let one = pipeline.with_controlnet(first);
    let expected = run(&one, &request(), &settings[..1]).unwrap();
    let opened = again(&one, &dir.path().join("one"), "ControlNetModel");
    let found = run(&opened, &request(), &settings[..1]).unwrap();
    assert_eq!(found, expected);

    let two = one.with_controlnet(second);
    let expected = run(&two, &request(), &settings).unwrap();
    let opened = again(&two, &dir.path().join("two"), "MultiControlNetModel");
    assert_eq!(run(&opened, &request(), &settings).unwrap(), expected);
}

#[test]
fn controlnets_guide_stable_diffusion_xl() {
    let (Some(plain), Some(pipeline)) = (open("tiny-sdxl"), open("tiny-sdxl")) else {
        return;
    };
    let AnyDenoiser::UNet2dCondition(unet) = pipeline.network() else {
        panic!("no U-net");
    };
    let mut config = ControlNetConfig::from_unet(unet.config());
    // Each further map has half the side.
    let scale = latent_scale("tiny-sdxl").unwrap();
    config.conditioning_embedding_out_channels = vec![4; scale.ilog2() as usize + 1];
    let network = config.init(&device("flex").unwrap()).unwrap();
    let pipeline = pipeline.with_controlnet(changed(network.init_weights(3)));
    let image = picture(32, 32);
    let without = pixels(&plain.generate(&request()).unwrap()).remove(0);
    let with = |image: DynamicImage, scale| {
        let settings = [own(image, scale)];
        run(&pipeline, &request(), &settings).unwrap()
    };
    let expected = with(image.clone(), 1.0);
    assert_ne!(expected, without);
    assert_ne!(with(other_picture(), 1.0), expected);
    assert_eq!(with(image.clone(), 0.0), without);
    let dir = tempfile::tempdir().unwrap();
    let opened = again(&pipeline, dir.path(), "ControlNetModel");
    let found = run(&opened, &request(), &[own(image, 1.0)]).unwrap();
    assert_eq!(found, expected);
}
