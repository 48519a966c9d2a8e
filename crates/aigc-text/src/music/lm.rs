//! The interface of models of several streams of tokens.

use super::{Condition, ConditionInputs, DelayPattern};
use crate::cache::Cache;
use aigc_core::Result;
use burn::{
    module::Module,
    tensor::{Bool, Int, Tensor},
};

/// A causal model of several streams of tokens: logits of the next token of every stream after
/// every step. Beside [`CausalLm`](crate::CausalLm), which has one stream.
///
/// Tokens are those of the steps of [`delay_pattern`](Self::delay_pattern), after a first step of
/// empty places, with which every sequence begins.
pub trait MultiStreamLm: Module {
    /// Number of streams: codebooks of the codec.
    fn num_codebooks(&self) -> usize;

    /// Number of codes of a codebook, which the logits are for.
    fn vocab_size(&self) -> usize;

    /// The token of empty places.
    fn pad_token_id(&self) -> u32;

    /// The delays of the streams.
    fn delay_pattern(&self) -> DelayPattern;

    /// Maximum length of a sequence, in steps.
    fn max_position_embeddings(&self) -> usize;

    /// Encodes conditions; `None` if there are none.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for a text or classes that the
    /// model does not have, or batches of different sizes.
    fn encode_condition(&self, inputs: &ConditionInputs) -> Result<Option<Condition>>;

    /// A cache for `batch_size` sequences, with memory for `capacity` steps. It holds the keys and
    /// values of the condition, which are computed once.
    ///
    /// # Panics
    /// If the condition is of another number of samples.
    fn new_cache(
        &self,
        batch_size: usize,
        capacity: usize,
        condition: Option<&Condition>,
    ) -> StreamCache;

    /// Logits of the next token of every stream after each step of whole sequences; used for
    /// training.
    ///
    /// # Shapes
    /// - tokens: `[batch, codebooks, steps]`
    /// - output: `[batch, codebooks, steps, vocabulary]`
    ///
    /// # Panics
    /// If there are more than [`max_position_embeddings`](Self::max_position_embeddings) steps,
    /// another number of streams, a token that is neither a code nor that of empty places, or a
    /// condition of another number of samples.
    fn forward(&self, tokens: Tensor<3, Int>, condition: Option<&Condition>) -> Tensor<4>;

    /// Hidden states of `tokens`, which follow the steps in `cache`; the cache stores them.
    ///
    /// # Shapes
    /// - tokens: `[batch, codebooks, steps]`
    /// - output: `[batch, steps, width]`
    ///
    /// # Panics
    /// As [`forward`](Self::forward), including the steps in the cache.
    fn forward_cached(&self, tokens: Tensor<3, Int>, cache: &mut StreamCache) -> Tensor<3>;

    /// Logits of the next token of every stream from hidden states.
    ///
    /// # Shapes
    /// - hidden_states: `[batch, steps, width]`
    /// - output: `[batch, codebooks, steps, vocabulary]`
    fn lm_heads(&self, hidden_states: Tensor<3>) -> Tensor<4>;
}

/// The state of earlier steps, and of the condition.
#[derive(Debug)]
pub struct StreamCache {
    /// Keys and values of earlier steps.
    pub steps: Box<dyn Cache>,
    /// Keys and values of the condition, if there is one.
    pub condition: Option<ConditionCache>,
}

/// The keys and values of a condition.
#[derive(Clone, Debug)]
pub struct ConditionCache {
    /// Keys and values of every block, `[batch, heads, vectors, d]`.
    pub layers: Vec<[Tensor<4>; 2]>,
    /// True for vectors that are hidden from attention, `[batch, vectors]`.
    pub hidden: Option<Tensor<2, Bool>>,
}
