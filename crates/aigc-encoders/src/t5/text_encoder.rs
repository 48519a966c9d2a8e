//! A tokenizer and an encoder as one.

use super::T5EncoderModel;
use crate::tokenizer::{T5Tokenizer, check_prompts};
use aigc_core::{
    Error, Result,
    encoder::{TextEmbeddings, TextEncoder},
    weights::Loaded,
};
use burn::tensor::Device;
use std::path::Path;

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

    /// Opens the directories of a tokenizer and of a model, for example `tokenizer_2` and
    /// `text_encoder_2` of Flux.
    ///
    /// # Errors
    /// As [`T5Tokenizer::from_pretrained`], [`T5EncoderModel::from_pretrained`] and
    /// [`new`](Self::new).
    pub fn from_pretrained(
        tokenizer: impl AsRef<Path>,
        model: impl AsRef<Path>,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let tokenizer = T5Tokenizer::from_pretrained(tokenizer)?;
        let model = T5EncoderModel::from_pretrained(model, device)?;
        model.try_map(|model| Self::new(tokenizer, model))
    }

    /// Sets the number of tokens that prompts are padded or cut to.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for 0, and for more than 1048576.
    pub fn with_max_length(mut self, max_length: usize) -> Result<Self> {
        T5Tokenizer::check_length(max_length)?;
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
        check_prompts(prompts)?;
        let batch = self.tokenizer.encode_padded(prompts, self.max_length)?;
        // The model stays where its weights are.
        let own = self.model.device();
        let mask = self.use_attention_mask.then(|| batch.mask(&own));
        let states = self.model.forward(batch.input_ids(&own), mask);
        let embeddings = TextEmbeddings::new(states.to_device(device));
        Ok(match self.use_attention_mask {
            true => embeddings.with_attention_mask(batch.mask(device)),
            false => embeddings,
        })
    }

    fn embed_dim(&self) -> usize {
        self.model.config().d_model
    }

    fn max_length(&self) -> usize {
        self.max_length
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::t5::T5Config;
    use aigc_core::{
        rng::InitWeights,
        testing::{flex, values},
    };
    use serde_json::json;

    /// A tokenizer of four tokens: padding, the end, unknown characters and `a`.
    fn tokenizer() -> T5Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        let pieces = json!([["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["▁a", -1.0]]);
        let model = json!({"type": "Unigram", "unk_id": 2, "vocab": pieces});
        let path = dir.path().join("tokenizer.json");
        std::fs::write(path, json!({ "model": model }).to_string()).unwrap();
        T5Tokenizer::from_pretrained(dir.path()).unwrap()
    }

    fn model(vocab_size: usize) -> T5EncoderModel {
        let config = T5Config {
            vocab_size,
            d_model: 8,
            d_kv: 4,
            d_ff: 6,
            num_layers: 1,
            num_heads: 2,
            ..T5Config::default()
        };
        config.init(&flex()).unwrap().init_weights(1)
    }

    #[test]
    fn prompts_are_encoded_as_by_the_model() {
        let encoder = T5TextEncoder::new(tokenizer(), model(4)).unwrap();
        let encoder = encoder.with_max_length(3).unwrap();
        let found = encoder.encode(&["a", "a a a"], &flex()).unwrap();
        let tokens = encoder
            .tokenizer()
            .encode_padded(&["a", "a a a"], 3)
            .unwrap();
        assert_eq!(tokens.ids, [[3, 1, 0], [3, 3, 1]]);
        let mask = tokens.mask(&flex());
        let states = encoder
            .model()
            .forward(tokens.input_ids(&flex()), Some(mask));
        assert_eq!(values(found.hidden_states), values(states));
        let mask = values(found.attention_mask.unwrap().float());
        assert_eq!(mask, [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
        let unmasked = encoder.with_attention_mask(false);
        let found = unmasked.encode(&["a"], &flex()).unwrap();
        assert!(found.attention_mask.is_none() && found.pooled.is_none());
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let message = T5TextEncoder::new(tokenizer(), model(3)).unwrap_err();
        let expected = "`tokenizer` is one of 4 tokens, expected at most 3";
        assert!(message.to_string().contains(expected), "{message}");
        let encoder = T5TextEncoder::new(tokenizer(), model(4)).unwrap();
        assert_eq!(encoder.max_length(), 512);
        let message = encoder.encode(&[], &flex()).unwrap_err();
        assert!(
            message.to_string().contains("`prompts` is empty"),
            "{message}"
        );
        for length in [0, usize::MAX] {
            let message = encoder.clone().with_max_length(length).unwrap_err();
            let expected = format!("`max_length` is {length}, expected 1");
            assert!(message.to_string().contains(&expected), "{message}");
        }
    }
}
