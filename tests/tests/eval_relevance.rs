//! Relevance, against the numbers of `tests/reference/relevance.py`.

use aigc_core::{
    data::{collate_images, digits},
    device::device,
    eval::{
        Features, NearestNeighbors, Proportion, RetrievalRanks, caption_retrieval, clip_score,
        conditional_accuracy, cosine_similarity,
    },
};
use aigc_tests::reference::{features, read_json};
use serde_json::Value;

fn fixture() -> Value {
    read_json("eval/relevance/relevance.json")
}

fn assert_close(got: f64, expected: &Value) {
    let expected = expected.as_f64().unwrap();
    assert!(
        (got - expected).abs() <= 1e-4 * expected.abs().max(1e-3),
        "{got}, expected {expected}"
    );
}

#[test]
fn clip_score_matches_torchmetrics() {
    let fixture = fixture();
    let (images, texts) = (features(&fixture["images"]), features(&fixture["texts"]));
    let score = clip_score(&images, &texts).unwrap();
    assert_close(score.mean, &fixture["clip"]["mean"]);
    let pairs = fixture["clip"]["pairs"].as_array().unwrap();
    assert_eq!(score.pairs.len(), pairs.len());
    for (got, expected) in score.pairs.iter().zip(pairs) {
        assert_close(*got, expected);
    }
    let cosines = cosine_similarity(&images, &texts).unwrap();
    for (got, expected) in cosines.iter().zip(fixture["cosines"].as_array().unwrap()) {
        assert_close(*got, expected);
    }
    let opposite = images.values().iter().map(|value| -value).collect();
    let opposite = Features::new(opposite, images.width()).unwrap();
    let score = clip_score(&images, &opposite).unwrap();
    assert_close(score.mean, &fixture["opposite"]["mean"]);
}

#[test]
fn retrieval_matches_reference() {
    let fixture = fixture();
    let (images, texts) = (features(&fixture["images"]), features(&fixture["texts"]));
    let got = caption_retrieval(&images, &texts).unwrap();
    let check = |got: &RetrievalRanks, expected: &Value| {
        let ranks: Vec<usize> = serde_json::from_value(expected["ranks"].clone()).unwrap();
        assert_eq!(got.ranks(), ranks);
        assert_close(got.median_rank(), &expected["median"]);
        for (k, count) in expected["recall"].as_object().unwrap() {
            let recall = got.recall(k.parse().unwrap()).unwrap();
            assert_eq!(recall.count() as u64, count.as_u64().unwrap(), "{k}");
        }
    };
    check(&got.image_to_text, &fixture["image_to_text"]);
    check(&got.text_to_image, &fixture["text_to_image"]);
}

#[test]
fn intervals_match_scipy() {
    for case in fixture()["intervals"].as_array().unwrap() {
        let integer = |i: usize| case[i].as_u64().unwrap() as usize;
        let (low, high) = Proportion::new(integer(0), integer(1)).unwrap().interval();
        assert_close(low, &case[2]);
        assert_close(high, &case[3]);
    }
}

/// Real digits are what they are; of digits asked for as the next class none is.
#[test]
fn classifier_sees_requested_digits() {
    let device = device("flex").unwrap();
    let (train, held_out) = digits::train_test_split();
    let classifier = NearestNeighbors::new(&train.0, &device).unwrap();
    let batch = collate_images(held_out.0);
    let images = batch.to_tensor(&device);
    let labels = batch.labels().unwrap().to_vec();
    let accuracy = conditional_accuracy(&classifier, &images, &labels).unwrap();
    assert!(accuracy.overall().unwrap().value() > 0.97);
    assert!(
        accuracy
            .per_class()
            .iter()
            .all(|class| class.unwrap().value() > 0.8)
    );
    let wrong: Vec<u32> = labels.iter().map(|label| (label + 1) % 10).collect();
    let accuracy = conditional_accuracy(&classifier, &images, &wrong).unwrap();
    assert!(accuracy.overall().unwrap().value() < 0.03);
}
