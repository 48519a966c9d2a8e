//! CLIP's tokenizer, encoders and image processor.

use super::cases::{Case, every, is_net};
use aigc_core::{
    device::device,
    rng::{InitWeights, Rng},
};
use aigc_encoders::{
    clip::{
        ClipConfig, ClipImageProcessor, ClipModel, ClipTextConfig, ClipTextModel, ClipVisionConfig,
        ClipVisionModel, RgbPixels, StableDiffusionSafetyChecker,
    },
    tokenizer::ClipTokenizer,
};
use aigc_tests::{floats, integers, python_with, run_script, write_case};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use std::collections::BTreeSet;

/// Tolerance of networks.
const NET: f64 = 1e-4;

fn flex() -> Device {
    device("flex").unwrap()
}

fn strings(value: &serde_json::Value) -> Vec<&str> {
    let texts = value.as_array().expect("an array").iter();
    texts.map(|text| text.as_str().expect("a text")).collect()
}

pub(crate) fn is_tokenizer(case: &Case) -> bool {
    case.text("kind") == "clip-tokenizer"
}

#[test]
fn tokenizers_equal_those_of_transformers() {
    every(is_tokenizer, |case| {
        let tokenizer = ClipTokenizer::from_pretrained(case.path("tokenizer")).unwrap();
        check_tokenizer(case, &tokenizer);
        // Saved and opened again, it is the same.
        let dir = tempfile::tempdir().unwrap();
        tokenizer.save_pretrained(dir.path()).unwrap();
        let saved = ClipTokenizer::from_pretrained(dir.path()).unwrap();
        assert_eq!(saved.max_length(), tokenizer.max_length());
        check_tokenizer(case, &saved);
    });
}

fn check_tokenizer(case: &Case, tokenizer: &ClipTokenizer) {
    let ids = |name: &str| -> Vec<u32> {
        let (_, values) = case.values(name);
        values.into_iter().map(|value| value as u32).collect()
    };
    let prompts = strings(&case.json["prompts"]);
    let max_length = case.json["max_length"].as_u64().unwrap() as usize;
    let (whole, lengths) = (ids("whole_ids"), ids("whole_lengths"));
    let decoded = strings(&case.json["decoded"]);
    let mut rest = &whole[..];
    for (i, prompt) in prompts.iter().enumerate() {
        let mut tokens = vec![tokenizer.bos_token_id()];
        tokens.extend(tokenizer.encode(prompt).unwrap());
        tokens.push(tokenizer.eos_token_id());
        let (expected, after) = rest.split_at(lengths[i] as usize);
        rest = after;
        assert_eq!(tokens, expected, "{}: {prompt:?}", case.name());
        assert_eq!(tokenizer.decode(&tokens), decoded[i], "{prompt:?}");
    }
    let tokenizer = tokenizer.clone().with_max_length(max_length).unwrap();
    let batch = tokenizer.encode_padded(&prompts).unwrap();
    assert_eq!(batch.ids.concat(), ids("input_ids"), "{}", case.name());
    let mask: Vec<u32> = batch
        .attention_mask
        .concat()
        .into_iter()
        .map(u32::from)
        .collect();
    assert_eq!(mask, ids("attention_mask"), "{}", case.name());
    for (i, cut) in batch.cut.iter().enumerate() {
        assert_eq!(cut.is_some(), lengths[i] as usize > max_length);
        // What was kept and what was cut are the whole prompt, but for white space, special tokens
        // and a character that was cut in two.
        let Some(cut) = cut.as_ref().filter(|_| !prompts[i].contains("<|")) else {
            continue;
        };
        let kept = tokenizer.decode(&batch.ids[i]);
        let is_letter = |c: &char| {
            !c.is_whitespace() && !('\x1c'..='\x1f').contains(c) && !matches!(c, '!' | '\u{fffd}')
        };
        let letters = |text: &str| text.chars().filter(is_letter).count();
        let (both, whole) = (letters(&format!("{kept}{cut}")), letters(decoded[i]));
        assert!(
            both == whole || both + 1 == whole,
            "{}: {kept:?} {cut:?}",
            case.name()
        );
    }
}

