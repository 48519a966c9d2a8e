//! Images to start from and masks, with the pipelines of every family.

use crate::{
    differences::tensors_apart,
    stages::latents,
    tiny_pipelines::{TINY_PIPELINES, open, picture, pixels, request, tiny},
};
use aigc_core::{
    Error,
    device::device,
    text_to_image::{ImageRequest, TextToImage},
};
use aigc_pipelines::text_to_image::{
    NoiseSource, PipelineOptions, TextToImagePipeline, noise_of_images,
};
use aigc_vae::{AutoencoderKl, Vae};
use burn::tensor::{Tensor, TensorData};
use image::{GrayImage, Luma};

const SIDE: u32 = 32;

fn options(pipeline: &TextToImagePipeline) -> PipelineOptions {
    let mut options = PipelineOptions::default();
    let class = pipeline.report().class;
    let reads_t5 = ["StableDiffusion3", "Flux", "PixArt"];
    if reads_t5.iter().any(|family| class.starts_with(family)) {
        options.max_sequence_length = Some(40);
    }
    options
}

/// From an image, of which `strength` is replaced in four steps.
fn from_image(strength: f64) -> ImageRequest {
    let request = request().with_num_inference_steps(4);
    request.with_image(picture(SIDE, SIDE), Some(strength))
}

/// The latents of the image as the first noise of the request draws them.
fn encoded(name: &str) -> Tensor<4> {
    let flex = device("flex").unwrap();
    let dir = tiny(name).expect("opened before").join("vae");
    let vae = AutoencoderKl::from_pretrained(dir, &flex)
        .unwrap()
        .into_inner();
    let image = picture(SIDE, SIDE).to_rgb8();
    let levels: Vec<f32> = image
        .iter()
        .map(|level| f32::from(*level) / 255.0)
        .collect();
    let data = TensorData::new(levels, [1, SIDE as usize, SIDE as usize, 3]);
    let image = Tensor::<4>::from_data(data, &flex).permute([0, 3, 1, 2]);
    let posterior = Vae::<4, 4>::encode(&vae, image);
    let seed = request().seed.expect("a seed");
    let mut noise = noise_of_images(NoiseSource::Torch, seed, 0..1);
    let drawn = noise.posterior(posterior.mean.dims(), &flex);
    vae.scale_latents(posterior.mean + (posterior.logvar * 0.5).exp() * drawn)
}

/// The root of the sum of all squared differences.
fn distance(a: &Tensor<4>, b: &Tensor<4>) -> f64 {
    let off = (a.clone() - b.clone()).into_data();
    let squares: f64 = off.iter::<f64>().map(|off| off * off).sum();
    squares.sqrt()
}

#[test]
fn small_strengths_stay_near_the_image() {
    for name in TINY_PIPELINES {
        let Some(pipeline) = open(name) else { return };
        let (start, options) = (encoded(name), options(&pipeline));
        let [near, far] = [0.25, 1.0].map(|strength| {
            let request = from_image(strength).with_guidance_scale(1.0);
            distance(&latents(&pipeline, &request, &options), &start)
        });
        assert!(near > 0.0 && near < far, "{name}: {near} {far}");
    }
}

#[test]
fn images_to_start_from_follow_the_seed() {
    for name in TINY_PIPELINES {
        let Some(mut pipeline) = open(name) else {
            return;
        };
        *pipeline.options_mut() = options(&pipeline);
        let make = |request: &ImageRequest| pixels(&pipeline.generate(request).unwrap());
        let request = from_image(0.75);
        let first = make(&request);
        assert_eq!(make(&request), first, "{name}");
        assert_ne!(make(&request.with_seed(6)), first, "{name}");
    }
}

/// What a mask leaves out is the image itself at the end, whatever the prompt; the rest is painted.
#[test]
fn unmasked_parts_are_kept() {
    let mask = GrayImage::from_fn(SIDE, SIDE, |x, _| {
        Luma([if x < SIDE / 2 { 255 } else { 0 }])
    });
    let halves = |x: Tensor<4>| {
        let half = x.dims()[3] / 2;
        [x.clone().narrow(3, 0, half), x.narrow(3, half, half)]
    };
    for name in TINY_PIPELINES {
        let Some(pipeline) = open(name) else { return };
        let (options, [image, kept]) = (options(&pipeline), halves(encoded(name)));
        for strength in [0.5, 1.0] {
            let request = from_image(strength).with_mask_image(mask.clone());
            let mut other = request.clone();
            other.prompt = "a castle".into();
            let [one, two] =
                [request, other].map(|request| halves(latents(&pipeline, &request, &options)));
            for found in [&one[1], &two[1]] {
                let worst = tensors_apart(found.clone(), kept.clone());
                assert!(worst < 1e-5, "{name} {strength}: {worst:.1e}");
            }
            let painted = tensors_apart(one[0].clone(), image.clone());
            assert!(painted > 1e-3, "{name} {strength}: {painted:.1e}");
            let [one, two] = [one, two].map(|[painted, _]| painted);
            assert!(tensors_apart(one, two) > 0.0, "{name} {strength}");
        }
    }
}

/// A network for inpainting makes nothing of an image alone.
#[test]
fn networks_for_masks_refuse_images_without_one() {
    let Some(pipeline) = open("tiny-sd15-inpaint") else {
        return;
    };
    let error = pipeline.generate(&from_image(0.75)).unwrap_err();
    let names_mask =
        matches!(&error, Error::InvalidArgument { argument, .. } if argument == "mask_image");
    assert!(names_mask, "{error:?}");
}
