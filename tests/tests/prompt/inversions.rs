//! Textual inversion: new tokens, and their vectors.

use crate::{
    cases::{Case, every},
    differences::tensors_apart,
    stages::latents,
    tiny_pipelines::{open, request, tiny},
};
use aigc_core::{Error, device::device, rng::Rng, weights::save_tensors};
use aigc_encoders::{
    clip::{ClipTextConfig, ClipTextModel},
    tokenizer::ClipTokenizer,
};
use aigc_pipelines::{
    adapters::{Component, TextualInversion, expand_prompt},
    text_to_image::{PipelineOptions, Prompts, TextToImagePipeline},
};
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Whether a case has inversions for a pipeline with one text encoder.
fn has_inversions(case: &Case) -> bool {
    case.text("kind") == "prompt-pipeline"
        && case.json["textual_inversions"].is_array()
        && !case.path("pipeline").join("text_encoder_2").exists()
}

/// Files and tokens.
fn inversions(case: &Case) -> Vec<(PathBuf, String)> {
    let all = case.json["textual_inversions"].as_array().unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let file = |inversion: &Value| case.dir.join(text(&inversion["file"]));
    all.iter()
        .map(|inversion| (file(inversion), text(&inversion["token"])))
        .collect()
}

fn text_encoder(case: &Case, flex: &Device) -> (ClipTokenizer, ClipTextModel) {
    let dir = case.path("pipeline");
    let tokenizer = ClipTokenizer::from_pretrained(dir.join("tokenizer")).unwrap();
    let model = ClipTextModel::from_pretrained(dir.join("text_encoder"), flex).unwrap();
    (tokenizer, model.into_inner())
}

/// One text or several.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text.as_str()],
        Value::Array(all) => all.iter().map(|text| text.as_str().unwrap()).collect(),
        _ => vec![],
    }
}

/// Prompts become the same tokens, and the same states.
#[test]
fn textual_inversions_extend_tokenizer_and_text_encoder() {
    every(has_inversions, |case| {
        let flex = device("flex").unwrap();
        let (mut tokenizer, mut model) = text_encoder(case, &flex);
        for (path, token) in inversions(case) {
            let opened = TextualInversion::open(path).unwrap().with_token(token);
            let width = model.config().hidden_size;
            assert!(opened.fits(Component::TextEncoder, width));
            assert!(!opened.fits(Component::TextEncoder, width + 1));
            model = opened
                .add_to(Component::TextEncoder, &mut tokenizer, model)
                .unwrap();
            // The token cannot be added twice.
            let again = opened.add_to(Component::TextEncoder, &mut tokenizer, model.clone());
            assert!(again.is_err());
        }
        for (k, (prompts, embeds)) in [
            ("prompt", "prompt_embeds"),
            ("negative_prompt", "negative_prompt_embeds"),
        ]
        .into_iter()
        .enumerate()
        {
            if !case.has(embeds) {
                continue;
            }
            let arguments = &case.json["arguments"];
            let prompts = match &texts(&arguments[prompts])[..] {
                // One for all, or none.
                [] => vec![""; texts(&arguments["prompt"]).len()],
                [one] => vec![*one; texts(&arguments["prompt"]).len()],
                each => each.to_vec(),
            };
            let prompts: Vec<String> = prompts
                .into_iter()
                .map(|prompt| expand_prompt(prompt, &tokenizer))
                .collect();
            let prompts: Vec<&str> = prompts.iter().map(String::as_str).collect();
            let batch = tokenizer.encode_padded(&prompts).unwrap();
            let (_, ids) = case.values(&format!("ids.text_encoder.{k}"));
            let found: Vec<f64> = batch.ids.concat().into_iter().map(f64::from).collect();
            assert_eq!(found, ids, "{}", case.name());
            let states = model
                .forward(batch.input_ids(&flex), None)
                .last_hidden_state;
            let [rows, tokens, width] = states.dims();
            // diffusers repeats the states of each prompt for its images.
            let n = case.values(embeds).0[0] / rows;
            let states = states.unsqueeze_dim::<4>(1).repeat_dim(1, n);
            let states = states.reshape([rows * n, tokens, width]);
            case.assert_close(embeds, &states, 1e-4);
        }
    });
}

