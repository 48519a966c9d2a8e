//! Requests to pipelines from beginning to end: order, progress, prompts, starting images.

use crate::{
    differences::tensors_apart,
    tiny_pipelines::{apart, latent_scale, open, open_with, picture, pixels, request},
};
use aigc_core::{
    CancelToken, Error,
    text_to_image::{GenerationOptions, GenerationStage, TextToImage},
};
use aigc_pipelines::text_to_image::{
    NoiseSource, PipelineOpenOptions, PipelineOptions, PreviewDecoder, PromptSyntax, Prompts,
    Residency, TextToImagePipeline, Tiling, noise_of_images,
};
use burn::tensor::Tensor;
use std::ops::ControlFlow;

/// Two networks that share the steps make the image of one that makes them all.
#[test]
fn two_pipelines_share_the_steps() {
    let Some(pipeline) = open("tiny-sdxl") else {
        return;
    };
    let request = request().with_size(64, 64).with_num_inference_steps(6);
    let prompts = Prompts::new(["a photo of a cat"]).with_negative_prompt(["blurry"]);
    let run = |options: &PipelineOptions, latents: Option<Tensor<4>>| {
        let job = pipeline.prepare(&request, options).unwrap();
        let embeddings = pipeline.encode_prompts(&prompts, &job).unwrap();
        let mut noise = noise_of_images(NoiseSource::Torch, 5, 0..1);
        let denoising = match latents {
            None => pipeline.denoise(&job, &embeddings, &[0], noise.as_mut()),
            Some(latents) => pipeline.denoise_from(&job, &embeddings, &[0], latents),
        };
        let mut denoising = denoising.unwrap();
        while denoising.step(noise.as_mut()).unwrap().is_some() {}
        (job.plan().len(), denoising.into_latents())
    };
    let (calls, whole) = run(&PipelineOptions::default(), None);
    let (mut first, mut second) = (PipelineOptions::default(), PipelineOptions::default());
    (first.denoising_end, second.denoising_start) = (Some(0.5), Some(0.5));
    let (before, latents) = run(&first, None);
    let (after, latents) = run(&second, Some(latents));
    assert_eq!(before + after, calls);
    let worst = tensors_apart(latents, whole);
    assert!(worst < 1e-4, "{worst}");

    // A refiner starts from an image without noise; latents are needed without one.
    let mut generation = GenerationOptions::default();
    let message = pipeline.generate_with_options(&request, &second, &mut generation);
    let message = message.unwrap_err().to_string();
    assert!(message.contains("`denoise_from`"), "{message}");
    let from = request.clone().with_image(picture(64, 64), None);
    let made = pipeline.generate_with_options(&from, &second, &mut generation);
    assert_eq!(made.unwrap().request.strength, None);
}

#[test]
fn images_can_be_made_alone_and_in_batches() {
    let Some(mut pipeline) = open("tiny-sd15") else {
        return;
    };
    for source in [NoiseSource::Torch, NoiseSource::Native] {
        pipeline.options_mut().noise_source = source;
        pipeline.options_mut().batch_size = 1;
        let three = pipeline.generate(&request().with_n(3)).unwrap();
        assert!(three.complete && three.images[2].index == 2);
        let last = pipeline.generate(&request().with_first_image(2)).unwrap();
        assert_eq!(last.images[0].index, 2);
        assert_eq!(pixels(&last)[0], pixels(&three)[2]);
        assert_ne!(pixels(&three)[0], pixels(&three)[1]);
        pipeline.options_mut().batch_size = 2;
        let batches = pipeline.generate(&request().with_n(3)).unwrap();
        for (a, b) in pixels(&batches).iter().zip(&pixels(&three)) {
            assert!(apart(a, b) <= 1, "{}", apart(a, b));
        }
    }
}

#[test]
fn several_prompts_are_made_in_order() {
    let Some(pipeline) = open("tiny-sd15") else {
        return;
    };
    let prompts = Prompts::new(["a cat", "a castle"]).with_negative_prompt(["blurry", ""]);
    let mut generation = GenerationOptions::default();
    let options = PipelineOptions::default();
    let request = request().with_n(2);
    let all = pipeline
        .generate_prompts(&prompts, &request, &options, &mut generation)
        .unwrap();
    assert_eq!(all.images.len(), 4);
    let mut alone = request.with_n(1).with_first_image(3);
    (alone.prompt, alone.negative_prompt) = ("a castle".into(), Some(String::new()));
    let last = pipeline.generate(&alone).unwrap();
    assert_eq!(pixels(&last)[0], pixels(&all)[3]);
}

