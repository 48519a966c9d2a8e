//! The grammar of prompts in Stable Diffusion's web interface.
//!
//! | text | meaning |
//! |---|---|
//! | `(a cat)` | the tokens weigh 1.1 times as much |
//! | `(a cat:1.3)` | 1.3 times as much |
//! | `[a cat]` | 1/1.1 times as much |
//! | `((a cat))` | weights multiply |
//! | `BREAK` | what follows begins a new piece of the encoder's length |
//! | `\(`, `\)`, `\[`, `\]`, `\\` | the character itself |
//!
//! An opening bracket that is never closed has its weight until the end; a closing one without an
//! opening one is text.

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum PromptPart {
    /// Text whose tokens have a weight.
    Text {
        /// The text.
        text: String,
        /// The weight, 1 without emphasis.
        weight: f64,
    },
    /// What follows begins a new piece.
    Break,
}

/// The factor of a pair of round brackets without a number.
const EMPHASIS: f64 = 1.1;

/// Reads a prompt. Neighbours of the same weight are one part; a prompt without any text has one
/// part without text.
pub fn parse(prompt: &str) -> Vec<PromptPart> {
    let mut parts = Parts::default();
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        let mut taken = first.len_utf8();
        match first {
            '\\' => {
                // A backslash at the end, or before another character, is left out.
                let escaped = rest[1..]
                    .chars()
                    .next()
                    .filter(|next| r"\()[]".contains(*next));
                if let Some(escaped) = escaped {
                    taken += escaped.len_utf8();
                    parts.text(&rest[1..taken]);
                }
            }
            '(' => parts.round.push(parts.all.len()),
            '[' => parts.square.push(parts.all.len()),
            ')' => match parts.round.pop() {
                Some(from) => parts.multiply(from, EMPHASIS),
                None => parts.text(")"),
            },
            ']' => match parts.square.pop() {
                Some(from) => parts.multiply(from, 1.0 / EMPHASIS),
                None => parts.text("]"),
            },
            ':' => match closing_weight(rest).filter(|_| !parts.round.is_empty()) {
                Some((weight, length)) => {
                    let from = parts.round.pop().expect("an open bracket");
                    parts.multiply(from, weight);
                    taken = length;
                }
                None => parts.text(":"),
            },
            _ => {
                taken = rest
                    .find(['\\', '(', ')', '[', ']', ':'])
                    .unwrap_or(rest.len());
                parts.text_with_breaks(&rest[..taken]);
            }
        }
        rest = &rest[taken..];
    }
    parts.finish()
}

/// The weight and the length of `:1.3)`, if a text begins so.
fn closing_weight(text: &str) -> Option<(f64, usize)> {
    let close = text.find(')')?;
    let number = text[1..close].trim();
    let written = number.strip_prefix(['+', '-']).unwrap_or(number);
    let plain = written.chars().all(|c| c.is_ascii_digit() || c == '.');
    let weight = number.parse::<f64>().ok().filter(|_| plain)?;
    Some((weight, close + 1))
}

#[derive(Default)]
struct Parts {
    all: Vec<PromptPart>,
    /// Where brackets were opened: the number of the first part inside.
    round: Vec<usize>,
    square: Vec<usize>,
}

impl Parts {
    fn text(&mut self, text: &str) {
        let (text, weight) = (text.to_owned(), 1.0);
        self.all.push(PromptPart::Text { text, weight });
    }

    /// Text in which the word `BREAK` separates pieces; spaces around it belong to it.
    fn text_with_breaks(&mut self, text: &str) {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        let (mut from, mut searched) = (0, 0);
        while let Some(found) = text[searched..].find("BREAK") {
            let (start, end) = (searched + found, searched + found + "BREAK".len());
            searched = end;
            if text[..start].ends_with(word) || text[end..].starts_with(word) {
                continue;
            }
            self.text(text[from..start].trim_end());
            self.all.push(PromptPart::Break);
            from = text.len() - text[end..].trim_start().len();
            searched = from;
        }
        self.text(&text[from..]);
    }

    fn multiply(&mut self, from: usize, factor: f64) {
        for part in &mut self.all[from..] {
            if let PromptPart::Text { weight, .. } = part {
                *weight *= factor;
            }
        }
    }

    fn finish(mut self) -> Vec<PromptPart> {
        for from in std::mem::take(&mut self.round) {
            self.multiply(from, EMPHASIS);
        }
        for from in std::mem::take(&mut self.square) {
            self.multiply(from, 1.0 / EMPHASIS);
        }
        let mut merged: Vec<PromptPart> = vec![];
        for part in self.all {
            match (merged.last_mut(), part) {
                (_, PromptPart::Text { text, .. }) if text.is_empty() => {}
                (
                    Some(PromptPart::Text {
                        text: last,
                        weight: of_last,
                    }),
                    PromptPart::Text { text, weight },
                ) if *of_last == weight => last.push_str(&text),
                (_, part) => merged.push(part),
            }
        }
        if merged.is_empty() {
            let (text, weight) = (String::new(), 1.0);
            merged.push(PromptPart::Text { text, weight });
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parts as text and weight, `BREAK` with a weight of −1.
    fn parsed(prompt: &str) -> Vec<(String, f64)> {
        let pair = |part| match part {
            PromptPart::Text { text, weight } => (text, (weight * 1e4).round() / 1e4),
            PromptPart::Break => ("BREAK".into(), -1.0),
        };
        parse(prompt).into_iter().map(pair).collect()
    }

    fn expect(prompt: &str, parts: &[(&str, f64)]) {
        let parts: Vec<(String, f64)> = parts.iter().map(|(t, w)| (t.to_string(), *w)).collect();
        assert_eq!(parsed(prompt), parts, "{prompt}");
    }

    #[test]
    fn brackets_multiply_weights() {
        expect("normal text", &[("normal text", 1.0)]);
        expect(
            "an (important) word",
            &[("an ", 1.0), ("important", 1.1), (" word", 1.0)],
        );
        expect("(a:1.5)b", &[("a", 1.5), ("b", 1.0)]);
        expect("(a : 0.5 )", &[("a ", 0.5)]);
        expect("[a]", &[("a", 0.9091)]);
        expect("((a)) [[b]]", &[("a", 1.21), (" ", 1.0), ("b", 0.8264)]);
        expect(
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky)))",
            &[
                ("a ", 1.0),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
            ],
        );
    }

    #[test]
    fn unpaired_and_escaped_brackets() {
        expect("(unfinished", &[("unfinished", 1.1)]);
        expect(r"\(literal\] \\ \a", &[(r"(literal] \ a", 1.0)]);
        expect("(a)) b]", &[("a", 1.1), (") b]", 1.0)]);
        expect(
            "ratio 4:3) and (b:x)",
            &[("ratio 4:3) and ", 1.0), ("b:x", 1.1)],
        );
        expect("(a:1.2.3)", &[("a:1.2.3", 1.1)]);
        expect("", &[("", 1.0)]);
        expect("()", &[("", 1.0)]);
    }

    #[test]
    fn break_is_a_word() {
        expect("a BREAK b", &[("a", 1.0), ("BREAK", -1.0), ("b", 1.0)]);
        expect("BREAKFAST aBREAK", &[("BREAKFAST aBREAK", 1.0)]);
        expect(
            "(a BREAK b:1.2)",
            &[("a", 1.2), ("BREAK", -1.0), ("b", 1.2)],
        );
        expect("BREAK", &[("BREAK", -1.0)]);
        expect("é BREAK ü", &[("é", 1.0), ("BREAK", -1.0), ("ü", 1.0)]);
    }
}