/// An embedding for another model: both widths are named, and the tokenizer is unchanged.
#[test]
fn inversions_for_other_models_are_refused() {
    every(has_inversions, |case| {
        let flex = device("flex").unwrap();
        let (mut tokenizer, model) = text_encoder(case, &flex);
        let width = model.config().hidden_size;
        let wider = ClipTextConfig {
            hidden_size: 2 * width,
            ..model.config().clone()
        };
        let wider = wider.init(&flex).unwrap();
        let (path, _) = inversions(case).remove(0);
        let inversion = TextualInversion::open(&path).unwrap();
        let size = tokenizer.vocab_size();
        let error = inversion
            .add_to(Component::TextEncoder, &mut tokenizer, wider)
            .unwrap_err();
        let error = error.to_string();
        for width in [width, 2 * width] {
            let named = format!("the width {width}");
            assert!(error.contains(&named), "{error}");
        }
        let file = path.file_name().unwrap().to_string_lossy();
        assert!(error.contains(&*file), "{error}");
        assert_eq!(tokenizer.vocab_size(), size);
    });
}

/// An inversion as `tests/reference/checkpoint.py` writes it: WebUI's pickle, whose token is the
/// name of the file.
#[test]
fn pickled_inversions_open() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/prompt/style.pt");
    let inversion = TextualInversion::open(path).unwrap();
    assert_eq!(inversion.tokens(), ["style", "style_1", "style_2"]);
    assert!(inversion.fits(Component::TextEncoder, 4));
}

/// Width of a text encoder of CLIP.
fn width(encoder: &Path) -> usize {
    let text = std::fs::read_to_string(encoder.join("config.json")).unwrap();
    let config: Value = serde_json::from_str(&text).unwrap();
    config["hidden_size"].as_u64().unwrap() as usize
}

/// Widths of the text encoders of a small pipeline.
fn widths(dir: &Path) -> [usize; 2] {
    ["text_encoder", "text_encoder_2"].map(|encoder| width(&dir.join(encoder)))
}

/// An inversion with two vectors for each name and width; those of a width are always the same.
fn written(path: &Path, sets: &[(&str, usize)]) -> TextualInversion {
    let vectors = |width: usize| {
        let values = Rng::new(width as u64).normal_vec(2 * width);
        TensorData::new(values, [2, width])
    };
    let tensors: BTreeMap<String, TensorData> = sets
        .iter()
        .map(|(name, width)| ((*name).to_owned(), vectors(*width)))
        .collect();
    save_tensors(&tensors, path).unwrap();
    let opened = TextualInversion::open(path).unwrap();
    // The token is the name of the file.
    assert_eq!(opened.token(), path.file_stem().unwrap().to_string_lossy());
    opened.with_token("<toy>")
}

/// A prompt in two encoders: states of each, pooled states of the second, tokens of each.
type InTwo = ([Tensor<3>; 2], Tensor<2>, Vec<Vec<u32>>);

fn in_two(pipeline: &TextToImagePipeline, prompt: &str, first: usize) -> InTwo {
    let options = PipelineOptions::default();
    let job = pipeline.prepare(&request(), &options).unwrap();
    let prompts = Prompts::new([prompt]).with_negative_prompt(["blurry"]);
    let found = pipeline.encode_prompts(&prompts, &job).unwrap();
    let states = found.prompt.hidden_states;
    let second = states.dims()[2] - first;
    let halves = [
        states.clone().narrow(2, 0, first),
        states.narrow(2, first, second),
    ];
    // The prompt of each encoder comes before the negative ones.
    let ids = found.inputs[..2].iter().map(|input| input.ids[0].clone());
    (halves, found.prompt.pooled.unwrap(), ids.collect())
}

