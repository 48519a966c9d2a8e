//! Splitting text into tokens.

use regex::{Captures, Regex};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, sync::LazyLock};
use unicode_segmentation::UnicodeSegmentation;

/// How text is split into tokens. The serialised names are those of sacrebleu where it has the
/// tokenizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Tokenizer {
    /// At white space only, for text that is tokenised already; sacrebleu's `none`.
    #[serde(rename = "none")]
    Whitespace,
    /// The rules of `mteval-v13a.pl`, for Western languages; sacrebleu's `13a`, its default. ASCII
    /// punctuation is separated, full stops and commas only outside numbers.
    #[default]
    #[serde(rename = "13a")]
    Mteval13a,
    /// The rules of `mteval-v14.pl`, by Unicode category; sacrebleu's `intl`. Punctuation is
    /// separated except between digits, and every symbol.
    #[serde(rename = "intl")]
    International,
    /// Each Chinese character and full-width sign by itself, the rest as
    /// [`Mteval13a`](Self::Mteval13a); sacrebleu's `zh`.
    #[serde(rename = "zh")]
    Chinese,
    /// Every character that is not white space; sacrebleu's `char`.
    #[serde(rename = "char")]
    Character,
    /// Lower-case runs of ASCII letters and digits, everything else dropped; the default of
    /// rouge-score, without stemming. It finds no words in Chinese.
    #[serde(rename = "rouge")]
    Rouge,
    /// Words of Unicode Standard Annex #29, without punctuation, symbols (emoji among them) and
    /// white space. Chinese and Hiragana are split into characters.
    #[serde(rename = "words")]
    Words,
}

impl Tokenizer {
    /// The tokens of `text`, none of which is empty or contains white space.
    pub fn tokenize(self, text: &str) -> Vec<String> {
        let text = text.trim_end_matches(is_space);
        match self {
            Tokenizer::Whitespace => words(text),
            Tokenizer::Mteval13a => words(&mteval(&format!(" {} ", unescape(text)))),
            Tokenizer::International => words(&international(text)),
            Tokenizer::Chinese => words(&mteval(&separate_chinese(text))),
            Tokenizer::Character => text
                .chars()
                .filter(|c| !is_space(*c))
                .map(String::from)
                .collect(),
            Tokenizer::Rouge => text
                .to_lowercase()
                .split(|c: char| !c.is_ascii_lowercase() && !c.is_ascii_digit())
                .filter(|word| !word.is_empty())
                .map(String::from)
                .collect(),
            // To the annex, a narrow no-break space may be inside of a word.
            Tokenizer::Words => text
                .split(is_space)
                .flat_map(UnicodeSegmentation::unicode_words)
                .map(String::from)
                .collect(),
        }
    }
}

/// White space as Python's `str.split` has it: the separators of ASCII count too.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn words(text: &str) -> Vec<String> {
    text.split(is_space)
        .filter(|word| !word.is_empty())
        .map(String::from)
        .collect()
}

/// Undoes the escapes of SGML, and joins lines.
fn unescape(text: &str) -> Cow<'_, str> {
    const RULES: [(&str, &str); 7] = [
        ("<skipped>", ""),
        ("-\n", ""),
        ("\n", " "),
        ("&quot;", "\""),
        ("&amp;", "&"),
        ("&lt;", "<"),
        ("&gt;", ">"),
    ];
    RULES.iter().fold(Cow::Borrowed(text), |text, (from, to)| {
        if text.contains(from) {
            Cow::Owned(text.replace(from, to))
        } else {
            text
        }
    })
}

/// A rule that replaces every match of an expression.
type Rule = (Regex, &'static str);

fn rule(expression: &str, replacement: &'static str) -> Rule {
    (
        Regex::new(expression).expect("the expression is a constant"),
        replacement,
    )
}

fn apply<'a>(rules: &[Rule], text: Cow<'a, str>) -> Cow<'a, str> {
    rules.iter().fold(text, |text, (expression, replacement)| {
        match expression.replace_all(&text, *replacement) {
            // Nothing matched.
            Cow::Borrowed(_) => text,
            Cow::Owned(replaced) => Cow::Owned(replaced),
        }
    })
}

