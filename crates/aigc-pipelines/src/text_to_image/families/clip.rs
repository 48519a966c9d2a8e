//! Prompts through CLIP's text encoders.

use super::{
    super::{
        embeddings::EncoderInput,
        prompt::{
            PromptSyntax,
            chunks::{Chunk, chunks},
            web_ui::parse,
        },
    },
    EncodeCall,
};
use crate::adapters::expand_prompt;
use aigc_core::{Error, Result};
use aigc_encoders::{
    clip::ClipTextModel,
    tokenizer::{ClipTokenizer, TokenBatch},
};
use burn::tensor::{Device, Int, Tensor, TensorData};

/// Which states of an encoder condition the network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum ClipLayer {
    /// The last ones, after the final layer norm: Stable Diffusion 1 and 2.
    Last,
    /// Those before the last layer, without a norm: Stable Diffusion XL and 3.
    Penultimate,
}

/// The texts of an encoder as tokens.
pub(super) struct ClipTokens {
    /// Pieces of texts, all of the encoder's length; for each piece, a row for each text.
    pieces: Vec<Vec<Piece>>,
    pub(super) cut: Vec<Option<String>>,
}

/// Tokens with start, end and padding, and their weights, if they have any.
#[derive(Clone)]
struct Piece {
    ids: Vec<u32>,
    weights: Option<Vec<f64>>,
}

/// Reads texts.
///
/// # Errors
/// Of texts that cannot be encoded.
pub(super) fn tokenize(
    tokenizer: &ClipTokenizer,
    texts: &[String],
    syntax: PromptSyntax,
) -> Result<ClipTokens> {
    let texts: Vec<String> = texts
        .iter()
        .map(|text| expand_prompt(text, tokenizer))
        .collect();
    match syntax {
        PromptSyntax::Plain => {
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let TokenBatch { ids, cut, .. } = tokenizer.encode_padded(&texts)?;
            let piece = |ids| Piece { ids, weights: None };
            let pieces = vec![ids.into_iter().map(piece).collect()];
            Ok(ClipTokens { pieces, cut })
        }
        PromptSyntax::WebUi => {
            let room = tokenizer.max_length().saturating_sub(2).max(1);
            let comma = tokenizer.token_id(",</w>");
            let read =
                |text: &String| chunks(&parse(text), room, comma, |text| tokenizer.encode(text));
            let each: Vec<Vec<Chunk>> = texts.iter().map(read).collect::<Result<_>>()?;
            let count = each.iter().map(Vec::len).max().unwrap_or(1);
            let piece = |place: usize| {
                let chunk = |chunks: &Vec<Chunk>| chunks.get(place).cloned().unwrap_or_default();
                each.iter()
                    .map(|chunks| Piece::new(chunk(chunks), tokenizer))
                    .collect()
            };
            Ok(ClipTokens {
                pieces: (0..count).map(piece).collect(),
                cut: vec![None; texts.len()],
            })
        }
    }
}

impl Piece {
    fn new(chunk: Chunk, tokenizer: &ClipTokenizer) -> Self {
        let length = tokenizer.max_length();
        let (mut ids, mut weights) = (vec![tokenizer.bos_token_id()], vec![1.0]);
        ids.extend(chunk.tokens);
        weights.extend(chunk.weights);
        ids.push(tokenizer.eos_token_id());
        ids.resize(length, tokenizer.pad_token_id());
        weights.resize(length, 1.0);
        let weighted = weights.iter().any(|weight| *weight != 1.0);
        Self {
            ids,
            weights: weighted.then_some(weights),
        }
    }
}

impl ClipTokens {
    /// Number of pieces.
    pub(super) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// With pieces of empty texts at the end, so that there are `count`.
    pub(super) fn padded(mut self, count: usize, tokenizer: &ClipTokenizer) -> Self {
        let texts = self.cut.len();
        let empty = || vec![Piece::new(Chunk::default(), tokenizer); texts];
        self.pieces.resize_with(count.max(self.pieces.len()), empty);
        self
    }

    pub(super) fn input(&self, encoder: &'static str, negative: bool) -> EncoderInput {
        let rows = self.pieces.iter().flatten();
        EncoderInput {
            encoder,
            negative,
            ids: rows.map(|piece| piece.ids.clone()).collect(),
        }
    }
}

/// States of texts.
pub(super) struct ClipStates {
    /// Of all tokens, `[texts, tokens, width]`.
    pub(super) hidden: Tensor<3>,
    /// Of the ends of the texts, `[texts, width]`.
    pub(super) pooled: Tensor<2>,
    /// The pooled ones projected, if the encoder has a projection.
    text_embeds: Option<Tensor<2>>,
}

