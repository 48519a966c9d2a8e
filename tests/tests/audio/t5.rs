//! T5's encoder and tokenizer against transformers.

use aigc_core::device::device;
use aigc_encoders::{t5::T5EncoderModel, tokenizer::T5Tokenizer};
use aigc_tests::fixtures::{Case, every};

#[test]
fn t5_encoder_matches_transformers() {
    every(|case| case.text("kind") == "T5EncoderModel", check_encoder);
}

fn check_encoder(case: &Case) {
    let flex = device("flex").unwrap();
    let model = T5EncoderModel::from_pretrained(case.dir.join("model"), &flex).unwrap();
    assert!(model.warnings().is_empty(), "{model}");
    let mask = case.mask::<2>("attention_mask");
    let states = model.forward(case.int::<2>("input_ids"), Some(mask));
    case.assert_within("last_hidden_state", &states);
    let all = model.forward_hidden_states(
        case.int::<2>("input_ids"),
        Some(case.mask::<2>("attention_mask")),
    );
    case.assert_within("last_hidden_state", all.last().unwrap());
}

#[test]
fn t5_tokenizer_matches_transformers() {
    every(|case| case.text("kind") == "T5Tokenizer", check_tokenizer);
}

fn check_tokenizer(case: &Case) {
    let flex = device("flex").unwrap();
    let tokenizer = T5Tokenizer::from_pretrained(case.path("folder")).unwrap();
    let texts = case.json["texts"].as_array().unwrap();
    let texts: Vec<&str> = texts.iter().map(|text| text.as_str().unwrap()).collect();
    let (shape, _) = case.values("batch.input_ids");
    let batch = tokenizer.encode_padded(&texts, shape[1]).unwrap();
    case.assert_equal_ints("batch.input_ids", &batch.input_ids(&flex));
    case.assert_equal_ints("batch.attention_mask", &batch.mask(&flex).int());
    assert!(batch.cut.iter().all(Option::is_none));
}
