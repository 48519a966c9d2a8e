//! Settings in PNG files, and the images that are made again of them.

use crate::tiny_pipelines::{apart, open, pixels, request};
use aigc_core::text_to_image::{GenerationOptions, TextToImage};
use aigc_pipelines::text_to_image::{
    ImageSettings, NoiseSource, PipelineOptions, PreviewDecoder, PromptSyntax, Prompts,
    decode_png_settings, encode_png, read_png_settings, save_png,
};

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

/// Also with other options than the pipeline's, several prompts, and one generator for all images.
#[test]
fn options_in_png_files_make_the_image_again() {
    let Some(pipeline) = open("tiny-sd15") else {
        return;
    };
    let mut options = PipelineOptions::default();
    let ddim = pipeline.scheduler().to_class("DDIMScheduler").unwrap();
    options.scheduler = Some(ddim);
    (options.eta, options.guidance_rescale) = (0.5, 0.3);
    options.clip_skip = Some(1);
    options.prompt_syntax = PromptSyntax::WebUi;
    let mut generation = GenerationOptions::default();
    let prompts = Prompts::new(["a (cat:1.3)", "a castle"]).with_negative_prompt(["", "grey"]);
    let several = pipeline
        .generate_prompts(&prompts, &request(), &options, &mut generation)
        .unwrap();
    options.noise_source = NoiseSource::TorchBatch;
    let shared = pipeline
        .generate_with_options(&request().with_n(2), &options, &mut generation)
        .unwrap();
    for result in [several, shared] {
        for (k, image) in result.images.iter().enumerate() {
            let bytes = encode_png(&result, image).unwrap();
            let settings = decode_png_settings(&bytes).unwrap();
            assert!(settings.missing_inputs.is_empty());
            let options = pipeline.options_of(&settings).unwrap();
            let again = pipeline
                .generate_with_options(&settings.request, &options, &mut generation)
                .unwrap();
            let again = &pixels(&again)[settings.position];
            assert!(apart(again, &pixels(&result)[k]) <= 1, "{k}");
        }
    }
    // Values that make no sense are named.
    let mut settings = ImageSettings::default();
    settings.settings = vec![("eta".into(), "much".into())];
    let message = pipeline.options_of(&settings).unwrap_err().to_string();
    assert!(message.contains("`eta` is much"), "{message}");
    settings.settings = vec![("sampler".into(), "DPM++ 2M Karras".into())];
    let options = pipeline.options_of(&settings).unwrap();
    let scheduler = options.scheduler.unwrap().to_json();
    assert!(
        scheduler.contains("DPMSolverMultistepScheduler"),
        "{scheduler}"
    );
    assert!(
        scheduler.contains("\"use_karras_sigmas\": true"),
        "{scheduler}"
    );
    settings.settings = vec![("sampler".into(), "Magic".into())];
    let message = pipeline.options_of(&settings).unwrap_err().to_string();
    assert!(
        message.contains("`sampler` is Magic, expected one of Euler a"),
        "{message}"
    );
}
