//! Parts in memory: when they are opened, weights in half precision, estimates.

use crate::{
    differences::tensors_apart,
    tiny_pipelines::{copy_dir, open, open_with, picture, pixels, request, tiny},
};
use aigc_core::{
    device::device,
    params::{ParamMapper, map_params},
    text_to_image::{
        GeneratedImages, GenerationOptions, GenerationStage, ImageRequest, TextToImage,
    },
    weights::WeightDtype,
};
use aigc_pipelines::text_to_image::{
    NoiseSource, PipelineOpenOptions, PipelineOptions, PreviewDecoder, Prompts, Residency,
    TextToImagePipeline, Tiling, noise_of_images,
};
use aigc_vae::AutoencoderKl;
use burn::{module::Param, tensor::Tensor};
use std::ops::ControlFlow;

/// Names of text encoders.
const ENCODERS: [&str; 3] = ["text_encoder", "text_encoder_2", "text_encoder_3"];

/// Names of the parts that are in memory.
fn in_memory(pipeline: &TextToImagePipeline) -> Vec<String> {
    let text = format!("{pipeline:?}");
    let mut names = vec![];
    for part in text.split("Part { name: \"").skip(1) {
        let (name, rest) = part.split_once('"').unwrap();
        if rest.starts_with(", in_memory: true") {
            names.push(name.to_owned());
        }
    }
    names
}

#[test]
fn parts_are_opened_when_needed_and_released() {
    for (name, network, encoders) in [("tiny-sd15", "unet", 1), ("tiny-sd3", "transformer", 3)] {
        let encoders = &ENCODERS[..encoders];
        let Some(always) = open(name) else { return };
        let expected = pixels(&always.generate(&request().with_n(2)).unwrap());
        for residency in [Residency::OnDemand, Residency::WhileNeeded] {
            let options = PipelineOpenOptions::default().with_residency(residency);
            let pipeline = open_with(name, &options).unwrap();
            assert!(in_memory(&pipeline).is_empty());
            let mut seen = vec![];
            let mut generation = GenerationOptions::default().with_callback(|progress| {
                // The default preview opens the autoencoder.
                let previews = progress.preview.map(|preview| preview().len());
                assert_ne!(previews, Some(0));
                seen.push((progress.stage, progress.step, in_memory(&pipeline)));
                ControlFlow::Continue(())
            });
            let made = pipeline.generate_with(&request().with_n(2), &mut generation);
            drop(generation);
            assert_eq!(pixels(&made.unwrap()), expected, "{name} {residency:?}");
            let kept = if residency == Residency::OnDemand {
                encoders.len() + 2
            } else {
                0
            };
            assert_eq!(in_memory(&pipeline).len(), kept, "{name} {residency:?}");
            assert!(seen.len() > 8, "{seen:?}");
            if residency == Residency::OnDemand {
                continue;
            }
            for (stage, step, found) in seen {
                let needed = match (stage, step) {
                    // What was used before is released.
                    (GenerationStage::Loading, _) | (GenerationStage::Encoding, 1) => vec![],
                    (GenerationStage::Encoding, _) => encoders.to_vec(),
                    (GenerationStage::Denoising, _) => vec![network],
                    _ => vec!["vae"],
                };
                assert_eq!(found, needed, "{name} {stage:?} {step}");
            }
        }
    }
}

/// Opening parts is reported before the stage that needs them, and only then.
#[test]
fn opening_parts_is_reported() {
    use GenerationStage::{Decoding, Denoising, Encoding, Loading};
    let from_image = request().with_image(picture(32, 32), Some(0.5));
    let opened = [Loading, Encoding, Loading, Denoising, Loading, Decoding];
    let in_memory = [Encoding, Denoising, Decoding];
    for (residency, first, second) in [
        (Residency::Always, &in_memory[..], &in_memory[..]),
        (Residency::OnDemand, &opened[..], &in_memory[..]),
        (Residency::WhileNeeded, &opened[..], &opened[..]),
    ] {
        let options = PipelineOpenOptions::default().with_residency(residency);
        let Some(pipeline) = open_with("tiny-sd15", &options) else {
            return;
        };
        let stages = |request: &ImageRequest| {
            let mut seen = vec![];
            let mut generation = GenerationOptions::default().with_callback(|progress| {
                seen.push(progress.stage);
                ControlFlow::Continue(())
            });
            let made = pipeline.generate_with(request, &mut generation);
            drop(generation);
            made.unwrap();
            seen.dedup();
            seen
        };
        assert_eq!(stages(&request()), first, "{residency:?}");
        assert_eq!(stages(&request()), second, "{residency:?}");
        assert_eq!(stages(&from_image), second, "{residency:?}");
    }
}

