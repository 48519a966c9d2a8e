use super::*;
use crate::clip::{ClipConfig, ClipTextConfig, ClipVisionConfig};
use aigc_core::{
    eval::{caption_retrieval, clip_score, cmmd},
    rng::{InitWeights, Rng},
    testing::{assert_close, flex, values},
};
use burn::tensor::TensorData;

fn vision() -> ClipVisionConfig {
    ClipVisionConfig {
        hidden_size: 8,
        intermediate_size: 12,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        image_size: 8,
        patch_size: 4,
        ..ClipVisionConfig::default()
    }
}

fn clip(processor: ClipImageProcessor) -> ClipFeatures {
    let tokenizer = ClipTokenizer::from_words(["a red circle"]).unwrap();
    let tokenizer = tokenizer.with_max_length(6).unwrap();
    let config = ClipConfig {
        text_config: ClipTextConfig {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: 8,
            intermediate_size: 12,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            max_position_embeddings: 6,
            eos_token_id: tokenizer.eos_token_id(),
            ..ClipTextConfig::default()
        },
        vision_config: vision(),
        projection_dim: 5,
        ..ClipConfig::default()
    };
    let model = config.init(&flex()).unwrap().init_weights(1);
    ClipFeatures::new(model, processor, tokenizer, "random").unwrap()
}

fn images(shape: [usize; 4]) -> Tensor<4> {
    let values = Rng::new(2).uniform_vec(shape.iter().product(), 0.0, 1.0);
    Tensor::from_data(TensorData::new(values, shape), &flex())
}

/// The image of `images([1, 3, 8, 8])` as the model takes it.
fn prepared(processor: &ClipImageProcessor) -> Tensor<4> {
    let planes = values(images([1, 3, 8, 8]));
    let pixels: Vec<u8> = (0..planes.len())
        .map(|i| (planes[i % 3 * 64 + i / 3] * 255.0).round() as u8)
        .collect();
    let picture = RgbPixels {
        pixels: &pixels,
        height: 8,
        width: 8,
    };
    processor.preprocess(&[picture], &flex()).unwrap()
}

/// More images and prompts than are computed at once.
#[test]
fn embeddings_are_those_of_the_model() {
    let clip = clip(ClipImageProcessor::square(8));
    let x = images([IMAGES + 3, 3, 11, 9]);
    let found = clip.extract(x.clone()).unwrap();
    assert_eq!(found.dims(), [IMAGES + 3, clip.width()]);
    let last = clip.extract(x.clone().narrow(0, IMAGES + 2, 1)).unwrap();
    let row = found.clone().narrow(0, IMAGES + 2, 1);
    assert_close(&values(row), &values(last), 1e-5);
    let pixels = prepared(&ClipImageProcessor::square(8));
    let expected = values(clip.model().get_image_features(pixels));
    let small = clip.extract(images([1, 3, 8, 8])).unwrap();
    assert_close(&values(small), &expected, 1e-5);
    let prompts = ["red circle"; PROMPTS + 1];
    let text = clip.text_features(&prompts).unwrap();
    assert_eq!((text.len(), text.width()), (PROMPTS + 1, 5));
    let tokens = clip.tokenizer.encode_padded(&prompts[..1]).unwrap();
    let ids = tokens.input_ids(&flex());
    let mask = Some(tokens.mask(&flex()));
    let expected = values(clip.model().get_text_features(ids, mask));
    assert_close(text.row(PROMPTS), &expected, 1e-5);
    // Grey images are repeated.
    let grey = images([1, 1, 8, 8]);
    let colour = clip.extract(grey.clone().repeat_dim(1, 3)).unwrap();
    let grey = clip.extract(grey).unwrap();
    assert_close(&values(grey), &values(colour), 0.0);
    // The measures take both sides.
    let pictures = Features::from_tensor(&found).unwrap();
    let text = text.select(&(0..pictures.len()).collect::<Vec<_>>());
    assert!(clip_score(&pictures, &text).is_ok());
    assert!(caption_retrieval(&pictures, &text).is_ok());
    assert!(cmmd(&pictures, &pictures).unwrap().abs() < 1e-6);
}

#[test]
fn encoder_alone_gives_its_pooled_output() {
    let model = vision().init(&flex()).unwrap().init_weights(1);
    let processor = ClipImageProcessor::square(8);
    let expected = model.forward(prepared(&processor)).pooler_output;
    let features = ClipVisionFeatures::new(model, processor, "random").unwrap();
    let found = features.extract(images([1, 3, 8, 8])).unwrap();
    assert_eq!((found.dims(), features.width()), ([1, 8], 8));
    assert_close(&values(found), &values(expected), 1e-5);
}

#[test]
fn images_that_do_not_fit_are_errors() {
    let message = |processor, images| {
        let found = clip(processor).extract(images);
        found.unwrap_err().to_string()
    };
    let square = || ClipImageProcessor::square(8);
    let two = message(square(), images([1, 2, 8, 8]));
    assert!(two.contains("`images` is 1 of 2 × 8 × 8"), "{two}");
    let broken = message(square(), images([1, 3, 8, 8]) * f32::NAN);
    assert!(broken.contains("`images` is NaN"), "{broken}");
    let size = message(ClipImageProcessor::square(6), images([1, 3, 8, 8]));
    assert!(size.contains("6 × 6 pixels"), "{size}");
    let none = clip(square()).text_features(&[]).unwrap_err().to_string();
    assert!(none.contains("`prompts` is empty"), "{none}");
}
