//! Texts in sentences.

/// Ends of sentences, if white space follows.
const ENDS: [char; 7] = ['.', '!', '?', '…', '؟', '۔', '।'];
/// Ends of sentences in scripts without spaces, whatever follows.
const WIDE_ENDS: [char; 3] = ['。', '！', '？'];
/// What may stand between the end of a sentence and what follows.
const CLOSING: [char; 9] = ['"', '\'', '”', '’', '»', ')', ']', '」', '』'];

/// How long texts are spoken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SentenceOptions {
    /// Number of characters up to which a text is spoken at once, as transformers does. Longer
    /// texts are spoken sentence by sentence; 0 is for all texts, [`usize::MAX`] for none. 1,000 by
    /// default, about a minute.
    pub whole: usize,
    /// Silence between sentences in seconds, 0 to 60. It is rounded to whole frames. 0.3 by
    /// default.
    pub pause: f64,
}

impl Default for SentenceOptions {
    fn default() -> Self {
        Self {
            whole: 1000,
            pause: 0.3,
        }
    }
}

/// The sentences of a text without white space around them; none is empty. They end at a mark with
/// white space behind it (so that `3.5` is none), and at blank lines.
pub(super) fn sentences(text: &str) -> Vec<&str> {
    let mut starts = vec![0];
    let (mut ended, mut ended_wide, mut line_breaks) = (false, false, 0);
    for (at, c) in text.char_indices() {
        if c.is_whitespace() {
            line_breaks += usize::from(c == '\n');
            if ended || line_breaks > 1 {
                starts.push(at);
                (ended, ended_wide) = (false, false);
            }
            continue;
        }
        line_breaks = 0;
        let (is_wide, closes) = (WIDE_ENDS.contains(&c), CLOSING.contains(&c));
        if ended_wide && !is_wide && !closes {
            starts.push(at);
        }
        ended_wide = is_wide || (ended_wide && closes);
        ended = is_wide || ENDS.contains(&c) || (ended && closes);
    }
    let ends = starts[1..].iter().copied().chain([text.len()]);
    let parts = starts.iter().zip(ends);
    parts
        .map(|(start, end)| text[*start..end].trim())
        .filter(|sentence| !sentence.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::sentences;

    #[test]
    fn sentences_end_at_marks_and_blank_lines() {
        let cases: [(&str, &[&str]); 9] = [
            ("", &[]),
            (" \n\n ", &[]),
            ("one", &["one"]),
            (" One two.  Three? ", &["One two.", "Three?"]),
            (
                "It is 3.5 m... \"No!\" he said",
                &["It is 3.5 m...", "\"No!\"", "he said"],
            ),
            ("one\ntwo\r\n\r\nthree", &["one\ntwo", "three"]),
            ("一。二！」三", &["一。", "二！」", "三"]),
            ("?! …", &["?!", "…"]),
            ("क। ख", &["क।", "ख"]),
        ];
        for (text, expected) in cases {
            assert_eq!(sentences(text), expected, "{text:?}");
        }
    }
}
