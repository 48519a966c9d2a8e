//! Textual inversion: new tokens, and their vectors.

use crate::cases::{Case, every};
use aigc_core::device::device;
use aigc_encoders::{
    clip::{ClipTextConfig, ClipTextModel},
    tokenizer::ClipTokenizer,
};
use aigc_pipelines::adapters::{Component, TextualInversion, expand_prompt};
use burn::tensor::Device;
use serde_json::Value;
use std::path::PathBuf;

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
