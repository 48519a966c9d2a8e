//! Requests and options that a pipeline cannot fulfil.

use crate::tiny_pipelines::{latent_scale, open, picture, request, tiny};
use aigc_core::{
    Error,
    text_to_image::{GenerationOptions, ImageRequest, TextToImage},
};
use aigc_pipelines::text_to_image::{
    NoiseSource, PipelineOpenOptions, PipelineOptions, PromptSyntax, Prompts, TextToImagePipeline,
};
use image::GrayImage;

/// The message of an error that names an argument. Servers tell their clients so by the variant,
/// and take others for their own failures.
fn message_of(error: &Error) -> String {
    assert!(matches!(error, Error::InvalidArgument { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn bad_requests_say_what_to_change() {
    let (Some(pipeline), Some(inpainting)) = (open("tiny-sd15"), open("tiny-sd15-inpaint")) else {
        return;
    };
    let expect = |request: ImageRequest, texts: &[&str]| {
        let message = message_of(&pipeline.generate(&request).unwrap_err());
        for text in texts {
            assert!(message.contains(text), "{message}: {text}");
        }
    };
    expect(
        ImageRequest::new(" \n"),
        &["`prompt` is \" \\n\"", "description"],
    );
    // An image to start from may say it all.
    let alone = ImageRequest::new("")
        .with_seed(5)
        .with_num_inference_steps(3);
    let alone = alone.with_image(picture(32, 32), Some(0.5));
    assert_eq!(pipeline.generate(&alone).unwrap().images.len(), 1);
    expect(request().with_n(0), &["`n` is 0, expected 1 to 64"]);
    expect(request().with_n(65), &["`n` is 65, expected 1 to 64"]);
    expect(
        request().with_first_image(usize::MAX),
        &["`first_image` is", "at most"],
    );
    let scale = latent_scale("tiny-sd15").unwrap();
    let nearest = format!(
        "multiples of {scale}, such as {}x{}",
        33 / scale * scale,
        50 / scale * scale
    );
    expect(
        request().with_size(33, 50),
        &["`size` is 33x50", nearest.as_str()],
    );
    expect(
        request().with_size(0, 32),
        &["`size` is 0x32", format!("such as {scale}x32").as_str()],
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
    let message = message_of(&inpainting.generate(&request()).unwrap_err());
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
        message_of(&result.unwrap_err())
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
    let mut generation = GenerationOptions::default();
    let found = sd.generate_with_options(&request(), &options, &mut generation);
    let found = found.unwrap_err().to_string();
    assert!(found.contains("`eta` is 2"), "{found}");
    let mut options = PipelineOptions::default();
    options.denoising_end = Some(0.8);
    let found = message(&sd, &options);
    assert!(
        found.contains("`denoising_end` is 0.8, expected none"),
        "{found}"
    );
    let mut options = PipelineOptions::default();
    options.noise_source = NoiseSource::TorchBatch;
    let later = request().with_first_image(1);
    let found = sd
        .generate_with_options(&later, &options, &mut generation)
        .unwrap_err();
    let found = message_of(&found);
    assert!(found.contains("`first_image` is 1, expected 0"), "{found}");
    let mut prompts = Prompts::new(["a", "b"]);
    prompts.negative_prompt = Some(vec!["c".into()]);
    let found = sd.generate_prompts(
        &prompts,
        &request(),
        &PipelineOptions::default(),
        &mut generation,
    );
    let found = message_of(&found.unwrap_err());
    assert!(
        found.contains("`negative_prompt` is 1 texts, expected 2 texts"),
        "{found}"
    );
}

/// Options that a pipeline does not have are said to have no effect.
#[test]
fn options_without_effect_are_reported() {
    let Some(sd) = open("tiny-sd15") else { return };
    let mut options = PipelineOptions::default();
    options.prompt_2 = Some("a dog".into());
    options.true_cfg_scale = 2.0;
    options.guidance_rescale = 0.5;
    options.eta = 0.5;
    let small = request();
    let request = small.clone().with_guidance_scale(1.0);
    let mut generation = GenerationOptions::default();
    let result = sd
        .generate_with_options(&request, &options, &mut generation)
        .unwrap();
    for text in [
        "`prompt_2` has no effect",
        "`true_cfg_scale` has an effect with FLUX.1 only",
        "`guidance_rescale` has no effect",
        "negative prompt has no effect",
        "`eta` has no effect with PNDMScheduler",
    ] {
        let found = result.warnings.iter().any(|warning| warning.contains(text));
        assert!(found, "{text}: {:?}", result.warnings);
    }

    // A guidance scale that nothing uses: FLUX.1 schnell is not told it, dev is.
    let mut scores = PipelineOptions::default();
    scores.size_conditions.aesthetic_scores = Some([6.0, 2.5]);
    let mut scale = PipelineOptions::default();
    scale.guidance_scale = Some(4.0);
    let plain = PipelineOptions::default();
    let (of_scale, of_scores) = ("`guidance_scale` has no effect", "aesthetic_scores` has no");
    for (name, given, options, text, is_said) in [
        ("tiny-flux-schnell", Some(4.0), &plain, of_scale, true),
        ("tiny-flux-schnell", None, &scale, of_scale, true),
        ("tiny-flux-schnell", Some(1.0), &plain, of_scale, false),
        ("tiny-flux-schnell", None, &plain, of_scale, false),
        ("tiny-flux-dev", Some(4.0), &plain, of_scale, false),
        ("tiny-lcm", Some(4.0), &plain, of_scale, false),
        ("tiny-sdxl", None, &scores, of_scores, true),
        ("tiny-sdxl", None, &plain, of_scores, false),
    ] {
        let pipeline = open(name).unwrap();
        let mut request = small.clone();
        request.guidance_scale = given;
        let result = pipeline.generate_with_options(&request, options, &mut generation);
        let warnings = result.unwrap().warnings;
        let found = warnings.iter().any(|warning| warning.contains(text));
        assert_eq!(found, is_said, "{name} {given:?}: {warnings:?}");
    }
}

#[test]
fn controlnets_of_other_networks_are_refused() {
    let (Some(sd), Some(xl)) = (open("tiny-sd15"), open("tiny-sdxl")) else {
        return;
    };
    let dir = tiny("tiny-sd15-controlnet").unwrap();
    let options = PipelineOpenOptions::default();
    let request = request().with_control_image(picture(32, 32));
    let fitting = sd.with_controlnet_from(&dir, &options).unwrap();
    assert_eq!(fitting.generate(&request).unwrap().images.len(), 1);
    let other = xl.with_controlnet_from(&dir, &options).unwrap();
    let message = other.generate(&request).unwrap_err().to_string();
    assert!(message.contains("`controlnet: "), "{message}");
}
