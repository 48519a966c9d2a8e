//! Language models: GPT-2, tokenizers, generation, training.
//!
//! All models implement [`CausalLm`], which computes the logits of the next token after every
//! token. Generation applies [`LogitsProcessor`]s to these logits and chooses one token after
//! another; training maximises the likelihood of the actual next token.
//!
//! | module | content |
//! |---|---|
//! | [`tokenizer`] | text to tokens and back, also as a stream |
//! | [`models`] | GPT-2, weight files, quantisation, adapters, opening any model of a directory |
//! | [`music`] | several streams of tokens: MusicGen |
//! | [`nn`] | layers shared by language models |
//! | [`cache`] | keys and values of earlier tokens |
//! | [`generate`] | greedy, sampled, beam, contrastive and assisted generation; grammars |
//! | [`windows`], [`objective`] | training data and loss |
//! | [`perplexity`](mod@perplexity) | how well a model predicts a text |
#![forbid(unsafe_code)]

pub mod cache;
mod fields;
pub mod generate;
pub mod models;
pub mod music;
pub mod nn;
pub mod objective;
pub mod perplexity;
mod text_file;
mod token_file;
pub mod tokenizer;
mod tokens;
pub mod windows;

pub use cache::{Cache, KvCache};
pub use generate::{
    FinishReason, GeneratedSequence, GenerationConfig, GenerationMode, GenerationState,
    GrammarConstraint, LogitsProcessor, TextGenerator,
};
pub use models::{AnyCausalLm, CausalLm, Gpt2, Gpt2Config, LoraConfig, PretrainedModel};
pub use objective::{CausalLmObjective, TokenBatch, evaluate_loss, next_token_loss};
pub use perplexity::{Perplexity, perplexity};
pub use text_file::{Lines, read_lines};
pub use token_file::tokenize_file;
pub use tokenizer::{BpeTokenizer, CharacterTokenizer, DecodeStream, Tokenizer};
pub use windows::TokenDataset;