/// Each of two encoders gets the vectors that are for it; one without keeps its words.
#[test]
fn inversions_extend_the_encoders_that_they_are_for() {
    let (Some(mut pipeline), Some(from)) = (open("tiny-sdxl"), tiny("tiny-sdxl")) else {
        return;
    };
    let ([l, g], dir) = (widths(&from), tempfile::tempdir().unwrap());
    assert_ne!(l, g);
    let mut request = request();
    request.prompt = "a photo of a <toy>".into();
    let options = PipelineOptions::default();
    let plain = in_two(&pipeline, &request.prompt, l);
    let image = latents(&pipeline, &request, &options);
    let mut all = vec![];
    for (name, sets, extends) in [
        ("l", vec![("clip_l", l)], [true, false]),
        ("g", vec![("clip_g", g)], [false, true]),
        ("width", vec![("emb_params", g)], [false, true]),
        ("both", vec![("clip_l", l), ("clip_g", g)], [true, true]),
    ] {
        let path = dir.path().join(format!("{name}.safetensors"));
        let inversion = written(&path, &sets);
        let report = pipeline.load_textual_inversion(&inversion).unwrap();
        assert_eq!(report.is_complete(), extends == [true, true], "{name}");
        let both = [Component::TextEncoder, Component::TextEncoder2];
        for (component, extends) in both.into_iter().zip(extends) {
            assert_eq!(report.applied.contains(&component), extends, "{name}");
            assert_eq!(report.not_applied.contains(&component), !extends, "{name}");
        }
        let (states, pooled, ids) = in_two(&pipeline, &request.prompt, l);
        for (which, extends) in extends.into_iter().enumerate() {
            let off = tensors_apart(states[which].clone(), plain.0[which].clone());
            assert_eq!(off > 0.0, extends, "{name} {which}: {off:.1e}");
            let is_new = |id: &u32| !plain.2[which].contains(id);
            let new: Vec<u32> = ids[which].iter().copied().filter(is_new).collect();
            match extends {
                true => assert!(new.len() == 2 && new[1] == new[0] + 1, "{name}: {new:?}"),
                false => assert!(new.is_empty(), "{name}: {new:?}"),
            }
        }
        let off = tensors_apart(pooled, plain.1.clone());
        assert_eq!(off > 0.0, extends[1], "{name}: {off:.1e}");
        let off = tensors_apart(latents(&pipeline, &request, &options), image.clone());
        assert!(off > 0.0, "{name}");
        pipeline.unload_adapters().unwrap();
        let off = tensors_apart(latents(&pipeline, &request, &options), image.clone());
        assert_eq!(off, 0.0, "{name}");
        all.push(states);
    }
    // The vectors do not depend on what else is in the file.
    let off = |a: &Tensor<3>, b: &Tensor<3>| tensors_apart(a.clone(), b.clone());
    assert_eq!(off(&all[3][0], &all[0][0]), 0.0);
    assert_eq!(off(&all[3][1], &all[1][1]), 0.0);
    assert_eq!(off(&all[2][1], &all[1][1]), 0.0);
}

/// Vectors that fit no encoder change nothing.
#[test]
fn inversions_that_fit_no_encoder_are_refused() {
    let (Some(mut pipeline), Some(from)) = (open("tiny-sdxl"), tiny("tiny-sdxl")) else {
        return;
    };
    let ([l, g], dir) = (widths(&from), tempfile::tempdir().unwrap());
    let prompt = "a photo of a <toy>";
    let plain = in_two(&pipeline, prompt, l);
    for (name, sets, wrong) in [
        ("l", vec![("clip_l", 2 * l)], 2 * l),
        ("g", vec![("clip_g", 2 * g)], 2 * g),
        ("width", vec![("emb_params", l + g)], l + g),
        // One of them fits.
        ("first", vec![("clip_l", l), ("clip_g", 2 * g)], 2 * g),
        ("second", vec![("clip_l", 2 * l), ("clip_g", g)], 2 * l),
    ] {
        let path = dir.path().join(format!("{name}.safetensors"));
        let inversion = written(&path, &sets);
        let error = pipeline.load_textual_inversion(&inversion).unwrap_err();
        let named = format!("have the width {wrong}");
        assert!(error.to_string().contains(&named), "{error}");
        let names_file = matches!(&error, Error::Weights { path: found, .. } if *found == path);
        assert!(names_file, "{error:?}");
        let found = in_two(&pipeline, prompt, l);
        assert_eq!(found.2, plain.2, "{name}");
        for (a, b) in found.0.into_iter().zip(plain.0.clone()) {
            assert_eq!(tensors_apart(a, b), 0.0, "{name}");
        }
    }
    // Nothing of them is left.
    let path = dir.path().join("fits.safetensors");
    let inversion = written(&path, &[("clip_l", l), ("clip_g", g)]);
    pipeline.load_textual_inversion(&inversion).unwrap();
}

/// An embedding of another family may fit one of several encoders: the others are named.
#[test]
fn inversions_report_the_encoders_without_them() {
    let dir = tempfile::tempdir().unwrap();
    // The second encoder of FLUX.1 is T5; that of Stable Diffusion 1 is not there.
    for (name, tensors, is_complete) in [
        ("tiny-sdxl", vec!["emb_params"], false),
        ("tiny-flux-schnell", vec!["emb_params"], false),
        ("tiny-sd15", vec!["clip_l", "clip_g"], false),
        ("tiny-sd15", vec!["clip_l"], true),
    ] {
        let (Some(mut pipeline), Some(from)) = (open(name), tiny(name)) else {
            return;
        };
        let width = width(&from.join("text_encoder"));
        let sets: Vec<(&str, usize)> = tensors.iter().map(|name| (*name, width)).collect();
        let file = format!("{name}-{}.safetensors", sets.len());
        let inversion = written(&dir.path().join(file), &sets);
        let report = pipeline.load_textual_inversion(&inversion).unwrap();
        let expected = match is_complete {
            true => "<toy>: applied to text_encoder",
            false => "<toy>: applied to text_encoder; not applied to text_encoder_2",
        };
        assert_eq!(report.to_string(), expected, "{name} {tensors:?}");
        assert_eq!(report.is_complete(), is_complete);
    }
}
