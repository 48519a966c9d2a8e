//! PixArt: the states of T5's encoder, with a mask over padding. Prompts are in lower case.

use super::{super::embeddings::PromptEmbeddings, EncodeCall, t5, warnings_of_cut};
use aigc_core::{Result, encoder::TextEmbeddings};

pub(super) fn encode(call: &EncodeCall<'_>) -> Result<PromptEmbeddings> {
    let states = |texts: Vec<String>, negative: bool| {
        let texts: Vec<String> = texts.iter().map(|text| normalized(text)).collect();
        let states = t5::encode(call, 0, &texts, negative, true)?;
        let embeddings = TextEmbeddings::new(states.hidden).with_attention_mask(states.mask);
        Ok((embeddings, states.input, states.cut))
    };
    let (prompt, input, cut) = states(call.prompts.positive(0), false)?;
    let mut embeddings = PromptEmbeddings::new(prompt, None);
    embeddings.inputs.push(input);
    warnings_of_cut(&mut embeddings.warnings, "prompt", &cut);
    if call.settings.guided {
        let (negative, input, cut) = states(call.prompts.negative(0), true)?;
        embeddings.negative = Some(negative);
        embeddings.inputs.push(input);
        warnings_of_cut(&mut embeddings.warnings, "negative_prompt", &cut);
    }
    Ok(embeddings)
}

/// A prompt as PixArt's training texts are: in lower case, without space around it.
fn normalized(text: &str) -> String {
    // Python strips these separators too.
    let is_space = |c: char| c.is_whitespace() || ('\x1c'..='\x1f').contains(&c);
    text.to_lowercase().trim_matches(is_space).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_in_lower_case() {
        assert_eq!(normalized(" \x1fA Photo Of ΣΟΦΟΣ\n"), "a photo of σοφος");
        assert_eq!(normalized("ÀÉ İ"), "àé i\u{307}");
    }
}
