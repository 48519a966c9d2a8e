//! Directories of pipelines: written, opened again, and what they say of themselves.

use crate::tiny_pipelines::{TINY_PIPELINES, copy_dir, open, open_with, pixels, request, tiny};
use aigc_core::{
    Error,
    device::device,
    params::{ParamMapper, map_params},
    text_to_image::{GenerationOptions, ImageRequest, TextToImage},
};
use aigc_diffusion::UNet2dConditionModel;
use aigc_pipelines::text_to_image::{
    PipelineFamily, PipelineOpenOptions, PipelineOptions, Residency, TextToImagePipeline,
};
use aigc_tests::{python_with, run_script};
use burn::{module::Param, tensor::Tensor};
use serde_json::{Value, json};
use std::path::Path;

/// Every family makes an image with its defaults, and the directory that it writes makes the same.
#[test]
fn written_directories_make_the_same_images() {
    let dir = tempfile::tempdir().unwrap();
    let mut written = vec![];
    for name in TINY_PIPELINES {
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

fn index(dir: &Path) -> Value {
    let text = std::fs::read_to_string(dir.join("model_index.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

fn open_dir(dir: &Path) -> aigc_core::Result<TextToImagePipeline> {
    let opened = TextToImagePipeline::from_pretrained(dir, &device("flex").unwrap());
    opened.map(|opened| opened.into_inner())
}

/// Guidance scale and steps of a request that leaves them open: of the options, else of the
/// directory, else of diffusers' pipeline.
#[test]
fn directories_have_defaults_of_their_own() {
    let Some(from) = tiny("tiny-sd15") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&from, dir.path());
    let write = |fields: &[(&str, Value)]| {
        let mut index = index(&from);
        for (name, value) in fields {
            index[*name] = value.clone();
        }
        std::fs::write(dir.path().join("model_index.json"), index.to_string()).unwrap();
    };
    let (scale, steps) = ("_default_guidance_scale", "_default_num_inference_steps");
    write(&[(scale, json!(2.5)), (steps, json!(4))]);
    let request = ImageRequest::new("a cat").with_size(32, 32).with_seed(1);
    let used = |pipeline: &TextToImagePipeline, options: &PipelineOptions| {
        let mut generation = GenerationOptions::default();
        let made = pipeline.generate_with_options(&request, options, &mut generation);
        let request = made.unwrap().request;
        (request.guidance_scale, request.num_inference_steps)
    };
    let mut pipeline = open_dir(dir.path()).unwrap();
    let mut options = PipelineOptions::default();
    assert_eq!(used(&pipeline, &options), (Some(2.5), Some(4)));
    options.guidance_scale = Some(3.0);
    assert_eq!(used(&pipeline, &options), (Some(3.0), Some(4)));
    options.num_inference_steps = Some(2);
    assert_eq!(used(&pipeline, &options), (Some(3.0), Some(2)));
    let own = request.clone().with_guidance_scale(1.5);
    let job = pipeline.prepare(&own, &options).unwrap();
    assert_eq!(job.request().guidance_scale, Some(1.5));

    // Written with those of the options before those of the directory.
    pipeline.options_mut().num_inference_steps = Some(3);
    let written = tempfile::tempdir().unwrap();
    pipeline.save_pretrained(written.path()).unwrap();
    let saved = index(written.path());
    assert_eq!((&saved[scale], &saved[steps]), (&json!(2.5), &json!(3)));
    let again = open_dir(written.path()).unwrap();
    let plain = PipelineOptions::default();
    assert_eq!(used(&again, &plain), (Some(2.5), Some(3)));

    write(&[]);
    let job = open_dir(dir.path())
        .unwrap()
        .prepare(&request, &plain)
        .unwrap();
    assert_eq!(job.request().guidance_scale, Some(7.5));
    assert_eq!(job.request().num_inference_steps, Some(50));
    for (field, value) in [(scale, json!("high")), (steps, json!(0))] {
        write(&[(field, value)]);
        let error = open_dir(dir.path()).unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.contains("model_index.json") && message.contains(field),
            "{message}"
        );
    }
}

/// What was opened: parts, classes, precision, and what is not used.
#[test]
fn reports_say_what_was_found() {
    let Some(from) = tiny("tiny-sd15") else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    copy_dir(&from, dir.path());
    let mut changed = index(&from);
    changed["image_encoder"] = json!(["transformers", "CLIPVisionModelWithProjection"]);
    changed["unheard_of"] = json!(true);
    std::fs::write(dir.path().join("model_index.json"), changed.to_string()).unwrap();
    let flex = device("flex").unwrap();
    let loaded = TextToImagePipeline::from_pretrained(dir.path(), &flex).unwrap();
    let report = loaded.report();
    assert_eq!(report.family, PipelineFamily::StableDiffusion);
    assert_eq!(report.class, "StableDiffusionPipeline");
    assert!(report.missing_parts.is_empty(), "{report}");
    let parts: Vec<(&str, &str)> = report
        .parts
        .iter()
        .map(|part| (&part.name[..], &part.class[..]))
        .collect();
    let expected = [
        ("text_encoder", "CLIPTextModel"),
        ("unet", "UNet2DConditionModel"),
        ("vae", "AutoencoderKL"),
    ];
    assert_eq!(parts, expected);
    for part in &report.parts {
        assert!(part.was_opened && part.has_files, "{part}");
        assert!(part.tensors > 10 && part.parameters > 1000, "{part}");
        assert_eq!(part.precision["F32"], part.tensors, "{part}");
    }
    let others = [
        ("tokenizer", "CLIPTokenizer"),
        ("scheduler", "PNDMScheduler"),
    ];
    assert_eq!(
        report.others,
        others.map(|(name, class)| (name.to_owned(), class.to_owned()))
    );
    // The same warnings as those of the opening.
    assert_eq!(report.warnings(), loaded.warnings());
    for text in [
        "StableDiffusionPipeline",
        "unet: UNet2DConditionModel, ",
        " M parameters, F32",
        "image_encoder (CLIPVisionModelWithProjection) was not opened",
        "model_index.json: unheard_of",
    ] {
        assert!(report.to_string().contains(text), "{text}: {report}");
    }

    // What is not used of a part is known once it was opened.
    let options = PipelineOpenOptions::default()
        .with_residency(Residency::OnDemand)
        .without("text_encoder");
    let later = open_with("tiny-sd15", &options).unwrap();
    let report = later.report();
    assert_eq!(report.missing_parts, ["text_encoder"]);
    assert!(report.parts.iter().all(|part| !part.was_opened));
    assert!(report.to_string().contains("not opened yet"), "{report}");
}

/// Makes a network that is easily told apart.
struct Double;

impl ParamMapper for Double {
    fn map<const D: usize>(&mut self, path: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match path.starts_with("conv_out.") {
            true => param.map(|tensor| tensor * 2.0),
            false => param,
        }
    }
}

/// The network has to have the variant; other parts are opened without one if they have none.
#[test]
fn variants_of_the_network_are_opened() {
    let (Some(from), Some(plain)) = (tiny("tiny-sd15"), open("tiny-sd15")) else {
        return;
    };
    let (dir, flex) = (tempfile::tempdir().unwrap(), device("flex").unwrap());
    copy_dir(&from, dir.path());
    let unet = UNet2dConditionModel::from_pretrained(from.join("unet"), &flex).unwrap();
    let (changed, other) = (dir.path().join("unet"), tempfile::tempdir().unwrap());
    let double = map_params(unet.into_inner(), &mut Double);
    double.save_pretrained(other.path()).unwrap();
    let name = "diffusion_pytorch_model";
    std::fs::copy(
        other.path().join(format!("{name}.safetensors")),
        changed.join(format!("{name}.fp16.safetensors")),
    )
    .unwrap();
    let open = |variant: &str| {
        let options = PipelineOpenOptions::default().with_variant(variant);
        TextToImagePipeline::from_pretrained_with(dir.path(), &options, &flex)
    };
    let expected = pixels(&plain.generate(&request()).unwrap());
    let same = open_dir(dir.path()).unwrap();
    assert_eq!(pixels(&same.generate(&request()).unwrap()), expected);
    let variant = open("fp16").unwrap().into_inner();
    let found = pixels(&variant.generate(&request()).unwrap());
    assert_ne!(found, expected);
    // As in a directory with these weights alone.
    std::fs::copy(
        other.path().join(format!("{name}.safetensors")),
        changed.join(format!("{name}.safetensors")),
    )
    .unwrap();
    let alone = open_dir(dir.path()).unwrap();
    assert_eq!(pixels(&alone.generate(&request()).unwrap()), found);
    let message = open("ema").unwrap_err().to_string();
    assert!(message.contains("ema"), "{message}");
}
