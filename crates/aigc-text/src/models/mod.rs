//! Networks, and where they all meet.

mod gpt2;
#[cfg(feature = "download")]
mod hub;
mod layout;
mod lora;

pub use gpt2::{ActivationName, Gpt2, Gpt2Config};
pub use lora::LoraConfig;

use crate::cache::KvCache;
use burn::{
    module::Module,
    tensor::{Int, Tensor},
};

/// Where all language models meet: scores of the next token, for every token so far.
pub trait CausalLm: Module {
    /// Number of tokens there are.
    fn vocab_size(&self) -> usize;

    /// The longest text, in tokens.
    fn max_position_embeddings(&self) -> usize;

    /// An empty cache for texts of `rows` rows, with room for `capacity` tokens before it has to
    /// grow.
    fn new_cache(&self, rows: usize, capacity: usize) -> KvCache;

    /// Scores (logits) of the token after each, for texts from their beginning; this is what is
    /// trained.
    ///
    /// # Shapes
    /// - tokens: `[batch, time]`
    /// - output: `[batch, time, vocabulary]`
    ///
    /// # Panics
    /// If there are more than [`max_position_embeddings`](Self::max_position_embeddings) tokens, or
    /// one is not below [`vocab_size`](Self::vocab_size).
    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3>;

    /// What the model makes of tokens that follow those in `cache`, which takes them in.
    ///
    /// # Shapes
    /// - tokens: `[rows, time]`
    /// - output: `[rows, time, width]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward), counting those in the cache.
    fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut KvCache) -> Tensor<3>;

    /// Scores of the next token from what [`forward_cached`](Self::forward_cached) gave.
    ///
    /// # Shapes
    /// - hidden: `[rows, time, width]`
    /// - output: `[rows, time, vocabulary]`
    fn lm_head(&self, hidden: Tensor<3>) -> Tensor<3>;

    /// Scores of the token after each of `tokens`, which follow those in `cache`.
    ///
    /// # Shapes
    /// - tokens: `[rows, time]`
    /// - output: `[rows, time, vocabulary]`
    fn logits(&self, tokens: Tensor<2, Int>, cache: &mut KvCache) -> Tensor<3> {
        self.lm_head(self.forward_cached(tokens, cache))
    }
}

/// Positions of tokens in their texts.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // It lives for a call.
pub enum PositionIds {
    /// The same in every row, from this one on.
    Range(usize),
    /// Each its own, `[rows, time]`.
    PerRow(Tensor<2, Int>),
}
