//! T5's encoder and tokenizer.

use crate::cases::{Case, every, is_net};
use aigc_core::encoder::TextEncoder;
use aigc_core::{device::device, weights::WeightReader};
use aigc_encoders::{
    t5::{T5EncoderModel, T5TextEncoder},
    tokenizer::T5Tokenizer,
};
use serde_json::Value;
use std::path::Path;

const TOLERANCE: f64 = 1e-4;

/// Compares all hidden states of a model with those of a case.
fn check_states(case: &Case, model: &T5EncoderModel) {
    let mask = case
        .has("attention_mask")
        .then(|| case.mask("attention_mask"));
    let states = model.forward_hidden_states(case.int("input_ids"), mask.clone());
    let expected = case.names().into_iter();
    let expected = expected.filter(|name| name.starts_with("hidden.")).count();
    assert_eq!(states.len(), expected, "hidden states");
    for (k, state) in states.iter().enumerate() {
        case.assert_close(&format!("hidden.{k}"), state, TOLERANCE);
    }
    let last = model.forward(case.int("input_ids"), mask);
    case.assert_close("last_hidden_state", &last, TOLERANCE);
}

pub(crate) fn is_encoder(case: &Case) -> bool {
    is_net(case, &["T5EncoderModel"])
}

#[test]
fn encoders_match_transformers() {
    every(is_encoder, |case| {
        let device = device("flex").unwrap();
        let model = T5EncoderModel::from_pretrained(case.path("model"), &device).unwrap();
        assert!(model.warnings().is_empty(), "{model}");
        check_states(case, &model);
        // Saved in one file with the names of the original.
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        let names = |dir: &Path| -> Vec<String> {
            let files = WeightReader::from_dir(dir, &["model"]).unwrap();
            files.names().map(str::to_owned).collect()
        };
        assert_eq!(names(dir.path()), names(&case.path("model")));
        let again = T5EncoderModel::from_pretrained(dir.path(), &device).unwrap();
        assert!(again.warnings().is_empty(), "{again}");
        check_states(case, &again);
    });
}

/// Checks the tokens, the padding and the texts of all prompts.
fn check_tokens(case: &Case, tokenizer: &T5Tokenizer) {
    let texts = |field: &str| -> Vec<&str> {
        let texts = case.json[field].as_array().expect("texts");
        texts.iter().map(|text| text.as_str().unwrap()).collect()
    };
    let (prompts, decoded) = (texts("prompts"), texts("decoded"));
    let numbers = |name: &str| -> Vec<u32> {
        let (_, values) = case.values(name);
        values.into_iter().map(|value| value as u32).collect()
    };
    let (whole, lengths) = (numbers("whole_ids"), numbers("whole_lengths"));
    let mut rest = &whole[..];
    for (prompt, (length, decoded)) in prompts.iter().zip(lengths.iter().zip(decoded)) {
        let (expected, others) = rest.split_at(*length as usize);
        rest = others;
        let mut ids = tokenizer.encode(prompt).unwrap();
        ids.push(tokenizer.eos_token_id());
        assert_eq!(ids, expected, "{prompt:?}");
        assert_eq!(tokenizer.decode(&ids), decoded, "{prompt:?}");
    }
    let max_length = case.json["max_length"].as_u64().unwrap() as usize;
    let batch = tokenizer.encode_padded(&prompts, max_length).unwrap();
    assert_eq!(batch.ids.concat(), numbers("input_ids"));
    let mask = batch.attention_mask.concat().into_iter().map(u32::from);
    assert_eq!(mask.collect::<Vec<_>>(), numbers("attention_mask"));
    for (cut, length) in batch.cut.iter().zip(lengths) {
        assert_eq!(cut.is_some(), length as usize > max_length);
    }
}

pub(crate) fn is_tokenizer(case: &Case) -> bool {
    case.text("kind") == "t5-tokenizer"
}

#[test]
fn tokenizers_match_transformers() {
    every(is_tokenizer, |case| {
        let dir = case.path("tokenizer");
        let tokenizer = T5Tokenizer::from_pretrained(&dir).unwrap();
        check_tokens(case, &tokenizer);
        let pieces = T5Tokenizer::from_file(dir.join("spiece.model")).unwrap();
        check_tokens(case, &pieces);
        let saved = tempfile::tempdir().unwrap();
        pieces.save_pretrained(saved.path()).unwrap();
        check_tokens(case, &T5Tokenizer::from_pretrained(saved.path()).unwrap());
    });
}

/// A pipeline's tokenizer and encoder as one, on the prompts of its cases.
#[test]
fn text_encoders_match_pipelines() {
    every(
        |case| case.text("cls").starts_with("PixArt") && case.has("prompt_embeds"),
        |case| {
            let device = device("flex").unwrap();
            let dir = case.path("pipeline");
            let tokenizer = T5Tokenizer::from_pretrained(dir.join("tokenizer")).unwrap();
            let model = T5EncoderModel::from_pretrained(dir.join("text_encoder"), &device);
            let (shape, _) = case.values("prompt_embeds");
            let encoder = T5TextEncoder::new(tokenizer, model.unwrap().into_inner())
                .and_then(|encoder| encoder.with_max_length(shape[1]))
                .unwrap();
            let prompts: Vec<&Value> = match &case.json["arguments"]["prompt"] {
                Value::Array(all) => all.iter().collect(),
                one => vec![one],
            };
            // As diffusers changes prompts for these models.
            let changed = |prompt: &Value| prompt.as_str().expect("a text").to_lowercase();
            let prompts: Vec<String> = prompts.into_iter().map(changed).collect();
            let prompts: Vec<&str> = prompts.iter().map(|prompt| prompt.trim()).collect();
            let states = encoder.encode(&prompts, &device).unwrap().hidden_states;
            // It repeats the states of each prompt for its images.
            let n = shape[0] / prompts.len();
            let states = states.unsqueeze_dim::<4>(1).repeat_dim(1, n);
            let states = states.reshape([shape[0], shape[1], shape[2]]);
            case.assert_close("prompt_embeds", &states, TOLERANCE);
        },
    );
}
