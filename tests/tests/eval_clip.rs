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
    assert_eq!(ranks.image_to_text.ranks().len(), prompts.len());
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