/// Which tokens are attended to, if the case says so.
fn mask(case: &Case) -> Option<Tensor<2, Bool>> {
    case.has("attention_mask")
        .then(|| case.mask("attention_mask"))
}

/// Checks the outputs of a text encoder, as many as the case has.
fn check_text(case: &Case, model: &ClipTextModel) {
    let output = model.forward(case.int("input_ids"), mask(case));
    case.assert_close("last_hidden_state", &output.last_hidden_state, NET);
    if case.has("pooler_output") {
        case.assert_close("pooler_output", &output.pooler_output, NET);
    }
    for (layer, state) in output.hidden_states.iter().enumerate() {
        let name = format!("hidden.{layer}");
        if case.has(&name) {
            case.assert_close(&name, state, NET);
        }
    }
    let without_last = |norm: bool| model.without_last_layers(&output, 1, norm).unwrap();
    if case.has("skip1") {
        case.assert_close("skip1", &without_last(true), NET);
    }
    if case.has("penultimate") {
        case.assert_close("penultimate", &without_last(false), NET);
    }
    if case.has("text_embeds") {
        case.assert_close("text_embeds", &output.text_embeds.unwrap(), NET);
    }
}

pub(crate) fn is_text_encoder(case: &Case) -> bool {
    let classes = ["CLIPTextModel", "CLIPTextModelWithProjection"];
    is_net(case, &classes) || classes.contains(&case.text("kind"))
}

#[test]
fn text_encoders_match_transformers() {
    every(is_text_encoder, |case| {
        let model = ClipTextModel::from_pretrained(case.path("model"), &flex()).unwrap();
        assert!(model.warnings().is_empty(), "{}: {model}", case.name());
        check_text(case, &model);
        // Saved as on the hub, and opened again.
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        let saved = ClipTextModel::from_pretrained(dir.path(), &flex()).unwrap();
        assert_eq!(saved.config(), model.config());
        check_text(case, &saved);
    });
}

fn check_vision(case: &Case, model: &ClipVisionModel) {
    let output = model.forward(case.float("pixel_values"));
    case.assert_close("last_hidden_state", &output.last_hidden_state, NET);
    let layers = output.hidden_states.len();
    case.assert_close("penultimate", &output.hidden_states[layers - 2], NET);
    case.assert_close("image_embeds", &output.image_embeds.unwrap(), NET);
}

pub(crate) fn is_vision_encoder(case: &Case) -> bool {
    is_net(case, &["CLIPVisionModelWithProjection"])
}

#[test]
fn vision_encoders_match_transformers() {
    every(is_vision_encoder, |case| {
        let model = ClipVisionModel::from_pretrained(case.path("model"), &flex()).unwrap();
        assert!(model.warnings().is_empty(), "{}: {model}", case.name());
        check_vision(case, &model);
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        let saved = ClipVisionModel::from_pretrained(dir.path(), &flex()).unwrap();
        assert_eq!(saved.config(), model.config());
        check_vision(case, &saved);
    });
}

fn check_pair(case: &Case, model: &ClipModel) {
    let (ids, pixels) = (case.int("input_ids"), case.float("pixel_values"));
    let output = model.forward(ids, pixels, mask(case));
    case.assert_close("text_embeds", &output.text_embeds, NET);
    case.assert_close("image_embeds", &output.image_embeds, NET);
    case.assert_close("logits_per_text", &output.logits_per_text, NET);
    case.assert_close("logits_per_image", &output.logits_per_image, NET);
}

pub(crate) fn is_pair(case: &Case) -> bool {
    is_net(case, &["CLIPModel"])
}

