//! Stable Diffusion 3: the states before the last layer of two of CLIP's encoders side by side,
//! widened with zeros, then the states of T5's; and the pooled, projected states of CLIP's. Without
//! T5, its states are zeros.

use super::{
    super::embeddings::PromptEmbeddings,
    EncodeCall, PipelineFamily,
    clip::{self, ClipLayer},
    t5, warnings_of_cut,
};
use aigc_core::{Error, Result, encoder::TextEmbeddings};
use burn::tensor::Tensor;

pub(super) fn encode(call: &EncodeCall<'_>) -> Result<PromptEmbeddings> {
    let prompts = call.prompts;
    let positive: Vec<Vec<String>> = (0..3).map(|k| prompts.positive(k)).collect();
    let mut embeddings = PromptEmbeddings::new(placeholder(call), None);
    embeddings.prompt = states(
        call,
        &positive,
        call.settings.clip_skip,
        false,
        &mut embeddings,
    )?;
    if call.settings.guided {
        let negative: Vec<Vec<String>> = (0..3).map(|k| prompts.negative(k)).collect();
        let negative = states(call, &negative, None, true, &mut embeddings)?;
        embeddings.negative = Some(negative);
    }
    Ok(embeddings)
}

fn placeholder(call: &EncodeCall<'_>) -> TextEmbeddings {
    TextEmbeddings::new(Tensor::zeros([1, 1, 1], call.device))
}

fn states(
    call: &EncodeCall<'_>,
    texts: &[Vec<String>],
    clip_skip: Option<usize>,
    negative: bool,
    embeddings: &mut PromptEmbeddings,
) -> Result<TextEmbeddings> {
    let kind = if negative {
        "negative_prompt"
    } else {
        "prompt"
    };
    let (mut hidden, mut pooled) = (vec![], vec![]);
    for (which, text) in texts.iter().take(2).enumerate() {
        let (model, tokenizer) = clip::encoder(call, which)?;
        let tokens = clip::tokenize(tokenizer, text, call.settings.syntax)?;
        let layer = ClipLayer::Penultimate;
        let states = clip::encode(&model, &tokens, layer, clip_skip, call.device)?;
        pooled.push(states.projected(PipelineFamily::ENCODERS[which])?);
        hidden.push(states.hidden);
        embeddings
            .inputs
            .push(tokens.input(PipelineFamily::ENCODERS[which], negative));
        warnings_of_cut(&mut embeddings.warnings, kind, &tokens.cut);
    }
    let hidden = Tensor::cat(hidden, 2);
    let [rows, tokens, width] = hidden.dims();
    let t5_states = match call.parts.encoders[2].is_some() {
        true => {
            let states = t5::encode(call, 2, &texts[2], negative, false)?;
            embeddings.inputs.push(states.input);
            warnings_of_cut(&mut embeddings.warnings, kind, &states.cut);
            states.hidden
        }
        false => {
            let of_network = call.settings.width.unwrap_or(width);
            Tensor::zeros(
                [rows, call.settings.max_sequence_length, of_network],
                call.device,
            )
        }
    };
    let [_, _, wide] = t5_states.dims();
    if wide < width {
        let expected = format!("{width} or more, the width of the other encoders together");
        return Err(Error::config("joint_attention_dim", wide, expected));
    }
    let filled = Tensor::zeros([rows, tokens, wide - width], call.device);
    let hidden = Tensor::cat(vec![hidden, filled], 2);
    let hidden = Tensor::cat(vec![hidden, t5_states], 1);
    Ok(TextEmbeddings::new(hidden).with_pooled(Tensor::cat(pooled, 1)))
}
