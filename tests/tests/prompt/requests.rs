//! Requests to pipelines from beginning to end, with the small pipelines of the fixtures.

use aigc_core::{
    CancelToken, Error,
    device::device,
    text_to_image::{
        GeneratedImages, GenerationOptions, GenerationStage, ImageRequest, TextToImage,
    },
    weights::WeightDtype,
};
use aigc_pipelines::text_to_image::{
    NoiseSource, PipelineOpenOptions, PipelineOptions, PreviewDecoder, PromptSyntax, Prompts,
    Residency, TextToImagePipeline, Tiling, read_png_settings, save_png,
};
use aigc_tests::{folder_from, python_with, run_script};
use image::{DynamicImage, GrayImage, RgbImage};
use std::{ops::ControlFlow, path::PathBuf};

/// The directory of a small pipeline.
fn tiny(name: &str) -> Option<PathBuf> {
    Some(folder_from("AIGC_FIXTURES")?.join("pipelines").join(name))
}

fn open_with(name: &str, options: &PipelineOpenOptions) -> Option<TextToImagePipeline> {
    let flex = device("flex").unwrap();
    let opened = TextToImagePipeline::from_pretrained_with(tiny(name)?, options, &flex);
    Some(opened.unwrap().into_inner())
}

fn open(name: &str) -> Option<TextToImagePipeline> {
    open_with(name, &PipelineOpenOptions::default())
}

fn request() -> ImageRequest {
    ImageRequest::new("a photo of a cat")
        .with_negative_prompt("blurry")
        .with_size(32, 32)
        .with_seed(5)
        .with_num_inference_steps(3)
}

fn pixels(result: &GeneratedImages) -> Vec<RgbImage> {
    result
        .images
        .iter()
        .map(|image| image.image.to_rgb8())
        .collect()
}

/// The largest difference of two images, in levels.
fn apart(a: &RgbImage, b: &RgbImage) -> u8 {
    assert_eq!(a.dimensions(), b.dimensions());
    a.iter()
        .zip(b.iter())
        .map(|(a, b)| a.abs_diff(*b))
        .max()
        .unwrap()
}

fn picture(width: u32, height: u32) -> DynamicImage {
    let pixel = |x, y| image::Rgb([(7 * x) as u8, (5 * y) as u8, 90]);
    DynamicImage::ImageRgb8(RgbImage::from_fn(width, height, pixel))
}

#[test]
fn bad_requests_say_what_to_change() {
    let (Some(pipeline), Some(inpainting)) = (open("tiny-sd15"), open("tiny-sd15-inpaint")) else {
        return;
    };
    let message = |request: &ImageRequest| pipeline.generate(request).unwrap_err().to_string();
    let expect = |request: ImageRequest, texts: &[&str]| {
        let message = message(&request);
        for text in texts {
            assert!(message.contains(text), "{message}: {text}");
        }
    };
    expect(
        ImageRequest::new(" \n"),
        &["`prompt` is \" \\n\"", "description"],
    );
    expect(request().with_n(0), &["`n` is 0, expected 1 to 64"]);
    expect(request().with_n(65), &["`n` is 65, expected 1 to 64"]);
    expect(
        request().with_size(33, 50),
        &["`size` is 33x50", "multiples of 4, such as 32x48"],
    );
    expect(
        request().with_size(0, 32),
        &["`size` is 0x32", "such as 4x32"],
    );
    expect(
        request().with_size(1 << 20, 32),
        &["`size` is 1048576x32", "such as 16384x32"],
    );
    expect(
        request().with_num_inference_steps(0),
        &["`num_inference_steps` is 0"],
    );
    expect(
        request().with_num_inference_steps(5000),
        &["`num_inference_steps` is 5000"],
    );
    expect(
        request().with_guidance_scale(f64::NAN),
        &["`guidance_scale` is NaN"],
    );
    let from = |strength| request().with_image(picture(32, 32), strength);
    expect(
        from(Some(1.5)),
        &["`strength` is 1.5, expected more than 0, at most 1"],
    );
    expect(from(Some(0.0)), &["`strength` is 0"]);
    expect(
        from(Some(0.1)),
        &["`strength` is 0.1", "at least 0.333, a step of 3"],
    );
    let mut without = request();
    without.strength = Some(0.5);
    expect(without, &["`strength` is 0.5", "without `image`"]);
    expect(
        request().with_mask_image(GrayImage::new(32, 32)),
        &["`mask_image`", "without `image`"],
    );
    let masked = from(None).with_mask_image(GrayImage::new(32, 16));
    expect(
        masked,
        &["`mask_image` is 32x16, expected 32x32, the size of `image`"],
    );
    expect(
        request().with_control_image(picture(32, 32)),
        &["`control_image`", "no ControlNet"],
    );
    let message = inpainting.generate(&request()).unwrap_err().to_string();
    assert!(message.contains("`mask_image` is not given"), "{message}");
}

