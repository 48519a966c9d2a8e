//! Language models: generation, options, tokenizers, training data, files.

#[path = "text/files.rs"]
mod files;
#[path = "text/folders.rs"]
mod folders;
#[path = "text/generation.rs"]
mod generation;
#[path = "text/options.rs"]
mod options;
#[path = "text/tokenizers.rs"]
mod tokenizers;
#[path = "text/training.rs"]
mod training;

use aigc_core::{
    CancelToken, Error,
    checkpoint::RunDir,
    data::{DataLoader, DataLoaderConfig, Dataset},
    device::device,
    ops::Quantization,
    params::{ParamVisitor, visit_params},
    rng::{InitWeights, Rng},
    train::{OptimizerConfig, ParamGroupConfig, Trainer, TrainerConfig},
};
use aigc_tests::{
    floats, folder_from, gpt2_tokenizer, integers, own_fixtures, python_with, run_script,
    small_gpt2, write_case,
};
use aigc_text::{
    BpeTokenizer, CausalLm, CausalLmObjective, CharacterTokenizer, DecodeStream, FinishReason,
    GeneratedSequence, GenerationConfig, GenerationState, Gpt2, Gpt2Config, LogitsProcessor,
    PretrainedModel, TextGenerator, TokenBatch, TokenDataset, Tokenizer,
    generate::{EarlyStopping, FrequencyPenalty, TokenIds, WordConstraint},
    models::ActivationName,
    perplexity, read_lines, tokenize_file,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Int, Tensor, TensorData},
};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
    path::Path,
};

fn model(seed: u64, vocabulary: usize) -> Gpt2 {
    small_gpt2(seed, vocabulary, 48, [2, 4, 32])
}

fn prompts() -> Vec<Vec<u32>> {
    vec![vec![3, 1, 4, 1, 5, 9, 2, 6], vec![7], vec![27, 18, 28]]
}

fn config() -> GenerationConfig {
    GenerationConfig {
        max_new_tokens: Some(14),
        eos_token_id: Some(TokenIds::One(0)),
        ..GenerationConfig::default()
    }
}

fn generate(
    model: &Gpt2,
    config: GenerationConfig,
    prompts: &[Vec<u32>],
) -> Vec<GeneratedSequence> {
    TextGenerator::new(model, config)
        .unwrap()
        .generate(prompts)
        .unwrap()
}

fn tokens(sequences: &[GeneratedSequence]) -> Vec<Vec<u32>> {
    sequences
        .iter()
        .map(|sequence| sequence.tokens.clone())
        .collect()
}

/// The score of a text by the model alone: the sum of its new tokens' logarithms.
fn log_probability(model: &Gpt2, text: &GeneratedSequence) -> f64 {
    let flex = device("flex").unwrap();
    let all: Vec<i32> = text.tokens.iter().map(|token| *token as i32).collect();
    let logits = model.forward(Tensor::<2, Int>::from_data(
        TensorData::new(all.clone(), [1, all.len()]),
        &flex,
    ));
    let logits: Vec<f64> = logits.into_data().iter::<f64>().collect();
    let vocabulary = model.vocab_size();
    (text.prompt_len..all.len())
        .map(|at| {
            let row = &logits[(at - 1) * vocabulary..][..vocabulary];
            row[all[at] as usize] - row.iter().map(|logit| logit.exp()).sum::<f64>().ln()
        })
        .sum()
}
