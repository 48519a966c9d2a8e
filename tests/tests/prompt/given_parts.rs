//! Parts that are given to a pipeline or come beside its usual ones: autoencoders, ControlNets,
//! the safety checker, refiners.

use crate::tiny_pipelines::{apart, copy_dir, open, picture, pixels, request, tiny};
use aigc_core::{
    Error,
    device::device,
    params::{ParamMapper, map_params},
    text_to_image::{GenerationOptions, TextToImage},
};
use aigc_diffusion::ControlNetModel;
use aigc_encoders::clip::{ClipImageProcessor, RgbPixels, StableDiffusionSafetyChecker};
use aigc_pipelines::text_to_image::{
    ControlSettings, PipelineOpenOptions, PipelineOptions, TextToImagePipeline,
};
use aigc_vae::AutoencoderKl;
use burn::{module::Param, tensor::Tensor};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Changes the fields of a directory's index.
fn edit_index(dir: &Path, fields: &[(&str, Value)]) {
    let path = dir.join("model_index.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut index: Value = serde_json::from_str(&text).unwrap();
    for (name, value) in fields {
        index[*name] = value.clone();
    }
    std::fs::write(path, index.to_string()).unwrap();
}

/// The model of a network's case.
fn net(name: &str) -> Option<PathBuf> {
    let pipelines = tiny("")?;
    Some(pipelines.join("../nets").join(name).join("model"))
}

/// Brightens what a decoder makes.
struct Brighten;

impl ParamMapper for Brighten {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match path == "decoder.conv_out.bias" {
            true => param.map(|bias| bias + 0.5),
            false => param,
        }
    }
}

#[test]
fn autoencoders_are_replaced_if_they_fit() {
    let (Some(pipeline), Some(wide)) = (open("tiny-sd15"), tiny("tiny-sd3")) else {
        return;
    };
    let flex = device("flex").unwrap();
    let vae = |dir: PathBuf| {
        let vae = AutoencoderKl::from_pretrained(dir.join("vae"), &flex);
        vae.unwrap().into_inner()
    };
    let own = || vae(tiny("tiny-sd15").unwrap());
    let expected = pixels(&pipeline.generate(&request()).unwrap());
    let pipeline = pipeline.with_autoencoder(own()).unwrap();
    let result = pipeline.generate(&request()).unwrap();
    assert_eq!(pixels(&result), expected);
    let given = ("vae".to_owned(), "given".to_owned());
    assert!(result.settings.contains(&given), "{:?}", result.settings);
    let bright = map_params(own(), &mut Brighten);
    let pipeline = pipeline.with_autoencoder(bright).unwrap();
    let brighter = pixels(&pipeline.generate(&request()).unwrap());
    assert!(apart(&brighter[0], &expected[0]) > 8);
    let mut pairs = brighter[0].iter().zip(expected[0].iter());
    assert!(pairs.all(|(a, b)| a >= b));
    // Latents of 16 channels.
    let error = pipeline.with_autoencoder(vae(wide)).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`vae` is 16 channels") && message.contains("expected 4 channels"),
        "{message}"
    );
}

#[test]
fn controlnets_are_given_or_opened() {
    let (Some(opened), Some(given)) = (open("tiny-sd15"), open("tiny-sd15")) else {
        return;
    };
    let request = request().with_control_image(picture(32, 32));
    let plain = pixels(
        &open("tiny-sd15")
            .unwrap()
            .generate(&self::request())
            .unwrap(),
    );
    let dir = tiny("tiny-sd15-controlnet").unwrap();
    let opened = opened
        .with_controlnet_from(&dir, &PipelineOpenOptions::default())
        .unwrap();
    let network = ControlNetModel::from_pretrained(&dir, &device("flex").unwrap());
    let given = given.with_controlnet(network.unwrap().into_inner());
    let expected = pixels(&opened.generate(&request).unwrap());
    assert_ne!(expected, plain);
    assert_eq!(pixels(&given.generate(&request).unwrap()), expected);
    let reports = [opened.report(), given.report()].map(|report| {
        let mut parts = report.parts.into_iter();
        parts.find(|part| part.name == "controlnet").unwrap()
    });
    assert!(reports[0].has_files && reports[0].tensors > 0);
    assert!(!reports[1].has_files && reports[1].was_opened);
    // One that adds nothing.
    let mut options = PipelineOptions::default();
    options.control = vec![ControlSettings::default().with_conditioning_scale(0.0)];
    let none = given.generate_with_options(&request, &options, &mut GenerationOptions::default());
    assert_eq!(pixels(&none.unwrap()), plain);
}

/// A small pipeline with the safety checker of a case; images become squares of `side`.
fn with_checker(side: usize) -> Option<tempfile::TempDir> {
    let (from, checker) = (tiny("tiny-sd15")?, net("safety-checker")?);
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&from, dir.path());
    copy_dir(&checker, &dir.path().join("safety_checker"));
    let processor = ClipImageProcessor::square(side);
    let to = dir.path().join("feature_extractor");
    processor.save_pretrained(to).unwrap();
    let classes = [
        (
            "safety_checker",
            json!(["stable_diffusion", "StableDiffusionSafetyChecker"]),
        ),
        (
            "feature_extractor",
            json!(["transformers", "CLIPImageProcessor"]),
        ),
    ];
    edit_index(dir.path(), &classes);
    Some(dir)
}

