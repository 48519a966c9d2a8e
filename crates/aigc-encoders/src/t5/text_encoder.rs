//! A tokenizer and an encoder as one.

use super::T5EncoderModel;
use crate::tokenizer::T5Tokenizer;
use aigc_core::{
    Error, Result,
    encoder::{TextEmbeddings, TextEncoder},
};
use burn::tensor::Device;

/// Tokens of a prompt, if the tokenizer's files do not say how many.
const MAX_LENGTH: usize = 512;

/// Encodes prompts with T5.
///
/// Prompts are padded or cut to [`max_length`](TextEncoder::max_length) tokens. Models differ in
/// what they do with padding: those of PixArt hide it, those of Stable Diffusion 3 and Flux do not.
#[derive(Clone, Debug)]
pub struct T5TextEncoder {
    tokenizer: T5Tokenizer,
    model: T5EncoderModel,
    max_length: usize,
    use_attention_mask: bool,
}

impl T5TextEncoder {
    /// The encoder of `tokenizer` and `model`, which hides padding.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the tokenizer has tokens that the model does not have.
    pub fn new(tokenizer: T5Tokenizer, model: T5EncoderModel) -> Result<Self> {
        let (tokens, rows) = (tokenizer.vocab_size(), model.config().vocab_size);
        if tokens > rows {
            let value = format!("one of {tokens} tokens");
            let expected = format!("at most {rows}, the vocab_size of the model");
            return Err(Error::argument("tokenizer", value, expected));
        }
        Ok(Self {
            max_length: tokenizer.model_max_length().unwrap_or(MAX_LENGTH),
            tokenizer,
            model,
            use_attention_mask: true,
        })
    }

    /// Sets the number of tokens that prompts are padded or cut to.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0.
    pub fn with_max_length(mut self, max_length: usize) -> Result<Self> {
        if max_length == 0 {
            let expected = "at least 1, for the end of the text";
            return Err(Error::argument("max_length", max_length, expected));
        }
        self.max_length = max_length;
        Ok(self)
    }

    /// Sets whether padding is hidden from the tokens, and marked in the result.
    pub fn with_attention_mask(mut self, use_attention_mask: bool) -> Self {
        self.use_attention_mask = use_attention_mask;
        self
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &T5Tokenizer {
        &self.tokenizer
    }

    /// The model.
    pub fn model(&self) -> &T5EncoderModel {
        &self.model
    }
}

impl TextEncoder for T5TextEncoder {
    fn encode(&self, prompts: &[&str], device: &Device) -> Result<TextEmbeddings> {
        if prompts.is_empty() {
            return Err(Error::argument("prompts", "empty", "at least one prompt"));
        }
        let batch = self.tokenizer.encode_padded(prompts, self.max_length)?;
        let mask = self.use_attention_mask.then(|| batch.mask(device));
        let states = self.model.forward(batch.input_ids(device), mask.clone());
        let embeddings = TextEmbeddings::new(states);
        Ok(match mask {
            Some(mask) => embeddings.with_attention_mask(mask),
            None => embeddings,
        })
    }

    fn embed_dim(&self) -> usize {
        self.model.config().d_model
    }

    fn max_length(&self) -> usize {
        self.max_length
    }
}
