//! Language models, and the traits that they implement.

mod any;
mod gpt2;
mod lora;
mod pretrained;

pub use aigc_core::lora::LoraConfig;
pub use any::AnyCausalLm;
pub use gpt2::{ActivationName, Gpt2, Gpt2Config};
pub use pretrained::{PretrainedModel, QuantizablePart};

use crate::cache::Cache;
use burn::{
    module::Module,
    tensor::{Int, Tensor},
};

/// A causal language model: logits of the next token after every token.
pub trait CausalLm: Module {
    /// Number of tokens in the vocabulary.
    fn vocab_size(&self) -> usize;

    /// Maximum length of a sequence, in tokens.
    fn max_position_embeddings(&self) -> usize;

    /// An empty cache for `batch_size` sequences, with memory for `capacity` tokens.
    fn new_cache(&self, batch_size: usize, capacity: usize) -> Box<dyn Cache>;

    /// Logits of the next token after each token of whole sequences; used for training.
    ///
    /// # Shapes
    /// - tokens: `[batch, time]`
    /// - output: `[batch, time, vocabulary]`
    ///
    /// # Panics
    /// If there are more than [`max_position_embeddings`](Self::max_position_embeddings) tokens, or
    /// one is not below [`vocab_size`](Self::vocab_size).
    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<3>;

    /// Hidden states of `tokens`, which follow the tokens in `cache`; the cache stores them.
    ///
    /// # Shapes
    /// - tokens: `[batch, time]`
    /// - output: `[batch, time, width]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward), including the tokens in the cache.
    fn forward_cached(&self, tokens: Tensor<2, Int>, cache: &mut dyn Cache) -> Tensor<3>;

    /// Logits of the next token from the hidden states of
    /// [`forward_cached`](Self::forward_cached).
    ///
    /// # Shapes
    /// - hidden_states: `[batch, time, width]`
    /// - output: `[batch, time, vocabulary]`
    fn lm_head(&self, hidden_states: Tensor<3>) -> Tensor<3>;

    /// Logits of the next token after each of `tokens`, which follow the tokens in `cache`.
    ///
    /// # Shapes
    /// - tokens: `[batch, time]`
    /// - output: `[batch, time, vocabulary]`
    fn logits(&self, tokens: Tensor<2, Int>, cache: &mut dyn Cache) -> Tensor<3> {
        self.lm_head(self.forward_cached(tokens, cache))
    }
}