#[test]
fn requests_report_progress_and_stop() {
    for residency in [Residency::Always, Residency::WhileNeeded] {
        let options = PipelineOpenOptions::default().with_residency(residency);
        let Some(pipeline) = open_with("tiny-sd15", &options) else {
            return;
        };
        check_progress_and_stops(&pipeline, residency);
    }
}

fn check_progress_and_stops(pipeline: &TextToImagePipeline, residency: Residency) {
    let request = request().with_n(2);
    let mut seen = vec![];
    let mut generation = GenerationOptions::default().with_callback(|progress| {
        let preview = progress.preview.map(|preview| preview());
        seen.push((
            progress.stage,
            progress.images.clone(),
            progress.step,
            preview,
        ));
        ControlFlow::Continue(())
    });
    let whole = pipeline.generate_with(&request, &mut generation).unwrap();
    drop(generation);
    let denoising: Vec<_> = seen
        .iter()
        .filter(|(stage, images, ..)| *stage == GenerationStage::Denoising && images.start == 1)
        .collect();
    // PNDM calls the network once more than there are steps.
    let steps: Vec<usize> = denoising.iter().map(|(_, _, step, _)| *step).collect();
    assert_eq!(steps, [0, 1, 2, 3, 4]);
    let preview = denoising[4].3.as_ref().unwrap();
    assert_eq!((preview.len(), preview[0].width()), (1, 32));
    let mut linear = pipeline.options().clone();
    linear.preview = PreviewDecoder::Linear;
    let mut widths = vec![];
    let mut generation = GenerationOptions::default().with_callback(|progress| {
        let previews = progress.preview.map(|preview| preview());
        widths.extend(previews.into_iter().flatten().map(|image| image.width()));
        ControlFlow::Continue(())
    });
    let same = pipeline.generate_with_options(&request, &linear, &mut generation);
    drop(generation);
    // A pixel for each latent, and the images are as without previews.
    assert_eq!(widths, [32 / latent_scale("tiny-sd15").unwrap(); 8]);
    assert_eq!(pixels(&same.unwrap()), pixels(&whole));
    assert_eq!(seen.last().unwrap().0, GenerationStage::Decoding);

    // Stopped at every report, by the callback with or without the token: what is finished is
    // returned.
    for stop in 0..seen.len() {
        let cancel = CancelToken::new();
        let mut reports = 0;
        let mut generation = GenerationOptions::default()
            .with_cancel(cancel.clone())
            .with_callback(|_| {
                if reports == stop && stop % 2 == 0 {
                    cancel.cancel();
                }
                reports += 1;
                match reports > stop {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
        let (last, done) = match residency {
            // All images are decoded at the end: those that were denoised before the stop.
            Residency::WhileNeeded => ((GenerationStage::Denoising, 4), &seen[..stop]),
            _ => ((GenerationStage::Decoding, 1), &seen[..=stop]),
        };
        let finished = done
            .iter()
            .filter(|(stage, _, step, _)| (*stage, *step) == last)
            .count();
        let made = pipeline.generate_with(&request, &mut generation);
        drop(generation);
        assert_eq!(reports, stop + 1, "{residency:?}");
        match made {
            Ok(result) => {
                assert_eq!(result.images.len(), finished, "{residency:?} {stop}");
                assert_eq!(result.complete, finished == 2);
                assert_eq!(pixels(&result), pixels(&whole)[..finished]);
            }
            Err(Error::Cancelled { .. }) => assert_eq!(finished, 0, "{residency:?} {stop}"),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn embeddings_are_used_again() {
    let Some(pipeline) = open("tiny-sdxl") else {
        return;
    };
    let expected = pixels(&pipeline.generate(&request()).unwrap());
    let mut options = PipelineOptions::default();
    let job = pipeline.prepare(&request(), &options).unwrap();
    let prompts = Prompts::new(["a photo of a cat"]).with_negative_prompt(["blurry"]);
    options.embeddings = Some(pipeline.encode_prompts(&prompts, &job).unwrap());
    pipeline.release();
    let mut generation = GenerationOptions::default();
    let mut without = request();
    without.prompt = String::new();
    let again = pipeline
        .generate_with_options(&without, &options, &mut generation)
        .unwrap();
    assert_eq!(pixels(&again), expected);
    // Of another pipeline.
    let other = open("tiny-sd15").unwrap();
    let found = other
        .generate_with_options(&without, &options, &mut generation)
        .unwrap_err();
    assert!(
        found
            .to_string()
            .contains("`embeddings.prompt` is 56, expected 32"),
        "{found}"
    );
}

#[test]
fn web_ui_prompts_have_weights_and_pieces() {
    let Some(pipeline) = open("tiny-sd15") else {
        return;
    };
    let mut options = PipelineOptions::default();
    let encode = |options: &PipelineOptions, prompt: &str| {
        let job = pipeline.prepare(&request(), options).unwrap();
        let prompts = Prompts::new([prompt]).with_negative_prompt(["blurry"]);
        pipeline.encode_prompts(&prompts, &job).unwrap()
    };
    let values = |x: burn::tensor::Tensor<3>| -> Vec<f32> { x.into_data().iter().collect() };
    let plain = encode(&options, "a photo of a cat");
    let long = ["a photo of a cat, "; 20].concat();
    assert!(encode(&options, &long).warnings[0].contains("the end of `prompt` was cut"));
    options.prompt_syntax = PromptSyntax::WebUi;
    let same = encode(&options, "a photo (of:1) a cat");
    assert_eq!(
        values(same.prompt.hidden_states),
        values(plain.prompt.hidden_states.clone())
    );
    let weighted = encode(&options, "a photo of a (cat:1.5)");
    assert_eq!(weighted.inputs[0].ids, plain.inputs[0].ids);
    let (weighted, plain) = (
        values(weighted.prompt.hidden_states),
        values(plain.prompt.hidden_states),
    );
    assert_ne!(weighted, plain);
    let mean = |x: &[f32]| x.iter().sum::<f32>() / x.len() as f32;
    assert!((mean(&weighted) - mean(&plain)).abs() < 1e-4);
    let pieces = encode(&options, &long);
    assert!(pieces.warnings.is_empty());
    let [_, tokens, _] = pieces.prompt.hidden_states.dims();
    assert!(tokens > 77 && tokens % 77 == 0, "{tokens}");
    let negative = pieces.negative.unwrap().hidden_states.dims();
    assert_eq!(negative[1], tokens);
    pipeline
        .generate_with_options(&request(), &options, &mut GenerationOptions::default())
        .unwrap();
}

/// Both encoders of FLUX.1 may cut a prompt, CLIP's earlier than T5's.
#[test]
fn encoders_of_flux_say_what_they_cut() {
    let Some(pipeline) = open("tiny-flux-schnell") else {
        return;
    };
    let long = ["a photo of a cat, "; 20].concat();
    let warnings = |options: &PipelineOptions| {
        let job = pipeline.prepare(&request(), options).unwrap();
        let prompts = Prompts::new([long.clone()]).with_negative_prompt([long.clone()]);
        pipeline.encode_prompts(&prompts, &job).unwrap().warnings
    };
    let by_clip = |field: &str| format!("the end of `{field}` was cut for `text_encoder`");
    let by_t5 = |field: &str| format!("the end of `{field}` was cut, ");
    let check = |found: Vec<String>, expected: &[String]| {
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found}");
        }
    };
    let mut options = PipelineOptions::default();
    check(warnings(&options), &[by_clip("prompt")]);
    options.max_sequence_length = Some(16);
    options.true_cfg_scale = 2.0;
    let fields = ["prompt", "negative_prompt"];
    let all: Vec<String> = fields
        .iter()
        .flat_map(|field| [by_t5(field), by_clip(field)])
        .collect();
    check(warnings(&options), &all);
}

#[test]
fn tiles_keep_the_size_of_the_image() {
    let Some(mut pipeline) = open("tiny-sd15") else {
        return;
    };
    let request = request().with_size(96, 128);
    let whole = pixels(&pipeline.generate(&request).unwrap());
    pipeline.options_mut().tiling = Tiling::Always;
    let tiled = pixels(&pipeline.generate(&request).unwrap());
    assert_eq!(whole[0].dimensions(), tiled[0].dimensions());
    let from = request.with_image(picture(96, 128), Some(0.5));
    pipeline.generate(&from).unwrap();
}