fn mteval(text: &str) -> Cow<'_, str> {
    static RULES: LazyLock<[Rule; 3]> = LazyLock::new(|| {
        [
            rule("([^0-9])([.,])", "$1 $2 "),
            rule("([.,])([^0-9])", " $1 $2"),
            rule("([0-9])(-)", "$1 $2 "),
        ]
    });
    static PUNCTUATION: LazyLock<Regex> = LazyLock::new(|| rule(r"[!-&(-+/:-@\[-`{-~]", "").0);
    let text = PUNCTUATION.replace_all(text, |found: &Captures<'_>| format!(" {} ", &found[0]));
    apply(&*RULES, text)
}

fn international(text: &str) -> Cow<'_, str> {
    static RULES: LazyLock<[Rule; 3]> = LazyLock::new(|| {
        [
            rule(r"(\P{N})(\p{P})", "$1 $2 "),
            rule(r"(\p{P})(\P{N})", " $1 $2"),
            rule(r"(\p{S})", " $1 "),
        ]
    });
    apply(&*RULES, Cow::Borrowed(text))
}

fn separate_chinese(text: &str) -> String {
    let mut separated = String::with_capacity(2 * text.len());
    for c in text.trim_matches(is_space).chars() {
        if is_chinese(c) {
            separated.extend([' ', c, ' ']);
        } else {
            separated.push(c);
        }
    }
    separated
}

/// The blocks that sacrebleu separates. Two of its ranges are meant for the supplementary planes
/// but are written with four digits, so that they cover U+2001 to U+2A6D (quotation marks, dashes
/// and ellipses among them) and U+2F81 to U+2FA1 instead; scores are only comparable with the same.
fn is_chinese(c: char) -> bool {
    matches!(c,
        '\u{2001}'..='\u{2a6d}'
        | '\u{2e80}'..='\u{2fdf}'
        | '\u{2ff0}'..='\u{303f}'
        | '\u{3100}'..='\u{312f}'
        | '\u{31a0}'..='\u{31bf}'
        | '\u{31c0}'..='\u{31ef}'
        | '\u{3200}'..='\u{4db5}'
        | '\u{4e00}'..='\u{9fbb}'
        | '\u{f900}'..='\u{fa2d}'
        | '\u{fa30}'..='\u{fa6a}'
        | '\u{fa70}'..='\u{fad9}'
        | '\u{fe10}'..='\u{fe1f}'
        | '\u{fe30}'..='\u{fe4f}'
        | '\u{ff00}'..='\u{ffef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_split_chinese_by_character() {
        assert_eq!(
            Tokenizer::Words.tokenize("Hello, 世界! don't 3.14"),
            ["Hello", "世", "界", "don't", "3.14"]
        );
        assert_eq!(Tokenizer::Character.tokenize("a 世\n界"), ["a", "世", "界"]);
        // Marks stay with their letters; no word has white space, and symbols are none.
        assert_eq!(
            Tokenizer::Words.tokenize("cafe\u{301} 10\u{202f}000 👍🏽 שלום\0x"),
            ["cafe\u{301}", "10", "000", "שלום", "x"]
        );
    }

    #[test]
    fn numbers_keep_their_points() {
        assert_eq!(
            Tokenizer::Mteval13a.tokenize("It costs $1,234.50, &quot;all-in&quot;.\n"),
            [
                "It", "costs", "$", "1,234.50", ",", "\"", "all-in", "\"", "."
            ]
        );
    }

    #[test]
    fn empty_text_has_no_tokens() {
        for tokenizer in [
            Tokenizer::Whitespace,
            Tokenizer::Mteval13a,
            Tokenizer::International,
            Tokenizer::Chinese,
            Tokenizer::Character,
            Tokenizer::Rouge,
            Tokenizer::Words,
        ] {
            assert!(tokenizer.tokenize(" \n\t\u{3000}").is_empty());
        }
    }

    #[test]
    fn names_are_those_of_sacrebleu() {
        let name = serde_json::to_string(&Tokenizer::International).unwrap();
        assert_eq!(name, "\"intl\"");
    }
}
