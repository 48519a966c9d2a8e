//! Stable Diffusion XL: the states before the last layer of two of CLIP's encoders side by side,
//! and the pooled, projected state of the second one. Refiners have the second one only.

use super::{
    super::embeddings::{EncoderInput, PromptEmbeddings},
    EncodeCall, PipelineFamily,
    clip::{self, ClipLayer, ClipTokens},
    warnings_of_cut,
};
use aigc_core::{Result, encoder::TextEmbeddings};
use burn::tensor::Tensor;

pub(super) fn encode(call: &EncodeCall<'_>) -> Result<PromptEmbeddings> {
    let settings = call.settings;
    // A refiner's only encoder reads the first prompt.
    let encoders: Vec<usize> = match call.parts.encoders[0].is_some() {
        true => vec![0, 1],
        false => vec![1],
    };
    let prompts: Vec<Vec<String>> = (0..encoders.len())
        .map(|k| call.prompts.positive(k))
        .collect();
    let zeros = call.prompts.negative_prompt.is_none() && settings.force_zeros_for_empty_prompt;
    let negative: Option<Vec<Vec<String>>> = (settings.guided && !zeros).then(|| {
        (0..encoders.len())
            .map(|k| call.prompts.negative(k))
            .collect()
    });

    let read = |texts: &[Vec<String>]| -> Result<Vec<ClipTokens>> {
        let each = encoders.iter().zip(texts).map(|(which, texts)| {
            clip::tokenize(clip::encoder(call, *which)?.1, texts, settings.syntax)
        });
        each.collect()
    };
    let mut prompt = read(&prompts)?;
    let mut negative = negative.map(|texts| read(&texts)).transpose()?;
    let all = prompt.iter().chain(negative.iter().flatten());
    let count = all.map(ClipTokens::len).max().unwrap_or(1);
    let pad = |tokens: Vec<ClipTokens>| -> Result<Vec<ClipTokens>> {
        let each = encoders.iter().zip(tokens);
        each.map(|(which, tokens)| Ok(tokens.padded(count, clip::encoder(call, *which)?.1)))
            .collect()
    };
    prompt = pad(prompt)?;
    negative = negative.map(pad).transpose()?;

    let states = |tokens: &[ClipTokens], skip| -> Result<TextEmbeddings> {
        let (mut hidden, mut pooled) = (vec![], None);
        for (which, tokens) in encoders.iter().zip(tokens) {
            let (model, _) = clip::encoder(call, *which)?;
            let layer = ClipLayer::Penultimate;
            let states = clip::encode(&model, tokens, layer, skip, call.device)?;
            if *which == 1 {
                pooled = Some(states.projected(PipelineFamily::ENCODERS[1])?);
            }
            hidden.push(states.hidden);
        }
        let pooled = pooled.expect("the last encoder's");
        Ok(TextEmbeddings::new(Tensor::cat(hidden, 2)).with_pooled(pooled))
    };
    let inputs = |tokens: &[ClipTokens], negative| -> Vec<EncoderInput> {
        let each = encoders.iter().zip(tokens);
        let input = |(which, tokens): (&usize, &ClipTokens)| {
            tokens.input(PipelineFamily::ENCODERS[*which], negative)
        };
        each.map(input).collect()
    };
    let mut embeddings = PromptEmbeddings::new(states(&prompt, settings.clip_skip)?, None);
    embeddings.inputs = inputs(&prompt, false);
    for tokens in &prompt {
        warnings_of_cut(&mut embeddings.warnings, "prompt", &tokens.cut);
    }
    if let Some(tokens) = &negative {
        embeddings.negative = Some(states(tokens, None)?);
        embeddings.inputs.extend(inputs(tokens, true));
        for tokens in tokens {
            warnings_of_cut(&mut embeddings.warnings, "negative_prompt", &tokens.cut);
        }
    } else if settings.guided {
        let prompt = &embeddings.prompt;
        let pooled = prompt.pooled.as_ref().expect("set above").zeros_like();
        let hidden = prompt.hidden_states.zeros_like();
        embeddings.negative = Some(TextEmbeddings::new(hidden).with_pooled(pooled));
    }
    Ok(embeddings)
}