#[test]
fn options_that_do_not_fit_are_errors() {
    let (Some(sd), Some(flux)) = (open("tiny-sd15"), open("tiny-flux-schnell")) else {
        return;
    };
    let message = |pipeline: &TextToImagePipeline, options: &PipelineOptions| {
        let mut generation = GenerationOptions::default();
        let result = pipeline.generate_with_options(&request(), options, &mut generation);
        result.unwrap_err().to_string()
    };
    let mut options = PipelineOptions::default();
    options.prompt_syntax = PromptSyntax::WebUi;
    let found = message(&flux, &options);
    assert!(
        found.contains("`prompt_syntax` is WebUi, expected Plain"),
        "{found}"
    );
    let mut options = PipelineOptions::default();
    options.max_sequence_length = Some(40);
    assert!(message(&sd, &options).contains("`max_sequence_length` is 40"));
    options.max_sequence_length = Some(1000);
    assert!(message(&flux, &options).contains("`max_sequence_length` is 1000, expected 1 to 512"));
    let mut options = PipelineOptions::default();
    options.clip_skip = Some(9);
    assert!(message(&sd, &options).contains("`clip_skip`"));
    let mut options = PipelineOptions::default();
    options.eta = 2.0;
    assert!(message(&sd, &options).contains("`eta` is 2"));
    let mut options = PipelineOptions::default();
    options.noise_source = NoiseSource::TorchBatch;
    let mut generation = GenerationOptions::default();
    let later = request().with_first_image(1);
    let found = sd
        .generate_with_options(&later, &options, &mut generation)
        .unwrap_err();
    assert!(
        found.to_string().contains("`first_image` is 1, expected 0"),
        "{found}"
    );
    let mut prompts = Prompts::new(["a", "b"]);
    prompts.negative_prompt = Some(vec!["c".into()]);
    let found = sd.generate_prompts(
        &prompts,
        &request(),
        &PipelineOptions::default(),
        &mut generation,
    );
    let found = found.unwrap_err().to_string();
    assert!(
        found.contains("`negative_prompt` is 1 texts, expected 2 texts"),
        "{found}"
    );
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
    let Some(pipeline) = open("tiny-sd15") else {
        return;
    };
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
    assert_eq!(seen.last().unwrap().0, GenerationStage::Decoding);

    // Stopped at every report: what is finished is returned.
    for stop in 0..seen.len() {
        let cancel = CancelToken::new();
        let mut reports = 0;
        let mut generation = GenerationOptions::default()
            .with_cancel(cancel.clone())
            .with_callback(|_| {
                if reports == stop {
                    cancel.cancel();
                }
                reports += 1;
                if cancel.is_cancelled() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            });
        let finished = seen[..=stop]
            .iter()
            .filter(|(stage, _, step, _)| *stage == GenerationStage::Decoding && *step == 1)
            .count();
        match pipeline.generate_with(&request, &mut generation) {
            Ok(result) => {
                assert_eq!(result.images.len(), finished, "{stop}");
                assert_eq!(result.complete, finished == 2);
                assert_eq!(pixels(&result)[0], pixels(&whole)[0]);
            }
            Err(Error::Cancelled { .. }) => assert_eq!(finished, 0, "{stop}"),
            Err(other) => panic!("{other}"),
        }
    }
}

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
    options.tiling = Tiling::Always;
    assert!(peak(&pipeline, &request().with_size(256, 256), &options) < large);
    let released = PipelineOpenOptions::default().with_residency(Residency::WhileNeeded);
    let released = open_with("tiny-sdxl", &released).unwrap();
    assert!(peak(&released, &request().with_size(64, 64), &options) < small);
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