impl ClipStates {
    /// The projected pooled states.
    ///
    /// # Errors
    /// [`Error::Config`] if the encoder has no projection.
    pub(super) fn projected(&self, encoder: &str) -> Result<Tensor<2>> {
        self.text_embeds.clone().ok_or_else(|| {
            let expected = "CLIPTextModelWithProjection";
            Error::config(encoder, "CLIPTextModel", expected)
        })
    }
}

/// Encodes tokens: pieces one after the other, pooled states of the first piece.
///
/// # Errors
/// [`Error::InvalidArgument`] if more layers are skipped than there are.
pub(super) fn encode(
    model: &ClipTextModel,
    tokens: &ClipTokens,
    layer: ClipLayer,
    clip_skip: Option<usize>,
    device: &Device,
) -> Result<ClipStates> {
    let (mut states, mut pooled) = (vec![], None);
    for rows in &tokens.pieces {
        let output = model.forward(ids(rows, device), None);
        let hidden = match (layer, clip_skip) {
            (ClipLayer::Last, None) => output.last_hidden_state.clone(),
            (ClipLayer::Last, Some(skip)) => model.without_last_layers(&output, skip, true)?,
            (ClipLayer::Penultimate, skip) => {
                model.without_last_layers(&output, skip.unwrap_or(0) + 1, false)?
            }
        };
        states.push(weighted(hidden, rows));
        pooled.get_or_insert((output.pooler_output, output.text_embeds));
    }
    let (pooled, text_embeds) = pooled.expect("a text has a piece");
    Ok(ClipStates {
        hidden: Tensor::cat(states, 1),
        pooled,
        text_embeds,
    })
}

fn ids(rows: &[Piece], device: &Device) -> Tensor<2, Int> {
    let ids: Vec<i32> = rows
        .iter()
        .flat_map(|row| &row.ids)
        .map(|id| *id as i32)
        .collect();
    let shape = [rows.len(), ids.len() / rows.len()];
    Tensor::from_data(TensorData::new(ids, shape), device)
}

/// States times the weights of their tokens, scaled so that the mean of each text is as before.
fn weighted(hidden: Tensor<3>, rows: &[Piece]) -> Tensor<3> {
    if rows.iter().all(|row| row.weights.is_none()) {
        return hidden;
    }
    let [texts, tokens, _] = hidden.dims();
    let of = |row: &Piece| row.weights.clone().unwrap_or_else(|| vec![1.0; tokens]);
    let weights: Vec<f32> = rows
        .iter()
        .flat_map(of)
        .map(|weight| weight as f32)
        .collect();
    let weights = TensorData::new(weights, [texts, tokens, 1]);
    let weights = Tensor::<3>::from_data(weights, &hidden.device());
    let scaled = hidden.clone() * weights;
    let mean = |states: &Tensor<3>| states.clone().mean_dim(1).mean_dim(2);
    let back = mean(&hidden) / mean(&scaled);
    // Rows without weights stay exactly as they are.
    let is_weighted: Vec<bool> = rows.iter().map(|row| row.weights.is_some()).collect();
    let is_weighted = TensorData::new(is_weighted, [texts, 1, 1]);
    let is_weighted = Tensor::<3, burn::tensor::Bool>::from_data(is_weighted, &hidden.device());
    let shape = hidden.dims();
    hidden.mask_where(is_weighted.expand(shape), scaled * back)
}

/// The model and the tokenizer of encoder `which`.
///
/// # Errors
/// [`Error::Unsupported`] if the pipeline was opened without them.
pub(super) fn encoder<'a>(
    call: &EncodeCall<'a>,
    which: usize,
) -> Result<(std::sync::Arc<ClipTextModel>, &'a ClipTokenizer)> {
    let tokenizer = call.parts.tokenizers[which]
        .as_ref()
        .and_then(|t| t.as_clip());
    let missing = || missing_encoder(super::PipelineFamily::ENCODERS[which]);
    let model = call.parts.encoders[which].as_ref().ok_or_else(missing)?;
    Ok((model.get()?.clip()?, tokenizer.ok_or_else(missing)?))
}

pub(super) fn missing_encoder(name: &str) -> Error {
    Error::unsupported(
        format!("encoding a prompt without {name}"),
        "TextToImagePipeline",
        "give embeddings, or open the pipeline with all text encoders and tokenizers",
    )
}
