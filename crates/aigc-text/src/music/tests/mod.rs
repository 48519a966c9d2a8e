//! Invariants of the model and its files; what the other tests share.

mod generation;
mod training;

use super::*;
use aigc_core::{
    Result,
    encoder::TextEmbeddings,
    ops::Quantization,
    rng::{InitWeights, Rng},
    testing::{assert_close, values},
    weights::WeightReader,
};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

const WIDTH: usize = 6;

fn config() -> MusicgenDecoderConfig {
    MusicgenDecoderConfig {
        vocab_size: 9,
        max_position_embeddings: 24,
        num_hidden_layers: 2,
        ffn_dim: 24,
        num_attention_heads: 2,
        hidden_size: 16,
        dropout: 0.0,
        initializer_factor: 0.4,
        num_codebooks: 3,
        text_hidden_size: Some(WIDTH),
        class_sizes: vec![4, 2],
        ..MusicgenDecoderConfig::default()
    }
}

fn model(config: MusicgenDecoderConfig) -> MusicgenDecoder {
    config.init(&Device::flex()).unwrap().init_weights(5)
}

fn tokens(shape: [usize; 3], vocabulary: usize, seed: u64) -> Tensor<3, Int> {
    let mut rng = Rng::new(seed);
    let count = shape.iter().product();
    let values: Vec<i32> = (0..count)
        .map(|_| rng.random_index(vocabulary) as i32)
        .collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn text(batch: usize, mask: Option<Vec<bool>>) -> TextEmbeddings {
    let count = mask.as_ref().map_or(3, |mask| mask.len() / batch);
    let states = Rng::new(8).normal([batch, count, WIDTH], &Device::flex());
    let text = TextEmbeddings::new(states);
    match mask {
        Some(mask) => {
            let mask = TensorData::new(mask, [batch, count]);
            text.with_attention_mask(Tensor::<2, Bool>::from_data(mask, &Device::flex()))
        }
        None => text,
    }
}

fn contains<T>(result: Result<T>, expected: &str) {
    let message = result.map(|_| ()).unwrap_err().to_string();
    assert!(message.contains(expected), "{message}");
}

#[test]
fn cached_steps_are_those_of_whole_sequences() {
    let model = model(config());
    let tokens = tokens([2, 3, 7], 10, 1);
    let inputs = ConditionInputs::text(text(2, Some(vec![true, true, false, true])));
    let condition = model
        .encode_condition(&inputs.with_classes(vec![vec![3, 0], vec![1, 1]]))
        .unwrap();
    for condition in [None, condition.as_ref()] {
        let whole = values(model.forward(tokens.clone(), condition));
        let mut cache = model.new_cache(2, 2, condition);
        let parts = [(0, 3), (3, 1), (4, 3)].map(|(first, count)| {
            let part = tokens.clone().narrow(2, first, count);
            model.lm_heads(model.forward_cached(part, &mut cache))
        });
        assert_close(&values(Tensor::cat(parts.into(), 2)), &whole, 1e-4);
        // Later tokens change nothing before them.
        let first = values(model.forward(tokens.clone().narrow(2, 0, 4), condition));
        let same = values(model.forward(tokens.clone(), condition).narrow(2, 0, 4));
        assert_close(&first, &same, 1e-4);
    }
}

#[test]
fn hidden_text_is_no_text() {
    let model = model(config());
    let tokens = tokens([1, 3, 4], 10, 2);
    let encode = |mask: Vec<bool>| {
        let inputs = ConditionInputs::text(text(1, Some(mask)));
        model.encode_condition(&inputs).unwrap().unwrap()
    };
    let nothing = values(model.forward(tokens.clone(), None));
    let told = |condition: Condition| values(model.forward(tokens.clone(), Some(&condition)));
    assert_close(&told(encode(vec![false; 2])), &nothing, 1e-5);
    assert_close(
        &told(encode(vec![true; 2]).kept(&[false]).unwrap()),
        &nothing,
        1e-5,
    );
    let found = told(encode(vec![true; 2]));
    let apart = found.iter().zip(&nothing).map(|(a, b)| (a - b).abs());
    assert!(apart.fold(0.0, f32::max) > 1e-2, "a text counts");
    // Padding of a text counts for nothing, whatever it is.
    let short = encode(vec![true, true, false]);
    let same = Condition::new(short.states().narrow(1, 0, 2), None).unwrap();
    assert_close(&told(short), &told(same), 1e-5);
}

#[test]
fn files_have_the_names_of_transformers() {
    let model = model(config());
    let dir = tempfile::tempdir().unwrap();
    model.save_pretrained(dir.path()).unwrap();
    let opened = MusicgenDecoder::from_pretrained(dir.path(), &Device::flex()).unwrap();
    assert!(opened.warnings().is_empty(), "{opened}");
    let tokens = tokens([1, 3, 5], 10, 3);
    let expected = values(model.forward(tokens.clone(), None));
    assert_eq!(values(opened.forward(tokens.clone(), None)), expected);
    let path = dir.path().join("model.safetensors");
    let files = WeightReader::open(&path).unwrap();
    let shape = |name: &str| files.shape(name).map(<[usize]>::to_vec);
    let fc1 = "model.decoder.layers.1.fc1.weight";
    assert_eq!(shape(fc1), Some(vec![24, 16]));
    assert_eq!(shape("lm_heads.2.weight"), Some(vec![9, 16]));
    assert_eq!(
        shape("model.decoder.embed_tokens.0.weight"),
        Some(vec![10, 16])
    );
    assert_eq!(shape("model.decoder.layer_norm.bias"), Some(vec![16]));
    assert_eq!(shape("enc_to_dec_proj.weight"), Some(vec![16, WIDTH]));

    let quantized = model.quantize(Quantization::Int8);
    let found = values(quantized.forward(tokens, None));
    let range = expected.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    assert_close(&found, &expected, 0.1 * range);
    let message = quantized.save_pretrained(dir.path()).unwrap_err();
    assert!(message.to_string().contains("a quantised model"));
}

#[test]
fn conditions_that_do_not_fit_are_errors() {
    let device = Device::flex();
    let model = model(config());
    let encode = |inputs: ConditionInputs| model.encode_condition(&inputs);
    let wide = TextEmbeddings::new(Tensor::zeros([1, 2, 7], &device));
    contains(encode(ConditionInputs::text(wide)), "states of width 7");
    contains(
        encode(ConditionInputs::classes(vec![vec![4, 0]])),
        "`classes` is [4, 0]",
    );
    contains(
        encode(ConditionInputs::text(text(2, None)).with_classes(vec![vec![0, 0]])),
        "of 1 samples",
    );
}
