//! A tokenizer and a text encoder as one.

use super::{ClipTextModel, ClipTextOutput};
use crate::tokenizer::{ClipTokenizer, TokenBatch, check_prompts};
use aigc_core::{
    Error, Result,
    encoder::{TextEmbeddings, TextEncoder},
    weights::Loaded,
};
use burn::tensor::{Device, Tensor};
use std::path::Path;

/// The hidden states of a text encoder that condition another model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClipSkip {
    /// Number of layers at the end that are skipped.
    pub layers: usize,
    /// Whether the final layer norm is left out.
    pub without_norm: bool,
}

impl ClipSkip {
    /// The last hidden state, as Stable Diffusion 1 and 2 use it.
    pub const NONE: Self = Self {
        layers: 0,
        without_norm: false,
    };

    /// The state before the last layer, without the norm, as Stable Diffusion XL and 3 use it.
    pub const PENULTIMATE: Self = Self {
        layers: 1,
        without_norm: true,
    };
}

/// CLIP's tokenizer and text encoder as a [`TextEncoder`]: prompts are cut and padded to the length
/// of the tokenizer. The pooled embedding is the projected one if the model has a projection.
#[derive(Clone, Debug)]
pub struct ClipTextEncoder {
    tokenizer: ClipTokenizer,
    model: ClipTextModel,
    skip: ClipSkip,
    masks_padding: bool,
}

impl ClipTextEncoder {
    /// An encoder that returns the last hidden state and attends to padding.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the tokenizer has tokens that the model does not have, or
    /// longer prompts than the model takes.
    pub fn new(tokenizer: ClipTokenizer, model: ClipTextModel) -> Result<Self> {
        let config = model.config();
        let last = tokenizer.last_token_id();
        if last as usize >= config.vocab_size {
            let expected = format!("below {}, the model's vocab_size", config.vocab_size);
            return Err(Error::argument("token", last, expected));
        }
        let (length, positions) = (tokenizer.max_length(), config.max_position_embeddings);
        if length > positions {
            let expected = format!("at most {positions}, the model's max_position_embeddings");
            return Err(Error::argument("max_length", length, expected));
        }
        Ok(Self {
            tokenizer,
            model,
            skip: ClipSkip::NONE,
            masks_padding: false,
        })
    }

    /// Opens the directories of a tokenizer and of a model, which diffusers calls `tokenizer` and
    /// `text_encoder`.
    ///
    /// # Errors
    /// As [`ClipTokenizer::from_pretrained`], [`ClipTextModel::from_pretrained`] and
    /// [`new`](Self::new).
    pub fn from_pretrained(
        tokenizer: impl AsRef<Path>,
        model: impl AsRef<Path>,
        device: &Device,
    ) -> Result<Loaded<Self>> {
        let tokenizer = ClipTokenizer::from_pretrained(tokenizer)?;
        let model = ClipTextModel::from_pretrained(model, device)?;
        model.try_map(|model| Self::new(tokenizer, model))
    }

    /// Sets which hidden states are returned.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the model has fewer layers than are skipped.
    pub fn with_skip(mut self, skip: ClipSkip) -> Result<Self> {
        let layers = self.model.config().num_hidden_layers;
        if skip.layers > layers {
            let expected = format!("at most {layers}, the layers of the model");
            return Err(Error::argument("clip_skip", skip.layers, expected));
        }
        self.skip = skip;
        Ok(self)
    }

    /// Sets whether padding is hidden from attention, within this model and in the mask that
    /// conditioned models get.
    pub fn with_masked_padding(mut self, masks_padding: bool) -> Self {
        self.masks_padding = masks_padding;
        self
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &ClipTokenizer {
        &self.tokenizer
    }

    /// The model.
    pub fn model(&self) -> &ClipTextModel {
        &self.model
    }

    /// Adds words with their embeddings, which textual inversion learned (Gal et al. 2022,
    /// <https://arxiv.org/abs/2208.01618>), and returns their ids.
    ///
    /// # Shapes
    /// - rows: `[words, hidden_size]`
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if a word is there already, or the rows have another shape.
    /// Nothing is added then.
    pub fn add_tokens(&mut self, words: &[&str], rows: Tensor<2>) -> Result<Vec<u32>> {
        let mut tokenizer = self.tokenizer.clone();
        let ids = tokenizer.add_tokens(words)?;
        self.model = self.model.clone().set_token_embeddings(&ids, rows)?;
        self.tokenizer = tokenizer;
        Ok(ids)
    }

    /// The model's output for tokens.
    fn forward(&self, tokens: &TokenBatch, device: &Device) -> ClipTextOutput {
        let mask = self.masks_padding.then(|| tokens.mask(device));
        self.model.forward(tokens.input_ids(device), mask)
    }
}

impl TextEncoder for ClipTextEncoder {
    fn encode(&self, prompts: &[&str], device: &Device) -> Result<TextEmbeddings> {
        check_prompts(prompts)?;
        let tokens = self.tokenizer.encode_padded(prompts)?;
        // The model stays where its weights are.
        let own = self.model.token_embeddings().device();
        let output = self.forward(&tokens, &own);
        let ClipSkip {
            layers,
            without_norm,
        } = self.skip;
        let states = self
            .model
            .without_last_layers(&output, layers, !without_norm)?;
        let pooled = output.text_embeds.unwrap_or(output.pooler_output);
        let embeddings =
            TextEmbeddings::new(states.to_device(device)).with_pooled(pooled.to_device(device));
        Ok(match self.masks_padding {
            true => embeddings.with_attention_mask(tokens.mask(device)),
            false => embeddings,
        })
    }

