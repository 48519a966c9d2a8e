//! Generated text with copied passages marked.

use super::html::{escape, isolate};
use crate::{Error, Result};
use serde::Serialize;
use std::ops::Range;

/// A generated text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TextSample {
    caption: String,
    prompt: String,
    text: String,
    copied: Vec<CopiedPassage>,
}

/// A part of a text that is in the training data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CopiedPassage {
    start: usize,
    end: usize,
    source: String,
}

impl TextSample {
    /// A text with a caption, such as its number or its share of copied characters.
    pub fn new(caption: impl Into<String>, text: impl Into<String>) -> Self {
        Self {
            caption: caption.into(),
            prompt: String::new(),
            text: text.into(),
            copied: Vec::new(),
        }
    }

    /// Sets the prompt that the text continues or answers.
    pub fn with_prompt(mut self, prompt: impl Into<String>) -> Self {
        self.prompt = prompt.into();
        self
    }

    /// Marks a passage as copied: its range of bytes, and where the training data has it.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a range that is empty, beyond the text, within a character,
    /// or not behind the passages before.
    pub fn with_copied(mut self, range: Range<usize>, source: impl Into<String>) -> Result<Self> {
        let after = self.copied.last().map_or(0, |passage| passage.end);
        let valid = range.start >= after
            && self
                .text
                .get(range.clone())
                .is_some_and(|passage| !passage.is_empty());
        if !valid {
            return Err(Error::argument(
                "range",
                format!("{}..{}", range.start, range.end),
                format!(
                    "a range of characters in bytes {after}..{} of the text",
                    self.text.len()
                ),
            ));
        }
        self.copied.push(CopiedPassage {
            start: range.start,
            end: range.end,
            source: source.into(),
        });
        Ok(self)
    }

    pub(super) fn render(&self, out: &mut String) {
        out.push_str("<figure class=\"text\">");
        if !self.caption.is_empty() {
            out.push_str(&format!(
                "<p class=\"title\">{}</p>",
                isolate(&self.caption)
            ));
        }
        if !self.prompt.is_empty() {
            out.push_str(&format!(
                "<p class=\"prompt\"><span class=\"label\">Prompt</span> {}</p>",
                isolate(&self.prompt)
            ));
        }
        // The text's own letters decide on its direction.
        out.push_str("<blockquote dir=\"auto\">");
        let mut at = 0;
        for (i, passage) in self.copied.iter().enumerate() {
            out.push_str(&format!(
                "{}<mark>{}</mark><sup>{}</sup>",
                escape(&self.text[at..passage.start]),
                escape(&self.text[passage.start..passage.end]),
                i + 1
            ));
            at = passage.end;
        }
        out.push_str(&format!("{}</blockquote>", escape(&self.text[at..])));
        if !self.copied.is_empty() {
            out.push_str("<figcaption>Found in the training text:<ol>");
            for passage in &self.copied {
                let length = self.text[passage.start..passage.end].chars().count();
                out.push_str(&format!(
                    "<li>{}, {}</li>",
                    isolate(&passage.source),
                    super::html::counted(length, "character")
                ));
            }
            out.push_str("</ol></figcaption>");
        }
        out.push_str("</figure>");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passages_are_marked_and_escaped() {
        let sample = TextSample::new("1", "a <b> für c")
            .with_copied(2..5, "<doc>")
            .unwrap()
            .with_copied(6..10, "other")
            .unwrap();
        let mut out = String::new();
        sample.render(&mut out);
        assert!(
            out.contains("a <mark>&lt;b&gt;</mark><sup>1</sup> <mark>für</mark><sup>2</sup> c<"),
            "{out}"
        );
        assert!(out.contains("&lt;doc&gt;</bdi>, 3 characters"));
        assert!(out.contains("<blockquote dir=\"auto\">"));
    }

    #[test]
    fn wrong_ranges_are_errors() {
        let sample = || TextSample::new("", "für alle");
        #[allow(clippy::reversed_empty_ranges)]
        for range in [0..0, 2..3, 0..99, 5..4] {
            let error = sample().with_copied(range, "x").unwrap_err().to_string();
            assert!(error.contains("of the text"), "{error}");
        }
        let first = sample().with_copied(0..4, "x").unwrap();
        assert!(first.with_copied(3..5, "x").is_err());
    }
}
