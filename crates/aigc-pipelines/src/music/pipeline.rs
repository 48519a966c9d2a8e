//! The parts, from a prompt to codes.

use super::MusicRequest;
use aigc_core::{
    Result,
    audio::AudioCodec,
    check::{ensure, ensure_argument},
    encoder::TextEmbeddings,
};
use aigc_encoders::{t5::T5EncoderModel, tokenizer::T5Tokenizer};
use aigc_text::music::{Condition, ConditionInputs, MultiStreamLm, MusicgenDecoder};
use aigc_vae::codec::EncodecModel;
use burn::tensor::Device;

/// Most tokens of a prompt; the rest is cut off.
const MAX_TOKENS: usize = 512;

/// Text encoder, model of codes and codec, as transformers' `MusicgenForConditionalGeneration`
/// (Copet et al. 2023, <https://arxiv.org/abs/2306.05284>).
///
/// Seeds give codes of this library, not those of PyTorch; without sampling, codes are those of
/// transformers.
#[derive(Debug)]
pub struct MusicgenPipeline {
    tokenizer: T5Tokenizer,
    text_encoder: T5EncoderModel,
    decoder: MusicgenDecoder,
    codec: EncodecModel,
    defaults: MusicRequest,
    device: Device,
}

impl MusicgenPipeline {
    /// A pipeline of parts, which are on `device`.
    ///
    /// # Errors
    /// [`Error::Config`](aigc_core::Error::Config) names parts that do not fit each other.
    pub fn new(
        tokenizer: T5Tokenizer,
        text_encoder: T5EncoderModel,
        decoder: MusicgenDecoder,
        codec: EncodecModel,
        device: &Device,
    ) -> Result<Self> {
        let config = decoder.config();
        let (tokens, rows) = (tokenizer.vocab_size(), text_encoder.config().vocab_size);
        let expected = format!("at most {rows}, the vocab_size of text_encoder");
        ensure(tokens <= rows, "tokenizer: tokens", tokens, &expected)?;
        let (found, width) = (config.text_hidden_size, text_encoder.config().d_model);
        let expected = format!("{width}, the d_model of text_encoder");
        let given = found.map_or_else(|| "null".to_owned(), |width| width.to_string());
        let fits = found == Some(width);
        ensure(fits, "decoder: text_hidden_size", given, &expected)?;
        let kinds = config.class_sizes.len();
        let expected = "empty: the pipeline has prompts alone";
        ensure(kinds == 0, "decoder: class_sizes", kinds, expected)?;
        let channels = codec.channels();
        let expected = "1: the model has codes for each channel";
        ensure(
            channels == 1,
            "audio_encoder: audio_channels",
            channels,
            expected,
        )?;
        let normalize = codec.config().normalize;
        let expected = "false: the model has no volumes";
        ensure(!normalize, "audio_encoder: normalize", normalize, expected)?;
        let chunks = codec.config().chunk_length_s;
        let given = chunks.map_or_else(|| "null".to_owned(), |length| length.to_string());
        let expected = "null: the model has no chunks";
        let field = "audio_encoder: chunk_length_s";
        ensure(chunks.is_none(), field, given, expected)?;
        let codebooks = codec.num_codebooks() * config.audio_channels;
        let expected = format!("{codebooks}, those of audio_encoder for each channel");
        let found = config.num_codebooks;
        let fits = found == codebooks;
        ensure(fits, "decoder: num_codebooks", found, &expected)?;
        let size = codec.codebook_size();
        let expected = format!("{size}, the codebook_size of audio_encoder");
        let found = config.vocab_size;
        ensure(found == size, "decoder: vocab_size", found, &expected)?;
        Ok(Self {
            tokenizer,
            text_encoder,
            decoder,
            codec,
            defaults: MusicRequest::usual(),
            device: device.clone(),
        })
    }

    /// Sets the values of requests that do not set them. The prompt of `defaults` has no effect.
    pub fn with_defaults(mut self, defaults: &MusicRequest) -> Self {
        self.defaults = defaults.or(&self.defaults);
        self
    }

    /// Values for requests that do not set them.
    pub fn defaults(&self) -> &MusicRequest {
        &self.defaults
    }

    /// The tokenizer of prompts.
    pub fn tokenizer(&self) -> &T5Tokenizer {
        &self.tokenizer
    }

    /// The encoder of prompts.
    pub fn text_encoder(&self) -> &T5EncoderModel {
        &self.text_encoder
    }

    /// The model of codes.
    pub fn decoder(&self) -> &MusicgenDecoder {
        &self.decoder
    }

    /// The codec.
    pub fn codec(&self) -> &EncodecModel {
        &self.codec
    }

    /// The pipeline with a changed model of codes, such as a quantised one.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn map_decoder(
        self,
        change: impl FnOnce(MusicgenDecoder) -> MusicgenDecoder,
    ) -> Result<Self> {
        let Self {
            tokenizer,
            text_encoder,
            decoder,
            codec,
            defaults,
            device,
        } = self;
        let decoder = change(decoder);
        let pipeline = Self::new(tokenizer, text_encoder, decoder, codec, &device)?;
        Ok(pipeline.with_defaults(&defaults))
    }

    /// Channels of the sound.
    pub fn channels(&self) -> usize {
        self.decoder.config().audio_channels
    }

    /// Samples per second of the sound.
    pub fn sample_rate(&self) -> u32 {
        self.codec.sample_rate()
    }

    /// The device of the parts.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The longest sound in seconds, without a beginning.
    pub fn max_seconds(&self) -> f64 {
        let positions = self.decoder.max_position_embeddings();
        self.decoder.delay_pattern().frames(positions) as f64 / self.codec.frame_rate()
    }

    /// Encodes prompts; shorter ones are padded, and the padding is hidden.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) without prompts, or for one
    /// that cannot be encoded.
    pub fn encode_prompts(&self, prompts: &[&str]) -> Result<TextEmbeddings> {
        let expected = "at least one prompt";
        ensure_argument(!prompts.is_empty(), "prompts", "empty", expected)?;
        let mut longest = 1;
        for prompt in prompts {
            // With the token that ends a text.
            longest = longest.max(self.tokenizer.encode(prompt)?.len() + 1);
        }
        let length = longest.min(MAX_TOKENS);
        let batch = self.tokenizer.encode_padded(prompts, length)?;
        let (ids, mask) = (batch.input_ids(&self.device), batch.mask(&self.device));
        let states = self.text_encoder.forward(ids, Some(mask.clone()));
        Ok(TextEmbeddings::new(states).with_attention_mask(mask))
    }

    /// The condition of encoded prompts for the model of codes.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`](aigc_core::Error::InvalidArgument) for states of another width.
    pub fn condition(&self, prompts: TextEmbeddings) -> Result<Option<Condition>> {
        self.decoder
            .encode_condition(&ConditionInputs::text(prompts))
    }

    /// The end of a prompt that is cut off.
    pub(super) fn cut(&self, prompt: &str) -> Result<Option<String>> {
        let batch = self.tokenizer.encode_padded(&[prompt], MAX_TOKENS)?;
        Ok(batch.cut.into_iter().flatten().next())
    }
}