#[test]
fn settings_in_png_files_make_the_image_again() {
    let Some(mut pipeline) = open("tiny-sd15") else {
        return;
    };
    pipeline.options_mut().preview = PreviewDecoder::Small;
    let result = pipeline.generate(&request().with_n(2)).unwrap();
    assert_eq!(result.model_hash.as_ref().unwrap().len(), 64);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("image.png");
    save_png(&result, &result.images[1], &path).unwrap();
    let settings = read_png_settings(&path).unwrap();
    assert_eq!(settings.model, "tiny-sd15");
    let again = pipeline.generate(&settings.request).unwrap();
    assert_eq!(pixels(&again)[0], pixels(&result)[1]);
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

/// Every family makes an image with its defaults, and the directory that it writes makes the same.
#[test]
fn written_directories_make_the_same_images() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = vec![];
    for name in [
        "tiny-sd15",
        "tiny-sd21",
        "tiny-sdxl",
        "tiny-lcm",
        "tiny-sd3",
        "tiny-flux-dev",
        "tiny-flux-schnell",
        "tiny-pixart",
    ] {
        let Some(mut pipeline) = open(name) else {
            return;
        };
        let mut request = request().with_size(64, 64);
        if ["tiny-lcm", "tiny-flux-dev", "tiny-flux-schnell"].contains(&name) {
            request.negative_prompt = None;
        }
        let takes_t5 = name.contains("flux") || name.contains("sd3");
        pipeline.options_mut().max_sequence_length = takes_t5.then_some(40);
        let request = request.with_n(2);
        let expected = pixels(&pipeline.generate(&request).unwrap());
        let folder = dir.path().join(name);
        pipeline.save_pretrained(&folder).unwrap();
        let flex = device("flex").unwrap();
        let again = TextToImagePipeline::from_pretrained(&folder, &flex).unwrap();
        assert!(
            again.unused_tensors.is_empty() && again.unused_fields.is_empty(),
            "{again}"
        );
        let mut again = again.into_inner();
        again.options_mut().max_sequence_length = takes_t5.then_some(40);
        assert_eq!(
            pixels(&again.generate(&request).unwrap()),
            expected,
            "{name}"
        );
        let mut json = serde_json::json!({
            "prompt": request.prompt, "seed": 5, "n": 2, "steps": 3, "width": 64, "height": 64,
        });
        if let Some(negative) = &request.negative_prompt {
            json["negative_prompt"] = negative.clone().into();
        }
        if takes_t5 {
            json["max_sequence_length"] = 40.into();
        }
        std::fs::write(folder.join("request.json"), json.to_string()).unwrap();
        // PixArt's defaults in diffusers need packages for cleaning captions.
        if name != "tiny-pixart" {
            written.push((name, expected));
        } else {
            std::fs::remove_file(folder.join("request.json")).unwrap();
        }
    }
    let Some(python) = python_with("torch,diffusers,transformers") else {
        return;
    };
    let output = run_script(&python, "text_to_image.py", dir.path());
    for (name, images) in written {
        let line = output
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        let line = line.unwrap_or_else(|| panic!("{name}: {output}"));
        let bytes = (0..line.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&line[i..i + 2], 16));
        let theirs: Vec<u8> = bytes.map(Result::unwrap).collect();
        let ours: Vec<u8> = images
            .iter()
            .flat_map(|image| image.as_raw().clone())
            .collect();
        assert_eq!(ours.len(), theirs.len(), "{name}");
        let worst = ours
            .iter()
            .zip(&theirs)
            .map(|(a, b)| a.abs_diff(*b))
            .max()
            .unwrap();
        assert!(worst <= 1, "{name}: off by {worst}");
    }
}
