//! CLIP's features and the measures on them, against transformers and torchmetrics: the fixtures of
//! `tests/reference/clip_features.py`.

use aigc_core::{
    device::device,
    eval::{FeatureExtractor, Features, caption_retrieval, clip_score},
};
use aigc_encoders::clip::{ClipFeatures, ClipVisionFeatures};
use aigc_tests::{
    own_fixtures,
    reference::{Fixture, close_tensor, close_values},
};
use burn::tensor::Tensor;

#[test]
fn clip_score_matches_transformers_and_torchmetrics() {
    let device = device("flex").unwrap();
    let dir = own_fixtures().join("eval/clip");
    let cases = Fixture::read("eval/clip/cases.safetensors");
    let images: Tensor<4> = cases.tensors["images"].tensor::<4>(&device) / 255.0;
    let clip = ClipFeatures::from_pretrained(&dir, &device).unwrap();
    let embeds = clip.extract(images.clone()).unwrap();
    close_tensor(
        embeds.clone(),
        &cases.tensors["image_embeds"],
        "image_embeds",
    );
    let prompts: Vec<&str> = cases.json["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|prompt| prompt.as_str().unwrap())
        .collect();
    let texts = clip.text_features(&prompts).unwrap();
    close_values(
        texts.values(),
        &cases.tensors["text_embeds"].floats(),
        "text_embeds",
    );
    let pictures = Features::from_tensor(&embeds).unwrap();
    let score = clip_score(&pictures, &texts).unwrap();
    let expected = cases.json["clip_score"].as_f64().unwrap();
    assert!(
        expected > 1.0 && (score.mean - expected).abs() < 1e-4 * expected,
        "{}",
        score.mean
    );
    let ranks = caption_retrieval(&pictures, &texts).unwrap();
    for (name, found) in [
        ("image_to_text", &ranks.image_to_text),
        ("text_to_image", &ranks.text_to_image),
    ] {
        let expected: Vec<usize> = serde_json::from_value(cases.json[name].clone()).unwrap();
        assert_eq!(found.ranks(), expected, "{name}");
    }
    // The vision encoder of the same directory, with its projection.
    let vision = ClipVisionFeatures::from_pretrained(&dir, &device).unwrap();
    let found = vision.extract(images).unwrap();
    close_tensor(
        found,
        &cases.tensors["image_embeds"],
        "the vision encoder's",
    );
    assert_ne!(vision.id(), clip.id());
}

/// Features are cached by name, which has to change with what files of weights do not show.
#[test]
fn names_change_with_the_configuration() {
    let device = device("flex").unwrap();
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(own_fixtures().join("eval/clip")).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    let ids = || {
        let clip = ClipFeatures::from_pretrained(dir.path(), &device).unwrap();
        let vision = ClipVisionFeatures::from_pretrained(dir.path(), &device).unwrap();
        [clip.id(), vision.id()]
    };
    let before = ids();
    assert_eq!(before, ids());
    let config = dir.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    for (field, changed) in [
        ("\"hidden_act\": \"quick_gelu\"", "\"hidden_act\": \"gelu\""),
        ("\"num_attention_heads\": 2", "\"num_attention_heads\": 1"),
        ("\"layer_norm_eps\": 1e-05", "\"layer_norm_eps\": 1e-06"),
    ] {
        assert!(text.contains(field), "{field}");
        std::fs::write(&config, text.replace(field, changed)).unwrap();
        let after = ids();
        assert!(
            before[0] != after[0] && before[1] != after[1],
            "{field}: {after:?}"
        );
    }
}