#[test]
fn pairs_match_transformers() {
    every(is_pair, |case| {
        let model = ClipModel::from_pretrained(case.path("model"), &flex()).unwrap();
        assert!(model.warnings().is_empty(), "{}: {model}", case.name());
        check_pair(case, &model);
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        let saved = ClipModel::from_pretrained(dir.path(), &flex()).unwrap();
        assert_eq!(saved.config(), model.config());
        check_pair(case, &saved);
        // Each encoder opens alone, with its projection.
        let text = ClipTextModel::from_pretrained(case.path("model"), &flex()).unwrap();
        let embeds = text.forward(case.int("input_ids"), mask(case)).text_embeds;
        let embeds = embeds.unwrap();
        let length = embeds.clone().square().sum_dim(1).sqrt();
        case.assert_close("text_embeds", &(embeds / length), NET);
        let is_vision = |name: &String| !name.starts_with("text_");
        assert!(text.unused_tensors.iter().all(is_vision), "{text}");
        let vision = ClipVisionModel::from_pretrained(case.path("model"), &flex()).unwrap();
        let embeds = vision.forward(case.float("pixel_values")).image_embeds;
        let embeds = embeds.unwrap();
        let length = embeds.clone().square().sum_dim(1).sqrt();
        case.assert_close("image_embeds", &(embeds / length), NET);
    });
}

fn check_safety(case: &Case, model: &StableDiffusionSafetyChecker) {
    let found = model.check(case.float("pixel_values"));
    let length = found.image_embeds.clone().square().sum_dim(1).sqrt();
    case.assert_close("image_embeds", &(found.image_embeds / length), NET);
    case.assert_close("special", &found.special_cosines, NET);
    case.assert_close("concepts", &found.concept_cosines, NET);
    let (_, flags) = case.values("flags");
    let expected: Vec<bool> = flags.into_iter().map(|flag| flag != 0.0).collect();
    assert_eq!(found.flags, expected, "{}", case.name());
}

pub(crate) fn is_safety_checker(case: &Case) -> bool {
    is_net(case, &["StableDiffusionSafetyChecker"])
}

#[test]
fn safety_checker_matches_diffusers() {
    every(is_safety_checker, |case| {
        let dir = case.path("model");
        let model = StableDiffusionSafetyChecker::from_pretrained(dir, &flex()).unwrap();
        assert!(model.warnings().is_empty(), "{}: {model}", case.name());
        check_safety(case, &model);
        let dir = tempfile::tempdir().unwrap();
        model.save_pretrained(dir.path()).unwrap();
        let saved = StableDiffusionSafetyChecker::from_pretrained(dir.path(), &flex());
        check_safety(case, &saved.unwrap());
        // Scores are differences of cosines and limits: these adjustments decide alone.
        let images = case.values("flags").1.len();
        let flagged = |adjustment: f32| {
            let found = model.check_with(case.float("pixel_values"), adjustment);
            found.flags.iter().filter(|flag| **flag).count()
        };
        assert_eq!((flagged(4.0), flagged(-4.0)), (images, 0));
    });
}

pub(crate) fn is_image_processor(case: &Case) -> bool {
    case.text("kind") == "clip-image-processor"
}

#[test]
fn image_processor_matches_transformers() {
    every(is_image_processor, |case| {
        let processor = ClipImageProcessor::from_pretrained(case.path("model")).unwrap();
        assert!(processor.warnings().is_empty(), "{processor}");
        let names = case.names();
        let images: BTreeSet<&str> = names
            .iter()
            .filter_map(|name| name.strip_prefix("image."))
            .collect();
        assert!(!images.is_empty());
        for image in images {
            let (shape, pixels) = case.values(&format!("image.{image}"));
            let pixels: Vec<u8> = pixels.into_iter().map(|value| value as u8).collect();
            let image_of = RgbPixels {
                pixels: &pixels,
                height: shape[0],
                width: shape[1],
            };
            let values = processor.preprocess(&[image_of], &flex()).unwrap();
            let name = format!("pixel_values.{image}");
            // Far below one of 256 levels, which are rounded as Pillow rounds them.
            case.assert_close(&name, &values.squeeze_dim::<3>(0), 1e-5);
        }
    });
}

fn numbers<const D: usize>(x: &Tensor<D, Int>) -> Vec<i64> {
    x.to_data().iter().collect()
}

