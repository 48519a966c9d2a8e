//! Stable Diffusion 1 and 2, and latent consistency models: the last states of CLIP's encoder.

use super::{
    super::embeddings::PromptEmbeddings,
    EncodeCall,
    clip::{self, ClipLayer},
    warnings_of_cut,
};
use aigc_core::{Result, encoder::TextEmbeddings};

pub(super) fn encode(call: &EncodeCall<'_>) -> Result<PromptEmbeddings> {
    let settings = call.settings;
    let (model, tokenizer) = clip::encoder(call, 0)?;
    let read = |texts: Vec<String>| clip::tokenize(tokenizer, &texts, settings.syntax);
    let mut prompt = read(call.prompts.positive(0))?;
    let mut negative = match settings.guided {
        true => Some(read(call.prompts.negative(0))?),
        false => None,
    };
    let count = negative
        .as_ref()
        .map_or(0, |tokens| tokens.len())
        .max(prompt.len());
    prompt = prompt.padded(count, tokenizer);
    negative = negative.map(|tokens| tokens.padded(count, tokenizer));

    let states = |tokens, skip| {
        let states = clip::encode(&model, tokens, ClipLayer::Last, skip, call.device)?;
        Ok(TextEmbeddings::new(states.hidden))
    };
    let mut embeddings = PromptEmbeddings::new(states(&prompt, settings.clip_skip)?, None);
    embeddings.inputs.push(prompt.input("text_encoder", false));
    warnings_of_cut(&mut embeddings.warnings, "prompt", &prompt.cut);
    if let Some(negative) = &negative {
        // As in diffusers, no layers are skipped for negative prompts.
        embeddings.negative = Some(states(negative, None)?);
        embeddings.inputs.push(negative.input("text_encoder", true));
        warnings_of_cut(&mut embeddings.warnings, "negative_prompt", &negative.cut);
    }
    Ok(embeddings)
}
