//! Parts in memory: when they are opened, weights in half precision, estimates.

use crate::{
    differences::tensors_apart,
    tiny_pipelines::{copy_dir, open, open_with, picture, pixels, request, tiny},
};
use aigc_core::{
    device::device,
    params::{ParamMapper, map_params},
    text_to_image::{ImageRequest, TextToImage},
    weights::WeightDtype,
};
use aigc_pipelines::text_to_image::{
    PipelineOpenOptions, PipelineOptions, Residency, TextToImagePipeline, Tiling,
};
use aigc_vae::AutoencoderKl;
use burn::{module::Param, tensor::Tensor};

#[test]
fn parts_are_opened_when_needed_and_released() {
    for name in ["tiny-sd15", "tiny-sd3"] {
        let Some(always) = open(name) else { return };
        let expected = pixels(&always.generate(&request().with_n(2)).unwrap());
        for residency in [Residency::OnDemand, Residency::WhileNeeded] {
            let options = PipelineOpenOptions::default().with_residency(residency);
            let pipeline = open_with(name, &options).unwrap();
            let open = |pipeline: &TextToImagePipeline| {
                format!("{pipeline:?}").matches("in_memory: true").count()
            };
            assert_eq!(open(&pipeline), 0);
            let result = pipeline.generate(&request().with_n(2)).unwrap();
            assert_eq!(pixels(&result), expected, "{name} {residency:?}");
            let parts = if name == "tiny-sd3" { 5 } else { 3 };
            let kept = if residency == Residency::OnDemand {
                parts
            } else {
                0
            };
            assert_eq!(open(&pipeline), kept, "{name} {residency:?}");
        }
    }
}

#[test]
fn half_precision_weights_give_nearly_the_same() {
    let Some(pipeline) = open("tiny-sd15") else {
        return;
    };
    let options = PipelineOpenOptions::default().with_dtype(WeightDtype::F16);
    let half = open_with("tiny-sd15", &options).unwrap();
    let image = &pixels(&pipeline.generate(&request()).unwrap())[0];
    let of_half = &pixels(&half.generate(&request()).unwrap())[0];
    let mean: f64 = image
        .iter()
        .zip(of_half.iter())
        .map(|(a, b)| f64::from(a.abs_diff(*b)))
        .sum();
    let mean = mean / image.len() as f64;
    assert!(mean < 4.0, "{mean}");
    let estimate = |pipeline: &TextToImagePipeline| {
        pipeline
            .memory_estimate(&request(), pipeline.options())
            .unwrap()
    };
    let (whole, halved) = (estimate(&pipeline), estimate(&half));
    for ((name, a), (_, b)) in whole.weights.iter().zip(&halved.weights) {
        assert_eq!(*a, 2 * b, "{name}");
    }
    assert!(halved.peak < whole.peak);
}

/// Multiplies the first layer of a decoder, so that 16 bits do not hold it. The norms after it
/// divide by as much.
struct Enlarge;

impl ParamMapper for Enlarge {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match path.starts_with("decoder.conv_in.") {
            true => param.map(|tensor| tensor * 1e7),
            false => param,
        }
    }
}

#[test]
fn overflowing_autoencoders_are_opened_again_in_32_bits() {
    let Some(from) = tiny("tiny-sd15") else {
        return;
    };
    let (dir, flex) = (tempfile::tempdir().unwrap(), device("flex").unwrap());
    copy_dir(&from, dir.path());
    let vae = AutoencoderKl::from_pretrained(from.join("vae"), &flex).unwrap();
    let large = map_params(vae.into_inner(), &mut Enlarge);
    large.save_pretrained(dir.path().join("vae")).unwrap();
    let open = |dtype| {
        let options = PipelineOpenOptions::default().with_dtype(dtype);
        let opened = TextToImagePipeline::from_pretrained_with(dir.path(), &options, &flex);
        opened.unwrap().into_inner()
    };
    let whole = open(WeightDtype::F32);
    let result = whole.generate(&request()).unwrap();
    assert!(result.warnings.is_empty(), "{:?}", result.warnings);
    let job = whole
        .prepare(&request(), &PipelineOptions::default())
        .unwrap();
    let latents = Tensor::<4>::ones([1, 4, 8, 8], &flex);
    let expected = whole.decode(&job, latents.clone()).unwrap();

    let half = open(WeightDtype::F16);
    let result = half.generate(&request()).unwrap();
    let said = |warning: &String| warning.contains("overflowed in 16 bits");
    assert!(result.warnings.iter().any(said), "{:?}", result.warnings);
    let decoded = half.decode(&job, latents).unwrap();
    assert_eq!(tensors_apart(decoded, expected), 0.0);
    // It stays open in 32 bits: nothing overflows again.
    let again = half.generate(&request()).unwrap();
    assert!(again.warnings.is_empty(), "{:?}", again.warnings);
}

#[test]
fn parts_that_are_given_count_in_the_estimate() {
    let Some(pipeline) = open("tiny-sd15") else {
        return;
    };
    let estimate = |pipeline: &TextToImagePipeline| {
        let estimate = pipeline.memory_estimate(&request(), pipeline.options());
        estimate.unwrap()
    };
    let expected = estimate(&pipeline);
    let flex = device("flex").unwrap();
    let dir = tiny("tiny-sd15").unwrap().join("vae");
    let vae = AutoencoderKl::from_pretrained(dir, &flex).unwrap();
    let given = pipeline.with_autoencoder(vae.into_inner()).unwrap();
    assert_eq!(estimate(&given), expected);
}

#[test]
fn memory_estimates_follow_the_request() {
    let Some(pipeline) = open("tiny-sdxl") else {
        return;
    };
    let peak =
        |pipeline: &TextToImagePipeline, request: &ImageRequest, options: &PipelineOptions| {
            pipeline.memory_estimate(request, options).unwrap().peak
        };
    let mut options = PipelineOptions::default();
    options.tiling = Tiling::Never;
    let small = peak(&pipeline, &request().with_size(64, 64), &options);
    let large = peak(&pipeline, &request().with_size(256, 256), &options);
    assert!(large > 2 * small, "{small} {large}");
    // A starting image is encoded before.
    let stages = |request: &ImageRequest| -> Vec<String> {
        let estimate = pipeline.memory_estimate(request, &options).unwrap();
        assert!(estimate.stages.iter().all(|(_, bytes)| *bytes > 0));
        estimate.stages.into_iter().map(|(name, _)| name).collect()
    };
    let usual = ["encoding", "denoising", "decoding"];
    assert_eq!(stages(&request().with_size(64, 64)), usual);
    let from = request().with_image(picture(64, 64), Some(0.8));
    let all = ["encoding", "image_encoding", "denoising", "decoding"];
    assert_eq!(stages(&from), all);
    options.tiling = Tiling::Always;
    assert!(peak(&pipeline, &request().with_size(256, 256), &options) < large);
    let released = PipelineOpenOptions::default().with_residency(Residency::WhileNeeded);
    let released = open_with("tiny-sdxl", &released).unwrap();
    assert!(peak(&released, &request().with_size(64, 64), &options) < small);
}