/// An image to start from is encoded once: batches after the first one do without the autoencoder,
/// which would be in memory beside the network.
#[test]
fn further_batches_need_no_autoencoder() {
    let Some(from) = tiny("tiny-sd15") else {
        return;
    };
    let (dir, flex) = (tempfile::tempdir().unwrap(), device("flex").unwrap());
    copy_dir(&from, dir.path());
    let options = PipelineOpenOptions::default().with_residency(Residency::WhileNeeded);
    let opened = TextToImagePipeline::from_pretrained_with(dir.path(), &options, &flex);
    let pipeline = opened.unwrap().into_inner();
    let request = request().with_image(picture(32, 32), Some(0.5));
    let job = pipeline.prepare(&request, pipeline.options()).unwrap();
    let prompts = Prompts::new(["a photo of a cat"]).with_negative_prompt(["blurry"]);
    let embeddings = pipeline.encode_prompts(&prompts, &job).unwrap();
    let start = || {
        let mut noise = noise_of_images(NoiseSource::Torch, 5, 0..1);
        let denoising = pipeline.denoise(&job, &embeddings, &[0], noise.as_mut());
        denoising.unwrap().into_latents()
    };
    let first = start();
    // It cannot be opened any more.
    let weights = dir.path().join("vae/diffusion_pytorch_model.safetensors");
    std::fs::write(weights, "").unwrap();
    assert_eq!(tensors_apart(start(), first.clone()), 0.0);
    assert!(pipeline.decode(&job, first).is_err());
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

/// Multiplies the first layer of a decoder or an encoder, so that 16 bits do not hold it. The norms
/// after it divide by as much.
struct Enlarge(&'static str);

impl ParamMapper for Enlarge {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match path.starts_with(self.0) {
            true => param.map(|tensor| tensor * 1e7),
            false => param,
        }
    }
}

/// Opens a pipeline whose autoencoder has a layer that 16 bits do not hold.
fn with_large(layer: &'static str) -> Option<impl Fn(WeightDtype) -> TextToImagePipeline> {
    let from = tiny("tiny-sd15")?;
    let (dir, flex) = (tempfile::tempdir().unwrap(), device("flex").unwrap());
    copy_dir(&from, dir.path());
    let vae = AutoencoderKl::from_pretrained(from.join("vae"), &flex).unwrap();
    let large = map_params(vae.into_inner(), &mut Enlarge(layer));
    large.save_pretrained(dir.path().join("vae")).unwrap();
    Some(move |dtype| {
        let options = PipelineOpenOptions::default().with_dtype(dtype);
        let opened = TextToImagePipeline::from_pretrained_with(dir.path(), &options, &flex);
        opened.unwrap().into_inner()
    })
}

/// How often warnings say that the autoencoder overflowed.
fn overflows(result: &GeneratedImages) -> usize {
    let said = |warning: &&String| warning.contains("overflowed in 16 bits");
    result.warnings.iter().filter(said).count()
}

#[test]
fn overflowing_autoencoders_are_opened_again_in_32_bits() {
    let Some(open) = with_large("decoder.conv_in.") else {
        return;
    };
    let flex = device("flex").unwrap();
    let whole = open(WeightDtype::F32);
    let result = whole.generate(&request()).unwrap();
    assert!(result.warnings.is_empty(), "{:?}", result.warnings);
    let job = whole
        .prepare(&request(), &PipelineOptions::default())
        .unwrap();
    let latents = Tensor::<4>::ones([1, 4, 8, 8], &flex);
    let expected = whole.decode(&job, latents.clone()).unwrap();

    let half = open(WeightDtype::F16);
    let result = half.generate(&request().with_n(2)).unwrap();
    assert_eq!(overflows(&result), 1, "{:?}", result.warnings);
    let decoded = half.decode(&job, latents).unwrap();
    assert_eq!(tensors_apart(decoded, expected), 0.0);
    // It stays open in 32 bits: nothing overflows again.
    let again = half.generate(&request()).unwrap();
    assert!(again.warnings.is_empty(), "{:?}", again.warnings);
}

/// Previews are not made of numbers that are not finite either.
#[test]
fn overflowing_previews_are_decoded_in_32_bits() {
    let Some(open) = with_large("decoder.conv_in.") else {
        return;
    };
    for decoder in [PreviewDecoder::Small, PreviewDecoder::Linear] {
        let half = open(WeightDtype::F16);
        let mut options = PipelineOptions::default();
        options.preview = decoder;
        let mut previews = vec![];
        let mut generation = GenerationOptions::default().with_callback(|progress| {
            previews.extend(progress.preview.into_iter().flat_map(|preview| preview()));
            ControlFlow::Continue(())
        });
        let made = half.generate_with_options(&request(), &options, &mut generation);
        drop(generation);
        assert_eq!(overflows(&made.unwrap()), 1);
        assert_eq!(previews.len(), 4);
        for preview in previews {
            let preview = preview.to_rgb8();
            let first = preview.get_pixel(0, 0);
            let is_plain = preview.pixels().all(|pixel| pixel == first);
            assert!(!is_plain, "{:?}: {first:?}", options.preview);
        }
    }
}

/// Also the encoder, which nothing else tells of.
#[test]
fn overflowing_encoders_are_reported() {
    let Some(open) = with_large("encoder.conv_in.") else {
        return;
    };
    let request = request().with_image(picture(32, 32), Some(0.5));
    let whole = open(WeightDtype::F32).generate(&request).unwrap();
    assert!(whole.warnings.is_empty(), "{:?}", whole.warnings);
    let half = open(WeightDtype::F16);
    let result = half.generate(&request).unwrap();
    assert_eq!(overflows(&result), 1, "{:?}", result.warnings);
    let again = half.generate(&request).unwrap();
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

/// An estimate counts as many images as are made together.
#[test]
fn memory_estimates_count_the_images_of_a_batch() {
    let Some(pipeline) = open("tiny-sd15") else {
        return;
    };
    let mut options = PipelineOptions::default();
    let three = request().with_n(3);
    let estimate = |request: &ImageRequest, options: &PipelineOptions| {
        pipeline.memory_estimate(request, options).unwrap().stages
    };
    let denoising = |options: &PipelineOptions| {
        let stages = estimate(&three, options);
        let found = stages.into_iter().find(|(name, _)| name == "denoising");
        found.unwrap().1
    };
    let made_together = |options: &PipelineOptions| {
        let mut most = 0;
        let mut generation = GenerationOptions::default().with_callback(|progress| {
            if progress.stage == GenerationStage::Denoising {
                most = most.max(progress.images.len() as u64);
            }
            ControlFlow::Continue(())
        });
        let made = pipeline.generate_with_options(&three, options, &mut generation);
        drop(generation);
        made.unwrap();
        most
    };
    let one = denoising(&options);
    let cases = [
        (NoiseSource::Torch, 1, 1),
        (NoiseSource::Torch, 2, 2),
        (NoiseSource::Torch, 8, 3),
        (NoiseSource::TorchBatch, 1, 3),
    ];
    for (source, batch_size, together) in cases {
        (options.noise_source, options.batch_size) = (source, batch_size);
        assert_eq!(made_together(&options), together, "{source:?} {batch_size}");
        assert_eq!(denoising(&options), together * one, "{source:?}");
    }
    let at_once = estimate(&three, &options);
    (options.noise_source, options.batch_size) = (NoiseSource::Torch, 3);
    assert_eq!(estimate(&three, &options), at_once);
    // Embeddings of two prompts are six images.
    let prompts = Prompts::new(["a cat", "a castle"]).with_negative_prompt(["blurry", ""]);
    let job = pipeline.prepare(&three, &options).unwrap();
    options.embeddings = Some(pipeline.encode_prompts(&prompts, &job).unwrap());
    (options.noise_source, options.batch_size) = (NoiseSource::TorchBatch, 1);
    assert_eq!(made_together(&options), 6);
    assert_eq!(denoising(&options), 6 * one);
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
