//! Language models.

use crate::{Shaped, gradients, shaped};
use aigc_core::{ops::Quantization, rng::InitWeights};
use aigc_text::{
    CausalLm, GenerationConfig, Gpt2Config, PretrainedModel, TextGenerator, TokenBatch,
    next_token_loss,
};
use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use std::collections::BTreeMap;

/// The results of a GPT-2: logits of whole sequences, and of pieces with a key-value cache; the
/// gradients of one training step; and sequences generated greedily, with beam search and by
/// sampling.
///
/// # Panics
/// If the model cannot be created.
pub fn gpt2_step(
    quantization: Option<Quantization>,
    device: &Device,
) -> ([Shaped; 2], BTreeMap<String, Shaped>, Vec<Vec<u32>>) {
    // Weights large enough that no two tokens have similar probabilities.
    let config = Gpt2Config {
        initializer_range: 0.3,
        ..Gpt2Config::nano(40, 24, [2, 2, 64])
    };
    let model = config
        .init(&device.clone().autodiff())
        .expect("a valid model")
        .init_weights(7);
    let sequences: Vec<Vec<u32>> = (0..3)
        .map(|index| (0..12).map(|at| (index * 7 + at * at) % 40).collect())
        .collect();
    let loss = next_token_loss(
        &model,
        &TokenBatch::collate(sequences.clone()),
        &device.clone().autodiff(),
    )
    .expect("a loss");
    let grads = gradients(&model, loss);
    let model = match quantization {
        Some(quantization) => model.valid().quantize(quantization),
        None => model.valid(),
    };
    let tokens: Vec<i32> = sequences
        .iter()
        .flatten()
        .map(|token| *token as i32)
        .collect();
    let tokens = Tensor::<2, Int>::from_data(TensorData::new(tokens, [3, 12]), device);
    let mut cache = model.new_cache(3, 4);
    let pieces = [(0, 5), (5, 1), (6, 6)];
    let pieces =
        pieces.map(|(from, n)| model.logits(tokens.clone().narrow(1, from, n), &mut *cache));
    let logits = [model.forward(tokens), Tensor::cat(pieces.into(), 1)].map(shaped);
    let configs = [
        GenerationConfig::default(),
        GenerationConfig {
            num_beams: 3,
            no_repeat_ngram_size: 2,
            ..GenerationConfig::default()
        },
        GenerationConfig {
            do_sample: true,
            top_k: 5,
            ..GenerationConfig::default()
        },
    ];
    let texts = configs.into_iter().flat_map(|config| {
        let config = GenerationConfig {
            max_length: Some(20),
            eos_token_id: None,
            ..config
        };
        let prompts = [sequences[0][..4].to_vec(), sequences[1][..7].to_vec()];
        TextGenerator::new(&model, config)
            .expect("valid options")
            .with_seed(3)
            .generate(&prompts)
            .expect("texts")
    });
    let texts = texts.map(|text| text.tokens).collect();
    (logits, grads, texts)
}
