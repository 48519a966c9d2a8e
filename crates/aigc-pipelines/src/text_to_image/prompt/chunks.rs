//! Prompts of any length as pieces of the encoder's length, each with a start and an end token.

use super::web_ui::PromptPart;
use aigc_core::Result;

/// How many tokens before the end of a piece a comma is looked for, so that a description is not
/// torn apart.
const COMMA_DISTANCE: usize = 20;

/// Tokens of a piece, with their weights; both without start and end tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Chunk {
    pub(crate) tokens: Vec<u32>,
    pub(crate) weights: Vec<f64>,
}

impl Chunk {
    fn push(&mut self, token: u32, weight: f64) {
        self.tokens.push(token);
        self.weights.push(weight);
    }

    fn split_off(&mut self, at: usize) -> Self {
        Self {
            tokens: self.tokens.split_off(at),
            weights: self.weights.split_off(at),
        }
    }
}

/// The pieces of a prompt, at least one. `length` is the number of tokens that fit between start
/// and end; `tokenize` gives the tokens of a text without start and end; `comma` is the token after
/// which a full piece may end earlier.
pub(crate) fn chunks(
    parts: &[PromptPart],
    length: usize,
    comma: Option<u32>,
    tokenize: impl Fn(&str) -> Result<Vec<u32>>,
) -> Result<Vec<Chunk>> {
    let mut done = vec![];
    let mut open = Chunk::default();
    for part in parts {
        let PromptPart::Text { text, weight } = part else {
            done.push(std::mem::take(&mut open));
            continue;
        };
        for token in tokenize(text)? {
            if open.tokens.len() == length {
                let earliest = length.saturating_sub(COMMA_DISTANCE);
                let last = open.tokens.iter().rposition(|t| Some(*t) == comma);
                let rest = match last {
                    Some(last) if last >= earliest && Some(token) != comma => {
                        open.split_off(last + 1)
                    }
                    _ => Chunk::default(),
                };
                done.push(std::mem::replace(&mut open, rest));
            }
            open.push(token, *weight);
        }
    }
    if !open.tokens.is_empty() || done.is_empty() {
        done.push(open);
    }
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::super::web_ui::parse;
    use super::*;

    const COMMA: u32 = 44;

    /// One token per byte.
    fn pieces(prompt: &str, length: usize) -> Vec<(String, Vec<f64>)> {
        let tokenize = |text: &str| Ok(text.bytes().map(u32::from).collect());
        let text = |chunk: Chunk| {
            let bytes: Vec<u8> = chunk.tokens.iter().map(|t| *t as u8).collect();
            (String::from_utf8(bytes).unwrap(), chunk.weights)
        };
        let chunks = chunks(&parse(prompt), length, Some(COMMA), tokenize).unwrap();
        chunks.into_iter().map(text).collect()
    }

    fn texts(prompt: &str, length: usize) -> Vec<String> {
        pieces(prompt, length)
            .into_iter()
            .map(|(text, _)| text)
            .collect()
    }

    #[test]
    fn prompts_are_cut_at_length_breaks_and_commas() {
        assert_eq!(texts("abcdefgh", 5), ["abcde", "fgh"]);
        assert_eq!(texts("ab BREAK cd", 5), ["ab", "cd"]);
        assert_eq!(texts("ab,cdefg", 5), ["ab,", "cdefg"]);
        // A comma that would come next does not move the ones before.
        assert_eq!(texts("a,bcd,e", 5), ["a,bcd", ",e"]);
        assert_eq!(texts("", 5), [""]);
        // The comma is too far from the end.
        let far = format!("a,{}", "b".repeat(40));
        assert_eq!(texts(&far, 30)[0].len(), 30);
    }

    #[test]
    fn weights_follow_their_tokens() {
        let pieces = pieces("ab(cd:2)e", 3);
        assert_eq!(pieces[0], ("abc".into(), vec![1.0, 1.0, 2.0]));
        assert_eq!(pieces[1], ("de".into(), vec![2.0, 1.0]));
    }
}