/// Models and tokenizers made here open in transformers, and give the same outputs.
#[test]
fn saved_models_open_in_transformers() {
    let Some(python) = python_with("torch, transformers, diffusers, safetensors") else {
        return;
    };
    let (folder, flex) = (tempfile::tempdir().unwrap(), flex());
    let path = |name: &str| folder.path().join(name);
    let mut rng = Rng::new(3);
    let ids: Vec<i64> = (0..18).map(|_| rng.random_index(40) as i64).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [3, 6]), &flex);
    let pixels: Tensor<4> = rng.normal([2, 3, 14, 14], &flex);
    let text_config = ClipTextConfig {
        vocab_size: 41,
        hidden_size: 16,
        intermediate_size: 24,
        projection_dim: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        max_position_embeddings: 9,
        eos_token_id: 40,
        with_projection: true,
        ..ClipTextConfig::default()
    };
    let vision_config = ClipVisionConfig {
        hidden_size: 16,
        intermediate_size: 24,
        projection_dim: 12,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: 14,
        patch_size: 7,
        with_projection: true,
        ..ClipVisionConfig::default()
    };
    let config = ClipConfig {
        text_config: text_config.clone(),
        vision_config: vision_config.clone(),
        projection_dim: 12,
        ..ClipConfig::default()
    };
    let input_ids = ("input_ids", integers(&numbers(&ids), &[3, 6]));
    let pixel_values = ("pixel_values", floats(&pixels));

    let text = text_config.init(&flex).unwrap().init_weights(1);
    text.save_pretrained(path("text-projection")).unwrap();
    let output = text.forward(ids.clone(), None);
    let last = ("last_hidden_state", floats(&output.last_hidden_state));
    let embeds = ("text_embeds", floats(&output.text_embeds.unwrap()));
    write_case(&path("text-projection"), &[input_ids.clone(), last, embeds]);

    let plain = ClipTextConfig {
        with_projection: false,
        ..text_config
    };
    let text = plain.init(&flex).unwrap().init_weights(2);
    text.save_pretrained(path("text")).unwrap();
    let output = text.forward(ids.clone(), None);
    let last = ("last_hidden_state", floats(&output.last_hidden_state));
    let pooled = ("pooler_output", floats(&output.pooler_output));
    write_case(&path("text"), &[input_ids.clone(), last, pooled]);

    let vision = vision_config.init(&flex).unwrap().init_weights(3);
    vision.save_pretrained(path("vision")).unwrap();
    let output = vision.forward(pixels.clone());
    let last = ("last_hidden_state", floats(&output.last_hidden_state));
    let embeds = ("image_embeds", floats(&output.image_embeds.unwrap()));
    write_case(&path("vision"), &[pixel_values.clone(), last, embeds]);

    let pair = config.init(&flex).unwrap().init_weights(4);
    pair.save_pretrained(path("pair")).unwrap();
    let output = pair.forward(ids, pixels.clone(), None);
    let logits = ("logits_per_text", floats(&output.logits_per_text));
    let case = [input_ids, pixel_values.clone(), logits];
    write_case(&path("pair"), &case);

    let checker = StableDiffusionSafetyChecker::new(&config, &flex).unwrap();
    let checker = checker.init_weights(5);
    checker.save_pretrained(path("safety")).unwrap();
    let found = checker.check(pixels);
    let cosines = ("concept_cosines", floats(&found.concept_cosines));
    write_case(&path("safety"), &[pixel_values, cosines]);

    let mut tokenizer = ClipTokenizer::from_words(["two red circles, and a Blue square"]).unwrap();
    tokenizer.add_tokens(&["<Cat-Toy>"]).unwrap();
    let tokenizer = tokenizer.with_max_length(9).unwrap();
    tokenizer.save_pretrained(path("tokenizer")).unwrap();
    let prompts = [
        "",
        "two  RED squares",
        "a <cat-toy>, and<Cat-Toy> two red circles and a square",
    ];
    let batch = tokenizer.encode_padded(&prompts).unwrap();
    let case = serde_json::json!({ "prompts": prompts, "ids": batch.ids });
    std::fs::write(path("tokenizer").join("case.json"), case.to_string()).unwrap();

    let names = [
        "pair",
        "safety",
        "text",
        "text-projection",
        "tokenizer",
        "vision",
    ];
    let text = run_script(&python, "clip_saved.py", folder.path());
    println!("{text}");
    let found: Vec<&str> = text
        .lines()
        .map(|line| {
            let (name, apart) = line.split_once(' ').unwrap();
            assert!(apart.parse::<f64>().unwrap() < 1e-4, "{line}");
            name
        })
        .collect();
    assert_eq!(found, names);
}