    fn embed_dim(&self) -> usize {
        self.model.config().hidden_size
    }

    fn max_length(&self) -> usize {
        self.tokenizer.max_length()
    }
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::clip::ClipTextConfig;
    use aigc_core::{
        rng::InitWeights,
        testing::{assert_close, flex, values},
    };

    fn encoder() -> ClipTextEncoder {
        let tokenizer = ClipTokenizer::from_words(["a red circle"]).unwrap();
        let tokenizer = tokenizer.with_max_length(6).unwrap();
        let config = ClipTextConfig {
            vocab_size: tokenizer.vocab_size(),
            hidden_size: 8,
            intermediate_size: 12,
            num_hidden_layers: 2,
            num_attention_heads: 2,
            max_position_embeddings: 6,
            eos_token_id: tokenizer.eos_token_id(),
            ..ClipTextConfig::default()
        };
        let model = config.init(&flex()).unwrap().init_weights(1);
        ClipTextEncoder::new(tokenizer, model).unwrap()
    }

    #[test]
    fn prompts_are_encoded_as_by_the_model() {
        let encoder = encoder();
        let prompts = ["red circle", ""];
        let tokens = encoder.tokenizer().encode_padded(&prompts).unwrap();
        let output = encoder.model().forward(tokens.input_ids(&flex()), None);
        let close = |a: Tensor<3>, b: &Tensor<3>| {
            assert_close(&values(a), &values(b.clone()), 0.0);
        };
        let found = encoder.encode(&prompts, &flex()).unwrap();
        close(found.hidden_states, &output.last_hidden_state);
        let pooled = values(found.pooled.unwrap());
        assert_close(&pooled, &values(output.pooler_output), 0.0);
        assert!(found.attention_mask.is_none());

        let skipping = encoder.clone().with_skip(ClipSkip::PENULTIMATE).unwrap();
        let found = skipping.encode(&prompts, &flex()).unwrap();
        close(found.hidden_states, &output.hidden_states[1]);
        let far = ClipSkip {
            layers: 3,
            ..ClipSkip::NONE
        };
        assert!(encoder.clone().with_skip(far).is_err());

        let message = encoder.encode(&[], &flex()).unwrap_err().to_string();
        assert!(message.contains("`prompts` is empty"), "{message}");

        let masked = encoder.with_masked_padding(true);
        let found = masked.encode(&prompts, &flex()).unwrap();
        let mask = values(found.attention_mask.unwrap().float());
        assert_eq!(
            mask,
            [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
        );
    }

    #[test]
    fn added_words_have_their_embeddings() {
        let mut encoder = encoder();
        let size = encoder.tokenizer().vocab_size() as u32;
        let rows = Tensor::<2>::ones([2, 8], &flex());
        let ids = encoder
            .add_tokens(&["<cat>", "<dog>"], rows.clone())
            .unwrap();
        assert_eq!(ids, [size, size + 1]);
        let table = values(encoder.model().token_embeddings());
        assert_eq!(table[size as usize * 8..], [1.0; 16]);
        encoder.encode(&["a <cat>"], &flex()).unwrap();
        let before = encoder.tokenizer().vocab_size();
        assert!(encoder.add_tokens(&["<cow>"], rows).is_err());
        assert_eq!(encoder.tokenizer().vocab_size(), before);
    }

    #[test]
    fn tokenizer_and_model_must_fit() {
        let ClipTextEncoder {
            tokenizer, model, ..
        } = encoder();
        let long = tokenizer.clone().with_max_length(7).unwrap();
        let message = ClipTextEncoder::new(long, model.clone()).unwrap_err();
        assert!(
            message.to_string().contains("`max_length` is 7"),
            "{message}"
        );
        let mut large = tokenizer;
        large.add_tokens(&["<cat>"]).unwrap();
        let message = ClipTextEncoder::new(large, model).unwrap_err();
        assert!(message.to_string().contains("vocab_size"), "{message}");
    }
}
