//! Prompts through T5's encoder.

use super::{super::embeddings::EncoderInput, EncodeCall, PipelineFamily, clip::missing_encoder};
use aigc_core::Result;
use burn::tensor::{Bool, Tensor};

/// States of the tokens of some texts.
pub(super) struct T5States {
    /// `[texts, tokens, width]`.
    pub(super) hidden: Tensor<3>,
    /// True for tokens of the texts, `[texts, tokens]`.
    pub(super) mask: Tensor<2, Bool>,
    pub(super) input: EncoderInput,
    pub(super) cut: Vec<Option<String>>,
}

/// Encodes texts of at most `max_sequence_length` tokens with encoder `which`, with or without a
/// mask over padding.
///
/// # Errors
/// If the pipeline was opened without the encoder.
pub(super) fn encode(
    call: &EncodeCall<'_>,
    which: usize,
    texts: &[String],
    negative: bool,
    masked: bool,
) -> Result<T5States> {
    let name = PipelineFamily::ENCODERS[which];
    let missing = || missing_encoder(name);
    let tokenizer = call.parts.tokenizers[which]
        .as_ref()
        .and_then(|t| t.as_t5());
    let tokenizer = tokenizer.ok_or_else(missing)?;
    let model = call.parts.encoders[which]
        .as_ref()
        .ok_or_else(missing)?
        .get()?
        .t5()?;
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let tokens = tokenizer.encode_padded(&texts, call.settings.max_sequence_length)?;
    let mask = tokens.mask(call.device);
    let hidden = model.forward(tokens.input_ids(call.device), masked.then(|| mask.clone()));
    Ok(T5States {
        hidden,
        mask,
        input: EncoderInput {
            encoder: name,
            negative,
            ids: tokens.ids,
        },
        cut: tokens.cut,
    })
}
