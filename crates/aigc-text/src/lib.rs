//! Language models: GPT-2, its tokenizers, ways to generate, and training.
//!
//! Everything meets at one function: scores of the next token, for every token so far
//! ([`CausalLm`]). What generates is built of [`LogitsProcessor`]s on these scores and one choice
//! after the other; what trains makes the true next token likely.
//!
//! | module | what lives there |
//! |---|---|
//! | [`tokenizer`] | texts to tokens and back, also as they stream |
//! | [`models`] | GPT-2, the files that it is read from, adapters |
//! | [`cache`] | keys and values of the tokens so far |
//! | [`generate`] | greedy, drawn, beams, contrastive, assisted; within a pattern |
//! | [`windows`], [`objective`] | what training sees, and its loss |
//! | [`perplexity`](mod@perplexity) | how well a model foretells texts |
#![forbid(unsafe_code)]

pub mod cache;
pub mod generate;
pub mod models;
pub mod objective;
pub mod perplexity;
pub mod tokenizer;
pub mod windows;

pub use cache::KvCache;
pub use generate::{
    FinishReason, GeneratedSequence, GenerationConfig, GenerationMode, GenerationState,
    GrammarConstraint, LogitsProcessor, TextGenerator,
};
pub use models::{CausalLm, Gpt2, Gpt2Config, LoraConfig};
pub use objective::{CausalLmObjective, TokenBatch, evaluate_loss, next_token_loss};
pub use perplexity::{Perplexity, perplexity};
pub use tokenizer::{BpeTokenizer, CharacterTokenizer, DecodeStream, Tokenizer};
pub use windows::{Lines, TokenDataset, read_lines, tokenize_file};
