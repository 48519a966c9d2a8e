//! FLUX.1: the states of T5's encoder, without a mask over padding, and the pooled state of CLIP's.

use super::{
    super::{embeddings::PromptEmbeddings, prompt::PromptSyntax},
    EncodeCall,
    clip::{self, ClipLayer},
    t5, warnings_of_cut,
};
use aigc_core::{Result, encoder::TextEmbeddings};

pub(super) fn encode(call: &EncodeCall<'_>) -> Result<PromptEmbeddings> {
    let prompts = call.prompts;
    let (prompt, mut embeddings) = states(call, &prompts.positive(0), &prompts.positive(1), false)?;
    embeddings.prompt = prompt;
    if call.settings.guided {
        let texts = [prompts.negative(0), prompts.negative(1)];
        let (negative, of_negative) = states(call, &texts[0], &texts[1], true)?;
        embeddings.negative = Some(negative);
        embeddings.inputs.extend(of_negative.inputs);
        embeddings.warnings.extend(of_negative.warnings);
    }
    Ok(embeddings)
}

fn states(
    call: &EncodeCall<'_>,
    texts: &[String],
    texts_2: &[String],
    negative: bool,
) -> Result<(TextEmbeddings, PromptEmbeddings)> {
    let kind = if negative {
        "negative_prompt"
    } else {
        "prompt"
    };
    let (model, tokenizer) = clip::encoder(call, 0)?;
    let tokens = clip::tokenize(tokenizer, texts, PromptSyntax::Plain)?;
    let pooled = clip::encode(&model, &tokens, ClipLayer::Last, None, call.device)?.pooled;
    let of_t5 = t5::encode(call, 1, texts_2, negative, false)?;
    let states = TextEmbeddings::new(of_t5.hidden).with_pooled(pooled);
    let mut report = PromptEmbeddings::new(states.clone(), None);
    report.inputs = vec![tokens.input("text_encoder", negative), of_t5.input];
    // CLIP's part is pooled: what T5 reads counts, and it reads more.
    warnings_of_cut(&mut report.warnings, kind, &of_t5.cut);
    for cut in tokens.cut.iter().flatten() {
        let fault = "was cut for `text_encoder`, it is too long";
        let warning = format!("the end of `{kind}` {fault}: {cut:?}");
        if !report.warnings.contains(&warning) {
            report.warnings.push(warning);
        }
    }
    Ok((states, report))
}