#[test]
fn safety_checkers_flag_images_and_leave_them() {
    let Some(dir) = with_checker(28) else {
        return;
    };
    let flex = device("flex").unwrap();
    let pipeline = TextToImagePipeline::from_pretrained(dir.path(), &flex).unwrap();
    let pipeline = pipeline.into_inner();
    assert!(pipeline.has_safety_checker());
    let result = pipeline.generate(&request().with_n(2)).unwrap();
    let images = pixels(&result);
    let found = pipeline.check_safety(&images).unwrap().unwrap();

    let checker = dir.path().join("safety_checker");
    let checker = StableDiffusionSafetyChecker::from_pretrained(checker, &flex).unwrap();
    let processor = ClipImageProcessor::square(28);
    for (k, (image, found)) in images.iter().zip(&found).enumerate() {
        let image = RgbPixels {
            pixels: image.as_raw(),
            height: 32,
            width: 32,
        };
        let expected = checker.check(processor.preprocess(&[image], &flex).unwrap());
        assert_eq!(found.is_flagged, expected.flags[0]);
        assert_eq!(found.concept_scores, expected.concept_scores[0]);
        let said = format!("the safety checker flags image {k}");
        let warned = result.warnings.iter().any(|text| text.contains(&said));
        assert_eq!(warned, found.is_flagged, "{:?}", result.warnings);
    }

    let estimate = pipeline.memory_estimate(&request(), pipeline.options());
    let weights = estimate.unwrap().weights;
    let has_checker = |(name, bytes): &(String, u64)| name == "safety_checker" && *bytes > 0;
    assert!(weights.iter().any(has_checker), "{weights:?}");
    let parts = pipeline.report().parts;
    assert!(parts.iter().any(|part| part.name == "safety_checker"));

    let written = tempfile::tempdir().unwrap();
    pipeline.save_pretrained(written.path()).unwrap();
    let again = TextToImagePipeline::from_pretrained(written.path(), &flex).unwrap();
    assert_eq!(again.check_safety(&images).unwrap().unwrap(), found);

    let without = pipeline.without_safety_checker();
    assert_eq!(without.check_safety(&images).unwrap(), None);
    let plain = without.generate(&request().with_n(2)).unwrap();
    assert_eq!(pixels(&plain), images);
}

/// An image processor for another checker is an error of its file.
#[test]
fn image_processors_fit_the_safety_checker() {
    let Some(dir) = with_checker(30) else {
        return;
    };
    let flex = device("flex").unwrap();
    let error = TextToImagePipeline::from_pretrained(dir.path(), &flex).unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error:?}");
    let message = error.to_string();
    for text in [
        "preprocessor_config.json",
        "`crop_size` is 30 × 30",
        "28 × 28",
    ] {
        assert!(message.contains(text), "{text}: {message}");
    }
    let options = PipelineOpenOptions::default().without("safety_checker");
    let opened = TextToImagePipeline::from_pretrained_with(dir.path(), &options, &flex);
    assert!(!opened.unwrap().has_safety_checker());
}

/// SDXL's refiner: a network that is told aesthetic scores, and finishes what another has begun.
#[test]
fn refiners_are_told_aesthetic_scores() {
    let (Some(from), Some(network)) = (tiny("tiny-sdxl"), net("unet2d-condition-sdxl-refiner"))
    else {
        return;
    };
    let (dir, flex) = (tempfile::tempdir().unwrap(), device("flex").unwrap());
    copy_dir(&from, dir.path());
    std::fs::remove_dir_all(dir.path().join("unet")).unwrap();
    copy_dir(&network, &dir.path().join("unet"));
    let open = |is_refiner: bool| {
        let class = json!("StableDiffusionXLImg2ImgPipeline");
        let flag = ("requires_aesthetics_score", json!(is_refiner));
        edit_index(dir.path(), &[("_class_name", class), flag]);
        let opened = TextToImagePipeline::from_pretrained(dir.path(), &flex);
        opened.unwrap().into_inner()
    };
    let refiner = open(true);
    let request = request().with_size(64, 64);
    let from = request.clone().with_image(picture(64, 64), Some(0.7));
    let made = |scores: Option<[f64; 2]>| {
        let mut options = PipelineOptions::default();
        options.size_conditions.aesthetic_scores = scores;
        let mut generation = GenerationOptions::default();
        pixels(
            &refiner
                .generate_with_options(&from, &options, &mut generation)
                .unwrap(),
        )
    };
    // diffusers' defaults.
    assert_eq!(made(None), made(Some([6.0, 2.5])));
    assert_ne!(made(None), made(Some([2.0, 9.0])));
    // In place of the target size.
    let mut options = PipelineOptions::default();
    options.size_conditions.target_size = Some([32, 32]);
    let mut generation = GenerationOptions::default();
    let result = refiner.generate_with_options(&from, &options, &mut generation);
    let result = result.unwrap();
    let said = |warning: &String| warning.starts_with("target sizes of `size_conditions`");
    assert!(result.warnings.iter().any(said), "{:?}", result.warnings);
    assert_eq!(pixels(&result), made(None));

    // Written and opened again, it is a refiner.
    let written = tempfile::tempdir().unwrap();
    refiner.save_pretrained(written.path()).unwrap();
    let again = TextToImagePipeline::from_pretrained(written.path(), &flex).unwrap();
    assert_eq!(pixels(&again.generate(&from).unwrap()), made(None));

    // With the six numbers of a base network it is refused.
    let message = open(false).generate(&from).unwrap_err().to_string();
    assert!(message.contains("requires_aesthetics_score"), "{message}");
}
